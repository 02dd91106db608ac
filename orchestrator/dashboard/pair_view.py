"""Two treatments side by side: means, the ratio with its interval, the effect size with its own. No HTML here."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from analysis.ablation import Ratio, ratio
from analysis.figures.interactive_points import MAX_POINTS, interactive_points
from analysis.report.found import Found
from analysis.report.pair_section import pair_tables
from analysis.report.quantity import NOT_MEASURED, mean, number, share
from analysis.summary import Summary, TreatmentSummary
from contract.errors import UsageError
from orchestrator.dashboard.run_view import slim

if TYPE_CHECKING:
    import polars as pl

QUANTITIES = (
    ("energy_j", "energy, J", True),
    ("energy_per_output_token_j", "energy per output token, J", True),
    ("mean_power_w", "mean power, W", True),
    ("duration_s", "time, s", False),
    ("tokens_per_s", "tokens per s", False),
    ("edp_js", "energy-delay product, J·s", True),
)
"""Column, words, whether it comes from energy."""

_SEED = 0

_N_RESAMPLES = 999
"""Of the interval of Cliff's delta; fewer than the report's, so that the answer is there at once."""


def pair(summary: Summary, first: int, second: int) -> dict[str, Any]:
    """Hold two treatments against each other.

    Args:
        summary: of all treatments.
        first: place of a treatment in it.
        second: place of the other.
    """
    a, b = summary.treatments[first], summary.treatments[second]
    is_estimate = a.is_estimate or b.is_estimate
    found = Found()
    rows = []
    for name, words, is_energy in QUANTITIES:
        row = _row(a, b, name, found)
        if row is not None:
            rows.append([f"{words}{', estimate' if is_estimate and is_energy else ''}", *row])
    return {
        "first": _side(a, first),
        "second": _side(b, second),
        "differs": [
            {"factor": name, "first": str(a.treatment[name]), "second": str(b.treatment[name])}
            for name in summary.by
            if a.treatment[name] != b.treatment[name]
        ],
        "sentence": _sentence(a, b, is_estimate=is_estimate),
        "header": ["", "first", "second", "first / second", "95 %", "p", "Cliff's δ", "95 % of δ"],
        "rows": rows,
        "warnings": list(dict.fromkeys([*found.warnings, *found.refusals]))[:6],
        "methods": list(dict.fromkeys(found.methods))[:2],
        "is_estimate": is_estimate,
    }


def pair_figure(summary: Summary, first: int, second: int) -> dict[str, Any]:
    """The runs of two treatments, drawn.

    Args:
        summary: of all treatments.
        first: place of a treatment in it.
        second: place of the other.

    Returns:
        Plotly's JSON in `figure`; None where it cannot be drawn.
    """
    only = replace(summary, treatments=(summary.treatments[first], summary.treatments[second]))
    try:
        return {"figure": slim(json.loads(interactive_points(only, max_points=MAX_POINTS).to_json()))}
    except UsageError:
        return {"figure": None}


def _row(a: TreatmentSummary, b: TreatmentSummary, name: str, found: Found) -> list[str] | None:
    if a.means[name].mean is None or b.means[name].mean is None:
        return None
    values = {"first": _values(a, name), "second": _values(b, name)}
    each = _ratio(values["first"], values["second"])
    has_both = min(len(each) for each in values.values()) >= 2
    cells = next(iter(_tests(values, found)), None) if has_both else None
    return [
        mean(a.means[name]),
        mean(b.means[name]),
        number(each.value, 3) if each is not None else NOT_MEASURED,
        f"{number(each.low, 3)} to {number(each.high, 3)}" if each is not None and each.low else NOT_MEASURED,
        # first, second, ratio of means, z, p, adjusted p, δ, its interval: two treatments make one comparison.
        *((cells[4], cells[6], cells[7]) if cells is not None else (NOT_MEASURED,) * 3),
    ]


def _tests(values: dict[str, list[float]], found: Found) -> list[tuple[str, ...]]:
    """The report's own table of pairs, of one pair."""
    tables = list(pair_tables(_frame(values), "value", "treatment", [], found, _SEED, _N_RESAMPLES))
    return [row for table in tables for row in table.rows]


def _frame(values: dict[str, list[float]]) -> "pl.DataFrame":
    import polars as pl

    names = [name for name, each in values.items() for _ in each]
    return pl.DataFrame({"treatment": names, "value": [value for each in values.values() for value in each]})


def _ratio(first: list[float], second: list[float]) -> Ratio | None:
    return ratio(first, second) if min(*first, *second) > 0 else None


def _values(row: TreatmentSummary, name: str) -> list[float]:
    return [run[name] for run in row.runs if run[name] is not None]


def _side(row: TreatmentSummary, place: int) -> dict[str, Any]:
    accuracy = row.accuracy
    said = NOT_MEASURED
    if accuracy is not None:
        low, high = accuracy.interval
        said = f"{share(accuracy.accuracy)} [{share(low)}, {share(high)}], {accuracy.n_correct} of {accuracy.n_items}"
    methods = ", ".join(row.methods)
    return {
        "id": place,
        "label": row.label,
        "n_counted": row.n_counted,
        "n_planned": row.n_planned,
        "accuracy": said,
        "verdict": accuracy.verdict if accuracy is not None else "",
        "methods": f"{methods} by {', '.join(row.sources)}" if methods and not row.is_estimate else methods,
        "runs": [run["run_id"] for run in row.runs[:12]],
    }


def _sentence(a: TreatmentSummary, b: TreatmentSummary, *, is_estimate: bool) -> str:
    """The difference in energy and accuracy in words."""
    first, second = _values(a, "energy_j"), _values(b, "energy_j")
    if not first or not second:
        return "At least one of the two has no counted run with an energy: they cannot be compared in it."
    each = _ratio(first, second)
    word = "estimated energy" if is_estimate else "energy"
    if each is None:
        return f"The {word} of a run is not above zero: there is no ratio."
    if each.low is None or each.high is None:
        text = f"The first takes {number(each.value, 3)} times the {word} of the second; "
        return text + "one of them has a single run, so how sure that is cannot be said." + _overlap(a, b)
    interval = f"95 % interval {number(each.low, 3)} to {number(each.high, 3)}"
    if not each.is_clear:
        text = f"The two cannot be told apart in {word}: the first takes {number(each.value, 3)} times that of the "
        return f"{text}second, {interval}, which holds 1." + _overlap(a, b)
    more = "more" if each.value > 1 else "less"
    return f"The first takes {more} {word}: {number(each.value, 3)} times that of the second ({interval})." + _overlap(
        a, b
    )


def _overlap(a: TreatmentSummary, b: TreatmentSummary) -> str:
    if a.accuracy is None or b.accuracy is None:
        return ""
    low, high = a.accuracy.interval
    other_low, other_high = b.accuracy.interval
    if low > other_high:
        return " It is more accurate: the 95 % intervals do not meet."
    if high < other_low:
        return " It is less accurate: the 95 % intervals do not meet."
    return " The 95 % intervals of their accuracies overlap."
