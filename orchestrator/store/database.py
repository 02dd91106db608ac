"""Opens the run table's database: dialect settings, migrations, and errors in words."""

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from contract.database_address import is_secret_option
from contract.errors import MissingPackageError, UsageError
from orchestrator.processes import holders, told_process
from orchestrator.store.base import RunTableAwayError, RunTableDamagedError, RunTableError
from orchestrator.store.schema import HEAD

NOTE = "joulebed_note"
"""Execution option of a connection whose commits wait for no disk; what is committed later still comes after it."""

READ_ONLY = "joulebed_read_only"
"""Execution option of a connection that only reads: it waits for no writer."""

_TURN_S = 600.0
"""A thread waits this long for a free connection."""

_SERVER = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Seconds, and milliseconds: a server whose machine is gone without a word is noticed within a minute, where the
kernel alone would wait for a quarter of an hour. Those of libpq, which the address may set otherwise."""

_AWAY = ("08", "53", "57P")
"""Beginnings of the SQLSTATEs of a server that is gone, is going or coming, or has no room at the moment."""

_POSTGRESQL_LOCK = 0x4A6F756C
"""Any number that other users of the server's advisory locks are unlikely to take."""


@dataclass
class LockWait:
    """How long a writer waits for another program to let go of a SQLite file.

    Attributes:
        limit_s: in all; 0: as long as SQLite waits by itself.
        tell: told after each wait in vain; what it raises ends the wait.
        busy_s: how long SQLite waits by itself; somebody who looks at the file with another program may take longer.
        clock: monotonic seconds.
    """

    limit_s: float = 0.0
    tell: Callable[[str], None] = lambda message: None
    busy_s: float = 10.0
    clock: Callable[[], float] = time.monotonic


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
    except (ArgumentError, ValueError):
        # Neither the URL nor the library's error is repeated: a password may be in both, and stand first.
        scheme = given.partition("://")[0]
        what = f"What begins with {scheme!r}" if re.fullmatch(r"[A-Za-z][A-Za-z0-9+]{0,40}", scheme) else "This"
        raise UsageError(
            f"{what} is no database URL that can be read. Use a file's path or "
            "postgresql+psycopg://USER@HOST:PORT/DATABASE, with special characters as %XX."
        ) from None


def secret_options(url: URL) -> list[str]:
    """Names of what stands behind the `?` of an address, and must not be shown."""
    return [name for name in url.query if is_secret_option(name)]


def shown(url: URL) -> str:
    """An address as it may be told: without a password, wherever in it one stands."""
    return url.difference_update_query(secret_options(url)).render_as_string(hide_password=True)


def open_database(url: URL, *, create: bool, wait: LockWait | None = None) -> Engine:
    """Connect, and bring the schema to this version.

    Args:
        url: see `database_url`.
        create: make the database, and its folder, where there is none.
        wait: for locks; it may be changed later.

    Raises:
        UsageError: there is none, it cannot be read or written, or its schema is newer than this program.
        RunTableDamagedError: it is no database, or a broken one.
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
        # Threads take turns: those of a thousand testbeds share a handful of connections.
        engine = create_engine(
            url, pool_timeout=_TURN_S, pool_pre_ping=path is None, connect_args=_connect_args(url, _SERVER)
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise MissingPackageError(
            f"No driver for {url.drivername}: pip install 'psycopg[binary]'. ({error})"
        ) from error
    if path is not None:
        _set_up_sqlite(engine, wait or LockWait())
    try:
        with told(url):
            _migrate(engine, url, create=create)
    except UsageError:
        engine.dispose()
        raise
    return engine


def serialise(connection: Connection) -> None:
    """Keep other processes out until the transaction ends, where a row is about to be written that may not be there.

    SQLite needs nothing: its writers are one at a time. PostgreSQL's would each see that it is not there.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRESQL_LOCK})


def repair_advice(url: URL) -> str:
    """How to mend a damaged run table."""
    if url.get_backend_name() != "sqlite" or not url.database:
        return "Restore it from the server's backup."
    return f"Mend it, which deletes nothing: orchestrator repair {Path(url.database).parent}"


