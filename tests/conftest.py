"""Fixtures of all tests."""

from collections.abc import Iterator

import pytest

from tests.postgresql_server import PostgresqlServer, running_postgresql, why_not


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A real server, started for the first test that asks; skips where there is none."""
    if reason := why_not():
        pytest.skip(reason)
    with running_postgresql() as server:
        yield server
