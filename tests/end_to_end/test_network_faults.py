"""A bad network between the nodes: the campaign completes by itself, with the table of an undisturbed one."""

import json
import sqlite3
import time
from pathlib import Path

import pytest

from tests.end_to_end.fault_proxy import FAULTS, FaultProxy
from tests.end_to_end.nodes import (
    accepted_attempts,
    run_states,
    runners,
    running_testbed,
    start_orchestrator,
    write_config,
)

N_RUNS = 4
LIMIT_S = 240


def table(results: Path) -> dict[str, tuple[str, str, int, int]]:
    """What must not depend on the network: state, input and output of each run."""
    found = {}
    with sqlite3.connect(results / "e2e" / "run_table.sqlite") as connection:
        query = "SELECT run_id, state, result FROM attempt WHERE accepted"
        for run_id, state, document in connection.execute(query):
            workload = json.loads(document)["workload"]
            found[run_id] = (state, workload["prompt_sha256"], workload["n_prompt_tokens"], workload["n_output_tokens"])
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, int, int]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    config = write_config(folder, repetitions=1, tokens_per_s=0)
    with running_testbed(folder / "box") as testbed:
        assert start_orchestrator(config, testbed.url, folder / "results").wait(LIMIT_S) == 0
    found = table(folder / "results")
    assert len(found) == N_RUNS
    return found


def check(folder: Path, undisturbed: dict[str, tuple[str, str, int, int]]) -> None:
    results = folder / "results"
    run_table = results / "e2e" / "run_table.sqlite"
    assert list(run_states(run_table).values()) == ["DONE"] * N_RUNS
    assert list(accepted_attempts(run_table).values()) == [1] * N_RUNS
    assert table(results) == undisturbed
    assert not runners(folder / "box" / "testbed-data")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_every_second_message(
    tmp_path: Path, fault: str, undisturbed: dict[str, tuple[str, str, int, int]]
) -> None:
    config = write_config(tmp_path, repetitions=1, tokens_per_s=0)
    with running_testbed(tmp_path / "box") as testbed:
        with FaultProxy(testbed.url, seed=3, rate=0.5, faults=[fault]) as proxy:
            orchestrator = start_orchestrator(config, proxy.url, tmp_path / "results")
            assert orchestrator.wait(LIMIT_S) == 0, (tmp_path / "results" / "orchestrator.log").read_text()
        assert proxy.met[fault] > 3
        check(tmp_path, undisturbed)


def test_faults_of_all_kinds(tmp_path: Path, undisturbed: dict[str, tuple[str, str, int, int]]) -> None:
    config = write_config(tmp_path, repetitions=1, tokens_per_s=0)
    with running_testbed(tmp_path / "box") as testbed:
        with FaultProxy(testbed.url, seed=11, rate=0.4) as proxy:
            orchestrator = start_orchestrator(config, proxy.url, tmp_path / "results")
            assert orchestrator.wait(LIMIT_S) == 0, (tmp_path / "results" / "orchestrator.log").read_text()
        assert len(proxy.met) > 2
        check(tmp_path, undisturbed)


def test_a_partition_in_the_middle_of_a_trial(
    tmp_path: Path, undisturbed: dict[str, tuple[str, str, int, int]]
) -> None:
    config = write_config(tmp_path, repetitions=1, tokens_per_s=0)
    with running_testbed(tmp_path / "box") as testbed:
        with FaultProxy(testbed.url) as proxy:
            orchestrator = start_orchestrator(config, proxy.url, tmp_path / "results")
            end_s = time.monotonic() + 60
            while not runners(testbed.folder / "testbed-data"):
                assert time.monotonic() < end_s, "no trial started"
                time.sleep(0.02)
            proxy.partition(20.0)
            assert orchestrator.wait(LIMIT_S) == 0, (tmp_path / "results" / "orchestrator.log").read_text()
        assert proxy.met["partition"] > 0
        check(tmp_path, undisturbed)
