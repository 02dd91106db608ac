"""The export of a pool's run table: the same file, whichever process writes it."""

from pathlib import Path

import pytest

import orchestrator.pool_export as pool_export
from contract.attempt_state import AttemptState
from contract.errors import JouleBedError
from orchestrator.pool_export import pool_exporter
from orchestrator.store.sql_store import SqlStore
from tests.orchestrator.test_pool import study
from tests.orchestrator.test_store import result_of


@pytest.fixture
def store(tmp_path: Path) -> SqlStore:
    store = SqlStore.open(tmp_path / "run_table.sqlite", create=True)
    store.create_experiment(study(2, 2))
    claim = store.claim_next("box")
    assert claim is not None
    store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim))
    return store


def test_a_large_table_is_exported_by_another_process_and_alike(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "run_table.csv"
    pool_exporter(store, tmp_path)()
    here = table.read_bytes()
    table.unlink()
    monkeypatch.setattr(pool_export, "LARGE", 1)
    pool_exporter(store, tmp_path)()
    assert table.read_bytes() == here
    assert here.count(b"DONE") == 2  # the mark, and the state


def test_a_process_that_fails_is_told(store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_export, "LARGE", 1)
    with pytest.raises(JouleBedError, match="orchestrator export"):
        pool_exporter(store, tmp_path, command=("false",))()
    with pytest.raises(JouleBedError, match="could not be exported"):
        pool_exporter(store, tmp_path, command=("/nowhere/orchestrator",))()
