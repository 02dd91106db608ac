"""Reads from a broken run table what it still gives: row by row, around what is damaged."""

import json
import shutil
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.store.integrity import SIDES
from orchestrator.store.schema import METADATA

_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\x00"
_SEARCHED_ROWS = 100_000
"""Behind a place from where on nothing can be read, row numbers are tried up to this much higher."""

_TRIES = 1000
"""How often a table is asked for rows between two damaged places; each try costs some 0.1 ms."""

Row = dict[str, Any]
"""Column -> value, as SQLite has it."""


@dataclass(frozen=True)
class Salvaged:
    """What a broken database still gives.

    Attributes:
        tables: name -> rows in order of their numbers; a table of which nothing can be read is left out.
        notes: what could not be read, in words.
    """

    tables: dict[str, list[Row]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rows(self, table: str) -> list[Row]:
        """The rows of a table, or none."""
        return self.tables.get(table, [])


def salvage(database: Path, workplace: Path, template: Path) -> Salvaged:
    """Read a broken database; it is copied first, and stays as it is.

    Args:
        database: its file; the -wal beside it is read too.
        workplace: an existing, empty folder for the copy.
        template: a sound, empty run table of this version: gives the file's header where that is overwritten.
    """
    copy = workplace / database.name
    notes: list[str] = []
    for side in ("", SIDES[0]):  # the -shm is an index of the -wal, and is made anew
        source = database.with_name(database.name + side)
        if source.exists():
            shutil.copyfile(source, copy.with_name(copy.name + side))
    if not copy.exists():
        return Salvaged(notes=("there is no file to read",))
    if not _opens(copy) and _mend_header(copy, template):
        notes.append("the header of the file was overwritten, and was put back in the copy that is read")
    tables: dict[str, list[Row]] = {}
    try:
        with closing(sqlite3.connect(copy)) as connection:
            connection.row_factory = sqlite3.Row
            connection.text_factory = lambda data: data.decode(errors="replace")
            for name in METADATA.tables:
                gaps: list[str] = []
                rows = list(_rows(connection, name, gaps))
                if rows or not gaps:
                    tables[name] = rows
                if gaps:
                    notes.append(f"table {name}: {len(rows)} rows read, others are lost ({gaps[0]})")
    except sqlite3.DatabaseError as error:
        notes.append(f"nothing can be read ({error})")
    return Salvaged(tables, tuple(notes))


def from_json(value: Any) -> Any:
    """A JSON column's content; None where it is null or damaged."""
    if not isinstance(value, str):
        return None
    with suppress(ValueError):
        return json.loads(value)
    return None


def _opens(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        return False
    return True


def _mend_header(path: Path, template: Path) -> bool:
    """Put a header in place of an overwritten one: that of another database, with this one's number of pages.

    See https://sqlite.org/fileformat.html, section 1.3. The free list is forgotten, which only costs room.
    """
    with template.open("rb") as file:
        header = bytearray(file.read(_HEADER_BYTES))
    page_bytes = int.from_bytes(header[16:18], "big")
    with path.open("r+b") as file:
        if file.read(len(_MAGIC)) == _MAGIC and file.seek(0, 2) < page_bytes:
            return False
        n_pages = file.seek(0, 2) // page_bytes
        header[28:32] = n_pages.to_bytes(4, "big")
        header[32:40] = bytes(8)
        header[92:96] = header[24:28]  # the number of pages is valid for this change counter
        file.seek(0)
        file.write(header)
    return True


def _rows(connection: sqlite3.Connection, table: str, gaps: list[str]) -> Iterator[Row]:
    """All rows that can be read, by number; what stood in the way goes to `gaps`.

    Upwards to the first damaged place, downwards to the last one, and between them in halves.
    """
    below, error = _scan(connection, f"SELECT rowid AS _rowid, * FROM {table} ORDER BY rowid", ())
    if error is None:
        yield from (_plain(row) for row in below)
        return
    gaps.append(str(error))
    if "no such table" in str(error):
        return
    first = below[-1]["_rowid"] + 1 if below else 0
    query = f"SELECT rowid AS _rowid, * FROM {table} WHERE rowid >= ? ORDER BY rowid DESC"
    above, _ = _scan(connection, query, (first,))
    last = above[-1]["_rowid"] - 1 if above else first + _SEARCHED_ROWS
    between = _between(connection, table, first, last)
    yield from (_plain(row) for row in [*below, *between, *reversed(above)])


def _between(connection: sqlite3.Connection, table: str, first: int, last: int) -> list[sqlite3.Row]:
    query = f"SELECT rowid AS _rowid, * FROM {table} WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
    found: list[sqlite3.Row] = []
    # The widest ranges first: what can be read of a large gap is found before the search is given up.
    ranges = deque([(first, last)])
    for _ in range(_TRIES):
        if not ranges:
            break
        first, last = ranges.popleft()
        if first > last:
            continue
        rows, error = _scan(connection, query, (first, last))
        found += rows
        if error is not None and first < last:
            first = rows[-1]["_rowid"] + 1 if rows else first
            middle = (first + last) // 2
            ranges += [(first, middle), (middle + 1, last)]
    return sorted(found, key=lambda row: int(row["_rowid"]))


def _scan(
    connection: sqlite3.Connection, query: str, bounds: tuple[int, ...]
) -> tuple[list[sqlite3.Row], sqlite3.DatabaseError | None]:
    """The rows of a query up to the first damaged place, and the complaint there."""
    rows: list[sqlite3.Row] = []
    try:
        rows.extend(connection.execute(query, bounds))
    except sqlite3.DatabaseError as error:
        return rows, error
    return rows, None


def _plain(row: sqlite3.Row) -> Row:
    return {name: row[name] for name in row.keys() if name != "_rowid"}  # noqa: SIM118 (a Row iterates over values)
