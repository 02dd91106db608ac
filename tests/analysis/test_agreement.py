"""Label accuracy, sheets to label, and Cohen's kappa between rules, judge and person."""

import csv
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from analysis.agreement import agree
from analysis.answers import Answer, read_answers
from analysis.cli import main
from analysis.judge.question import PROMPT_VERSION, Outcome, Question
from analysis.judge.store import JUDGEMENTS, Judgement, JudgementStore
from analysis.kappa import cohen_kappa
from analysis.label_accuracy import label_accuracy
from analysis.label_sheet import COLUMNS, draw_sample, read_sheet, write_sheet
from contract.errors import UsageError

HERE = Path(__file__).resolve().parent
RunTableWriter: Callable[..., Any] = run_path(str(HERE / "conftest.py"))["RunTableWriter"]
write_experiment: Callable[..., Path] = run_path(str(HERE / "judge" / "conftest.py"))["write_experiment"]
GREENLAB = HERE.parents[2] / "shared" / "data" / "greenlab"
with_greenlab = pytest.mark.skipif(not (GREENLAB / "runs").is_dir(), reason="shared data is not here")


def answer(i: int, *, gold: str = "yes", read: str | None = "yes", model: str = "m", task: str = "BoolQ") -> Answer:
    return Answer(f"run_{model}", {"model": model}, f"{task}-{i}", task, f"Is it {i}?", f"{read} {i}", gold, read)


def judgement(each: Answer, outcome: Outcome, label: str | None) -> Judgement:
    question = Question.of(each)
    assert question is not None
    key = question.key(model="judge", endpoint_model="judge", seed=0)
    return Judgement(
        key, PROMPT_VERSION, "judge", "judge", "http://judge.test/v1", 0, each.item_id, each.task, "yes", outcome,
        label, "", 1, None, None, "2026-11-21T00:00:00+00:00",
    )  # fmt: skip


# --- Kappa ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_scikit_learns(seed: int) -> None:
    draw = random.Random(seed)
    first = [draw.choice("abc") for _ in range(80)]
    second = [one if draw.random() < 0.6 else draw.choice("abcd") for one in first]
    found = cohen_kappa(first, second, [str(i) for i in range(80)])
    assert found.kappa == pytest.approx(cohen_kappa_score(first, second))
    assert found.interval is not None
    assert found.interval[0] < found.kappa < found.interval[1]
    assert sum(map(sum, found.counts)) == found.n == 80


def test_kappa_by_hand() -> None:
    # Agreed 35 of 50; by chance 0.5 x 0.6 + 0.5 x 0.4 = 0.5; (0.7 - 0.5) / 0.5.
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = cohen_kappa(first, second, [str(i) for i in range(50)], categories=("yes", "no", "no_answer"))
    assert found.kappa == pytest.approx(0.4)
    assert found.categories == ("yes", "no", "no_answer")
    assert found.counts == ((20, 5, 0), (10, 15, 0), (0, 0, 0))


def test_kappa_that_is_not_defined_is_none() -> None:
    one_category = cohen_kappa(["yes"] * 5, ["yes"] * 5, list("abcde"))
    assert (one_category.kappa, one_category.interval, one_category.n_agreed) == (None, None, 5)
    assert cohen_kappa([], [], []).kappa is None
    assert cohen_kappa(["yes", "no"], ["yes", "no"], ["a", "a"]).interval is None


def test_repeated_answers_do_not_narrow_the_interval() -> None:
    draw = random.Random(3)
    first = [draw.choice("ab") for _ in range(40)]
    second = [one if draw.random() < 0.8 else "b" for one in first]
    items = [str(i) for i in range(40)]
    once = cohen_kappa(first, second, items)
    thrice = cohen_kappa(first * 3, second * 3, items * 3)
    assert thrice.kappa == pytest.approx(once.kappa)
    assert once.interval is not None and thrice.interval is not None
    assert np.allclose(thrice.interval, once.interval)
    assert thrice.n_clusters == 40


def test_the_interval_is_the_seeds() -> None:
    first, second, items = list("abab" * 8), list("abba" * 8), [str(i) for i in range(32)]
    assert cohen_kappa(first, second, items, seed=1) == cohen_kappa(first, second, items, seed=1)
    assert cohen_kappa(first, second, items, seed=1).interval != cohen_kappa(first, second, items, seed=2).interval


# --- Sheets ---------------------------------------------------------------------------------------------------


