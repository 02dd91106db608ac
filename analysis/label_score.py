"""Accuracy by gold label for runs that were not scored when they ran: Experiment Runner's."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.answers import PROMPTS, Answer, read_answers
from analysis.columns import COLUMNS, polars_schema
from analysis.experiment import Experiment
from contract.errors import UsageError
from scoring.task import LABELS

if TYPE_CHECKING:
    import polars as pl

_SCORE = ("n_items", "n_correct", "n_abstained", "accuracy", "chance_accuracy", "workload_source", "prompt_sha256")


def with_accuracy(experiment: Experiment, prompts: Path | None = None) -> Experiment:
    """The experiment with the answers scored by the rules of `scoring`, in its columns `n_items` to `prompt_sha256`.

    JouleBed's own runs were scored when they ran, and come back as they are. Runs without answers, or whose answers
    have no gold label, keep None. Where the folder has no labels at all, a note says so.

    Args:
        experiment: from `load_runs`.
        prompts: folder with gold labels; None: `prompts/` in the experiment's.

    Raises:
        UsageError: `prompts` was given, and has no labels.
    """
    if experiment.kind == "joulebed" or experiment.folder is None:
        return experiment
    try:
        found = read_answers(experiment.folder, prompts)
    except UsageError as error:
        if prompts is not None:
            raise
        return replace(experiment, notes=(*experiment.notes, f"No accuracy: {error.message}"))
    by_run: dict[str, list[Answer]] = {}
    for answer in found.answers:
        if answer.gold_label is not None:
            by_run.setdefault(answer.run_id, []).append(answer)
    runs = _with_scores(experiment.runs, {run_id: _score(answers) for run_id, answers in by_run.items()})
    return replace(experiment, runs=runs, notes=(*experiment.notes, *found.notes))


def has_labels(experiment: Experiment) -> bool:
    """Whether the experiment's folder brings gold labels for runs that were not scored."""
    folder = experiment.folder
    return experiment.kind != "joulebed" and folder is not None and (folder / PROMPTS).is_dir()


def _with_scores(runs: "pl.DataFrame", scores: dict[str, dict[str, Any]]) -> "pl.DataFrame":
    import polars as pl

    schema = polars_schema({name: COLUMNS[name] for name in _SCORE})
    of_run = [scores.get(run_id, {}) if has_result else {} for run_id, has_result in _results(runs)]
    return runs.with_columns(
        pl.Series(name, [score.get(name) for score in of_run], dtype=dtype) for name, dtype in schema.items()
    )


def _results(runs: "pl.DataFrame") -> list[tuple[str, bool]]:
    return list(zip(runs["run_id"].to_list(), runs["attempt_id"].is_not_null().to_list(), strict=True))


def _score(answers: list[Answer]) -> dict[str, Any]:
    n_correct = sum(each.read_label == each.gold_label for each in answers)
    tasks = sorted({each.task for each in answers})
    n_labels = {len(LABELS[task]) for task in tasks if task in LABELS}
    items = "\n".join(f"{each.item_id}\0{each.prompt}" for each in answers)
    return {
        "n_items": len(answers),
        "n_correct": n_correct,
        "n_abstained": sum(each.read_label is None for each in answers),
        "accuracy": n_correct / len(answers),
        "chance_accuracy": 1 / n_labels.pop() if len(n_labels) == 1 else None,
        "workload_source": f"{', '.join(tasks)}, with the gold labels of the folder",
        "prompt_sha256": hashlib.sha256(items.encode()).hexdigest(),
    }
