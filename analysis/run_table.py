"""The run table as it lies on the disk, or in a database server; read and never written."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import UsageError

RUN_TABLE = "run_table.sqlite"
DATABASE = "database.url"
"""In its place in an experiment's folder: the address of a run table in a database server."""


TABLES = {
    "experiment": "SELECT name, seed, factors, design, software_version FROM experiment WHERE id = 1",
    "run": "SELECT position, run_id, treatment, repetition, spec, state FROM run ORDER BY position",
    # All columns: some came with later versions of the table.
    "attempt": "SELECT * FROM attempt ORDER BY run_id, number",
    "fact": "SELECT key, value FROM fact ORDER BY key",
}
"""Name -> statement: plain SQL, for SQLite and PostgreSQL alike."""

_OF_RUN = {
    **TABLES,
    "run": "SELECT position, run_id, treatment, repetition, spec, state FROM run WHERE run_id = :run_id",
    "attempt": "SELECT * FROM attempt WHERE run_id = :run_id ORDER BY number",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class RunTable:
    """The rows of one experiment.

    Attributes:
        source: path, or address without its password.
        experiment: its one row; JSON columns of all are still text where they come from SQLite, because one of them
            may be broken.
        runs: in execution order.
        attempts: by run, oldest first.
        facts: of the campaign.
        folder: of the experiment's files; None where it is not known.
    """

    source: str
    experiment: Row
    runs: list[Row]
    attempts: list[Row]
    facts: list[Row]
    folder: Path | None


def find_run_table(path: Path) -> Path:
    """The database of an experiment's folder.

    Args:
        path: `results/EXPERIMENT`, or the database in it.

    Raises:
        UsageError: there is none; the message says what is there instead.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise UsageError(
            f"There is no folder {path}. Give the folder of an experiment, such as results/quickstart; "
            f"`orchestrator run CONFIG.py` makes one."
        )
    database = path / RUN_TABLE
    if database.is_file():
        return database
    inside = sorted(folder.name for folder in path.iterdir() if (folder / RUN_TABLE).is_file())
    if inside:
        raise UsageError(f"{path} is not one experiment but holds {len(inside)}: give {path}/NAME, one of {inside}.")
    raise UsageError(
        f"{path} has no {RUN_TABLE}, so it is not an experiment's folder. Give one that `orchestrator run` has written."
    )


def read_run_table(path_or_url: Path | str, *, run_id: str | None = None) -> RunTable:
    """Read everything in one go, also while a campaign writes; creates and changes nothing.

    Args:
        path_or_url: `results/EXPERIMENT`, or the database in it; or a database's address.
        run_id: of a file: read only the rows of this run, which is cheap at any size.

    Raises:
        UsageError: no such folder, not an experiment, or an empty one.
        MissingPackageError: no driver for this kind of database.
    """
    if isinstance(path_or_url, str) and "://" in path_or_url:
        # Only here: files need no SQLAlchemy.
        from analysis.database import read_database, sqlite_path

        path = sqlite_path(path_or_url)
        if path is None:
            source, tables = read_database(path_or_url)
            return _table(source, tables, None)
        path_or_url = path
    address = Path(path_or_url) / DATABASE
    if address.is_file():
        from analysis.database import read_database

        source, tables = read_database(address.read_text(encoding="utf-8").strip())
        return _table(source, tables, address.parent)
    database = find_run_table(Path(path_or_url))
    try:
        tables = _snapshot(database, run_id)
    except sqlite3.Error as error:
        raise UsageError(
            f"{database} cannot be read as a run table ({error}). If it is a copy, copy the whole folder again, "
            f"{RUN_TABLE}-wal included, to a place you may write to."
        ) from error
    return _table(str(database), tables, database.parent)


def _table(source: str, tables: dict[str, list[Row]], folder: Path | None) -> RunTable:
    if not tables["experiment"]:
        raise UsageError(
            f"The run table {source} is empty: nothing was planned in it. Start with `orchestrator run CONFIG.py`."
        )
    return RunTable(source, tables["experiment"][0], tables["run"], tables["attempt"], tables["fact"], folder)


def _snapshot(database: Path, run_id: str | None) -> dict[str, list[Row]]:
    """All tables as of one moment."""
    wal = database.with_name(f"{database.name}-wal")
    for _ in range(5):
        before = database.stat()
        # Without a write-ahead log nobody has it open. `immutable` then spares the files that even a reader of a
        # WAL database makes, so that it works on a read-only copy; a writer that starts meanwhile shows in the stat.
        immutable = not wal.exists()
        tables = _select_all(database, "mode=ro&immutable=1" if immutable else "mode=ro", run_id)
        after = database.stat()
        if not immutable or (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):
            return tables
    raise sqlite3.OperationalError("it changes all the time; try again")


def _select_all(database: Path, options: str, run_id: str | None) -> dict[str, list[Row]]:
    uri = f"{database.resolve().as_uri()}?{options}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")  # one snapshot over all tables
        tables = {}
        for name, statement in (TABLES if run_id is None else _OF_RUN).items():
            cursor.execute(statement, {"run_id": run_id})
            names = [column[0] for column in cursor.description]
            tables[name] = [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
    return tables
