"""The public study's result tables: computed again, and what is wrong in them beside what it should be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.published import load_study, recompute
from analysis.published_check import DECIMALS, Cell, check_tables, per_task_corrected
from analysis.report.document import Bullets, Caution, Section, Table, Text
from analysis.report.quantity import NOT_MEASURED, number
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

_PER_TASK = "RQ2/RQ2_Successive_Pairwise_Per_Task.csv"
_FOLD = 16
Checked = Mapping[str, tuple[Cell, ...]]


@dataclass(frozen=True)
class Published:
    """The section, and what is wrong in a sentence each."""

    section: Section
    cautions: tuple[Caution, ...]


def published_section(folder: Path) -> Published:
    """Compute the published tables again, then with their errors mended.

    Args:
        folder: of the study's run tables and result tables.
    """
    try:
        runs = load_study(folder)
        found = check_tables(folder, recompute(runs))
        once = check_tables(folder, recompute(runs, energy="energy_cpu_once_j"))
        corrected, corrected_once = per_task_corrected(runs), per_task_corrected(runs, "energy_cpu_once_j")
    except UsageError as error:
        why = f"The published result tables cannot be computed again: {error.message}"
        return Published(Section("published", _TITLE, (Text(why),)), (Caution("note", why),))
    crossing = _crossing(found[_PER_TASK])
    n_same = len(crossing) - sum(crossing.values())
    words = _words(runs, crossing)
    blocks: list[Text | Bullets | Table] = [Bullets(words), _overview(found, once)]
    blocks += _unlike(found)
    blocks.append(
        Text(
            "The tables with the CPU counted once. Marked rows are as published, with a figure in them that is wrong; "
            "below each stands what it should be."
        )
    )
    blocks += [_beside(name, found[name], once[name]) for name in found if name != _PER_TASK]
    blocks += [_within_task(found[_PER_TASK], corrected, corrected_once, n_same), _across(found[_PER_TASK], crossing)]
    blocks.append(_durations(runs))
    return Published(Section("published", _TITLE, tuple(blocks)), tuple(Caution("wrong", each) for each in words))


_TITLE = "Published and corrected: result tables"


def _words(runs: "pl.DataFrame", crossing: Mapping[str, bool]) -> tuple[str, ...]:
    twice, once = (float(runs[name].to_numpy().sum()) for name in ("energy_j", "energy_cpu_once_j"))
    misread, right = (float(runs[name].to_numpy().mean()) for name in ("duration_misread_s", "duration_s"))
    return (
        f"Published energies hold the CPU twice: {number(twice / once, 4)} times the energy over all runs. Every "
        f"published table of energy, or of energy per token, rests on them.",
        f"{Path(_PER_TASK).name}: {sum(crossing.values())} of {len(crossing)} contrasts “per task” compare different "
        f"tasks; p-values pay for all of them.",
        f"The column time(s) has decimal commas: a program that drops them reads a mean of {number(misread, 5)} s "
        f"where it is {number(right, 5)} s, {number(misread / right, 3)} times as much.",
    )


def _crossing(cells: Sequence[Cell]) -> dict[str, bool]:
    """Comparison -> whether its two sides are of different tasks."""
    found = {}
    for cell in cells:
        first, second = _comparison(cell).split(" - ")
        found[_comparison(cell)] = first.split(",")[1:] != second.split(",")[1:]
    return found


def _comparison(cell: Cell) -> str:
    return cell.row.split(" | ")[0]


def _overview(found: Checked, once: Checked) -> Table:
    rows = []
    for name, cells in found.items():
        n_wrong = sum(not cell.equal for cell in once[name])
        rows.append((Path(name).name, str(len(cells)), str(sum(cell.equal for cell in cells)), str(n_wrong)))
    totals = [str(sum(int(row[i]) for row in rows)) for i in (1, 2, 3)]
    return Table(
        "Published result tables, computed again from the published run table",
        ("table", "figures", "reproduced", "other with the CPU once"),
        (*rows, ("all", *totals)),
        note=f"Reproduced: the same to {DECIMALS} decimals, by the study's own recipe, errors included.",
    )


def _unlike(found: Checked) -> list[Bullets]:
    words = tuple(
        f"Not reproduced: {cell.table}, {cell.row}, {cell.column}: published {cell.published:g}, here "
        f"{NOT_MEASURED if cell.recomputed is None else number(cell.recomputed)}."
        for cells in found.values()
        for cell in cells
        if not cell.equal
    )
    return [Bullets(words)] if words else []


def _beside(name: str, published: Sequence[Cell], once: Sequence[Cell]) -> Table:
    """Two lines per row of a table: as published, and with the CPU counted once."""
    columns = list(dict.fromkeys(cell.column for cell in published))
    by_row: dict[str, dict[str, Cell]] = {}
    for cell in once:
        by_row.setdefault(cell.row, {})[cell.column] = cell
    rows: list[tuple[str, ...]] = []
    marked = set()
    for row, cells in by_row.items():
        if any(not cell.equal for cell in cells.values()):
            marked.add(len(rows))
        label = row.replace(" | ", ", ")
        rows.append((label, "published", *(_figure(cells[column].published) for column in columns)))
        rows.append((label, "corrected", *(_figure(cells[column].recomputed) for column in columns)))
    return Table(
        Path(name).stem.replace("_", " "),
        ("row", "which", *columns),
        tuple(rows),
        n_label_columns=2,
        marked=frozenset(marked),
        fold=len(rows) > _FOLD,
    )


def _figure(value: float | None) -> str:
    """To the decimals of the published tables; what they round to 0 and is not is told as such."""
    if value is None:
        return NOT_MEASURED
    if 0 < abs(value) < 0.5 * 10**-DECIMALS:
        return f"< {10**-DECIMALS:g}" if value > 0 else f"> -{10**-DECIMALS:g}"
    text = f"{value:,.{DECIMALS}f}"
    return text.rstrip("0").rstrip(".")


def _within_task(published: Sequence[Cell], corrected: "pl.DataFrame", once: "pl.DataFrame", n_same: int) -> Table:
    said = {_comparison(cell): cell.published for cell in published if cell.column == "p.value"}
    rows = tuple(
        (
            row["Comparison"],
            f"{row['t.ratio']:.3f}",
            f"{said[row['Comparison']]:.3f}" if row["Comparison"] in said else NOT_MEASURED,
            f"{row['p.value']:.3f}",
            f"{other['t.ratio']:.3f}",
            f"{other['p.value']:.3f}",
        )
        for row, other in zip(corrected.iter_rows(named=True), once.iter_rows(named=True), strict=True)
    )
    return Table(
        f"Contrasts within a task: the {n_same} that the table “per task” should hold",
        ("comparison", "t", "p published", "p corrected", "t, CPU once", "p corrected, CPU once"),
        rows,
        note="Corrected: adjusted after Benjamini and Hochberg among the contrasts within a task.",
    )


def _across(published: Sequence[Cell], crossing: Mapping[str, bool]) -> Table:
    columns = list(dict.fromkeys(cell.column for cell in published))
    by_row: dict[str, dict[str, Cell]] = {}
    for cell in published:
        by_row.setdefault(_comparison(cell), {})[cell.column] = cell
    rows = tuple(
        (row, *(_figure(cells[column].published) for column in columns), "none: different tasks")
        for row, cells in by_row.items()
        if crossing[row]
    )
    return Table(
        "Contrasts “per task” between different tasks, as published: they answer no question about a task",
        ("comparison", *columns, "corrected"),
        rows,
        marked=frozenset(range(len(rows))),
        fold=True,
    )


def _durations(runs: "pl.DataFrame") -> Table:
    import polars as pl

    means = runs.group_by("generation").agg(pl.col("duration_misread_s", "duration_s").mean()).sort("generation")
    rows = tuple(
        (str(row["generation"]), number(row["duration_misread_s"], 6), number(row["duration_s"], 6))
        for row in means.iter_rows(named=True)
    )
    return Table(
        "Mean duration of a run by generation, s",
        ("generation", "time(s) without its comma", "corrected (duration_ms)"),
        rows,
        marked=frozenset(range(len(rows))),
    )
