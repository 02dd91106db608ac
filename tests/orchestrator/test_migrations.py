"""Run tables of every released schema go on with this version, whatever happens on the way."""

import hashlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, event, inspect

import orchestrator.store.database as database
from contract.attempt_state import AttemptState, RunState
from contract.errors import UsageError
from orchestrator.store.schema import HEAD, METADATA, RUN_TABLE
from orchestrator.store.sql_store import SqlStore
from tests.contract.examples import RESULT
from tests.mounts import fill, make_room, small_disk
from tests.orchestrator.doubles import plan
from tests.orchestrator.test_database import make_schema, old_run_table
from tests.orchestrator.test_store import Address, claimed, dump
from tests.postgresql_server import PostgresqlServer

RELEASED = {
    "0001": "9bd13b5f451e16e03c5f8681bd00d2dc290af41b520970eab03fae099ca2848d",
    "0002": "8c8c3cbe136c931cbc5235bb14892218bdb242b3584a9c39e2b1cf8fdc8acb63",
}
"""Revision -> SHA-256 of the schema that it makes. Released ones are frozen: a change is a migration of its own."""

AT = "2026-11-21T12:00:00.000000+00:00"


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    return ScriptDirectory.from_config(config)


def revisions() -> list[str]:
    return [script.revision for script in reversed(list(scripts().walk_revisions()))]


def shape(path: Path) -> str:
    """Tables, columns, keys and indexes of a database, as text."""
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            looked = inspect(connection)
            tables = {
                table: {
                    "columns": [
                        [each["name"], str(each["type"]), each["nullable"], each["default"]]
                        for each in looked.get_columns(table)
                    ],
                    "key": looked.get_pk_constraint(table)["constrained_columns"],
                    "indexes": [
                        [each["name"], each["column_names"], each["unique"]] for each in looked.get_indexes(table)
                    ],
                    "unique": [each["column_names"] for each in looked.get_unique_constraints(table)],
                    "foreign": [
                        [each["constrained_columns"], each["referred_table"], each["referred_columns"]]
                        for each in looked.get_foreign_keys(table)
                    ],
                    "partial": [
                        row[0].partition(" WHERE ")[2]
                        for row in connection.exec_driver_sql(
                            "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL AND tbl_name = ? "
                            "ORDER BY name",
                            (table,),
                        )
                    ],
                }
                for table in sorted(set(looked.get_table_names()) - {"alembic_version"})
            }
    finally:
        engine.dispose()
    return json.dumps(tables, indent=1)


def address_of(run_table: Address) -> str:
    return f"sqlite:///{run_table}" if isinstance(run_table, Path) else run_table


@contextmanager
def connected(run_table: Address) -> Iterator[Connection]:
    engine = create_engine(address_of(run_table))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def contents(run_table: Address) -> dict[str, list[dict[str, Any]]]:
    """Table -> rows, column by column."""
    with connected(run_table) as connection:
        return {
            name: [dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name} ORDER BY 1").mappings()]
            for name in inspect(connection).get_table_names()
            if name != "alembic_version"
        }


def insert(connection: Connection, table: str, **values: Any) -> None:
    """A row with the columns that this schema has."""
    known = Table(table, MetaData(), autoload_with=connection)
    given = {name: value for name, value in values.items() if name in known.columns and value is not None}
    connection.execute(known.insert(), given)


