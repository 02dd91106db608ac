"""Accuracy against gold labels by treatment, beside what the folder itself calls accuracy.

Repetitions of an item are not further items: the interval is Wilson's over the items, with the share of an item's
repetitions that were right. It holds for other items of the same kind, and does not shrink with repetitions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.answers import Answer, AnswerSet
from analysis.experiment_runner import find_run_tables, number, read_run_table
from analysis.run_table import RUN_TABLE
from analysis.statistics import wilson_interval
from scoring.task import LABELS
from scoring.task_score import macro_f1


@dataclass(frozen=True)
class LabelAccuracy:
    """The answers of one treatment to one task.

    Attributes:
        treatment: factor -> level.
        task: SuperGLUE's name.
        n_runs: repetitions.
        n_items: items with a gold label.
        n_answers: to them, over all repetitions.
        n_correct: answers that give the gold label.
        n_abstained: answers from which no label could be read; they count as wrong.
        accuracy: n_correct / n_answers.
        interval: 95 % Wilson, over items.
        macro_f1: mean F1 over the classes, for CB; None elsewhere.
        n_published_scores: answers with a score beside them in the folder.
        published_score: mean of those; None without any.
        published_accuracy: column name in the folder's run tables, with the mean over the treatment's rows there.
    """

    treatment: Mapping[str, str]
    task: str
    n_runs: int
    n_items: int
    n_answers: int
    n_correct: int
    n_abstained: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float | None
    n_published_scores: int
    published_score: float | None
    published_accuracy: Mapping[str, float]


def label_accuracy(answers: AnswerSet) -> list[LabelAccuracy]:
    """Score every treatment and task by label; answers without a gold label are left out."""
    groups: dict[tuple[tuple[tuple[str, str], ...], str], list[Answer]] = {}
    for answer in answers.answers:
        if answer.gold_label is not None:
            groups.setdefault((tuple(answer.treatment.items()), answer.task), []).append(answer)
    published = _published(answers)
    return [
        _scored(dict(treatment), task, group, published)
        for (treatment, task), group in sorted(groups.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def to_json(rows: Sequence[LabelAccuracy]) -> list[dict[str, Any]]:
    """For programs, at full precision."""
    return [asdict(row) for row in rows]


def _scored(
    treatment: dict[str, str], task: str, answers: list[Answer], published: Mapping[str, Mapping[str, float]]
) -> LabelAccuracy:
    by_item: dict[str, list[bool]] = {}
    for each in answers:
        by_item.setdefault(each.item_id, []).append(each.read_label == each.gold_label)
    share = math.fsum(sum(right) / len(right) for right in by_item.values()) / len(by_item)
    interval = wilson_interval(share * len(by_item), len(by_item))
    assert interval is not None  # a group has an answer
    n_correct = sum(map(sum, by_item.values()))
    run_ids = {each.run_id for each in answers}
    scores = [each.published_score for each in answers if each.published_score is not None]
    columns = {}
    for name, by_run in published.items():
        values = [by_run[run_id] for run_id in run_ids if run_id in by_run]
        if values:
            columns[name] = math.fsum(values) / len(values)
    is_cb = task == "CB"
    return LabelAccuracy(
        treatment=treatment,
        task=task,
        n_runs=len(run_ids),
        n_items=len(by_item),
        n_answers=len(answers),
        n_correct=n_correct,
        n_abstained=sum(each.read_label is None for each in answers),
        accuracy=n_correct / len(answers),
        interval=interval,
        macro_f1=macro_f1([str(a.gold_label) for a in answers], [a.read_label for a in answers], LABELS[task])
        if is_cb
        else None,
        n_published_scores=len(scores),
        published_score=math.fsum(scores) / len(scores) if scores else None,
        published_accuracy=columns,
    )


def _published(answers: AnswerSet) -> dict[str, dict[str, float]]:
    """Table -> run -> its column `accuracy`, of an Experiment Runner folder."""
    found: dict[str, dict[str, float]] = {}
    if (answers.path / RUN_TABLE).is_file():
        return found
    for path in find_run_tables(answers.path):
        table = read_run_table(path)
        if "accuracy" not in table.columns:
            continue
        values = {run_id: number(row["accuracy"])[0] for run_id, row in zip(table.run_ids, table.rows, strict=True)}
        found[path.name] = {run_id: value for run_id, value in values.items() if value is not None}
    return found
