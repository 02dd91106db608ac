"""The rows of an EnergiBridge log, read line by line: what may be tolerated, and which line is to blame."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.errors import LogFormatError
from energy.energibridge_columns import Header, HeaderError, clean, parse_header, split_line
from energy.trace import FloatArray

_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf|infinity)", re.IGNORECASE | re.ASCII
)
# What EnergiBridge itself prints to standard output, where the log goes too if it has no file.
OWN_LINE = re.compile(r"Energy consumption in (?:joules|watts): .*|Received Ctrl\+C, stopping\.\.\.")
_NO_ROW = "there is no complete row. EnergiBridge was ended before its first sample."


@dataclass(frozen=True)
class Table:
    """The wanted columns of a log.

    Attributes:
        columns: name -> values, shape (n,), finite, in the column's unit; in the header's order.
        lines: shape (n,), 1-based line of each row in the file.
        header_line: 1-based line of the header.
        notes: what was tolerated, in words.
    """

    columns: dict[str, FloatArray]
    lines: Sequence[int]
    header_line: int
    notes: tuple[str, ...]


def log_error(path: Path, line: int, what: str) -> LogFormatError:
    """An error that names file and line.

    Args:
        path: the log.
        line: 1-based; 0 where none is to blame.
        what: what is wrong, and what to do.
    """
    where = f"{path}, line {line}" if line else str(path)
    return LogFormatError(f"{where}: {what}", file=str(path), line=line)


def read_line_by_line(path: Path, data: bytes, separator: str | None, with_gauges: bool) -> Table:
    """Read any log.

    Args:
        path: goes into errors.
        data: of the file, without a byte order mark.
        separator: None: found in the header.
        with_gauges: as in `parse_header`.

    Raises:
        LogFormatError: there is no header or no row, or a line cannot be read.
    """
    # A row that was being printed when the program ended: even a full count of fields may end in half a number.
    end = data.rfind(b"\n") + 1
    tail = data[end:].decode("utf-8", errors="replace").strip()
    is_cut = bool(tail) and not OWN_LINE.fullmatch(tail)
    n_own_lines = int(bool(tail) and not is_cut)
    try:
        text = data[:end].decode()
    except UnicodeDecodeError as error:
        bad_line = data.count(b"\n", 0, error.start) + 1
        raise log_error(path, bad_line, "it is not text in UTF-8. Is it an EnergiBridge log?") from error
    header: Header | None = None
    header_line = n_long = 0
    rows: list[list[str]] = []
    lines: list[int] = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        if not line.strip():
            continue
        if OWN_LINE.fullmatch(line.strip()):
            n_own_lines += 1
        elif header is None:
            header, header_line = read_header(path, number, line, separator, with_gauges), number
        else:
            try:
                fields = split_line(line, header.separator)
            except csv.Error as error:
                raise log_error(path, number, f"its quotes do not match: {error}.") from error
            if "Time" in line and "Time" in map(clean, fields):
                raise log_error(path, number, "the header is repeated. Split the file: two logs are in it.")
            if len(fields) < len(header.names):
                raise log_error(path, number, f"{len(fields)} fields, but the header has {len(header.names)}.")
            n_long += len(fields) > len(header.names)
            rows.append([clean(fields[index]) for index in header.wanted])
            lines.append(number)
    if header is None and not is_cut:
        raise log_error(path, 1, "the file is empty. EnergiBridge was ended before its first sample.")
    if header is None or not rows:
        raise log_error(path, header_line + 1, _NO_ROW)
    columns, has_decimal_commas = _numbers(path, header, rows, lines)
    notes = (
        (is_cut, "the last line was cut off and is left out"),
        (n_own_lines, f"{n_own_lines} lines that EnergiBridge printed among the rows are left out"),
        (n_long, f"{n_long} rows are longer than the header: fields were counted from the left, the rest is left out"),
        (has_decimal_commas, "decimal commas were read as points"),
    )
    return Table(columns, lines, header_line, tuple(text for is_so, text in notes if is_so))


def read_header(path: Path, number: int, line: str, separator: str | None, with_gauges: bool) -> Header:
    """`parse_header`, with errors that name file and line."""
    try:
        return parse_header(line, separator, with_gauges)
    except HeaderError as error:
        raise log_error(path, number, str(error)) from error


def _numbers(path: Path, header: Header, rows: list[list[str]], lines: list[int]) -> tuple[dict[str, FloatArray], bool]:
    """The columns, and whether their decimals are marked by commas."""
    has_commas = "," not in header.separator and any("," in field for row in rows for field in row)
    columns = {}
    for at, name in enumerate(header.names[index] for index in header.wanted):
        values = []
        for line, row in zip(lines, rows, strict=True):
            field = row[at]
            if has_commas and "." in field:
                what = f"{name} is {field!r}, but other numbers have decimal commas: nothing tells which is meant."
                raise log_error(path, line, what)
            text = field.replace(",", ".") if has_commas else field
            if not _NUMBER.fullmatch(text):
                raise log_error(path, line, f"{name} is {field!r}, not a number.")
            value = float(text)
            if not math.isfinite(value):
                raise log_error(path, line, f"{name} is {field!r}, which is not finite.")
            values.append(value)
        columns[name] = np.array(values)
    return columns, has_commas