def filled(run_table: Address, revision: str, n_runs: int = 4) -> None:
    """A run table of an older version in the middle of a campaign: done, suspect, failed and running."""
    planned = plan(n_runs)
    states = [(AttemptState.SUCCEEDED, RunState.DONE), (AttemptState.SUSPECT, RunState.SUSPECT)]
    states += [(AttemptState.FAILED, RunState.FAILED), (AttemptState.MEASURING, RunState.RUNNING)]
    error = {"code": "model_not_found", "message": "No model.", "detail": {}, "retryable": False}
    make_schema(address_of(run_table), revision)
    with connected(run_table) as connection:
        insert(
            connection,
            "experiment",
            id=1,
            name="test",
            seed=1,
            factors=["number"],
            max_attempts=3,
            config_text="é",
            design={},
            plan_sha256=planned.sha256,
            created_at=AT,
            software_version="0.1.0",
        )
        for number, (run, (state, run_state)) in enumerate(zip(planned.runs, states, strict=True)):
            insert(
                connection,
                "run",
                position=run.position,
                run_id=run.run_id,
                treatment=run.treatment,
                repetition=0,
                spec=run.spec.model_dump(mode="json"),
                state=run_state,
                reopened_after=0,
            )
            insert(
                connection,
                "attempt",
                attempt_id=f"a{number}",
                run_id=run.run_id,
                number=1,
                state=state,
                accepted=state is AttemptState.SUCCEEDED,
                testbed="box",
                owner="me",
                lease_until=None if state.is_final else AT,
                claimed_at=AT,
                updated_at=AT,
                finished_at=AT if state.is_final else None,
                error=error if state is AttemptState.FAILED else None,
                result=RESULT.model_dump(mode="json") if state.has_result else None,
            )
            insert(
                connection,
                "event",
                at=AT,
                attempt_id=f"a{number}",
                run_id=run.run_id,
                state_after=state,
                message="told",
            )
        insert(connection, "fact", key="idle_temp_c", value={"box": 38.5})


def test_the_newest_schema_is_the_last_migration() -> None:
    assert scripts().get_heads() == [HEAD]
    assert set(RELEASED) <= set(revisions())


@pytest.mark.parametrize("revision", RELEASED)
def test_a_released_schema_is_frozen(tmp_path: Path, revision: str) -> None:
    old_run_table(tmp_path / RUN_TABLE, revision).close()
    assert hashlib.sha256(shape(tmp_path / RUN_TABLE).encode()).hexdigest() == RELEASED[revision]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Address]:
    """Of a database without a table."""
    if request.param == "sqlite":
        yield tmp_path / RUN_TABLE
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    with server.database() as url:
        yield url


@pytest.mark.parametrize("revision", revisions())
def test_every_row_of_every_schema_survives(empty: Address, revision: str) -> None:
    filled(empty, revision)
    before = contents(empty)
    with closing(SqlStore.open(empty, owner="me", create=False)) as store:
        assert [row.state for row in store.runs()] == [
            RunState.DONE, RunState.SUSPECT, RunState.FAILED, RunState.RUNNING,
        ]  # fmt: skip
        assert store.recall("idle_temp_c") == {"box": 38.5}
        stored = store.plan()
        assert stored is not None
        assert stored.runs == plan(4).runs
    after = contents(empty)
    assert before.keys() <= after.keys()
    for table, rows in before.items():
        assert [{name: row[name] for name in rows[0]} for row in after[table]] == rows
    with closing(SqlStore.open(empty, owner="me", create=False)) as store:
        claim = claimed(store)
        assert claim.attempt_id == "a3"
        assert store.finish("a3", AttemptState.LOST) is RunState.TODO


@pytest.mark.parametrize("revision", revisions())
def test_a_migrated_schema_is_that_of_a_new_table(tmp_path: Path, revision: str) -> None:
    filled(tmp_path / "old", revision)
    for name in ("old", "new"):
        SqlStore.open(tmp_path / name, create=True).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'old'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()
    assert shape(tmp_path / "old") == shape(tmp_path / "new")


@pytest.mark.parametrize("revision", [each for each in revisions() if each != HEAD])
def test_a_copy_is_kept_for_who_goes_back(tmp_path: Path, revision: str) -> None:
    path = tmp_path / RUN_TABLE
    filled(path, revision)
    before = dump(path)
    SqlStore.open(path, create=False).close()
    copy = tmp_path / f"{RUN_TABLE}.schema-{revision}"
    assert dump(copy) == before
    assert dump(path) != before
    assert sorted(each.name for each in tmp_path.iterdir()) == [RUN_TABLE, copy.name]


