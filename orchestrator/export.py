"""Writes the run table as a file for people and for other programs.

Rows come in execution order. `__done` is DONE for runs with a result, suspect ones included, and TODO for all others,
failed ones included: see `orchestrator.run_table_columns.is_done`.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from contract.errors import MissingPackageError, UsageError
from contract.units import Scalar
from orchestrator.run_table_columns import DATA_COLUMNS, DONE, RUN_ID, Value, excluded_value, is_done, telling_attempt
from orchestrator.store.base import Plan, RunReader, RunRow
from orchestrator.store.control import Exclusion, exclusions

FORMATS = ("csv", "parquet")

_UNTOUCHED = " "
"""Experiment Runner's mark of a cell that nothing was written to."""


@dataclass(frozen=True)
class _Imported:
    run_id: str
    treatment: dict[str, Scalar]
    values: list[Value]


def export_run_table(reader: RunReader, folder: Path, format: str) -> Path:
    """Write `run_table.csv` or `run_table.parquet`, and `run_table.columns.json` that says what the columns mean.

    A run that a person excluded keeps its row and its `__done`, with state EXCLUDED, the reason, and no figures.

    Rows that were imported from a campaign of Experiment Runner come last, with state IMPORTED and no figures: what
    it measured is told in `reasons`, and is no measurement of ours.

    The CSV has Experiment Runner's layout: `__run_id,__done,<factors>,<data columns>`, CRLF; the data cells of a run
    without attempts are one space each, and an empty cell was not measured. Files are replaced as a whole.

    Args:
        reader: the run table.
        folder: the experiment's, where the files go.
        format: one of `FORMATS`.

    Returns:
        The file of the table.

    Raises:
        UsageError: no such format, nothing planned, or the folder cannot be written.
        MissingPackageError: Parquet without polars.
    """
    if format not in FORMATS:
        raise UsageError(f"There is no export format {format!r}. Choose one of: {', '.join(FORMATS)}.")
    # Of thousands of specs, results or lines the process would keep the memory: an export is made once a minute.
    plan = reader.plan(with_runs=False)
    if plan is None:
        raise UsageError("The run table is empty: nothing was planned. Start with: orchestrator run CONFIG.py")
    excluded = exclusions(reader)
    path = folder / f"run_table.{format}"
    with _replacement(path) as file:
        if format == "csv":
            _write_csv(file, plan, reader.each_run(), excluded)
        else:
            _write_parquet(file, plan, reader.runs(), excluded)
    with _replacement(folder / "run_table.columns.json") as file:
        file.write(_describe_columns(plan))
    return path


def _names(plan: Plan) -> list[str]:
    return [RUN_ID, DONE, *plan.factors, *(column.name for column in DATA_COLUMNS)]


def _values(run: RunRow, excluded: Mapping[str, Exclusion]) -> list[Value] | None:
    attempt = telling_attempt(run)
    if attempt is None:
        return None
    exclusion = excluded.get(run.run_id)
    if exclusion is not None:
        return [excluded_value(column, run, attempt, exclusion) for column in DATA_COLUMNS]
    return [column.read(run, attempt) for column in DATA_COLUMNS]


def _imported(plan: Plan) -> list[_Imported]:
    study = plan.design.get("experiment_runner")
    rows = study.get("imported", {}).get("rows", ()) if isinstance(study, dict) else ()
    values = {"state": "IMPORTED"}
    return [
        _Imported(
            row["run_id"],
            row["treatment"],
            [
                ("measured by Experiment Runner: " + ", ".join(f"{name}={cell}" for name, cell in row["data"].items()))
                if column.name == "reasons"
                else values.get(column.name)
                for column in DATA_COLUMNS
            ],
        )
        for row in rows
    ]


def _done(run: RunRow) -> str:
    return "DONE" if is_done(run) else "TODO"


def _write_csv(file: BinaryIO, plan: Plan, runs: Iterable[RunRow], excluded: Mapping[str, Exclusion]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_names(plan))
    for run in runs:
        cells = _values(run, excluded) or [_UNTOUCHED] * len(DATA_COLUMNS)
        writer.writerow([run.run_id, _done(run), *(run.treatment[name] for name in plan.factors), *cells])
    for each in _imported(plan):
        writer.writerow([each.run_id, "DONE", *(each.treatment[name] for name in plan.factors), *each.values])
    text.detach()  # flushes, and leaves the file open


def _write_parquet(file: BinaryIO, plan: Plan, runs: Sequence[RunRow], excluded: Mapping[str, Exclusion]) -> None:
    try:
        import polars
    except ImportError as error:
        raise MissingPackageError(
            "Parquet needs polars. Install it with: pip install 'joulebed[analysis]'; or export as csv."
        ) from error
    imported = _imported(plan)
    kinds: dict[str, Any] = {"float": polars.Float64, "int": polars.Int64, "text": polars.String}
    columns: dict[str, Any] = {
        RUN_ID: polars.Series(
            RUN_ID, [*(run.run_id for run in runs), *(each.run_id for each in imported)], dtype=polars.String
        ),
        DONE: polars.Series(DONE, [*map(_done, runs), *("DONE" for _ in imported)], dtype=polars.String),
    }
    for name in plan.factors:
        # polars finds the type of equal ones: bool, int, float or text.
        levels = [run.treatment[name] for run in runs] + [each.treatment[name] for each in imported]
        columns[name] = polars.Series(name, _of_one_type(levels), strict=True)
    nothing: list[Value] = [None] * len(DATA_COLUMNS)
    rows = [_values(run, excluded) or nothing for run in runs] + [each.values for each in imported]
    for i, column in enumerate(DATA_COLUMNS):
        columns[column.name] = polars.Series(column.name, [row[i] for row in rows], dtype=kinds[column.kind])
    # To a file, polars tells a full disk in errors of its own.
    content = io.BytesIO()
    polars.DataFrame(columns).write_parquet(content)
    file.write(content.getbuffer())


def _of_one_type(levels: Sequence[Scalar]) -> list[Scalar]:
    """Levels of mixed types, which a Parquet column cannot hold, become text; int beside float becomes float."""
    types = {type(level) for level in levels}
    if len(types) <= 1:
        return list(levels)
    if types == {int, float}:
        return [float(level) for level in levels]
    return [str(level) for level in levels]


def _describe_columns(plan: Plan) -> bytes:
    factors = plan.design.get("factors")
    levels = factors if isinstance(factors, dict) else {}
    described = [
        {"name": RUN_ID, "role": "key", "description": "Planned run: treatment number and repetition, from 0."},
        {"name": DONE, "role": "key", "description": "DONE: the run has a result. TODO: it has none."},
        *({"name": name, "role": "factor", "levels": levels.get(name)} for name in plan.factors),
        *(
            {"name": column.name, "role": "data", "unit": column.unit, "description": column.description}
            for column in DATA_COLUMNS
        ),
    ]
    document = {"experiment": plan.experiment, "plan_sha256": plan.sha256, "columns": described}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


@contextmanager
def _replacement(path: Path) -> Iterator[BinaryIO]:
    """A file to write to. There is old or new content after a crash or an error at any point, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}). Free disk space or check the permissions of {path.parent}; "
            "the run table itself is safe."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