def test_a_sample_holds_every_treatment_alike_and_is_the_seeds() -> None:
    answers = [answer(i, model=model, task=task) for model in "abc" for task in ("BoolQ", "WiC") for i in range(20)] + [
        answer(i, model="few") for i in range(20, 22)
    ]
    chosen = draw_sample(answers, 23, seed=1)
    counts = Counter((each.treatment["model"], each.task) for each in chosen)
    assert len(chosen) == 23
    assert counts["few", "BoolQ"] == 2
    assert draw_sample(answers, 23, seed=1) == chosen
    assert draw_sample(answers, 23, seed=2) != chosen
    assert len(draw_sample(answers, 10_000, seed=1)) == len({(each.item_id, each.answer) for each in answers})
    assert len({(each.item_id, each.answer) for each in chosen}) == len(chosen)


def test_a_sheet_comes_back_with_its_labels(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    awkward = Answer("run_0", {}, "BoolQ-1", "BoolQ", 'Is it "so",\nor not?', 'Yes;\r\nno, "perhaps"', "yes", None)
    assert write_sheet(path, [awkward, answer(2), answer(3)]) == 3
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["prompt"], rows[0]["answer"]) == (awkward.prompt, awkward.answer)
    assert all(row["human_label"] == "" for row in rows)
    assert "gold" not in path.read_text()
    with pytest.raises(UsageError, match="may hold labels"):
        write_sheet(path, [])
    rows[0]["human_label"], rows[1]["human_label"] = "no_answer", " YES "
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=";")  # as some spreadsheet programs save it
        writer.writeheader()
        writer.writerows(rows)
    sheet = read_sheet(path)
    assert sheet.labels == {("run_0", "BoolQ-1"): "no_answer", ("run_m", "BoolQ-2"): "yes"}
    assert sheet.n_blank == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("run_id,item_id,task\n", "lacks the columns human_label"),
        ("run_id,item_id,task,human_label\nr,BoolQ-1,BoolQ,maybe\n", "line 2: 'maybe' is no label of BoolQ"),
        ("run_id,item_id,task,human_label\nr,i,CB,neutral\nr,i,CB,entailment\n", "labelled twice"),
    ],
)
def test_a_wrong_sheet_is_told_by_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=problem):
        read_sheet(path)


# --- Agreement ------------------------------------------------------------------------------------------------


def test_three_ways_are_held_against_each_other(tmp_path: Path) -> None:
    # Rules: yes yes - no; judge: yes no - invalid; person: yes no - yes (and one not labelled).
    answers = [answer(0), answer(1), answer(2, read=None), answer(3, read="no"), answer(4)]
    verdicts = [
        judgement(answers[0], "correct", "yes"),
        judgement(answers[1], "incorrect", "no"),
        judgement(answers[2], "no_answer", None),
        judgement(answers[3], "invalid", None),
        None,
    ]
    path = tmp_path / "sheet.csv"
    labels = ["yes", "no", "no_answer", "yes", ""]
    path.write_text(
        "run_id,item_id,task,human_label\n"
        + "".join(f"run_m,BoolQ-{i},BoolQ,{label}\n" for i, label in enumerate(labels))
    )
    found = agree(answers, verdicts=verdicts, sheet=read_sheet(path))
    assert found.n_rated == {"rules": 5, "judge": 3, "human": 4}
    assert found.n_no_answer == {"rules": 1, "judge": 1, "human": 1}
    assert (found.n_invalid, found.n_blank) == (1, 1)
    pairs = {(pair.first, pair.second): pair for pair in found.pairs}
    assert set(pairs) == {("rules", "judge"), ("rules", "human"), ("judge", "human")}
    assert pairs["judge", "human"].on_verdict.kappa == 1
    rules_human = pairs["rules", "human"].on_verdict
    assert rules_human.categories == ("correct", "incorrect", "no_answer")
    assert rules_human.counts == ((1, 1, 0), (1, 0, 0), (0, 0, 1))
    assert rules_human.n_agreed == 2
    assert pairs["rules", "human"].on_label["BoolQ"].categories == ("no", "yes", "no_answer")


def test_one_way_alone_and_a_strange_sheet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to agree with"):
        agree([answer(0)])
    path = tmp_path / "sheet.csv"
    path.write_text("run_id,item_id,task,human_label\nother,BoolQ-0,BoolQ,yes\n")
    with pytest.raises(UsageError, match="belong to no answer"):
        agree([answer(0)], sheet=read_sheet(path))


