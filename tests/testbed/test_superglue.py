"""SuperGLUE: readers, sample, prompts, bad input, choice of items."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from contract.errors import InvalidOptionError, UnknownNameError, WorkloadNotFoundError
from contract.trial_result import TaskScore
from scoring.task_score import binomial_p_value
from testbed.workloads.superglue_items import read_folder, read_hub, read_sample
from testbed.workloads.superglue_task import TASKS
from testbed.workloads.superglue_workload import FOLDER_VARIABLE, SuperGlueWorkload

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "superglue"
RTE = {"premise": "Ada sang.", "hypothesis": "Someone sang.", "label": "entailment", "idx": 7}
BOOLQ = {"question": "is it so", "passage": "It is so.", "label": True, "idx": 0}
WSC = {
    "text": "Ada saw Bea when she sang.",
    "target": {"span1_index": 0, "span1_text": "Ada", "span2_index": 4, "span2_text": "she"},
    "label": False,
    "idx": 0,
}
COPA = {
    "premise": "It fell.",
    "choice1": "Wind blew.",
    "choice2": "Ink dried.",
    "question": "cause",
    "label": 0,
    "idx": 0,
}


def write(folder: Path, name: str, rows: Iterable[object]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def no_hub(*args: object, **kwargs: object) -> list[Mapping[str, Any]]:
    raise ConnectionError("no route to the hub")


# --- The sample -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(TASKS))
def test_the_sample_is_balanced(name: str) -> None:
    rows = read_sample(TASKS[name]).rows
    counts = Counter(row.label for row in rows)
    assert len(rows) >= 16
    assert set(counts) == set(TASKS[name].labels)
    assert len(set(counts.values())) == 1
    assert len({json.dumps(dict(row.fields), sort_keys=True) for row in rows}) == len(rows)


def sample_lines(name: str) -> list[dict[str, Any]]:
    path = Path(read_sample.__code__.co_filename).parent / "superglue_sample" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_sample_marks_the_word_of_wic() -> None:
    for row in sample_lines("WiC"):
        for i in "12":
            assert row[f"sentence{i}"][row[f"start{i}"] : row[f"end{i}"]] == row["word"]


def test_the_sample_counts_the_words_of_wsc() -> None:
    for row in sample_lines("WSC"):
        words, target = row["text"].split(), row["target"]
        for i in "12":
            span = target[f"span{i}_text"].split()
            at = target[f"span{i}_index"]
            assert [word.strip(".,") for word in words[at : at + len(span)]] == span


def test_the_sample_says_that_it_is_one() -> None:
    prepared = SuperGlueWorkload(task="BoolQ", n_items=16, source="sample").prepare()
    assert "sample of 16 items written for JouleBed; not SuperGLUE itself" in prepared.source
    assert prepared.settings["source"] == "sample"


# --- Folder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RTE.jsonl", "rte.JSONL", "RTE/val.jsonl", "rte/VAL.jsonl"])
def test_a_folder_is_read_whatever_the_case(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, [RTE])
    items = read_folder(TASKS["RTE"], tmp_path)
    assert items.rows[0].idx == "7"
    assert items.rows[0].label == "entailment"
    assert items.revision.startswith("sha256:")


@pytest.mark.parametrize(
    ("task", "row", "raw", "label"),
    [
        ("BoolQ", BOOLQ, True, "yes"),
        ("BoolQ", BOOLQ, 0, "no"),
        ("BoolQ", BOOLQ, "True", "yes"),
        ("BoolQ", BOOLQ, "no", "no"),
        ("RTE", RTE, 1, "not_entailment"),
        ("RTE", RTE, "not_entailment", "not_entailment"),
        ("COPA", COPA, 0, "choice1"),
        ("COPA", COPA, 1, "choice2"),
        ("WSC", WSC, 1, "yes"),
    ],
)
def test_labels_come_as_words_numbers_or_booleans(
    tmp_path: Path, task: str, row: dict[str, Any], raw: object, label: str
) -> None:
    write(tmp_path, f"{task}.jsonl", [{**row, "label": raw}])
    assert read_folder(TASKS[task], tmp_path).rows[0].label == label


@pytest.mark.parametrize(
    ("task", "lines", "words"),
    [
        ("RTE", ["{not json"], "line 1 is not JSON"),
        ("RTE", [json.dumps(RTE), '"text"'], "line 2 is not a JSON object"),
        ("RTE", ["", json.dumps({"premise": "x", "label": 0})], "line 2 lacks hypothesis"),
        ("RTE", [json.dumps({**RTE, "premise": " "})], "line 1 lacks premise"),
        (
            "RTE",
            [json.dumps({**RTE, "label": "maybe"})],
            "line 1 has 'maybe'; the labels of RTE are entailment, not_ent",
        ),
        ("RTE", [json.dumps({**RTE, "label": True})], "line 1 has True"),
        ("RTE", [json.dumps({**RTE, "label": -1})], "line 1 has -1"),
        ("RTE", [json.dumps({k: v for k, v in RTE.items() if k != "label"})], "line 1 has no label"),
        ("RTE", [json.dumps(RTE), json.dumps(RTE)], "line 2 has the same idx 7 as .*line 1"),
        ("RTE", ["", " "], "has no items"),
        ("COPA", [json.dumps({**COPA, "question": "why"})], "line 1 has question 'why'"),
        (
            "WSC",
            [json.dumps({**WSC, "target": {"span1_text": "Ada", "span2_text": "she"}})],
            "line 1 lacks span2_index",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, task: str, lines: list[str], words: str) -> None:
    (tmp_path / f"{task}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(WorkloadNotFoundError, match=words) as caught:
        SuperGlueWorkload(task=task, folder=tmp_path).prepare()
    assert f"{task}.jsonl" in caught.value.message


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    (tmp_path / "RTE.jsonl").write_bytes(b'{"premise": "\xff"}\n')
    with pytest.raises(WorkloadNotFoundError, match="line 1 is not JSON"):
        read_folder(TASKS["RTE"], tmp_path)


def test_a_line_separator_inside_a_text_cuts_nothing(tmp_path: Path) -> None:
    text = json.dumps({**RTE, "premise": "Ada\u2028sang."}, ensure_ascii=False)
    (tmp_path / "RTE.jsonl").write_text(text, encoding="utf-8")
    assert read_folder(TASKS["RTE"], tmp_path).rows[0].fields["premise"] == "Ada\u2028sang."


def test_a_folder_without_the_task_says_what_to_put_there(tmp_path: Path) -> None:
    with pytest.raises(WorkloadNotFoundError, match=r"neither CB\.jsonl nor CB/val\.jsonl"):
        read_folder(TASKS["CB"], tmp_path)
    with pytest.raises(WorkloadNotFoundError, match=r"There is no folder .*--superglue-dir"):
        read_folder(TASKS["CB"], tmp_path / "missing")


# --- Hub ------------------------------------------------------------------------------------------------------


class FakeHub:
    """Stands in for `datasets.load_dataset`; remembers how it was called."""

    def __init__(self, rows: list[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.calls: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def __call__(self, *args: object, **kwargs: object) -> list[Mapping[str, Any]]:
        self.calls.append((args, kwargs))
        return self.rows


def test_the_hub_gives_flat_spans_and_class_numbers() -> None:
    target: dict[str, Any] = dict(WSC["target"])  # type: ignore[call-overload]
    hub = FakeHub([{"text": WSC["text"], **target, "idx": 3, "label": 1}])
    items = read_hub(TASKS["WSC"], load_dataset=hub)
    assert items.rows[0].label == "yes"
    assert items.rows[0].fields["span2_index"] == "4"
    assert items.revision.startswith("refs/convert/parquet, rows sha256:")
    assert hub.calls == [
        (("aps/super_glue",), {"revision": "refs/convert/parquet", "split": "validation", "data_dir": "wsc.fixed"})
    ]


def test_another_hub_revision_names_the_configuration() -> None:
    hub = FakeHub([{**RTE, "label": 1}])
    workload = SuperGlueWorkload(task="RTE", source="hub", hub_revision="main", environ={}, load_dataset=hub)
    prepared = workload.prepare()
    assert hub.calls[0][1] == {"revision": "main", "split": "validation", "name": "rte"}
    assert prepared.items[0].gold_label == "not_entailment"
    assert prepared.settings["source"] == "hub"


@pytest.mark.parametrize("error", [ConnectionError("x"), ValueError("no such split"), RuntimeError("scripts")])
def test_a_hub_out_of_reach_is_never_replaced_in_silence(error: Exception) -> None:
    def load(*args: object, **kwargs: object) -> list[Mapping[str, Any]]:
        raise error

    with pytest.raises(WorkloadNotFoundError, match=rf"{error}.*--superglue-dir DIR.*source to .sample."):
        SuperGlueWorkload(task="CB", environ={}, load_dataset=load).prepare()


def test_without_the_package_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(WorkloadNotFoundError, match=r"joulebed\[superglue\].*--superglue-dir"):
        SuperGlueWorkload(task="CB", environ={}).prepare()


# --- Choice of source and items -------------------------------------------------------------------------------


def test_auto_takes_a_folder_that_is_given(tmp_path: Path) -> None:
    write(tmp_path, "RTE.jsonl", [RTE])
    for workload in (
        SuperGlueWorkload(task="RTE", folder=tmp_path, environ={}, load_dataset=no_hub),
        SuperGlueWorkload(task="RTE", environ={FOLDER_VARIABLE: str(tmp_path)}, load_dataset=no_hub),
    ):
        assert workload.prepare().settings["source"] == "folder"


def test_a_source_that_is_named_is_kept_to(tmp_path: Path) -> None:
    write(tmp_path, "RTE.jsonl", [RTE])
    environ = {FOLDER_VARIABLE: str(tmp_path)}
    hub = FakeHub([{**RTE, "premise": "From the hub."}])
    prepared = SuperGlueWorkload(task="RTE", source="hub", environ=environ, load_dataset=hub).prepare()
    assert "From the hub." in prepared.items[0].messages[0]["content"]
    assert SuperGlueWorkload(task="RTE", source="sample", environ=environ).prepare().settings["source"] == "sample"
    with pytest.raises(WorkloadNotFoundError, match="given none"):
        SuperGlueWorkload(task="RTE", source="folder", environ={}).prepare()


def test_a_wrong_option_is_refused_when_built() -> None:
    with pytest.raises(UnknownNameError, match="BoolQ, CB, COPA, RTE, WiC, WSC"):
        SuperGlueWorkload(task="boolq")
    with pytest.raises(InvalidOptionError, match="'task' is missing"):
        SuperGlueWorkload()
    with pytest.raises(InvalidOptionError, match="source"):
        SuperGlueWorkload(task="RTE", source="internet")


def test_too_few_items_are_all_taken_and_said(tmp_path: Path) -> None:
    write(tmp_path, "RTE.jsonl", [{**RTE, "idx": i} for i in range(3)])
    prepared = SuperGlueWorkload(task="RTE", n_items=80, folder=tmp_path).prepare()
    assert len(prepared.items) == 3
    assert "3 of 3 items; 80 were asked for" in prepared.source
    assert (prepared.settings["n_items"], prepared.settings["n_items_wanted"]) == (3, 80)


def test_the_choice_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [{**RTE, "premise": f"Fact {i}.", "idx": i} for i in range(30)]
    write(tmp_path / "a", "RTE.jsonl", rows)
    write(tmp_path / "b", "RTE.jsonl", reversed(rows))
    chosen = [SuperGlueWorkload(task="RTE", n_items=10, folder=tmp_path / x).prepare() for x in "ab"]
    assert chosen[0].items == chosen[1].items
    assert chosen[0].settings["items_sha256"] == chosen[1].settings["items_sha256"]


@pytest.mark.parametrize("name", list(TASKS))
def test_prompts_name_the_answers_and_carry_the_texts(name: str) -> None:
    task = TASKS[name]
    row = read_sample(task).rows[0]
    explain, short = task.prompt(row.fields, "explain"), task.prompt(row.fields, "short")
    assert explain != short
    for prompt in (explain, short):
        assert task.answers in prompt
        for column in task.columns:
            assert row.fields[column].split()[-1].rstrip("?.") in prompt
    assert "reasons" in explain
    assert "alone" in short


def test_the_pronoun_that_is_meant_is_marked() -> None:
    task = TASKS["WSC"]
    fields = {"text": "He said he saw it.", "span1_text": "Tom", "span2_text": "he", "span2_index": "2"}
    assert "He said [he] saw it." in task.prompt(fields, "short")
    assert "[" not in task.prompt({**fields, "span2_index": "3"}, "short")


# --- Scores ---------------------------------------------------------------------------------------------------


def test_the_p_value_is_the_exact_tail() -> None:
    assert binomial_p_value(0, 10, 0.5) == pytest.approx(1.0)
    assert binomial_p_value(10, 10, 0.5) == pytest.approx(2**-10)
    assert binomial_p_value(8, 10, 0.5) == pytest.approx(56 / 1024)
    assert binomial_p_value(5, 6, 1 / 3) == pytest.approx((6 * 2 + 1) / 3**6)
    assert 0 < binomial_p_value(5_000, 8_000, 0.5) < 1e-100


def test_no_items_have_no_accuracy() -> None:
    score = SuperGlueWorkload(task="CB").score([], [])
    assert score == TaskScore(n_items=0, n_correct=0, n_abstained=0, chance_accuracy=1 / 3)


# --- The shared items -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data is not here")
@pytest.mark.parametrize("name", list(TASKS))
def test_the_shared_items_are_read(name: str) -> None:
    prepared = SuperGlueWorkload(task=name, folder=SHARED).prepare()
    assert len(prepared.items) == 80
    assert {item.gold_label for item in prepared.items} == set(TASKS[name].labels)
    if name == "WSC":
        assert all("in brackets" in item.messages[0]["content"] for item in prepared.items)
