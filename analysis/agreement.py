"""Three ways to tell whether an answer is right, held against each other: rules, a judge, a person.

(a) `rules`: the label that `scoring` reads, against the gold label; (b) `judge`: a language model that is told the gold
label; (c) `human`: a labelled sheet. For each pair there are two agreements: on the verdict (correct, incorrect,
no_answer) over all tasks, and per task on the label. No answer - the rules abstain, the judge or the person sees no
label - is a category of its own, not a gap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from analysis.answers import Answer
from analysis.judge.store import Judgement
from analysis.kappa import Kappa, cohen_kappa
from analysis.label_sheet import NO_ANSWER, LabelSheet
from contract.errors import UsageError
from scoring.task import LABELS

VERDICTS = ("correct", "incorrect", NO_ANSWER)

Rating = Mapping[int, str]
"""Index of an answer -> label, or `no_answer`; an answer that was not rated is not in it."""


@dataclass(frozen=True)
class PairAgreement:
    """How far two ways agree.

    Attributes:
        first: `rules`, `judge` or `human`.
        second: the same.
        on_verdict: correct, incorrect or no_answer, all tasks together.
        on_label: task -> on the task's labels and no_answer.
    """

    first: str
    second: str
    on_verdict: Kappa
    on_label: Mapping[str, Kappa]


@dataclass(frozen=True)
class Agreement:
    """What the three ways say of the same answers.

    Attributes:
        n_rated: way -> answers that it rated.
        n_no_answer: way -> among them, without a label.
        pairs: two ways each, over the answers that both rated.
        n_invalid: answers for which the judge gave no usable verdict: not rated.
        n_blank: rows of the sheet without a label: not rated.
        notes: what a reader must know.
    """

    n_rated: Mapping[str, int]
    n_no_answer: Mapping[str, int]
    pairs: tuple[PairAgreement, ...]
    n_invalid: int
    n_blank: int
    notes: tuple[str, ...]


def agree(
    answers: Sequence[Answer],
    *,
    verdicts: Sequence[Judgement | None] | None = None,
    sheet: LabelSheet | None = None,
    seed: int = 0,
) -> Agreement:
    """Hold the ways that there are against each other.

    Args:
        answers: of an experiment, with gold labels.
        verdicts: of a judge, in the same order; None: there is no judge.
        sheet: a person's labels; None: there is none.
        seed: of the bootstrap.

    Raises:
        UsageError: there is only one way, or the sheet is of another experiment.
    """
    ways: dict[str, Rating] = {"rules": {i: each.read_label or NO_ANSWER for i, each in enumerate(answers)}}
    n_invalid = 0
    if verdicts is not None:
        ways["judge"] = {
            i: verdict.answered_label or NO_ANSWER
            for i, verdict in enumerate(verdicts)
            if verdict is not None and verdict.outcome != "invalid"
        }
        n_invalid = sum(verdict is not None and verdict.outcome == "invalid" for verdict in verdicts)
    if sheet is not None:
        ways["human"] = _by_person(answers, sheet)
    if len(ways) < 2:
        raise UsageError(
            "There is nothing to agree with: give --human SHEET.csv, or judge the answers first with "
            "`python -m analysis judge`."
        )
    return Agreement(
        n_rated={way: len(rating) for way, rating in ways.items()},
        n_no_answer={way: sum(label == NO_ANSWER for label in rating.values()) for way, rating in ways.items()},
        pairs=tuple(_pair(answers, *names, ways[names[0]], ways[names[1]], seed) for names in combinations(ways, 2)),
        n_invalid=n_invalid,
        n_blank=sheet.n_blank if sheet else 0,
        notes=(
            "No answer (the rules abstain, the judge or the person sees no label) is a category of its own.",
            "On the verdict, all tasks count together; on the label, each task by itself.",
            "In brackets: 95 % percentile bootstrap over items, for answers to the same item are not independent.",
        ),
    )


def to_json(agreement: Agreement) -> dict[str, Any]:
    """For programs, at full precision."""
    return asdict(agreement)


def _by_person(answers: Sequence[Answer], sheet: LabelSheet) -> dict[int, str]:
    labels = {
        i: sheet.labels[key] for i, each in enumerate(answers) if (key := (each.run_id, each.item_id)) in sheet.labels
    }
    known = {(each.run_id, each.item_id) for each in answers}
    strange = [key for key in sheet.labels if key not in known]
    if strange:
        raise UsageError(
            f"{len(strange)} of {len(sheet.labels)} labelled rows belong to no answer of this experiment, such as "
            f"{' '.join(strange[0])}. Give the sheet that was written for it."
        )
    if not labels:
        raise UsageError(
            "The sheet has no label yet. Fill in the column human_label: the label that the answer gives, or no_answer."
        )
    return labels


def _pair(answers: Sequence[Answer], first: str, second: str, one: Rating, other: Rating, seed: int) -> PairAgreement:
    both = sorted(one.keys() & other.keys())
    items = [answers[i].item_id for i in both]
    by_task: dict[str, list[int]] = {}
    for i in both:
        by_task.setdefault(answers[i].task, []).append(i)
    return PairAgreement(
        first=first,
        second=second,
        on_verdict=cohen_kappa(
            [_verdict(answers[i], one[i]) for i in both],
            [_verdict(answers[i], other[i]) for i in both],
            items,
            categories=VERDICTS,
            seed=seed,
        ),
        on_label={
            task: cohen_kappa(
                [one[i] for i in group],
                [other[i] for i in group],
                [answers[i].item_id for i in group],
                categories=(*LABELS.get(task, ()), NO_ANSWER),
                seed=seed,
            )
            for task, group in sorted(by_task.items())
        },
    )


def _verdict(answer: Answer, label: str) -> str:
    if label == NO_ANSWER:
        return NO_ANSWER
    return "correct" if label == answer.gold_label else "incorrect"
