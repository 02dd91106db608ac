"""What `python -m analysis agreement` and `python -m analysis accuracy` print."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from analysis.agreement import Agreement, agree, to_json
from analysis.answers import Answer, read_answers
from analysis.judge.question import Question
from analysis.judge.store import JUDGEMENTS, Judgement, JudgementStore
from analysis.kappa import Kappa
from analysis.label_accuracy import LabelAccuracy, label_accuracy
from analysis.label_accuracy import to_json as accuracy_to_json
from analysis.label_sheet import draw_sample, read_sheet, write_sheet
from contract.errors import UsageError


def agreement_command(
    folder: Path,
    *,
    human: Path | None,
    out_sheet: Path | None,
    n_sample: int,
    seed: int,
    judge_model: str | None,
    prompts: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Write a sheet to label, or hold labels, judge and rules against each other.

    Raises:
        UsageError: there is nothing to compare, or a sheet cannot be read or written.
    """
    answers = [each for each in read_answers(folder, prompts).answers if each.gold_label is not None]
    if out_sheet is not None:
        n_written = write_sheet(out_sheet, draw_sample(answers, n_sample, seed))
        print(
            f"{out_sheet} has {n_written} answers. Fill in human_label: the label that the answer gives, no_answer "
            "where it gives none; a blank is left out. Then give the sheet to --human."
        )
        return
    sheet = read_sheet(human) if human is not None else None
    path = store or folder / JUDGEMENTS
    verdicts = _verdicts(answers, path, judge_model) if path.is_file() or judge_model is not None else None
    found = agree(answers, verdicts=verdicts, sheet=sheet, seed=seed)
    if as_json:
        print(json.dumps(to_json(found), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print_agreement(found, Console(highlight=False))


def accuracy_command(folder: Path, *, prompts: Path | None, as_json: bool) -> None:
    """Print the accuracy by label of each treatment.

    Raises:
        UsageError: there are no answers, or no gold labels.
    """
    answers = read_answers(folder, prompts)
    rows = label_accuracy(answers)
    if as_json:
        print(json.dumps(accuracy_to_json(rows), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print_accuracy(rows, Console(highlight=False), notes=answers.notes)


def _verdicts(answers: Sequence[Answer], path: Path, model: str | None) -> list[Judgement | None]:
    """The verdicts of one judge, in the order of the answers.

    Raises:
        UsageError: there is none of that name, or there are several and none was named.
    """
    with JudgementStore(path, create=False) as store:
        every = [each for each in store.all() if model is None or each.model == model]
    judges = sorted({(each.model, each.endpoint_model, each.seed) for each in every})
    if not judges:
        raise UsageError(f"{path} has no verdict{'' if model is None else f' of {model}'}. Check --judge-model.")
    if len(judges) > 1:
        named = "; ".join(f"{name} ({behind}, seed {seed})" for name, behind, seed in judges)
        raise UsageError(f"{path} has verdicts of {len(judges)} judges: {named}. Name one with --judge-model.")
    name, behind, seed = judges[0]
    by_key = {each.key: each for each in every}
    questions = [Question.of(each) for each in answers]
    return [
        None if each is None else by_key.get(each.key(model=name, endpoint_model=behind, seed=seed))
        for each in questions
    ]


def print_agreement(agreement: Agreement, console: Console) -> None:
    """A table by pair and task, the confusion counts on the verdict, and what a reader must know."""
    table = Table(title="Agreement", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("ways", "on"):
        table.add_column(name)
    for name in ("answers", "items", "agreed", "Cohen's kappa"):
        table.add_column(name, justify="right")
    for pair in agreement.pairs:
        ways = f"{pair.first} / {pair.second}"
        table.add_row(ways, "verdict, all", *_cells(pair.on_verdict))
        for task, kappa in pair.on_label.items():
            table.add_row("", f"label, {task}", *_cells(kappa))
        table.add_section()
    console.print(table)
    for pair in agreement.pairs:
        counts = Table(title=f"Verdicts: {pair.first} (rows) and {pair.second} (columns)", box=box.SIMPLE_HEAD)
        counts.add_column("")
        for name in pair.on_verdict.categories:
            counts.add_column(name, justify="right")
        for name, row in zip(pair.on_verdict.categories, pair.on_verdict.counts, strict=True):
            counts.add_row(name, *map(str, row))
        console.print(counts)
    rated = "; ".join(
        f"{way} {n:,} ({agreement.n_no_answer[way]:,} without an answer)" for way, n in agreement.n_rated.items()
    )
    said = [f"Rated: {rated}."]
    if agreement.n_invalid:
        said.append(f"For {agreement.n_invalid:,} answers the judge gave no usable verdict: not rated.")
    if agreement.n_blank:
        said.append(f"{agreement.n_blank:,} rows of the sheet are not labelled yet: not rated.")
    for note in (*said, *agreement.notes):
        console.print(note, soft_wrap=True, markup=False)


def _cells(kappa: Kappa) -> tuple[str, ...]:
    agreed = f"{kappa.n_agreed / kappa.n:.1%}" if kappa.n else "-"
    if kappa.kappa is None:
        value = "not defined"
    else:
        span = "" if kappa.interval is None else f" ({kappa.interval[0]:.2f} to {kappa.interval[1]:.2f})"
        value = f"{kappa.kappa:.2f}{span}"
    return str(kappa.n), str(kappa.n_clusters), agreed, value


def print_accuracy(rows: Sequence[LabelAccuracy], console: Console, *, notes: Sequence[str] = ()) -> None:
    """A table by task and treatment, and what a reader must know."""
    tables = list(dict.fromkeys(name for row in rows for name in row.published_accuracy))
    has_scores = any(row.n_published_scores for row in rows)
    table = Table(title="Accuracy against gold labels", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("task", "treatment"):
        table.add_column(name, no_wrap=True)
    names = ["items", "accuracy", "95 %", "unread", "F1"] + ["score"] * has_scores
    for name in (*names, *(f"[{chr(ord('a') + i)}]" for i in range(len(tables)))):
        table.add_column(name.replace("[", r"\["), justify="right", no_wrap=True)
    for row in rows:
        cells = [
            str(row.n_items),
            f"{row.accuracy:.1%}",
            f"{100 * row.interval[0]:.0f}-{100 * row.interval[1]:.0f}",
            f"{row.n_abstained / row.n_answers:.1%}",
            "" if row.macro_f1 is None else f"{row.macro_f1:.3f}",
        ]
        if has_scores:
            cells.append("-" if row.published_score is None else f"{row.published_score:.3f}")
        cells += [f"{row.published_accuracy[name]:.3f}" if name in row.published_accuracy else "-" for name in tables]
        levels = " ".join(level for name, level in row.treatment.items() if name != "task")
        table.add_row(row.task, levels, *cells)
    console.print(table)
    said = [
        "Accuracy is the share of answers that give the gold label; answers without a readable label (unread) count "
        "as wrong. 95 %: Wilson over items; repetitions add none. F1: macro, over CB's classes.",
    ]
    if has_scores:
        n_scores, n_answers = sum(row.n_published_scores for row in rows), sum(row.n_answers for row in rows)
        said.append(
            f"score: mean of the scores beside {n_scores:,} of the {n_answers:,} answers, whatever they measure."
        )
    for i, name in enumerate(tables):
        said.append(f"[{chr(ord('a') + i)}]: column accuracy of {name}, mean over these runs, whatever it measures.")
    for note in (*said, *notes):
        console.print(note, soft_wrap=True, markup=False)
