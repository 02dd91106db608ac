"""Experiment Runner's `run_table.csv` and `metadata.json`, read strictly and written to the byte.

`__run_id,__done,<factors>,<data columns>`; CRLF; a cell that nothing was written to is one space; `__done` is TODO or
DONE. Its own reader turns cells of digits into whole numbers, and fails at the first row that it cannot read.
"""

import base64
import binascii
import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import ConfigError
from orchestrator.run_table_columns import DONE, RUN_ID

RUN_TABLE = "run_table.csv"
METADATA = "metadata.json"
UNTOUCHED = " "
"""Mark of a cell that nothing was written to."""

_RUN_ID = re.compile(r"run_(\d+)_repetition_(\d+)")
_METADATA_CLASS = "ConfigValidator.Config.Models.Metadata.Metadata"


@dataclass(frozen=True)
class TableRow:
    """One row.

    Attributes:
        line: in the file, from 1.
        run_id: its name.
        is_done: whether Experiment Runner has finished it.
        cells: factors and data columns, as text.
    """

    line: int
    run_id: str
    is_done: bool
    cells: dict[str, str]


@dataclass(frozen=True)
class RunTableFile:
    """A whole table.

    Attributes:
        path: of the file.
        columns: factors and data columns, in order.
        rows: in the order of execution.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def read_run_table(folder: Path, factors: Sequence[str], data_columns: Sequence[str]) -> RunTableFile:
    """Read the table of a folder of Experiment Runner.

    Args:
        folder: the experiment's, with `run_table.csv`.
        factors: that the configuration declares.
        data_columns: likewise.

    Raises:
        ConfigError: it is missing, has other columns, or a row is broken; the message names file and line.
    """
    return _read(folder, [RUN_ID, DONE, *factors, *data_columns])


def read_any_run_table(folder: Path) -> RunTableFile:
    """The same, whatever its columns are."""
    return _read(folder, None)


def _read(folder: Path, expected: list[str] | None) -> RunTableFile:
    path = folder / RUN_TABLE
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no {path}. Give the folder that Experiment Runner made: results_output_path/NAME."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_header(path, header, expected or header)
        rows: list[TableRow] = []
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                rows.append(_row(path, line, header, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: {error}. {_HALF_WRITTEN}") from error
    if not rows:
        raise ConfigError(f"{path} has no rows. Give the folder of a campaign that was begun.")
    if not text.endswith(("\n", "\r")):
        raise ConfigError(f"{path}, line {rows[-1].line}: the last line has no end. {_HALF_WRITTEN}")
    _check_unique(path, rows)
    return RunTableFile(path, tuple(header[2:]), tuple(rows))


def write_run_table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """A table as bytes.

    Args:
        columns: all of them, in order.
        rows: column -> value; None is an empty cell.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_sum(folder: Path) -> str | None:
    """The configuration's sum in `metadata.json`, 32 hexadecimal digits; None where there is no such file.

    The file is text for a library that builds any object it names; here it is only ever read as JSON.

    Raises:
        ConfigError: it is something else.
    """
    path = folder / METADATA
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["py/object"] != _METADATA_CLASS:
            raise ValueError(f"it holds a {document['py/object']}")
        found = base64.b64decode(document["_md5sum"]["py/b64"], validate=True)
        if len(found) != 16:
            raise ValueError(f"its sum has {len(found)} bytes")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, binascii.Error) as error:
        raise ConfigError(
            f"{path}, line 1: this is not Experiment Runner's metadata ({type(error).__name__}: {error}). Put the "
            "original back, or remove the file: the configuration's sum is computed then."
        ) from error
    return found.hex()


def write_sum(md5: str) -> bytes:
    """`metadata.json` as bytes.

    Args:
        md5: 32 hexadecimal digits.
    """
    encoded = base64.b64encode(bytes.fromhex(md5)).decode()
    return json.dumps({"py/object": _METADATA_CLASS, "_md5sum": {"py/b64": encoded}}).encode()


def run_numbers(run_id: str) -> tuple[int, int] | None:
    """Treatment and repetition of a run's name; None where it is none of Experiment Runner's."""
    match = _RUN_ID.fullmatch(run_id)
    return (int(match[1]), int(match[2])) if match else None


_HALF_WRITTEN = (
    "It was only half written, as when Experiment Runner or its disk is stopped. Restore the file, or mend the line "
    "by hand: `__done` TODO and one space for each data column runs it again."
)


def _check_header(path: Path, header: list[str], expected: Sequence[str]) -> None:
    if sorted(header) == sorted(expected) and header[:2] == [RUN_ID, DONE]:
        return
    unknown = [repr(name) for name in header if name not in expected]
    absent = [repr(name) for name in expected if name not in header]
    told = [f"it has {', '.join(unknown)}, which the configuration does not declare"] if unknown else []
    told += [f"it lacks {', '.join(absent)}"] if absent else []
    hint = (
        "Experiment Runner adds such a column when populate_run_data() returns a name that is not in data_columns. "
        if "" in header
        else ""
    )
    raise ConfigError(
        f"{path}, line 1: {'; '.join(told) or f'the columns are not in the order {expected}'}. {hint}Give the "
        "configuration that made this table."
    )


def _row(path: Path, line: int, header: list[str], cells: list[str]) -> TableRow:
    if len(cells) != len(header):
        hint = _HALF_WRITTEN if len(cells) < len(header) else "Mend the line by hand."
        raise ConfigError(f"{path}, line {line}: {len(cells)} cells in place of {len(header)}. {hint}")
    named = dict(zip(header, cells, strict=True))
    run_id, done = named.pop(RUN_ID), named.pop(DONE)
    if run_numbers(run_id) is None:
        raise ConfigError(
            f"{path}, line {line}: {run_id!r} is no run. Experiment Runner names them run_0_repetition_0."
        )
    if done not in ("TODO", "DONE"):
        raise ConfigError(f"{path}, line {line}: __done is {done!r}. Experiment Runner knows TODO and DONE.")
    return TableRow(line, run_id, done == "DONE", named)


def _check_unique(path: Path, rows: Sequence[TableRow]) -> None:
    first: dict[str, int] = {}
    for row in rows:
        if row.run_id in first:
            raise ConfigError(
                f"{path}, line {row.line}: {row.run_id} is in line {first[row.run_id]} already. Remove one of them."
            )
        first[row.run_id] = row.line
