"""Which figures of a run table are wrong, by what factor, and why."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from analysis.audit.hypothesis import CAUSES, Expected, Hypothesis, hypotheses, truth_j
from analysis.audit.run_audit import RunAudit
from analysis.experiment_runner import RunTableFile, number, run_number
from energy.counter import ENERGIBRIDGE_WRAPS_J

Verdict = Literal["right", "wrong", "unchecked"]

TOLERANCE = 0.01
"""A figure this near to another way of integrating the same samples is the same figure."""

_SCALED_TOLERANCE = 1e-3
"""Nearer, for a figure that only fits after its comma was moved: many would fit by chance."""

_EXACT = 1e-7
"""Two figures this near come from one log."""

_UNITS_J = {"wh": 3600.0, "kwh": 3.6e6, "kj": 1e3, "mj": 1e-3, "mwh": 3.6, "uj": 1e-6}
_ENERGY_NAME = re.compile(r"energy|joule|(?:^|[_ ])[kmu]?(?:j|wh)\)?$|\((?:[kmu]?j|[km]?wh)\)", re.IGNORECASE)
_TIME_NAME = re.compile(r"duration|elapsed|runtime|(?:^|_)(?:time|latency)(?:[_( ]|$)", re.IGNORECASE)
_DERIVED_NAME = re.compile(
    r"per_|per |/|efficien|(?<!du)ratio|norm|edp|mean|std|_id$|^id$|state|status|stamp", re.IGNORECASE
)


@dataclass(frozen=True)
class CellCheck:
    """One figure of a table.

    Attributes:
        run_id: its row.
        text: as it stands in the table.
        value: in joules or seconds; None where it is no number.
        truth: what the column should hold: for the prompts where they are known, else for the whole log; None
            where there is no log.
        factor: value / truth.
        verdict: whether it is right; `unchecked` where there is nothing to check it against.
        cause: key of `CAUSES`; empty where unchecked.
        scope: `window` or `whole` of what it agrees with; empty where it agrees with nothing.
        note: more, in words.
    """

    run_id: str
    text: str
    value: float | None
    truth: float | None
    factor: float | None
    verdict: Verdict
    cause: str
    scope: str = ""
    note: str = ""


@dataclass(frozen=True)
class ColumnCheck:
    """One column of a table.

    Attributes:
        table: the file.
        column: its name.
        quantity: `cpu`, `gpu`, `dram`, `total` (energies) or `duration`.
        cells: one per row.
    """

    table: Path
    column: str
    quantity: str
    cells: tuple[CellCheck, ...]

    def by_cause(self) -> dict[tuple[str, str], list[CellCheck]]:
        """Checked cells by cause and scope, the most frequent first."""
        groups: dict[tuple[str, str], list[CellCheck]] = {}
        for cell in self.cells:
            if cell.verdict != "unchecked":
                groups.setdefault((cell.cause, cell.scope), []).append(cell)
        return dict(sorted(groups.items(), key=lambda item: -len(item[1])))

    def sentence(self) -> str:
        """The outcome in words."""
        checked = [cell for cell in self.cells if cell.verdict != "unchecked"]
        n_wrong = sum(cell.verdict == "wrong" for cell in checked)
        words = [f"{n_wrong} of {len(checked)} checked figures are wrong"]
        for (cause, scope), cells in self.by_cause().items():
            factors = [cell.factor for cell in cells if cell.factor is not None]
            times = f", {_times(factors)} the truth" if factors and cause not in ("right", "decimal_comma") else ""
            if cause == "decimal_comma":
                times = f" ({cells[0].text}: {cells[0].note})"
            where = {"window": " (prompts alone)", "whole": " (whole log, model load and all)"}.get(scope, "")
            if cause in ("lost_sign", "negative") and not scope:
                where = " (no log tells; their repetitions do)"
            words.append(f"{len(cells)}: {CAUSES[cause]}{where}{times}")
        n_unchecked = len(self.cells) - len(checked)
        if n_unchecked:
            words.append(f"{n_unchecked} have no log here to check them against")
        return "; ".join(words) + "."


def check_tables(tables: Sequence[RunTableFile], runs: Mapping[str, RunAudit]) -> list[ColumnCheck]:
    """Check every energy and duration column.

    Args:
        tables: run tables, published ones included.
        runs: run id -> what its log says.
    """
    checks = []
    for table in tables:
        factors = set(table.factors())
        for column in table.columns:
            if column in factors or _DERIVED_NAME.search(column):
                continue
            if _ENERGY_NAME.search(column):
                checks.append(_check_energy(table, column, runs))
            elif _TIME_NAME.search(column):
                checks.append(_check_duration(table, column, runs))
    return [check for check in checks if any(cell.value is not None for cell in check.cells)]


def expected_of(column: str) -> Expected:
    """What a column claims to hold, by its name."""
    name = column.lower()
    if "gpu" in name:
        return "gpu"
    if "dram" in name or "memory" in name:
        return "dram"
    return "cpu" if re.search(r"cpu|package|pkg|processor", name) else "total"


def unit_j(column: str) -> float:
    """Joules per unit of a column, by its name; joules where it names none."""
    match = re.search(r"(?:^|[_ (])([kmu]?j|[km]?wh)\)?$", column.lower())
    return _UNITS_J.get(match.group(1), 1.0) if match else 1.0


def _check_energy(table: RunTableFile, column: str, runs: Mapping[str, RunAudit]) -> ColumnCheck:
    expected, unit = expected_of(column), unit_j(column)
    cells = []
    matches: list[Hypothesis | None] = []
    for run_id, row in zip(table.run_ids, table.rows, strict=True):
        cell, match = _check_cell(run_id, row[column], unit, expected, runs.get(run_id))
        cells.append(cell)
        matches.append(match)
    cells = _find_stale(cells, matches, expected, runs)
    cells = _find_wraps_by_neighbours(cells)
    return ColumnCheck(table.path, column, expected, tuple(cells))


def _check_cell(
    run_id: str, text: str, unit: float, expected: Expected, run: RunAudit | None
) -> tuple[CellCheck, Hypothesis | None]:
    value, has_comma = number(text)
    value_j = value * unit if value is not None else None
    truth = truth_j(run.measured, expected) if run else None
    factor = value_j / truth if value_j is not None and truth else None
    if value_j is None or run is None or run.whole is None:
        why = "no number" if value_j is None else run.problem if run else "no log"
        return CellCheck(run_id, text, value_j, truth, None, "unchecked", "", note=why), None
    match, note = _best(value_j, run, expected)
    if has_comma:
        return CellCheck(run_id, text, value_j, truth, factor, "wrong", "decimal_comma", note=_comma(text)), None
    if match is None:
        if truth is None:
            note = f"the log holds no {expected} energy, and nothing else fits"
            return CellCheck(run_id, text, value_j, truth, factor, "unchecked", "", note=note), None
        return CellCheck(run_id, text, value_j, truth, factor, "wrong", "unknown"), None
    verdict: Verdict = "right" if match.cause == "right" else "wrong"
    return CellCheck(run_id, text, value_j, truth, factor, verdict, match.cause, match.scope, note), match


def _best(value_j: float, run: RunAudit, expected: Expected) -> tuple[Hypothesis | None, str]:
    """The hypothesis that fits; the simplest of those that fit about equally well."""
    known = [each for each in hypotheses(run, expected) if each.value_j]
    near = [(_off(value_j, each.value_j), each) for each in known]
    fitting = [(off, each) for off, each in near if off <= TOLERANCE]
    if fitting:
        nearest = min(off for off, _ in fitting)
        # Two ways to integrate the same samples differ by parts in a thousand: within that, the simplest is meant.
        return next(each for off, each in fitting if off <= max(2 * nearest, 2e-3)), ""
    for each in known:
        for scale, words in _SCALES:
            if _off(value_j, each.value_j * scale) <= _SCALED_TOLERANCE:
                cause = "unit" if words else "decimal_comma"
                said = words or f"10^{_power(scale)} times {each.name.partition('/')[0]}"
                return Hypothesis(f"{each.name} x {scale:g}", cause, each.scope, each.value_j * scale), said
    return None, ""


_SCALES: tuple[tuple[float, str], ...] = (
    (1e-3, "kilojoules"),
    (1e3, "millijoules"),
    (1 / 3600.0, "watt-hours"),
    (1 / 3.6e6, "kilowatt-hours"),
    (1e6, "microjoules"),
    *((10.0**power, "") for power in (1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, -1, -2)),
)


def _find_stale(
    cells: list[CellCheck],
    matches: Sequence[Hypothesis | None],
    expected: Expected,
    runs: Mapping[str, RunAudit],
) -> list[CellCheck]:
    """Marks the figures that are exactly another run's, in a column that is exact everywhere else.

    A copy of another repetition's figure is near to the truth, so being near is no proof.
    """
    names = [match.name for match in matches if match is not None]
    if not names:
        return cells
    usual = statistics.mode(names)
    others = {
        run_id: each.value_j
        for run_id, run in runs.items()
        for each in (hypotheses(run, expected) if run.whole else ())
        if each.name == usual
    }
    exact = [
        cell.value is not None and cell.run_id in others and _off(cell.value, others[cell.run_id]) <= _EXACT
        for cell in cells
    ]
    n_comparable = sum(cell.value is not None and cell.run_id in others for cell in cells)
    if sum(exact) * 2 < n_comparable:
        return cells
    found = []
    for cell, is_exact in zip(cells, exact, strict=True):
        value = cell.value
        if not is_exact and value is not None and cell.verdict != "unchecked":
            twin = next((run_id for run_id, other in others.items() if _off(value, other) <= _EXACT), None)
            if twin is not None and twin != cell.run_id:
                note = f"exactly the figure of {twin}"
                cell = replace(cell, verdict="wrong", cause="stale_file", scope="", note=note)
        found.append(cell)
    return found


def _find_wraps_by_neighbours(cells: list[CellCheck]) -> list[CellCheck]:
    """Figures that no log explains, far from their repetitions': a wrap would bring them back among these."""
    by_run: dict[str, list[float]] = {}
    for cell in cells:
        if cell.value is not None and cell.cause not in ("lost_sign", "negative"):
            by_run.setdefault(run_number(cell.run_id), []).append(cell.value)
    found = []
    for cell in cells:
        usual = statistics.median(by_run.get(run_number(cell.run_id), [0.0]))
        if (cell.verdict == "unchecked" or cell.cause == "unknown") and cell.value is not None and usual > 0:
            wrap_j = next((m for m in ENERGIBRIDGE_WRAPS_J if _off(m - abs(cell.value), usual) < 0.25), None)
            if wrap_j is not None and not 0.4 < cell.value / usual < 2.5:
                actual_j = wrap_j - abs(cell.value)
                cause = "lost_sign" if cell.value > 0 else "negative"
                note = f"{wrap_j:.0f} J less the figure is {actual_j:.0f} J, as its repetitions are"
                cell = replace(cell, verdict="wrong", cause=cause, note=note)
        found.append(cell)
    return found


