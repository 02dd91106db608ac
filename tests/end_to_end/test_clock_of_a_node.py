"""The testbed's wall clock is an hour off, or is set during a trial: both nodes as processes, real time passing."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.trial_result import TrialResult
from tests.end_to_end.nodes import ROOT, Testbed, run_states, running_testbed, start_orchestrator, write_config
from tests.faults.audit import accepted
from tests.faults.moments import Traces
from tests.faults.stage import STAND_IN

HOUR_S = 3600.0
LIMIT_S = 240
N_RUNS = 4

# Only the wall clock: durations of Python's own come from the monotonic one.
SITECUSTOMIZE = """
import os, time

_seconds, _nanoseconds = time.time, time.time_ns
_skew_s, _step_s = float(os.environ["TEST_SKEW_S"]), float(os.environ["TEST_STEP_S"])


def _off_s():
    return _skew_s + (_step_s if os.path.exists(os.environ["TEST_STEP_FILE"]) else 0.0)


time.time = lambda: _seconds() + _off_s()
time.time_ns = lambda: _nanoseconds() + int(_off_s() * 1e9)
"""


@contextmanager
def wrong_clock(folder: Path, *, skew_s: float = 0.0, step_s: float = 0.0) -> Iterator[Testbed]:
    """A testbed, with its children and EnergiBridge, whose wall clock is wrong; a file named `step` sets it."""
    site = folder / "site"
    site.mkdir(parents=True)
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "TEST_SKEW_S": str(skew_s),
        "TEST_STEP_S": str(step_s),
        "TEST_STEP_FILE": str(folder / "step"),
        "JOULEBED_ENERGIBRIDGE": str(STAND_IN),
    }
    with running_testbed(folder / "box", extra_environment=environment) as testbed:
        yield testbed


def results_of(folder: Path) -> list[TrialResult]:
    experiment = folder / "results" / "e2e"
    assert list(run_states(experiment / "run_table.sqlite").values()) == ["DONE"] * N_RUNS
    return [result for _, _, result in accepted(experiment)]


def assert_plausible(result: TrialResult) -> None:
    """The stand-in replays 45 W and 60 W, then 95 W and 310 W; the workload takes seconds."""
    assert result.summary is not None and result.summary.energy_j is not None
    assert result.duration_s is not None and 0.1 < result.duration_s < LIMIT_S
    assert 100.0 < result.summary.energy_j / result.duration_s < 410.0


@pytest.mark.parametrize("skew_s", [HOUR_S, -HOUR_S])
def test_a_testbed_that_is_an_hour_off(tmp_path: Path, skew_s: float) -> None:
    config = write_config(tmp_path, repetitions=1, tokens_per_s=100.0, meter="energibridge")
    with wrong_clock(tmp_path, skew_s=skew_s) as testbed:
        orchestrator = start_orchestrator(config, testbed.url, tmp_path / "results")
        assert orchestrator.wait(LIMIT_S) == 0, (tmp_path / "results" / "orchestrator.log").read_text()
    for result in results_of(tmp_path):
        assert_plausible(result)
        # The labels are the testbed's; that its clock is off is the orchestrator's to tell.
        assert abs((result.started_at.timestamp() - tmp_path.stat().st_mtime) - skew_s) < HOUR_S / 2
    log = (tmp_path / "results" / "e2e" / "orchestrator.log").read_text()
    (told_s,) = re.findall(r"its clock ([+-]\d+) s against this one", log)
    assert abs(int(told_s) - skew_s) < 60


def test_a_clock_that_is_set_during_a_trial(tmp_path: Path) -> None:
    config = write_config(tmp_path, repetitions=1, tokens_per_s=20.0, meter="energibridge")
    with wrong_clock(tmp_path, step_s=HOUR_S) as testbed:
        orchestrator = start_orchestrator(config, testbed.url, tmp_path / "results")
        traces = Traces(testbed.folder / "testbed-data", tmp_path / "results" / "e2e")
        assert traces.wait_for("measuring", LIMIT_S, lambda: orchestrator.poll() is not None)
        (tmp_path / "step").touch()
        assert orchestrator.wait(LIMIT_S) == 0, (tmp_path / "results" / "orchestrator.log").read_text()
    results = results_of(tmp_path)
    for result in results:
        assert_plausible(result)
    told = [any("set forward by 3600" in each.note for each in result.energy) for result in results]
    assert told.count(True) == 1
