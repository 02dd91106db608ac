"""Published tables against recomputed ones, cell by cell, and what they should have said."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.inference.adjust import adjust
from analysis.inference.aligned_rank import art_anova, art_contrasts
from analysis.inference.independence import identical_outputs
from analysis.published import load_study, recompute
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

DECIMALS = 3
KEYS = ("RQ", "Metric", "test", "generation", "task", "Comparison", "Term", "run", "model_size")
"""Columns that name a row; all others that hold numbers are compared."""
_BRIEF_ROWS = 12
_PER_TASK = "RQ2/RQ2_Successive_Pairwise_Per_Task.csv"


@dataclass(frozen=True)
class Cell:
    """One number of a published table.

    Attributes:
        table: path within the published folder.
        row: its keys, joined.
        column: as published.
        published: value.
        recomputed: value; None where the recomputed table has no such row or column.
    """

    table: str
    row: str
    column: str
    published: float
    recomputed: float | None

    @property
    def equal(self) -> bool:
        """Whether both are the same to three decimals."""
        if self.recomputed is None:
            return False
        slack = 1e-9 * max(1.0, abs(self.published))
        return bool(abs(self.published - self.recomputed) <= 0.5 * 10.0**-DECIMALS + slack)


def compare(table: str, published: "pl.DataFrame", recomputed: "pl.DataFrame") -> tuple[Cell, ...]:
    """Every numeric cell of a published table beside the recomputed one.

    Args:
        table: its name.
        published: as read, all columns text.
        recomputed: with the same keys and column names; rows in any order, more rows are allowed.

    Raises:
        UsageError: the keys do not name a row.
    """
    import polars as pl

    keys = [name for name in published.columns if name in KEYS and name in recomputed.columns]
    if not keys:
        raise UsageError(f"{table} has no column that names its rows. Known: {', '.join(KEYS)}.")
    ours = {_key(row, keys): row for row in recomputed.iter_rows(named=True)}
    if len(ours) < recomputed.height or published.select(keys).is_duplicated().any():
        raise UsageError(f"{table}: {', '.join(keys)} do not name a row.")
    numeric = [
        name
        for name in published.columns
        if name not in keys and published[name].cast(pl.Float64, strict=False).null_count() == 0
    ]
    return tuple(
        Cell(table, _key(row, keys), name, float(row[name]), ours.get(_key(row, keys), {}).get(name))
        for row in published.iter_rows(named=True)
        for name in numeric
    )


def _key(row: "dict[str, object]", keys: list[str]) -> str:
    return " | ".join(str(row[key]) for key in keys)


def check_tables(folder: Path, tables: "dict[str, pl.DataFrame]") -> dict[str, tuple[Cell, ...]]:
    """Compare recomputed tables with the files of the same name.

    Args:
        folder: of the published tables.
        tables: path within it -> recomputed.

    Raises:
        UsageError: a file is missing.
    """
    import polars as pl

    found = {}
    for name, table in tables.items():
        path = folder / name
        if not path.is_file():
            raise UsageError(f"{path} is missing: there is nothing to compare with.")
        found[name] = compare(name, pl.read_csv(path, infer_schema_length=0), table)
    return found


def per_task_corrected(runs: "pl.DataFrame", energy: str = "energy_j") -> "pl.DataFrame":
    """The comparisons within a task that the table `per task` is meant to hold, adjusted among themselves.

    The published table has all pairs of successive generations under *any* two tasks, and its p-values pay for all
    276 pairs of cells. Within a task there are 18.

    Args:
        runs: of `load_study`.
        energy: response.

    Returns:
        `Comparison`, `estimate`, `SE`, `df`, `t.ratio`, `p.published_family` and `p.value`, the corrected one.
    """
    import polars as pl

    crossed = ("generation", "task")
    pairs = art_contrasts(runs, energy, crossed, crossed, "run").successive(same_others=True)
    return pl.DataFrame(
        {
            "Comparison": [f"{','.join(pair.first)} - {','.join(pair.second)}" for pair in pairs],
            "estimate": [pair.estimate for pair in pairs],
            "SE": [pair.standard_error for pair in pairs],
            "df": [pair.df for pair in pairs],
            "t.ratio": [pair.t for pair in pairs],
            "p.published_family": [pair.p_adjusted for pair in pairs],
            "p.value": list(adjust([pair.p_value for pair in pairs])),
        }
    )


def published_report(folder: Path) -> str:
    """Markdown: how many cells are reproduced, which tables are wrong, and the corrected values beside them.

    Args:
        folder: run tables and the folders RQ1.1, RQ2, RQ3.1.

    Raises:
        UsageError: a file is missing.
    """
    runs = load_study(folder)
    found = check_tables(folder, recompute(runs))
    once = check_tables(folder, recompute(runs, energy="energy_cpu_once_j"))
    lines = ["# The published tables, recomputed", "", "| table | cells | reproduced |", "|---|---|---|"]
    for name, table in found.items():
        lines.append(f"| {Path(name).stem} | {len(table)} | {sum(cell.equal for cell in table)} |")
    every = [cell for table in found.values() for cell in table]
    lines += [f"| all | {len(every)} | {sum(cell.equal for cell in every)} |", ""]
    for cell in every:
        if not cell.equal:
            ours = "none" if cell.recomputed is None else f"{cell.recomputed:.{DECIMALS}f}"
            lines.append(f"- not reproduced: {cell.table}, {cell.row}, {cell.column}: {cell.published}, here {ours}")
    lines += [*_caution(runs), *_cpu_once(found, once), *_per_task(runs, found[_PER_TASK]), *_duration(runs)]
    return "\n".join(lines) + "\n"


def _caution(runs: "pl.DataFrame") -> list[str]:
    art = art_anova(runs, "energy_j", ("generation", "task"), "run")
    repeated = identical_outputs(runs, ["run"], "n_tokens")
    return ["## What the tests rest on", "", *(f"- {words}" for words in (*repeated.warnings, *art.warnings)), ""]


def _cpu_once(found: "dict[str, tuple[Cell, ...]]", once: "dict[str, tuple[Cell, ...]]") -> list[str]:
    lines = [
        "## The CPU counted once",
        "",
        "The study's total adds the CPU to a GPU figure that holds it already. Every table of energy or energy per "
        f"token is affected; tables of more than {_BRIEF_ROWS} rows are left out here.",
        "",
        "| table | row | column | published | corrected |",
        "|---|---|---|---|---|",
    ]
    for name, cells in found.items():
        if len({cell.row for cell in cells}) > _BRIEF_ROWS:
            continue
        for cell, corrected in zip(cells, once[name], strict=True):
            if corrected.recomputed is not None and not corrected.equal:
                value = f"{corrected.recomputed:.{DECIMALS}f}"
                row = cell.row.replace(" | ", ", ")
                lines.append(f"| {Path(name).stem} | {row} | {cell.column} | {cell.published:g} | {value} |")
    return [*lines, ""]


def _per_task(runs: "pl.DataFrame", published: tuple[Cell, ...]) -> list[str]:
    n_rows = len({cell.row for cell in published})
    table = per_task_corrected(runs)
    once = per_task_corrected(runs, "energy_cpu_once_j")
    lines = [
        "## Comparisons within a task",
        "",
        f"Of the {n_rows} rows of the table `per task`, {n_rows - table.height} compare different tasks. The "
        f"{table.height} within a task, with p adjusted among themselves:",
        "",
        "| comparison | t | p published | p corrected | t, CPU once | p corrected, CPU once |",
        "|---|---|---|---|---|---|",
    ]
    said = {cell.row.split(" | ")[0]: cell.published for cell in published if cell.column == "p.value"}
    for row, other in zip(table.iter_rows(named=True), once.iter_rows(named=True), strict=True):
        lines.append(
            f"| {row['Comparison']} | {row['t.ratio']:.3f} | {said[row['Comparison']]:.3f} | {row['p.value']:.3f} "
            f"| {other['t.ratio']:.3f} | {other['p.value']:.3f} |"
        )
    return [*lines, ""]


def _duration(runs: "pl.DataFrame") -> list[str]:
    import polars as pl

    lines = [
        "## Durations",
        "",
        "The column `time(s)` has decimal commas. Read as a thousands separator, it is 100 times too long; "
        "`duration_ms` is right. None of the tables compared above uses it.",
        "",
        "| generation | mean as misread (s) | mean (s) |",
        "|---|---|---|",
    ]
    means = runs.group_by("generation").agg(pl.col("duration_misread_s", "duration_s").mean()).sort("generation")
    for row in means.iter_rows(named=True):
        lines.append(f"| {row['generation']} | {row['duration_misread_s']:.3f} | {row['duration_s']:.3f} |")
    return [*lines, ""]
