"""Campaigns whose processes are killed, at the size that a check takes: `make faults` runs the same at full size."""

import sqlite3
from pathlib import Path

import pytest

from tests.end_to_end.nodes import accepted_attempts, running_testbed, start_orchestrator, write_config
from tests.faults.audit import Table
from tests.faults.kill_campaign import kill_campaign, undisturbed

N_TRIALS = 16


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), N_TRIALS)


def test_a_campaign_survives_kills_of_every_process(tmp_path: Path, reference: Table) -> None:
    report = kill_campaign(tmp_path, reference, n_kills=14, n_interrupts=2, seed=1)
    assert report.is_fine, report.text()
    assert report.figures["runs"] == N_TRIALS
    struck = report.figures["struck"]
    assert isinstance(struck, dict) and sum(struck.values()) == 16
    assert {"orchestrator", "testbed", "runner", "energibridge", "ctrl_c", "ctrl_c_twice"} <= struck.keys()


@pytest.mark.parametrize("n_testbeds", [1, 2])
def test_two_orchestrators_share_a_run_table(tmp_path: Path, reference: Table, n_testbeds: int) -> None:
    report = kill_campaign(tmp_path, reference, n_kills=4, seed=2, n_orchestrators=2, n_testbeds=n_testbeds)
    assert report.is_fine, report.text()


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
