"""Fixtures of all tests."""

from collections.abc import Iterator

import pytest

from tests import ray_cluster
from tests.postgresql_server import PostgresqlServer, running_postgresql, why_not
from tests.ray_cluster import RayCluster, running_cluster

# Before any test loads Ray, which reads it once: the tests' cluster lets in who has its token.
ray_cluster.ray_environment()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A real server, started for the first test that asks; skips where there is none."""
    if reason := why_not():
        pytest.skip(reason)
    with running_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A real Ray cluster on this machine; skips where Ray is not installed."""
    if reason := ray_cluster.why_not():
        pytest.skip(reason)
    with running_cluster(tmp_path_factory.mktemp("ray")) as running:
        yield running
