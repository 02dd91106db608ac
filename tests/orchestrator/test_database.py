"""The run table's file: its settings, its schema, and what is said when it cannot be used."""

import json
import os
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateIndex

from contract.attempt_state import RunState
from contract.errors import ConfigError, UsageError
from orchestrator.experiment_folder import DATABASE, checked_database, open_run_table
from orchestrator.repair import repair
from orchestrator.store.base import RunTableDamagedError
from orchestrator.store.database import database_url, shown, told
from orchestrator.store.schema import ATTEMPT, HEAD, METADATA, RUN_TABLE
from orchestrator.store.sql_store import SqlStore
from tests.contract.examples import RESULT
from tests.orchestrator.doubles import plan
from tests.orchestrator.test_store import claimed, dump


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "test" / RUN_TABLE


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    with closing(SqlStore.open(path, owner="me", create=True)) as store:
        store.create_experiment(plan(3))
        yield store


def test_settings_of_the_file(store: SqlStore, path: Path) -> None:
    with store._engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_migrations_make_what_the_queries_expect(store: SqlStore, path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == HEAD
    postgres = [str(CreateIndex(index).compile(dialect=postgresql.dialect())) for index in ATTEMPT.indexes]
    assert any("UNIQUE INDEX ux_attempt_accepted" in each and "WHERE accepted" in each for each in postgres)


def make_schema(url: str, revision: str) -> None:
    """Bring an empty database to the schema of an earlier version."""
    from alembic import command
    from alembic.config import Config

    import orchestrator.store.database as database

    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def old_run_table(path: Path, revision: str) -> sqlite3.Connection:
    """A run table as an earlier version made it."""
    make_schema(f"sqlite:///{path}", revision)
    return sqlite3.connect(path)


def test_a_run_table_of_the_first_schema_goes_on(tmp_path: Path) -> None:
    path = tmp_path / RUN_TABLE
    result, small = RESULT.model_dump_json(), plan(2)
    at = "2026-11-21T12:00:00.000000+00:00"
    with closing(old_run_table(path, "0001")) as connection:
        connection.execute(
            "INSERT INTO experiment VALUES(1, 'test', 1, '[\"number\"]', 3, '', '{}', ?, ?, '0.1.0')",
            (small.sha256, at),
        )
        for run, state in zip(small.runs, ("SUSPECT", "RUNNING"), strict=True):
            connection.execute(
                "INSERT INTO run VALUES(?, ?, ?, 0, ?, ?)",
                (run.position, run.run_id, json.dumps(run.treatment), run.spec.model_dump_json(), state),
            )
        first, second = small.runs
        connection.execute(
            "INSERT INTO attempt VALUES('a1', ?, 1, 'SUSPECT', 0, 'box', 'me', NULL, ?, ?, ?, NULL, ?)",
            (first.run_id, at, at, at, result),
        )
        connection.execute(
            "INSERT INTO attempt VALUES('a2', ?, 1, 'LOADING', 0, 'box', 'me', ?, ?, ?, NULL, NULL, NULL)",
            (second.run_id, at, at, at),
        )
        connection.execute("INSERT INTO event VALUES(1, ?, 'a1', ?, NULL, 'CLAIMED', 'x')", (at, first.run_id))
        connection.commit()
    with closing(SqlStore.open(path, owner="me", create=False)) as store:
        store.create_experiment(small)
        assert store.events(first.run_id)[0].attempt_id == "a1"
        (suspect,) = store.runs()[0].attempts
        assert suspect.reasons == tuple(RESULT.reasons) != ()  # as in the result: nobody else had any
        assert suspect.cooldown is None
        assert claimed(store).attempt_id == "a2"
        assert store.reopen([first.run_id]) == [first.run_id]
        assert store.counts() == dict.fromkeys(RunState, 0) | {RunState.TODO: 1, RunState.RUNNING: 1}
        store.remember("key", 1, "told")
        assert (store.events()[-1].run_id, store.events()[-1].state_after) == (None, None)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
        assert "ix_event_run_id" in {row[1] for row in connection.execute("PRAGMA index_list(event)")}


def test_an_open_of_a_current_database_does_not_load_alembic(store: SqlStore, path: Path) -> None:
    program = (
        "import sys; from orchestrator.store.sql_store import SqlStore; "
        f"SqlStore.open({str(path)!r}, create=False).close(); print('alembic' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "False"


def test_a_newer_schema_is_refused_and_left_alone(store: SqlStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = dump(path)
    for create in (True, False):
        with pytest.raises(UsageError, match=r"newer JouleBed \(schema 9999.*Upgrade"):
            SqlStore.open(path, create=create)
    assert dump(path) == before


def test_what_is_no_run_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run table .*absent.*orchestrator run"):
        SqlStore.open(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()

    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="no run table"):
        SqlStore.open(tmp_path / "empty", create=False)

    (tmp_path / "text").write_text("this is not a database, but long enough to be looked at " * 20)
    with pytest.raises(UsageError, match=r"not a database.*deletes nothing: orchestrator repair"):
        SqlStore.open(tmp_path / "text", create=True)

    with closing(sqlite3.connect(tmp_path / "foreign")) as connection:
        connection.execute("CREATE TABLE songs(title)")
    with pytest.raises(UsageError, match=r"another program.*left alone"):
        SqlStore.open(tmp_path / "foreign", create=True)
    assert dump(tmp_path / "foreign") == ["BEGIN TRANSACTION;", "CREATE TABLE songs(title);", "COMMIT;"]

    with pytest.raises(UsageError, match=r"cannot be used: unable to open.*permissions"):
        SqlStore.open(tmp_path, create=True)
    with pytest.raises(UsageError, match="cannot be made"):
        SqlStore.open(tmp_path / "text" / "folder" / RUN_TABLE, create=True)
    with pytest.raises(UsageError, match="no database URL"):
        SqlStore.open("://", create=True)


def test_a_spec_that_this_version_does_not_read_is_told_and_nothing_is_claimed(store: SqlStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE run SET spec = json_set(spec, '$.model.source', 1) WHERE position = 0")
        other.commit()
    with pytest.raises(RunTableDamagedError, match=r"makes no sense .*orchestrator repair"):
        store.claim_next("box")
    assert store.counts()[RunState.TODO] == 3


def test_a_lock_that_stays_is_told(store: SqlStore, path: Path) -> None:
    with store._engine.connect() as connection:  # shorter than anyone would wait in a test
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UsageError, match=r"locked.*(Another program|Process \d+ .*) holds it"):
            store.claim_next("box")
        assert store.counts()[RunState.TODO] == 3  # reading waits for nobody
        other.execute("ROLLBACK")
    assert claimed(store).number == 1


def test_a_damaged_file_is_told(store: SqlStore, path: Path) -> None:
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (size - 100))
    with (
        pytest.raises(UsageError, match=r"malformed.*deletes nothing: orchestrator repair"),
        closing(SqlStore.open(path, create=False)) as opened,
    ):
        opened.runs()


def test_read_only_is_told(store: SqlStore, path: Path) -> None:
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(UsageError, match=r"readonly.*Check the permissions"):
        store.remember("key", 1)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:hunter2-hunter2@host:no-port/db",
        "://me:hunter2-hunter2@host",
        "x y://me:hunter2-hunter2@h",
        "me:hunter2-hunter2@host://db",
    ],
)
def test_a_password_in_a_wrong_url_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        database_url(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_password_is_hidden_wherever_a_database_is_named() -> None:
    url = database_url("postgresql+psycopg://me:hunter2-hunter2@host/db")
    with pytest.raises(UsageError, match=r"me:\*\*\*@host") as caught, told(url):
        raise OperationalError("SELECT 1", None, Exception("connection refused"))
    assert "hunter2" not in caught.value.message


SECRET_OPTIONS = (
    "password",
    "PassWord",
    "pass%77ord",
    "sslpassword",
    "oauth_client_secret",
    "scram_client_key",
    "conninfo",
    "dsn",
)
"""As libpq and its drivers know them; the last two take a whole address."""


@pytest.mark.parametrize("option", SECRET_OPTIONS)
def test_a_password_in_the_query_is_refused_and_not_repeated(option: str) -> None:
    with pytest.raises(ConfigError, match=r"holds a password.*PGPASSWORD") as caught:
        checked_database(f"postgresql+psycopg://me@host/db?sslmode=require&{option}=hunter2-hunter2")
    assert "hunter2" not in caught.value.message


def test_what_is_no_secret_may_stand_in_the_query() -> None:
    options = "connect_timeout=3&host=%2Frun%2Fpg&passfile=%2Fhome%2Fme%2F.pgpass&sslkey=%2Fhome%2Fme%2Fkey.pem"
    address = f"postgresql+psycopg://me@/db?{options}"
    assert checked_database(address) == address
    assert shown(database_url(address)) == address


@pytest.mark.parametrize("option", SECRET_OPTIONS)
def test_a_password_in_the_query_is_hidden_wherever_a_database_is_named(option: str, tmp_path: Path) -> None:
    # Written by hand, or by an earlier version.
    address = f"postgresql+psycopg://me@127.0.0.1:9/db?sslmode=disable&{option}=hunter2-hunter2"
    assert shown(database_url(address)) == "postgresql+psycopg://me@127.0.0.1:9/db?sslmode=disable"
    (tmp_path / DATABASE).write_text(f"{address}\n")
    with (
        pytest.raises(UsageError, match=r"The run table postgresql.*me@127") as away,
        told(database_url(address)),
    ):
        raise OperationalError("SELECT 1", None, Exception("connection refused"))
    with pytest.raises(ConfigError, match="Leave out --database") as elsewhere:
        open_run_table(tmp_path, create=False, database="postgresql+psycopg://me@other/db")
    with pytest.raises(UsageError, match="restore it from the server's backup") as damaged:
        repair(tmp_path, None, only_look=True, now=datetime.now(UTC))
    for caught in (away, elsewhere, damaged):
        assert "hunter2" not in caught.value.message
