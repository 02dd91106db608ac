"""Run tables in PostgreSQL: messages everywhere, the real thing where there is a server and a driver."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from analysis.detail import requests
from analysis.load import load_runs
from contract.errors import MissingPackageError, UsageError
from tests.analysis.conftest import SCHEMA
from tests.postgresql_server import PostgresqlServer


def test_a_file_may_be_given_by_its_address(quickstart: Any) -> None:
    by_path, by_url = load_runs(quickstart.folder), load_runs(f"sqlite:///{quickstart.database}")
    assert by_url.runs.equals(by_path.runs)
    assert by_url.folder == quickstart.folder


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "names no file"),
        ("mysql://me:secret@box/name", "neither SQLite nor PostgreSQL"),
        ("mysql://me@box/name?password=secret", "neither SQLite nor PostgreSQL"),
        ("sqlite://?password=secret", "names no file"),
        ("postgresql://me:secret@:port/name", "no database's address"),
    ],
)
def test_addresses_that_cannot_be_meant(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load_runs(url)
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(find_spec("psycopg") is not None, reason="psycopg is installed")
def test_a_missing_driver_is_named() -> None:
    with pytest.raises(MissingPackageError, match="psycopg") as caught:
        load_runs("postgresql+psycopg://me:secret@box/name")
    assert "secret" not in str(caught.value)


@pytest.fixture
def server(postgresql: PostgresqlServer) -> Iterator[str]:
    """Address of an empty database."""
    with postgresql.database() as url:
        yield url


def copy_to(url: str, schema: str, database: Path) -> None:
    """The rows of a SQLite run table as PostgreSQL keeps them: JSON decoded, accepted a boolean."""
    kinds = SCHEMA.replace("INTEGER PRIMARY KEY", "INTEGER").replace("TEXT PRIMARY KEY", "TEXT")
    engine = create_engine(url)
    with closing(sqlite3.connect(database)) as source, engine.begin() as target:
        target.execute(text(f'CREATE SCHEMA "{schema}"'))
        target.execute(text(f'SET search_path TO "{schema}"'))
        for statement in kinds.split(";"):
            if statement.strip():
                target.execute(text(statement))
        for table in ("experiment", "run", "attempt", "fact"):
            rows = source.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in rows.description]
            for row in rows.fetchall():
                cells = dict(zip(names, row, strict=True))
                if "accepted" in cells:
                    cells["accepted"] = bool(cells["accepted"])
                if table == "fact":
                    cells["value"] = str(cells["value"])  # SQLite has made a number of it
                values = ", ".join(f":{name}" for name in names)
                target.execute(text(f"INSERT INTO {table} VALUES({values})"), cells)
    engine.dispose()


def test_postgresql_gives_what_the_file_gives(server: str, write_experiment: Any, quickstart: Any) -> None:
    with pytest.raises(UsageError, match="holds no run table"):
        load_runs(server)
    copy_to(server, "public run", quickstart.database)
    by_file, by_url = load_runs(quickstart.folder), load_runs(server)
    assert by_url.runs.equals(by_file.runs)
    assert (by_url.factors, by_url.facts, by_url.design) == (by_file.factors, by_file.facts, by_file.design)
    # A database alone has no files; they may be given.
    assert by_url.folder is None
    with pytest.raises(UsageError, match="a database alone"):
        requests(by_url, "run_0_repetition_0")
    assert load_runs(server, files=quickstart.folder).folder == quickstart.folder

    other = write_experiment("other", {"task": ["a"]})
    copy_to(server, "other", other.database)
    with pytest.raises(UsageError, match=r"holds 2 experiments: .*\?experiment=NAME.*other, quickstart"):
        load_runs(server)
    assert load_runs(f"{server}&experiment=quickstart").runs.equals(by_file.runs)
    assert load_runs(f"{server}&experiment=other").runs.height == 3
    with pytest.raises(UsageError, match="has no experiment 'third'"):
        load_runs(f"{server}&experiment=third")


@pytest.mark.skipif(find_spec("psycopg") is None, reason="psycopg is not installed")
def test_a_server_that_does_not_answer_is_told_without_the_password(tmp_path: Path) -> None:
    for address in (f"me:secret@/name?host={tmp_path}", f"me@/name?host={tmp_path}&password=secret"):
        with pytest.raises(UsageError, match="cannot be read as a run table") as caught:
            load_runs(f"postgresql+psycopg://{address}")
        assert "secret" not in str(caught.value)
