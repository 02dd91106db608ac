"""The run table's file: its settings, its schema, and what is said when it cannot be used."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from contract.attempt_state import RunState
from contract.errors import UsageError
from orchestrator.store.schema import ATTEMPT, HEAD, METADATA, RUN_TABLE
from orchestrator.store.sql_store import SqlStore
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
    with pytest.raises(UsageError, match=r"not a database.*Move the file away"):
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


def test_a_lock_that_stays_is_told(store: SqlStore, path: Path) -> None:
    with store._engine.connect() as connection:  # shorter than anyone would wait in a test
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UsageError, match=r"locked.*Another program holds it"):
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
        pytest.raises(UsageError, match=r"malformed.*Move the file away"),
        closing(SqlStore.open(path, create=False)) as opened,
    ):
        opened.runs()


def test_read_only_is_told(store: SqlStore, path: Path) -> None:
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(UsageError, match=r"readonly.*Check the permissions"):
        store.remember("key", 1)
