"""What the comparison shows, computed from one reading of an experiment with the report's own functions. No HTML here.

Loaded by the process of `analyst` alone: it needs the analysis, and holds every counted run in memory.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.ablation import Ablation, ablate, explain
from analysis.figures.interactive import interactive_edp, interactive_pareto
from analysis.figures.interactive_points import MAX_POINTS, interactive_accuracy, interactive_points
from analysis.load_joulebed import load_joulebed
from analysis.report.ablation_section import ablation_answer
from analysis.report.answer import answer
from analysis.report.caution import cautions
from analysis.report.html import WORDS
from analysis.report.quantity import NOT_MEASURED, mean, share
from analysis.report.source import without_nan
from analysis.summary import Summary, TreatmentSummary, summarise
from analysis.work_factor import configuration_factors
from contract.errors import UsageError
from orchestrator.dashboard.run_view import slim

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SEED = 0
"""Of the ranks' bootstrap: the same page from the same runs."""

N_RESAMPLES = 500
"""Of the same; fewer than the report's, so that a filter answers at once."""

LIMITS = (20, 50, 200)
"""Treatments shown in the table."""

MAX_RANKED = 50
"""Configurations in the ranking, each with its words; the report has them all."""

MAX_DRAWN = 40
"""Treatments in a figure that has a line for each: more are slow to draw, and no easier to read."""

MAX_FRONT = 400
"""Treatments drawn against accuracy."""

_KEPT = 16
"""Rankings of earlier choices."""

_NOT_SHOWN = 100
"""Runs named that are not counted; the report names them all."""

SORTS: dict[str, tuple[str, Callable[[TreatmentSummary], float]]] = {
    "energy": ("least energy first", lambda row: _of(row, "energy_j")),
    "token": ("least energy per token first", lambda row: _of(row, "energy_per_output_token_j")),
    "edp": ("least energy-delay product first", lambda row: _of(row, "edp_js")),
    "accuracy": (
        "most accurate first",
        lambda row: -row.accuracy.accuracy if row.accuracy is not None else float("inf"),
    ),
    "design": ("as planned", lambda row: 0.0),
}
"""Name -> words, and what is sorted by."""


@dataclass(frozen=True)
class Choice:
    """Which treatments are looked at.

    Attributes:
        words: all of them must be in a treatment's label.
        levels: factor -> level as text.
        sort: one of `SORTS`.
        limit: treatments in the table.
    """

    words: str = ""
    levels: tuple[tuple[str, str], ...] = ()
    sort: str = "design"
    limit: int = LIMITS[0]

    @property
    def is_all(self) -> bool:
        """Whether nothing is filtered."""
        return not self.words.strip() and not self.levels


def _points(column: str, axis: str) -> "_Draw":
    said = "Points are runs, diamonds their means with 95 % intervals; the table has the numbers."
    return lambda shown, every, more: (interactive_points(shown, column, axis, max_points=MAX_POINTS), said + more)


def _accuracy(shown: Summary, every: Summary, more: str) -> "tuple[Figure, str]":
    said = "Share of right answers by gold label, with the 95 % Wilson interval; the short line is guessing."
    return interactive_accuracy(shown), said + more


def _front(shown: Summary, every: Summary, more: str) -> "tuple[Figure, str]":
    n = len(every.treatments)
    cut = f" The first {MAX_FRONT} of {n} treatments are drawn." if n > MAX_FRONT else ""
    drawn = interactive_pareto(replace(every, treatments=every.treatments[:MAX_FRONT]))
    return drawn, (
        "Means with 95 % intervals. On the front no other treatment needs less energy and is more accurate; it is one "
        "of means, so near neighbours may change places. Treatments of different tasks answer different "
        f"questions.{cut}"
    )


def _edp(shown: Summary, every: Summary, more: str) -> "tuple[Figure, str]":
    said = "Energy times time of the measured phase, the smallest on top. Ranks compare only the same work."
    return interactive_edp(shown), said + more


_Draw = Callable[[Summary, Summary, str], "tuple[Figure, str]"]

