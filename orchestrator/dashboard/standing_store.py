"""Opens a run table for the page: also one that cannot be written, and none that is not there."""

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from orchestrator.experiment_folder import database_of, open_run_table, run_table_path
from orchestrator.store.base import RunTableError
from orchestrator.store.schema import HEAD
from orchestrator.store.sql_store import SqlStore


def can_write(folder: Path) -> bool:
    """Whether controls can work: the run table and its folder can be written."""
    path = run_table_path(folder)
    return os.access(folder, os.W_OK) and (database_of(folder) is not None or os.access(path, os.W_OK))


def open_for_page(folder: Path, *, is_frozen: bool) -> SqlStore:
    """Open the run table of an experiment.

    Args:
        folder: the experiment's.
        is_frozen: leave every file of it as it is: a read-only copy is read in place where it is complete in itself,
            and else from a temporary copy, since SQLite must write to read a write-ahead log.

    Raises:
        JouleBedError: there is none, or it cannot be read.
    """
    if not is_frozen:
        return open_run_table(folder, create=False)
    path = run_table_path(folder)
    if not path.exists():
        return open_run_table(folder, create=False)  # which says what is the matter
    log = path.with_name(f"{path.name}-wal")
    if not (log.exists() and log.stat().st_size):
        store = _in_place(path)
        if store is not None:
            return store
    copy = Path(tempfile.mkdtemp(prefix="joulebed-dashboard-")) / path.name
    try:
        shutil.copyfile(path, copy)
        if log.exists():
            shutil.copyfile(log, copy.with_name(log.name))
    except OSError as error:
        raise RunTableError(
            f"The run table {path} cannot be copied to read it ({error}). Make room in {copy.parent}, or set TMPDIR."
        ) from error
    return SqlStore.open(str(copy), create=False)


def _in_place(path: Path) -> SqlStore | None:
    """Without a write of any kind; None: its schema is older and must be brought up to date in a copy."""
    address = f"file:{quote(str(path.resolve()))}?immutable=1"
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(address, uri=True, check_same_thread=False), pool_size=4
    )
    try:
        with engine.connect() as connection:
            if connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD:
                return SqlStore(engine, URL.create("sqlite", database=str(path)), owner="dashboard")
    except DBAPIError:
        pass  # the ordinary way tells what is wrong
    engine.dispose()
    return None


def require_store(store: SqlStore) -> None:
    """See that the run table's file is there: SQLite would make an empty one.

    Raises:
        RunTableError: it is gone.
    """
    path = store.file
    if path is not None and not path.exists():
        raise RunTableError(
            f"The run table {path} is gone: its folder was moved, or its disk is away. Bring it back, or start the "
            "dashboard on the folder's new place."
        )
