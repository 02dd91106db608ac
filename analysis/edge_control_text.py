"""The table of edge control as text and CSV."""

import csv
import io
from collections.abc import Sequence

from analysis.edge_control import FIGURES, EdgeRow, best_cell, worst_violation_s
from analysis.statistics import MeanInterval

_HEAD = (
    "Treatment",
    "Runs",
    "Regret %",
    "Tokens/s",
    "late",
    "J/token",
    "Reward",
    "Hottest",
    "Violation s",
    "Choice ms",
    "Update ms",
    "Choosing % of time",
    "% of energy",
)
_CELLS = (
    ("regret", 100, 2),
    ("throughput_per_s", 1, 0),
    ("late_throughput_per_s", 1, 0),
    ("energy_per_token_j", 1, 4),
    ("reward_mean", 1, 3),
    ("hottest_c", 1, 1),
)
_COSTS = (
    ("selection_mean_s", 1000, 4),
    ("update_mean_s", 1000, 1),
    ("choosing_time_share", 100, 4),
    ("choosing_energy_share", 100, 4),
)


def edge_control_text(rows: Sequence[EdgeRow]) -> str:
    """The table for people, with what must be known to read it.

    Args:
        rows: of `analysis.edge_control.edge_rows`.
    """
    shown = [row for row in rows if row.reports]
    table = [_HEAD, *(_cells(row) for row in shown)]
    widths = [max(len(line[i]) for line in table) for i in range(len(_HEAD))]
    lines = [_line(line, widths) for line in table]
    lines.insert(1, "-" * len(lines[0]))
    lines += [f"{row.name}: {row.problem}" for row in rows if row.problem]
    best = best_cell(rows)
    if best is not None:
        lines += ["", f"Highest mean reward of the grid: {best.name}."]
    return "\n".join([*(line.rstrip() for line in lines), "", *_notes(shown)]) + "\n"


def edge_control_csv(rows: Sequence[EdgeRow]) -> str:
    """One row per treatment, in full precision; an empty cell is "not measured".

    Args:
        rows: of `analysis.edge_control.edge_rows`.
    """
    factors = list(rows[0].levels)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*factors, "n_planned", "n_runs", "is_simulated", *FIGURES, "worst_violation_s", "problem"])
    for row in rows:
        means = [row.means[name].mean for name in FIGURES]
        told = [row.n_planned, len(row.reports), row.is_simulated, *means, worst_violation_s(row), row.problem]
        writer.writerow([*(row.levels[name] for name in factors), *told])
    return text.getvalue()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([cells[0].ljust(widths[0]), *rest])


def _cells(row: EdgeRow) -> tuple[str, ...]:
    worst_s = worst_violation_s(row)
    return (
        row.name,
        f"{len(row.reports)}",
        *(_cell(row.means[name], scale, digits) for name, scale, digits in _CELLS),
        "-" if worst_s is None else f"{worst_s:.1f}",
        *(_cell(row.means[name], scale, digits) for name, scale, digits in _COSTS),
    )


def _cell(value: MeanInterval, scale: float, digits: int) -> str:
    return "-" if value.mean is None else f"{scale * value.mean:.{digits}f}"


def _notes(rows: Sequence[EdgeRow]) -> list[str]:
    notes = [
        "Means over runs. Of the batches that were served; where the fan stopped, of those without it; late: the last "
        "third of these. Violation: the longest stretch above the temperature limit, of the worst run. Regret: of what "
        "was recommended, fan on, against the best of all settings; only a simulated board can tell.",
        "Choosing: selection, sampling and updates. Its energy is an estimate by its share of the time: each result "
        "says of what.",
    ]
    if any(row.is_simulated for row in rows):
        notes.insert(
            0,
            "SIMULATED: times, powers and temperatures are a model's; nothing was measured. Choosing took real seconds "
            "of the machine that ran it, against simulated ones of the board.",
        )
    return notes
