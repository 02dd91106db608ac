"""Kills each process in the middle of a campaign; the run table must come out whole."""

import contextlib
import random
import sqlite3
import time
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.nodes import (
    Testbed,
    accepted_attempts,
    run_states,
    runners,
    running_testbed,
    start_orchestrator,
    write_config,
)

N_RUNS = 12


def _wait_until_mid_trial(testbed: Testbed, seconds: float = 20.0) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while not (children := runners(testbed.folder / "testbed-data")):
        assert time.monotonic() < deadline, "no trial started"
        time.sleep(0.02)
    return children


@pytest.mark.parametrize("seed", [1, 2])
def test_campaign_survives_kills_of_every_process(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    config = write_config(tmp_path, repetitions=3)
    results = tmp_path / "results"
    victims = ["orchestrator", "testbed", "child", "testbed", "orchestrator", "child"]
    chance.shuffle(victims)
    with running_testbed(tmp_path / "box") as testbed:
        orchestrator = start_orchestrator(config, testbed.url, results)
        try:
            for victim in victims:
                children = _wait_until_mid_trial(testbed)
                time.sleep(chance.uniform(0.0, 0.8))
                if victim == "orchestrator":
                    orchestrator.kill()
                    orchestrator.wait()
                    orchestrator = start_orchestrator(config, testbed.url, results)
                elif victim == "testbed":
                    testbed.kill()
                    testbed.start()
                else:
                    for child in children:
                        with contextlib.suppress(psutil.NoSuchProcess):
                            child.kill()
            assert orchestrator.wait(timeout=180) == 0, (results / "orchestrator.log").read_text()
        finally:
            orchestrator.kill()
        assert not runners(testbed.folder / "testbed-data")

    run_table = results / "e2e" / "run_table.sqlite"
    assert list(run_states(run_table).values()) == ["DONE"] * N_RUNS
    assert list(accepted_attempts(run_table).values()) == [1] * N_RUNS
    with sqlite3.connect(run_table) as connection:
        for run_id, attempt_id in connection.execute("SELECT run_id, attempt_id FROM attempt WHERE accepted"):
            assert (results / "e2e" / "runs" / run_id / attempt_id / "requests.jsonl").is_file()


def test_a_finished_campaign_is_not_run_again(tmp_path: Path) -> None:
    config = write_config(tmp_path, repetitions=1, tokens_per_s=0)
    results = tmp_path / "results"
    with running_testbed(tmp_path / "box") as testbed:
        assert start_orchestrator(config, testbed.url, results).wait(timeout=120) == 0
        run_table = results / "e2e" / "run_table.sqlite"
        before = accepted_attempts(run_table)
        assert start_orchestrator(config, testbed.url, results).wait(timeout=120) == 0
        assert accepted_attempts(run_table) == before
        with sqlite3.connect(run_table) as connection:
            assert connection.execute("SELECT COUNT(*) FROM attempt").fetchone() == (4,)
