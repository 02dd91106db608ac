"""What `python -m analysis judge` does: progress to the error stream, the result to the output."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from analysis.answers import read_answers
from analysis.judge.endpoint import JudgeEndpoint, read_key
from analysis.judge.run import Judged, judge_answers
from analysis.judge.store import JUDGEMENTS, JudgementStore


def judge_command(
    folder: Path,
    *,
    endpoint: str,
    model: str,
    key_variable: str | None,
    seed: int,
    limit: int | None,
    workers: int,
    prompts: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Judge a folder's answers and print what came of it.

    Raises:
        JouleBedError: there are no answers, or the endpoint refuses or is away.
    """
    answers = read_answers(folder, prompts)
    key = read_key(key_variable)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        JudgeEndpoint(endpoint, model, seed=seed, key=key) as judge,
        JudgementStore(store or folder / JUDGEMENTS) as kept,
        # On the error stream, so that a pipe gets the result alone.
        Progress(*columns, console=Console(stderr=True), transient=True) as bar,
    ):
        task = bar.add_task("Judging", total=None)
        judged = judge_answers(
            answers.answers,
            judge,
            kept,
            seed=seed,
            limit=limit,
            workers=workers,
            on_progress=lambda done, of: bar.update(task, completed=done, total=of),
        )
    if as_json:
        print(json.dumps(to_json(judged), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print_judged(judged, model, Console(highlight=False), notes=answers.notes)


def to_json(judged: Judged) -> dict[str, Any]:
    """For programs, at full precision; the verdicts themselves are in the store."""
    found = asdict(judged)
    del found["verdicts"]
    return found


def print_judged(judged: Judged, model: str, console: Console, *, notes: tuple[str, ...] = ()) -> None:
    """A table by task, and what a reader must know."""
    table = Table(title=f"Judged by {model}", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("task")
    for name in ("judged", "correct", "wrong", "no answer", "invalid", "accuracy", "95 %", "by label"):
        table.add_column(name, justify="right")
    for row in judged.tasks:
        table.add_row(
            row.task,
            *(f"{count:,}" for count in (row.n_judged, row.n_correct, row.n_incorrect, row.n_no_answer, row.n_invalid)),
            "-" if row.accuracy is None else f"{row.accuracy:.1%}",
            "-" if row.interval is None else f"{100 * row.interval[0]:.0f}-{100 * row.interval[1]:.0f}",
            "-" if row.label_accuracy is None else f"{row.label_accuracy:.1%}",
        )
    console.print(table)
    said = [
        f"{judged.n_answers:,} answers with a gold label are {judged.n_distinct:,} different ones: "
        f"{judged.n_cached:,} were judged before, {judged.n_asked:,} now, {judged.n_left:,} are left.",
        "accuracy is the judge's, by label that of the same answers by rules; 95 %: Wilson over items. An invalid "
        "verdict, which the judge could not put right when asked again, is in neither.",
    ]
    if judged.endpoint_model != model:
        said.append(f"Behind the name {model} the endpoint has {judged.endpoint_model}.")
    if judged.n_prompt_tokens is not None and judged.n_output_tokens is not None:
        said.append(f"The verdicts took {judged.n_prompt_tokens:,} + {judged.n_output_tokens:,} tokens.")
    if judged.n_without_gold:
        said.append(f"{judged.n_without_gold:,} answers have no gold label and were not judged.")
    for note in (*said, *notes, judged.energy_note):
        console.print(note, soft_wrap=True, markup=False)