@contextmanager
def told(url: URL) -> Iterator[None]:
    """Turns the database's own errors into one that a person can act on."""
    where = shown(url)
    try:
        yield
    except NoConnectionError as error:
        raise RunTableAwayError(f"The run table {where} does not answer: {error}.") from error
    except DBAPIError as error:
        cause = str(error.orig)
        if _is_away(url, error):
            raise RunTableAwayError(
                f"The run table {where} does not answer: {' '.join(cause.split())}. Check that the database answers."
            ) from error
        if "locked" in cause:
            advice = f"{_holder(url)} holds it: end that, then run the same command again."
        elif "readonly" in cause or "unable to open" in cause:
            advice = "Check the permissions of the file and its folder."
        elif "not a database" in cause or "malformed" in cause:
            raise RunTableDamagedError(f"The run table {where} is damaged: {cause}. {repair_advice(url)}") from error
        elif "disk is full" in cause:
            advice = "Free some disk space, then run the same command again."
        elif "disk I/O error" in cause:
            advice = (
                "The disk failed, is full, or went away: look at `df` and the kernel's log, then run the same command "
                "again."
            )
        else:
            advice = "Check that the database answers."
        raise RunTableError(f"The run table {where} cannot be used: {cause}. {advice}") from error


def _connect_args(url: URL, defaults: dict[str, int]) -> dict[str, int]:
    """What of the defaults a server's address leaves open."""
    if url.get_driver_name() != "psycopg":
        return {}
    return {name: value for name, value in defaults.items() if name not in url.query}


def _is_away(url: URL, error: DBAPIError) -> bool:
    if url.get_backend_name() == "sqlite":
        return False
    state = getattr(error.orig, "sqlstate", None)
    # Without a state it is of the connection itself: libpq tells none there.
    is_passing = isinstance(error, OperationalError) and (state is None or state.startswith(_AWAY))
    return error.connection_invalidated or is_passing


def _holder(url: URL) -> str:
    pids = holders(Path(url.database)) if url.get_backend_name() == "sqlite" and url.database else []
    told = " and ".join(told_process(pid) for pid in pids) or "another program"
    return told[:1].upper() + told[1:]


def _set_up_sqlite(engine: Engine, wait: LockWait) -> None:
    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, record: object) -> None:
        try:
            # We begin transactions ourselves (below): the driver would begin them late, and deferred.
            connection.isolation_level = None
            connection.execute(f"PRAGMA busy_timeout={wait.busy_s * 1000:.0f}").close()
            _switch_to_wal(connection, wait.busy_s)
            connection.execute("PRAGMA synchronous=FULL").close()
            connection.execute("PRAGMA foreign_keys=ON").close()
        except sqlite3.Error:
            connection.close()  # nobody else would, and an open file is in the way of its repair
            raise

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # IMMEDIATE takes the write lock before the first read: what a claim reads is still so when it writes.
        options = connection.get_execution_options()
        is_reader = options.get(READ_ONLY, False)
        if not is_reader:
            # In WAL mode NORMAL keeps the file whole in a power cut, and may lose the last commits.
            connection.exec_driver_sql(f"PRAGMA synchronous={'NORMAL' if options.get(NOTE) else 'FULL'}")
        if is_reader:
            connection.exec_driver_sql("BEGIN")
        else:
            _begin_immediately(connection, wait)


def _begin_immediately(connection: Connection, wait: LockWait) -> None:
    begin_s = wait.clock()
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        except OperationalError as error:
            left_s = begin_s + wait.limit_s - wait.clock()
            if "locked" not in str(error.orig) or left_s <= 0:
                raise
            who = _holder(connection.engine.url)
            wait.tell(f"{who} holds the run table's lock: end it, or close the file there. Waiting for {left_s:.0f} s.")


def _switch_to_wal(connection: Any, limit_s: float) -> None:
    """WAL lasts in the file. Two processes that switch a new file at once do not wait for each other by themselves."""
    deadline_s = time.monotonic() + limit_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


def _migrate(engine: Engine, url: URL, *, create: bool) -> None:
    where = shown(url)
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
    if stored is not None and url.get_backend_name() == "sqlite" and url.database:
        _keep_copy(Path(url.database), stored)
    with engine.begin() as connection:
        serialise(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _keep_copy(path: Path, revision: str) -> None:
    """Copy a run table before its schema changes: what goes back to an older version of this program needs it.

    Against a kill no copy is needed: the migration is one transaction.
    """
    copy = path.with_name(f"{path.name}.schema-{revision}")
    part = copy.with_name(f"{copy.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(part),))
        part.replace(copy)
    except (sqlite3.OperationalError, OSError) as error:
        part.unlink(missing_ok=True)
        raise UsageError(
            f"The run table {path} has an older schema, and cannot be copied before it is changed ({error}). Free disk "
            "space or mend the permissions of its folder, then run the same command again."
        ) from error