def _check_duration(table: RunTableFile, column: str, runs: Mapping[str, RunAudit]) -> ColumnCheck:
    unit = _unit_s(column)
    cells = []
    for run_id, row in zip(table.run_ids, table.rows, strict=True):
        value, has_comma = number(row[column])
        value_s = value * unit if value is not None else None
        run = runs.get(run_id)
        measured = run.measured if run else None
        if value_s is None or run is None or run.whole is None or measured is None:
            if has_comma:
                note = _comma(row[column])
                cells.append(CellCheck(run_id, row[column], value_s, None, None, "wrong", "decimal_comma", "", note))
                continue
            cells.append(CellCheck(run_id, row[column], value_s, None, None, "unchecked", "", note="no log"))
            continue
        truth = measured.duration_s
        verdict, cause, scope, note = _judge_duration(row[column], value_s, has_comma, run)
        cells.append(CellCheck(run_id, row[column], value_s, truth, value_s / truth, verdict, cause, scope, note))
    return ColumnCheck(table.path, column, "duration", tuple(cells))


def _judge_duration(text: str, value_s: float, has_comma: bool, run: RunAudit) -> tuple[Verdict, str, str, str]:
    if has_comma:
        return "wrong", "decimal_comma", "", _comma(text)
    for scope, energy in (("window", run.window), ("whole", run.whole)):
        if energy is None:
            continue
        slack_s = TOLERANCE * energy.duration_s + 2 * (run.stamp_resolution_s or 0.0)
        if abs(value_s - energy.duration_s) <= slack_s:
            return "right", "right", scope, ""
        for scale in (10.0, 100.0, 1e4, 1e5, 1e3, 1e-3):
            if abs(value_s / scale - energy.duration_s) <= _SCALED_TOLERANCE * energy.duration_s:
                return "wrong", "unit" if scale in (1e3, 1e-3) else "decimal_comma", scope, f"{scale:g} times too long"
    return "wrong", "unknown", "", ""


def _comma(text: str) -> str:
    n_digits = len(text.partition(",")[2])
    return f"text to most programs, and {10**n_digits} times as much to one that drops the comma"


def _unit_s(column: str) -> float:
    name = column.lower()
    for pattern, unit in ((r"(?:^|[_ (])ms\)?$", 1e-3), (r"(?:^|[_ (])(?:m|min|minutes)\)?$", 60.0)):
        if re.search(pattern, name):
            return unit
    return 1.0


def _off(value: float, other: float) -> float:
    return abs(value / other - 1) if other else float("inf")


def _power(scale: float) -> int:
    return round(len(f"{scale:.0f}") - 1) if scale >= 1 else -round(len(f"{1 / scale:.0f}") - 1)


def _times(factors: Sequence[float]) -> str:
    low, high = min(factors), max(factors)
    return f"{low:.3g} times" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g} times"