FIGURES: dict[str, _Draw] = {
    "energy": _points("energy_j", "energy of the measured phase (J)"),
    "token": _points("energy_per_output_token_j", "energy per output token (J/token)"),
    "accuracy": _accuracy,
    "pareto": _front,
    "edp": _edp,
}
"""Name -> draws the treatments that are shown, of those that fit the choice; in the order of the page."""


class Comparison:
    """One reading of an experiment.

    Args:
        folder: the experiment's.

    Raises:
        UsageError: no run has a result yet, or none has an energy; in words.
    """

    def __init__(self, folder: Path) -> None:
        experiment, self.n_nan = without_nan(load_joulebed(folder))
        self.summary = summarise(experiment)
        if all(row.means["energy_j"].mean is None for row in self.summary.treatments):
            raise UsageError(
                f"No counted run of {experiment.name} has an energy yet: there is nothing to compare. Runs that are "
                "not counted are in the run table, with their reasons."
            )
        self.configuring = configuration_factors(self.summary)
        self._ablations: dict[frozenset[str], Ablation] = {}

    def overview(self) -> dict[str, Any]:
        """What holds for the whole experiment, whatever is filtered."""
        summary = self.summary
        excluded = summary.experiment.excluded
        return {
            "name": summary.experiment.name,
            "n_planned": summary.n_planned,
            "n_counted": summary.n_counted,
            "n_treatments": len(summary.treatments),
            "is_estimate": summary.is_estimate,
            "answer": answer(summary),
            "cautions": [
                {"level": each.level, "word": WORDS[each.level], "text": each.text} for each in cautions(summary)
            ],
            "notes": list(summary.notes),
            "factors": [{"name": name, "levels": _levels(summary, name)} for name in summary.by],
            "treatments": [row.label for row in summary.treatments],
            "excluded": [
                {"run_id": each.run_id, "state": each.state, "why": each.why} for each in excluded[:_NOT_SHOWN]
            ],
            "n_excluded": len(excluded),
        }

    def chosen(self, choice: Choice) -> list[TreatmentSummary]:
        """The treatments that are looked at, in their order."""
        words = choice.words.casefold().split()
        rows = [
            row
            for row in self.summary.treatments
            if all(str(row.treatment.get(name)) == level for name, level in choice.levels)
            and all(word in row.label.casefold() for word in words)
        ]
        return sorted(rows, key=SORTS[choice.sort][1])

    def tables(self, choice: Choice) -> dict[str, Any]:
        """The numbers of some treatments, and their ranking; at once.

        Args:
            choice: which.
        """
        rows = self.chosen(choice)
        shown = self._only(rows[: choice.limit])
        ranking = self._ranking(self._only(rows), choice.limit) if rows else {"problem": "No treatment is like that."}
        return {
            "n_matching": len(rows),
            "n_shown": len(shown.treatments),
            "table": self._table(shown),
            "ranking": ranking,
        }

    def figure(self, choice: Choice, name: str) -> dict[str, Any]:
        """One figure of some treatments. Each is asked for by itself: a table waits for one at most.

        Args:
            choice: which.
            name: one of `FIGURES`.

        Returns:
            `name` with plotly's JSON in `figure` and its `text`; or with `missing`: why it cannot be drawn.
        """
        rows = self.chosen(choice)
        if not rows:
            return {"name": name, "missing": ""}
        shown, every = self._only(rows[: min(choice.limit, MAX_DRAWN)]), self._only(rows)
        rest = len(every.treatments) - len(shown.treatments)
        more = f" The first {len(shown.treatments)} of {len(every.treatments)} treatments are drawn." if rest else ""
        try:
            drawn, said = FIGURES[name](shown, every, more)
        except UsageError as error:
            return {"name": name, "missing": error.message}
        return {"name": name, "figure": slim(json.loads(drawn.to_json())), "text": said}

    def _only(self, rows: list[TreatmentSummary]) -> Summary:
        n_counted = sum(row.n_counted for row in rows)
        n_planned = sum(row.n_planned for row in rows)
        return replace(self.summary, treatments=tuple(rows), n_counted=n_counted, n_planned=n_planned)

    def _table(self, shown: Summary) -> dict[str, Any]:
        mixed = self.summary.is_estimate and len(self.summary.methods) > 1
        word = ", estimate" if self.summary.is_estimate and not mixed else ""
        rows = []
        numbers = {id(row): i for i, row in enumerate(self.summary.treatments)}
        by_label = {row.label: i for i, row in enumerate(self.summary.treatments)}
        for row in shown.treatments:
            estimate = " (estimate)" if mixed and row.is_estimate else ""
            cells = [f"{row.n_counted}/{row.n_planned}"]
            for name in ("energy_j", "energy_per_output_token_j", "mean_power_w", "duration_s", "edp_js"):
                text = mean(row.means[name])
                cells.append(text + estimate if text != NOT_MEASURED and name != "duration_s" else text)
            cells += _accuracy_cells(row)
            rows.append({"id": numbers.get(id(row), by_label[row.label]), "levels": _words(row), "cells": cells})
        return {
            "factors": list(self.summary.by),
            "header": [
                "runs",
                f"energy, J{word}",
                f"J per token{word}",
                f"power, W{word}",
                "time, s",
                f"EDP, J·s{word}",
                "accuracy",
                "95 %",
                "verdict",
            ],
            "rows": rows,
        }

    def _ablation(self, every: Summary) -> Ablation:
        """Of a set of treatments; kept, because another order or length of the table changes nothing in it."""
        key = frozenset(row.label for row in every.treatments)
        if key not in self._ablations:
            if len(self._ablations) >= _KEPT:
                self._ablations.pop(next(iter(self._ablations)))
            ordered = [row for row in self.summary.treatments if row.label in key]
            self._ablations[key] = ablate(
                self._only(ordered), seed=SEED, settings=self.configuring, n_resamples=N_RESAMPLES
            )
        return self._ablations[key]

    def _ranking(self, every: Summary, limit: int) -> dict[str, Any]:
        try:
            found = self._ablation(every)
        except UsageError as error:
            return {"problem": error.message}
        word = ", estimate" if self.summary.is_estimate else ""
        work = f" over all {found.n_works} combinations of {', '.join(found.work)}" if found.n_works > 1 else ""
        rows = []
        for each in found.configurations[: min(limit, MAX_RANKED)]:
            interval = f"{each.rank_low} to {each.rank_high}" if each.rank_low is not None else NOT_MEASURED
            tie = "best" if each.rank == 1 else "tied with the best" if each.is_tied else ""
            rows.append(
                {
                    "rank": each.rank,
                    "interval": interval,
                    "label": each.label,
                    "tie": tie,
                    "cells": [mean(each.edp_js), mean(each.energy_j), mean(each.duration_s)],
                    "words": explain(each, found.reference),
                }
            )
        everything_is_work = set(self.configuring) == set(self.summary.by)
        return {
            "answer": ablation_answer(found, every),
            "header": [f"EDP, J·s{word}", f"energy, J{word}", "time, s"],
            "rows": rows,
            "n_all": len(found.configurations),
            "reference": found.reference.label,
            "note": f"Means over repetitions{work}, ± half-width of the 95 % interval. The rank's 95 % interval is a "
            f"bootstrap of the repetitions ({found.n_rank_resamples} resamples; the report takes more). Tied: the "
            "interval of the ratio of the products holds 1."
            + (" Ranks compare only treatments that do the same work." if everything_is_work else ""),
            "incomplete": [f"No repetition is complete of: {name}." for name in found.incomplete[:10]],
        }


def _accuracy_cells(row: TreatmentSummary) -> list[str]:
    if row.accuracy is None:
        return [NOT_MEASURED, NOT_MEASURED, ""]
    low, high = row.accuracy.interval
    return [share(row.accuracy.accuracy), f"{100 * low:.1f} to {100 * high:.1f}", row.accuracy.verdict]


def _words(row: TreatmentSummary) -> list[str]:
    return [str(level) for level in row.treatment.values()] or ["all runs"]


def _levels(summary: Summary, name: str) -> list[str]:
    return list(dict.fromkeys(str(row.treatment[name]) for row in summary.treatments))


def _of(row: TreatmentSummary, name: str) -> float:
    value = row.means[name].mean
    return float("inf") if value is None else value