def killed_at(path: Path, n: int) -> bool:
    """Open in a process that is killed at its n-th statement; whether there was one."""
    pid = os.fork()
    if pid == 0:
        seen = [0]

        def count(*_: Any) -> None:
            if seen[0] == n:
                os.kill(os.getpid(), signal.SIGKILL)
            seen[0] += 1

        event.listen(Engine, "after_cursor_execute", count)
        status = 1
        try:
            SqlStore.open(path, create=False).close()
            status = 0
        finally:
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended in (0, -signal.SIGKILL)
    return ended != 0


@pytest.mark.parametrize("revision", [each for each in revisions() if each != HEAD])
def test_a_migration_that_is_killed_is_done_again(tmp_path: Path, revision: str) -> None:
    """SQLite's DDL is transactional: after a kill at any statement, the old schema is there with every row."""
    original = tmp_path / "original"
    filled(original, revision)
    before, n, n_old = dump(original), 0, 0
    while True:
        path = tmp_path / str(n) / RUN_TABLE
        path.parent.mkdir()
        path.write_bytes(original.read_bytes())
        was_killed = killed_at(path, n)
        if not was_killed:
            break
        n_old += dump(path) == before
        with closing(SqlStore.open(path, owner="me", create=False)) as store:
            assert store.counts()[RunState.DONE] == 1
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("SELECT count(*) FROM attempt").fetchone() == (4,)
        n += 1
    # Every statement but those after the commit, of which there are none.
    assert n_old == n > 5


def test_a_migration_on_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        path = disk / RUN_TABLE
        filled(path, "0001")
        before = dump(path)
        for left_kib in range(0, 240, 12):
            fill(disk, left_kib)
            try:
                SqlStore.open(path, create=False).close()
                break
            except UsageError as error:
                assert "disk" in error.message
            make_room(disk)
            assert dump(path) == before
        make_room(disk)
        with closing(SqlStore.open(path, create=False)) as store:
            assert store.counts()[RunState.DONE] == 1


@pytest.mark.parametrize("create", [True, False])
def test_a_newer_schema_is_left_alone(empty: Address, create: bool) -> None:
    filled(empty, HEAD)
    with connected(empty) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.exec_driver_sql("ALTER TABLE run ADD COLUMN from_the_future TEXT")
    before = dump(empty)
    with pytest.raises(UsageError, match=r"newer JouleBed \(schema 9999.*Upgrade JouleBed"):
        SqlStore.open(empty, create=create)
    assert dump(empty) == before
    if isinstance(empty, Path):
        assert [each.name for each in empty.parent.iterdir()] == [RUN_TABLE]


@pytest.mark.parametrize("revision", revisions())
def test_a_migrated_postgresql_schema_is_that_of_the_queries(postgresql: PostgresqlServer, revision: str) -> None:
    with postgresql.database() as url:
        make_schema(url, revision)
        SqlStore.open(url, create=True).close()
        with connected(url) as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
            partial = "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%% WHERE %%' ORDER BY 1"
            assert connection.exec_driver_sql(partial).scalars().all() == ["ix_attempt_open", "ux_attempt_accepted"]


def test_a_foreign_postgresql_database_is_left_alone(postgresql: PostgresqlServer) -> None:
    with postgresql.database() as url:
        with connected(url) as connection:
            connection.exec_driver_sql("CREATE TABLE songs(title text)")
        with pytest.raises(UsageError, match=r"another program.*left alone"):
            SqlStore.open(url, create=True)
        with connected(url) as connection:
            assert inspect(connection).get_table_names() == ["songs"]
    with pytest.raises(UsageError, match=r"does not exist.*Check that the database answers"):
        SqlStore.open(url, create=True)


def test_two_processes_that_open_a_new_postgresql_database_at_once_both_can(postgresql: PostgresqlServer) -> None:
    with postgresql.database() as url, ThreadPoolExecutor(4) as pool:
        for opened in pool.map(lambda _: SqlStore.open(url, create=True), range(4)):
            opened.close()
