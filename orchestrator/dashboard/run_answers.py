"""Prompts and answers of a run, with labels, a judge's verdict where there is one, and each request's energy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contract.errors import LogFormatError, UsageError
from contract.trial_result import EnergyMethod

Only = Literal["all", "wrong", "unread", "disputed"]
MAX_SHOWN = 50
"""Answers that one page shows."""

_MAX_TEXT = 20_000
"""Characters of a prompt or an answer that are shown; the file has the rest."""


@dataclass(frozen=True)
class Opinion:
    """What a judge said of an answer.

    Attributes:
        judge: model that was asked for.
        outcome: the verdict.
        label: that the judge read; None: none.
        reason: in the judge's words.
    """

    judge: str
    outcome: str
    label: str | None
    reason: str


@dataclass(frozen=True)
class AnswerPage:
    """Some of a run's requests.

    Attributes:
        rows: see `analysis.columns.REQUEST_COLUMNS`, and `opinions`, `verdict`, `cut`.
        n_all: requests of the run.
        n_matching: of the wanted kind.
        offset: of the first row among them.
        is_estimate: whether energies are computed from a model.
        problem: why there are none, in a sentence; empty: there are.
        has_energy: whether any request has a share of the energy.
        has_judge: whether any answer was judged.
    """

    rows: tuple[dict[str, Any], ...] = ()
    n_all: int = 0
    n_matching: int = 0
    offset: int = 0
    is_estimate: bool = False
    problem: str = ""
    has_energy: bool = False
    has_judge: bool = False


def read_answers_of(folder: Path, run_id: str, *, only: Only = "all", offset: int = 0) -> AnswerPage:
    """Read what a run asked and was answered.

    Args:
        folder: the experiment's.
        run_id: of the run.
        only: `wrong`: not as the gold label says; `unread`: no label could be read; `disputed`: a judge sees it
            otherwise than the rules.
        offset: of the first that is shown, among these.
    """
    from analysis.detail import requests
    from analysis.load_joulebed import load_joulebed

    try:
        experiment = load_joulebed(folder, run_id=run_id)
        rows = requests(experiment, run_id).to_dicts()
    except (UsageError, LogFormatError) as error:
        return AnswerPage(problem=error.message)
    is_estimate = experiment.runs["energy_method"][0] == EnergyMethod.ESTIMATE.value
    opinions = _opinions(folder, rows)
    for at, row in enumerate(rows):
        row["opinions"] = opinions.get(at, [])
        row["verdict"] = _verdict(row)
        row["cut"] = max(len(row["prompt"] or ""), len(row["answer"] or "")) > _MAX_TEXT
    wanted = [row for row in rows if _is_wanted(row, only)]
    shown = wanted[offset : offset + MAX_SHOWN]
    for row in shown:
        row["prompt"], row["answer"] = (row["prompt"] or "")[:_MAX_TEXT], (row["answer"] or "")[:_MAX_TEXT]
    return AnswerPage(
        rows=tuple(shown),
        n_all=len(rows),
        n_matching=len(wanted),
        offset=offset,
        is_estimate=is_estimate,
        has_energy=any(row["energy_j"] is not None for row in rows),
        has_judge=bool(opinions),
    )


def _verdict(row: dict[str, Any]) -> str:
    """`right`, `wrong`, `unread` or `` where there is no gold label."""
    if row["gold_label"] is None:
        return ""
    if row["predicted_label"] is None:
        return "unread"
    return "right" if row["is_correct"] else "wrong"


def _is_wanted(row: dict[str, Any], only: Only) -> bool:
    if only == "wrong":
        return row["verdict"] in ("wrong", "unread")
    if only == "unread":
        return bool(row["verdict"] == "unread")
    if only == "disputed":
        return any(
            each.outcome != "invalid" and (each.outcome == "correct") != (row["verdict"] == "right")
            for each in row["opinions"]
        )
    return True


def _opinions(folder: Path, rows: list[dict[str, Any]]) -> dict[int, list[Opinion]]:
    """Place in the workload -> verdicts on its answer, of every judge that there was."""
    from analysis.judge.question import Question
    from analysis.judge.store import JUDGEMENTS, JudgementStore

    path = folder / JUDGEMENTS
    if not path.is_file():
        return {}
    questions = {}
    for at, row in enumerate(rows):
        if row["gold_label"] is not None:
            item = row["item_id"] or ""
            # As `analysis.answers` names the task.
            task = item.rpartition("-")[0] or item
            questions[at] = Question(task, row["prompt"] or "", row["gold_label"], row["answer"] or "")
    found: dict[int, list[Opinion]] = {}
    try:
        with JudgementStore(path, create=False) as store:
            for model, endpoint_model, seed in store.judges():
                keys = {at: q.key(model=model, endpoint_model=endpoint_model, seed=seed) for at, q in questions.items()}
                kept = store.find(keys.values())
                for at, key in keys.items():
                    if key in kept:
                        said = kept[key]
                        opinion = Opinion(model, said.outcome, said.answered_label, said.reason)
                        found.setdefault(at, []).append(opinion)
    except UsageError:
        return {}
    return found
