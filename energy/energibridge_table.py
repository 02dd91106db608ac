"""EnergiBridge logs as vectors, many at a time.

Polars takes sound logs, several of one header in one go, since a call costs it more than a small log. It checks
little, so what it took counts only if every row provably has the header's number of fields and every number is finite.
Any other log is read line by line; both ways give the same result.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.errors import LogFormatError
from energy.energibridge_columns import Header
from energy.energibridge_rows import OWN_LINE, Table, log_error, read_header, read_line_by_line
from energy.trace import FloatArray

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")

_BATCH_BYTES = 8 << 20
"""Logs read in one go; with `_N_AHEAD`, bounds the memory."""

_N_AHEAD = 2
"""Batches read ahead of the caller."""

_SMALL_BYTES = 64 << 10
"""A single log of this size is read line by line in less time than Polars takes to load."""

Outcome = tuple[Path, Table | LogFormatError]
"""A log, and what came of it."""


@dataclass(frozen=True)
class _Candidate:
    """A log that looks sound; `rows` are its bytes after the header."""

    path: Path
    data: bytes
    header: Header
    rows: memoryview
    n_rows: int


def read_table(path: Path, *, separator: str | None = None, with_gauges: bool = True) -> Table:
    """Read a log.

    Args:
        path: the CSV.
        separator: None: found in the header.
        with_gauges: False reads Time and the energy columns only. Columns that are not read may hold anything.

    Raises:
        LogFormatError: there is no log, or it cannot be read; names file and line.
        ValueError: the separator can be none.
    """
    data = _read_bytes(path)
    found = _candidate(path, data, separator, with_gauges) if len(data) > _SMALL_BYTES else None
    if found is None:
        return read_line_by_line(path, data, separator, with_gauges)
    return _table(found, separator, with_gauges)


def read_tables(paths: Iterable[Path], *, separator: str | None = None, with_gauges: bool = True) -> Iterator[Outcome]:
    """Read logs, in order, each with what came of it. A thread reads some ahead; few are held, however many there are.

    Args:
        paths: the CSVs.
        separator: as in `read_table`.
        with_gauges: as in `read_table`.

    Raises:
        ValueError: the separator can be none.
    """
    ahead: deque[Future[list[Outcome]]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="energibridge-logs") as pool:
        for batch, known in _batches(paths, separator, with_gauges):
            ahead.append(pool.submit(_read_batch, batch, known, separator, with_gauges))
            if len(ahead) > _N_AHEAD:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def read_strictly(path: Path, *, separator: str | None = None, with_gauges: bool = True) -> Table:
    """The same for one log, line by line even if it is sound.

    Raises:
        LogFormatError: what came of it.
        ValueError: the separator can be none.
    """
    return read_line_by_line(path, _read_bytes(path), separator, with_gauges)


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise log_error(path, 0, "there is no such file. Did EnergiBridge start?") from error
    except OSError as error:
        raise log_error(path, 0, f"it cannot be read: {error}") from error
    if data.startswith(_UTF16_BOMS):
        raise log_error(path, 1, "it is UTF-16, as a redirection of PowerShell writes. Save it as UTF-8.")
    return data.removeprefix(_BOM)


def _candidate(path: Path, data: bytes, separator: str | None, with_gauges: bool) -> _Candidate | None:
    if not data.isascii() or not data.endswith(b"\n") or b'"' in data:
        return None
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    start = data.index(b"\n") + 1
    first = data[: start - 1].decode()
    if not first.strip() or start == len(data) or b"\r" in data or OWN_LINE.fullmatch(first.strip()):
        return None
    header = read_header(path, 1, first, separator, with_gauges)
    if len(header.separator) != 1 or header.separator == " " or len(header.names) < 2:
        return None
    # As many separators as rows of the header's length have: if no row is shorter, none is longer.
    rows = memoryview(data)[start:]
    view = np.frombuffer(rows, dtype=np.uint8)
    n_rows = int(np.count_nonzero(view == ord("\n")))
    if np.count_nonzero(view == ord(header.separator)) != n_rows * (len(header.names) - 1):
        return None
    return _Candidate(path, data, header, rows, n_rows)


def _batches(
    paths: Iterable[Path], separator: str | None, with_gauges: bool
) -> Iterator[tuple[list[_Candidate], list[Outcome]]]:
    """Candidates of one header, and, if it is already known, what came of the log after them."""
    batch: list[_Candidate] = []
    n_bytes = 0
    for path in paths:
        found: _Candidate | None = None
        known: list[Outcome] = []
        try:
            data = _read_bytes(path)
            found = _candidate(path, data, separator, with_gauges)
            if found is None:
                known = [(path, read_line_by_line(path, data, separator, with_gauges))]
        except LogFormatError as error:
            known = [(path, error)]
        if found is None:
            yield batch, known
            batch, n_bytes = [], 0
            continue
        if batch and (found.header != batch[0].header or n_bytes + len(found.rows) > _BATCH_BYTES):
            yield batch, []
            batch, n_bytes = [], 0
        batch.append(found)
        n_bytes += len(found.rows)
    yield batch, []


def _read_batch(
    batch: Sequence[_Candidate], known: list[Outcome], separator: str | None, with_gauges: bool
) -> list[Outcome]:
    columns = _read_sound(batch) if batch else {}
    outcomes: list[Outcome] = []
    start = 0
    for each in batch:
        try:
            if columns is None:
                # One of them is not sound: each for itself.
                outcomes.append((each.path, _table(each, separator, with_gauges)))
            else:
                outcomes.append((each.path, _sound_table(each, columns, start)))
        except LogFormatError as error:
            outcomes.append((each.path, error))
        start += each.n_rows
    return [*outcomes, *known]


def _table(log: _Candidate, separator: str | None, with_gauges: bool) -> Table:
    columns = _read_sound([log])
    if columns is None:
        return read_line_by_line(log.path, log.data, separator, with_gauges)
    return _sound_table(log, columns, 0)


def _sound_table(log: _Candidate, columns: dict[str, FloatArray], start: int) -> Table:
    own = {name: values[start : start + log.n_rows] for name, values in columns.items()}
    return Table(own, range(2, log.n_rows + 2), 1, ())


def _read_sound(batch: Sequence[_Candidate]) -> dict[str, FloatArray] | None:
    """The wanted columns of all rows, one log after the other; None where one of them is not sound after all."""
    # On demand: a testbed that reads no large log does without it.
    import polars as pl

    header = batch[0].header
    wanted, last = set(header.wanted), len(header.names) - 1
    try:
        # Polars insists on these names where there is no header.
        frame = pl.read_csv(
            b"".join(each.rows for each in batch),
            has_header=False,
            separator=header.separator,
            quote_char=None,
            schema={f"column_{index + 1}": pl.Float64 if index in wanted else pl.String for index in range(last + 1)},
            columns=[f"column_{index + 1}" for index in sorted(wanted | {last})],
        )
    except pl.exceptions.PolarsError:
        return None
    # Read up to the last column, a longer row is an error to Polars and a shorter one ends in a null; together with the
    # count of separators each of the two is told without the other.
    if frame.height != sum(each.n_rows for each in batch) or any(column.null_count() for column in frame):
        return None
    columns = {header.names[index]: frame[f"column_{index + 1}"].to_numpy() for index in header.wanted}
    return columns if all(np.isfinite(values).all() for values in columns.values()) else None
