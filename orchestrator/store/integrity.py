"""Whether a run table's SQLite file is whole."""

import sqlite3
from contextlib import closing
from pathlib import Path

SIDES = ("-wal", "-shm")
"""What SQLite keeps beside a database; a -wal holds committed rows."""

_LEAST_PAGE_BYTES = 512
_MOST = 5
_WAIT_S = 10.0


def files_of(path: Path) -> list[Path]:
    """A database's file and those beside it, as far as they exist."""
    names = [path, *(path.with_name(path.name + side) for side in SIDES)]
    return [each for each in names if each.exists()]


def damage(path: Path, *, thorough: bool = False) -> list[str]:
    """What is wrong with a SQLite file, in SQLite's words; empty: nothing. Reads all of it.

    Args:
        path: the database's.
        thorough: compare every index with its table too, which takes longer.

    Raises:
        sqlite3.OperationalError: it cannot be looked at now: locked, or without permission.
    """
    check = "integrity_check" if thorough else "quick_check"
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"  # makes no new file
        with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_S)) as connection:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA {check}({_MOST})")]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_ERROR):
            raise
        return [str(error)]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    if found == ["ok"]:
        # SQLite takes the end of a page that was cut off for zeros.
        return ["its last page is cut off"] if path.stat().st_size % _LEAST_PAGE_BYTES else []
    return found
