"""Frames as files, each with its columns' meanings beside it."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.columns import TABLES, Column
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl


def export_frame(frame: "pl.DataFrame", path: Path, *, factors: Sequence[str] = (), table: str = "") -> Path:
    """Write a frame as Parquet or CSV, by the file's ending, and `NAME.columns.json` with units and meanings.

    Files are replaced as a whole. In a CSV an empty cell is "not measured".

    Args:
        frame: any of the analysis.
        path: ends in .parquet or .csv; its folder is there.
        factors: columns that are no measurement but the treatment.
        table: one of `analysis.columns.TABLES`, whose meanings go before the others'; "": none does.

    Returns:
        The file of the meanings.

    Raises:
        UsageError: another ending, or it cannot be written.
    """
    writers: dict[str, Callable[[Path], object]] = {".parquet": frame.write_parquet, ".csv": frame.write_csv}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path} ends in neither .parquet nor .csv: the ending says which one to write.")
    sheet = path.with_name(f"{path.stem}.columns.json")
    meanings = describe_columns(frame.columns, factors, table)
    text = json.dumps(meanings, indent=1, ensure_ascii=False) + "\n"
    _replace(path, write)
    _replace(sheet, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return sheet


def describe_columns(names: Sequence[str], factors: Sequence[str] = (), table: str = "") -> list[dict[str, str]]:
    """Name, kind, unit and meaning of columns, in their order.

    Args:
        names: of the columns; one that no table has, and that is no factor, has no meaning here.
        factors: as in `export_frame`.
        table: as in `export_frame`.
    """
    known: dict[str, Column] = {}
    for columns in (TABLES.get(table, {}), *TABLES.values()):
        known = {**columns, **known}
    described = []
    for name in names:
        if name in factors:
            described.append({"name": name, "kind": "factor", "unit": "", "doc": "Level of this factor."})
        elif name in known:
            column = known[name]
            described.append({"name": name, "kind": column.kind, "unit": column.unit, "doc": column.doc})
    return described


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Old or new content after a crash, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error}). Give another file.") from error
    finally:
        temporary.unlink(missing_ok=True)