def test_the_command_writes_a_sheet_and_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment, path = write_experiment(tmp_path / "study"), tmp_path / "sheet.csv"
    assert main(["agreement", str(experiment)]) == 2
    assert "nothing to agree with" in capsys.readouterr().err
    assert main(["agreement", str(experiment), "--human", str(path)]) == 2
    assert "--out-sheet" in capsys.readouterr().err
    assert main(["agreement", str(experiment), "--out-sheet", str(path), "--sample", "8"]) == 0
    capsys.readouterr()
    assert main(["agreement", str(experiment), "--human", str(path)]) == 2
    assert "no label yet" in capsys.readouterr().err
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        row["human_label"] = "yes" if row["answer"].startswith("Yes") else "no_answer"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    answers = read_answers(experiment).answers
    with JudgementStore(experiment / JUDGEMENTS) as store:
        for each in answers:
            said = each.answer.startswith("Yes")
            outcome: Outcome = "no_answer" if not said else "correct" if each.gold_label == "yes" else "incorrect"
            store.add(judgement(each, outcome, "yes" if said else None))
    assert main(["agreement", str(experiment), "--human", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        ("rules", "judge"),
        ("rules", "human"),
        ("judge", "human"),
    ]
    assert all(pair["on_verdict"]["kappa"] == 1 for pair in found["pairs"])
    assert found["n_rated"] == {"rules": 12, "judge": 12, "human": 8}
    assert main(["agreement", str(experiment), "--human", str(path)]) == 0
    assert "category of its own" in capsys.readouterr().out
    assert main(["agreement", str(experiment), "--judge-model", "other"]) == 2
    assert "no verdict of other" in capsys.readouterr().err


# --- Answers and their accuracy -------------------------------------------------------------------------------


def test_accuracy_by_label_stands_beside_what_the_folder_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = write_experiment(tmp_path / "study")
    small, large = sorted(
        label_accuracy(read_answers(experiment)), key=lambda row: row.treatment["model"], reverse=True
    )
    assert (small.treatment, large.treatment) == ({"model": "small"}, {"model": "large"})
    # Gold: yes no yes no yes no; read: yes yes - yes yes -.
    assert (small.n_items, small.n_answers, small.n_correct, small.n_abstained) == (6, 6, 2, 2)
    assert small.interval[0] < small.accuracy < small.interval[1]
    assert (small.n_published_scores, small.published_score) == (1, 1.0)
    assert main(["accuracy", str(experiment)]) == 0
    assert "33.3%" in capsys.readouterr().out


def test_repetitions_do_not_narrow_the_interval_of_an_accuracy(tmp_path: Path) -> None:
    answers = read_answers(write_experiment(tmp_path / "study"))
    (once,) = [row for row in label_accuracy(answers) if row.treatment["model"] == "small"]
    again = tuple(replace(each, run_id=f"{each.run_id}_again") for each in answers.answers)
    (twice,) = [
        row
        for row in label_accuracy(replace(answers, answers=answers.answers + again))
        if row.treatment["model"] == "small"
    ]
    assert (twice.n_runs, twice.n_items, twice.n_answers) == (2, 6, 12)
    assert twice.interval == once.interval


def test_the_answers_of_an_experiment_of_ours_are_read(tmp_path: Path) -> None:
    table = RunTableWriter(tmp_path / "ours", {"model": ["a", "b"]}, repetitions=1)
    table.succeed("run_0_repetition_0")
    record = {
        "item_id": "BoolQ-7",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it so?"}],
        "answer": "Yes.",
        "gold_label": "yes",
        "predicted_label": "yes",
        "token_s": [1.0],
    }
    folder = table.folder / "runs" / "run_0_repetition_0" / "run_0_repetition_0-a1"
    with pytest.raises(UsageError, match="no answers yet"):
        read_answers(table.folder)
    folder.mkdir(parents=True)
    (folder / "requests.jsonl").write_text(json.dumps(record) + "\n")
    found = read_answers(table.folder)
    assert found.factors == ("model",)
    assert found.answers == (
        Answer("run_0_repetition_0", {"model": "a"}, "BoolQ-7", "BoolQ", "Is it so?", "Yes.", "yes", "yes"),
    )
    assert found.notes == ("1 planned runs are not counted: not in here.",)
    (folder / "requests.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="line 1"):
        read_answers(table.folder)


def test_without_gold_labels_it_says_where_they_belong(tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path / "study")
    (experiment / "prompts" / "BoolQ.jsonl").unlink()
    with pytest.raises(UsageError, match="--prompts"):
        read_answers(experiment)


@with_greenlab
def test_the_public_study_by_label() -> None:
    rows = label_accuracy(read_answers(GREENLAB))
    assert len(rows) == 30
    assert all((row.n_items, row.n_answers, row.n_published_scores) == (80, 160, 10) for row in rows)
    # What is called accuracy there is no less than 0.67 anywhere; labels say chance level for many treatments.
    published = [row.published_score for row in rows if row.published_score is not None]
    assert min(published) > 0.66
    assert sum(score > row.interval[1] for score, row in zip(published, rows, strict=True)) >= 28
    cb = [row.macro_f1 for row in rows if row.task == "CB"]
    assert all(score is not None and score < 0.6 for score in cb)
