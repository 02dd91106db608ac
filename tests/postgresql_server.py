"""A PostgreSQL server of the tests' own, in a temporary folder, that listens on a socket there and nowhere else."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text

from orchestrator.local_testbed import end_with_parent

START_S = 60.0


def programs() -> Path | None:
    """Folder of initdb and postgres: Debian keeps them out of PATH, one folder per version."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    found = versions[-1] if versions else shutil.which("initdb")
    return Path(found).parent if found else None


def why_not() -> str:
    """Why no server can be started here; empty: one can."""
    if programs() is None:
        return "PostgreSQL's server is not installed: apt-get install postgresql"
    if find_spec("psycopg") is None:
        return "psycopg is not installed: pip install 'psycopg[binary]'"
    return "" if os.geteuid() or _unprivileged() else "PostgreSQL refuses root, and there is no other user to be"


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), "")


class PostgresqlServer:
    """Hands out databases. All of them go with the server.

    Args:
        socket: folder of its socket.
        launch: starts its process.
    """

    def __init__(self, socket: Path, launch: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._socket = socket
        self._launch = launch
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count()
        self._template = ""

    def start(self) -> None:
        """Start it, again too, and return when it answers."""
        folder, log = programs(), self._socket / "log"
        assert folder is not None
        self._process = self._launch()
        ready = [folder / "pg_isready", "-q", "-h", self._socket, "-d", "postgres", "-U", "joulebed"]
        deadline_s = time.monotonic() + START_S
        while subprocess.run(ready, check=False, capture_output=True).returncode != 0:
            assert self._process.poll() is None and time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End it at once, as a crash would: whoever asks it at the moment hears no more. Its data stay."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait(START_S)

    def start_if_stopped(self) -> None:
        """For a test's end."""
        if self._process is None:
            self.start()

    def cut(self, url: str) -> int:
        """End all connections to a database from the server's side; how many there were."""
        cut = text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = :name AND pid <> pg_backend_pid()"
        )
        engine = create_engine(self.url("postgres"))
        try:
            with engine.connect() as connection:
                return int(connection.execute(cut, {"name": make_url(url).database}).scalar_one())
        finally:
            engine.dispose()

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://joulebed@/{database}?host={self._socket}"

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """URL of an empty database, or of a copy of another; it goes with the block."""
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def run_table(self) -> Iterator[str]:
        """URL of a database with the newest schema and no rows."""
        if not self._template:
            from orchestrator.store.sql_store import SqlStore

            self._execute("CREATE DATABASE run_table TEMPLATE template0")
            SqlStore.open(self.url("run_table"), create=True).close()
            self._template = "run_table"
        with self.database(self._template) as url:
            yield url

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(f"host={self._socket} user=joulebed dbname=postgres", autocommit=True) as connection:
            connection.execute(statement.encode())


def wait_until_left(url: str) -> None:
    """Until nobody else is in a database: the server hears of a killed client's end a moment after it."""
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    engine = create_engine(url)
    deadline_s = time.monotonic() + START_S
    with engine.connect() as connection:
        while connection.execute(others).scalar():
            assert time.monotonic() < deadline_s, "somebody stays in the database"
            time.sleep(0.01)
    engine.dispose()


@contextmanager
def running_postgresql() -> Iterator[PostgresqlServer]:
    """A server that ends with the block; see `why_not`."""
    folder = programs()
    assert folder is not None
    with tempfile.TemporaryDirectory(prefix="jb-pg-", ignore_cleanup_errors=True) as home:  # a short path: a socket's
        data, log = Path(home) / "data", Path(home) / "log"
        as_user: dict[str, Any] = {"cwd": home}
        if os.geteuid() == 0:
            shutil.chown(home, _unprivileged())
            as_user |= {"user": _unprivileged(), "extra_groups": []}
        initdb = [folder / "initdb", "-D", data, "-U", "joulebed", "-A", "trust", "-E", "UTF8", "--locale=C"]
        made = subprocess.run([*initdb, "--no-sync"], capture_output=True, text=True, check=False, **as_user)
        assert made.returncode == 0, made.stderr
        options = {"listen_addresses": "", "unix_socket_directories": home, "fsync": "off", "max_connections": "60"}
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]

        def launch() -> subprocess.Popen[bytes]:
            with log.open("a") as told:
                return subprocess.Popen(
                    [folder / "postgres", "-D", data, *arguments],
                    stdout=told,
                    stderr=told,
                    preexec_fn=end_with_parent(),  # also when the tests are killed
                    **as_user,
                )

        server = PostgresqlServer(Path(home), launch)
        try:
            server.start()
            yield server
        finally:
            server.stop()
