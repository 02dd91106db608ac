"""Opens the run table's database: dialect settings, migrations, and errors in words."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from contract.errors import MissingPackageError, UsageError
from orchestrator.store.schema import HEAD

READ_ONLY = "joulebed_read_only"
"""Execution option of a connection that only reads: it waits for no writer."""

_BUSY_TIMEOUT_MS = 10_000

_POSTGRESQL_LOCK = 0x4A6F756C
"""Any number that other users of the server's advisory locks are unlikely to take."""


def database_url(url_or_path: str | Path) -> URL:
    """A database URL, or the path of a SQLite file.

    Raises:
        UsageError: neither.
    """
    given = str(url_or_path)
    if "://" not in given:
        return URL.create("sqlite", database=given)
    try:
        return make_url(given)
    except ArgumentError as error:
        raise UsageError(f"{given!r} is no database URL. Use a file's path or postgresql+psycopg://...") from error


def open_database(url: URL, *, create: bool) -> Engine:
    """Connect, and bring the schema to this version.

    Args:
        url: see `database_url`.
        create: make the database, and its folder, where there is none.

    Raises:
        UsageError: there is none, it cannot be read or written, or its schema is newer than this program.
        MissingPackageError: no driver for this kind of database.
    """
    path = Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
    if path is not None:
        if create:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"The folder {path.parent} cannot be made ({error.strerror}). Choose another for the results."
                ) from error
        elif not path.exists():
            raise UsageError(f"There is no run table {path}. Start the experiment first: orchestrator run CONFIG.py")
    try:
        engine = create_engine(url)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise MissingPackageError(
            f"No driver for {url.drivername}: pip install 'psycopg[binary]'. ({error})"
        ) from error
    if path is not None:
        _set_up_sqlite(engine)
    with told(url):
        _migrate(engine, url, create=create)
    return engine


def serialise(connection: Connection) -> None:
    """Keep other processes out until the transaction ends, where a first row is about to be written.

    SQLite needs nothing: its writers are one at a time. PostgreSQL's would each see an empty table.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRESQL_LOCK})


@contextmanager
def told(url: URL) -> Iterator[None]:
    """Turns the database's own errors into one that a person can act on."""
    try:
        yield
    except DBAPIError as error:
        where = url.render_as_string(hide_password=True)
        cause = str(error.orig)
        if "locked" in cause:
            advice = "Another program holds it: end that, then run the same command again."
        elif "readonly" in cause or "unable to open" in cause:
            advice = "Check the permissions of the file and its folder."
        elif "not a database" in cause or "malformed" in cause:
            advice = "Move the file away; the evidence of finished runs is under runs/ beside it."
        elif "full" in cause:
            advice = "Free some disk space, then run the same command again."
        else:
            advice = "Check that the database answers."
        raise UsageError(f"The run table {where} cannot be used: {cause}. {advice}") from error


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, record: object) -> None:
        # We begin transactions ourselves (below): the driver would begin them late, and deferred.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}").close()
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous=FULL").close()
        connection.execute("PRAGMA foreign_keys=ON").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # IMMEDIATE takes the write lock before the first read: what a claim reads is still so when it writes.
        is_reader = connection.get_execution_options().get(READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if is_reader else "BEGIN IMMEDIATE")


def _switch_to_wal(connection: Any) -> None:
    """WAL lasts in the file. Two processes that switch a new file at once do not wait for each other by themselves."""
    deadline_s = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


def _migrate(engine: Engine, url: URL, *, create: bool) -> None:
    where = url.render_as_string(hide_password=True)
    with engine.connect().execution_options(**{READ_ONLY: True}) as connection:
        stored = None
        tables = inspect(connection).get_table_names()
        if "alembic_version" in tables:
            stored = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if stored == HEAD:
        return
    if stored is None and tables and tables != ["alembic_version"]:
        raise UsageError(f"{where} is a database of another program: it is left alone. Choose another for the results.")
    if stored is None and not create:
        raise UsageError(f"There is no run table in {where}. Start the experiment first: orchestrator run CONFIG.py")
    # Slow to import, and needed once per database and version.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if stored is not None and stored not in known:
        raise UsageError(
            f"The run table {where} was written by a newer JouleBed (schema {stored}; this one knows up to {HEAD}). "
            "Upgrade JouleBed on this machine."
        )
    with engine.begin() as connection:
        serialise(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
