"""The wall clock is an hour off, or is set during a trial: no duration and no energy changes, or the row says so."""

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.attempt_state import AttemptState
from contract.node_info import NodeIdentity
from contract.trial_result import Phase, TrialResult
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, TrialSpec, WorkloadSpec
from energy.clock_step import CLOCK_STEP, to_monotonic
from orchestrator.store import owner
from testbed.collect import collect
from testbed.engines.fake_engine import FakeEngine
from testbed.meters.fake_meter import FakeMeter
from testbed.trial_run import Parts, run_trial
from testbed.workloads.fake_workload import FakeWorkload

HOUR_S = 3600.0
EPOCH_S = 1_795_000_000
PERIOD_S = 0.2
START_S = 5.0
MEASURE_S = 1.6
NODE = NodeIdentity(
    hostname="h", os="o", cpu_model="c", n_cpus=1, memory_bytes=1, python_version="3", hardware_sha256="0" * 64
)
SPEC = TrialSpec(
    experiment="e",
    run_id="run_0_repetition_0",
    repetition=0,
    treatment={},
    seed=0,
    model=ModelSpec(name="m", source="fake:m"),
    engine=EngineSpec(name="fake"),
    sampling=SamplingSpec(max_tokens=10, ignore_eos=True),
    workload=WorkloadSpec(name="fake", concurrency=2),
    meter=MeterSpec(name="fake", period_s=PERIOD_S),
    baseline_s=1.0,
)
# Load 0.5 s, baseline 1 s, warm-up 0.1 s, measured phase 2 s, then 2.5 periods for EnergiBridge.
MOMENTS_S = {"load": 0.3, "baseline": 1.1, "warmup": 1.55, "measure": 2.7, "settle": 3.9}


class SteppedClock:
    """Moves only when somebody sleeps. At a moment the wall clock, and it alone, is set."""

    def __init__(self, *, skew_s: float = 0.0, step_s: float = 0.0, at_s: float = 0.0) -> None:
        self.now_ns = round(START_S * 1e9)
        self._skew_s, self._step_s, self._at_s = skew_s, step_s, at_s

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time_ns(self) -> int:
        return self.wall_ns(self.now_ns)

    def sleep(self, duration_s: float) -> None:
        self.now_ns += round(duration_s * 1e9)

    def wall_ns(self, monotonic_ns: int) -> int:
        step_s = self._step_s if monotonic_ns >= round((START_S + self._at_s) * 1e9) else 0.0
        return monotonic_ns + round((EPOCH_S + self._skew_s + step_s) * 1e9)


class NoThermometer:
    def read(self) -> list[object]:
        return []


def energibridge_log(path: Path, clock: SteppedClock) -> None:
    """What EnergiBridge leaves of the trial: 40 W before the measured phase and after it, 240 W in it."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Delta", "Time", "PACKAGE_ENERGY (J)"])
        for number in range(-3, 21):
            at_s = number * PERIOD_S
            energy_j = 40 * (at_s + 1) + 200 * np.clip(at_s - MEASURE_S, 0.0, 2.0)
            stamp_ms = clock.wall_ns(round((START_S + at_s) * 1e9)) // 1_000_000
            rows.writerow([0 if number == -3 else 200, stamp_ms, energy_j])


def trial(folder: Path, clock: SteppedClock, *, bridged: bool) -> TrialResult:
    """A trial on that clock, from its child to its result."""
    folder.mkdir()
    started_at = datetime.fromtimestamp(clock.time_ns() / 1e9, UTC)
    parts = Parts(
        engine=FakeEngine(clock=clock, tokens_per_s=20, load_s=0.5),
        warm=None,
        workload=FakeWorkload(n_items=8),
        meters=[] if bridged else [FakeMeter(period_s=PERIOD_S, clock=clock)],
        thermometer=NoThermometer(),
        settle_s=2.5 * PERIOD_S,
        wrapper_settings={"energibridge": {"version": "energibridge 0.0.7"}} if bridged else {},
    )
    run_trial(SPEC, parts, folder, clock)
    if bridged:
        energibridge_log(folder / "energibridge.csv", clock)
    return collect(
        folder,
        attempt_id="a",
        spec=SPEC,
        node=NODE,
        started_at=started_at,
        finished_at=datetime.fromtimestamp(clock.time_ns() / 1e9, UTC),
    )


def assert_same(result: TrialResult, undisturbed: TrialResult) -> None:
    assert (result.state, result.reasons) == (AttemptState.SUCCEEDED, [])
    assert result.phases == undisturbed.phases
    assert (result.duration_s, result.tokens_per_s) == (undisturbed.duration_s, undisturbed.tokens_per_s)
    energies = [[each.energy_j for each in of.energy] for of in (result, undisturbed)]
    # The samples' times are of the size of 1e9 s before they are mapped: the last digits differ.
    assert energies[0] == pytest.approx(energies[1], rel=1e-6)
    assert result.summary is not None and undisturbed.summary is not None
    for name in ("energy_j", "energy_net_j", "baseline_power_w"):
        assert getattr(result.summary, name) == pytest.approx(getattr(undisturbed.summary, name), rel=1e-6, abs=1e-4)


@pytest.fixture
def undisturbed(tmp_path: Path) -> Callable[[bool], TrialResult]:
    return lambda bridged: trial(tmp_path / "undisturbed", SteppedClock(), bridged=bridged)


def test_the_trial_is_the_one_that_was_meant(undisturbed: Callable[[bool], TrialResult]) -> None:
    result = undisturbed(True)
    assert result.duration_s == pytest.approx(2.0)
    assert result.summary is not None and result.summary.energy_j == pytest.approx(480.0, rel=1e-6)
    assert [window.phase for window in result.phases] == list(Phase)


@pytest.mark.parametrize("bridged", [False, True])
@pytest.mark.parametrize("skew_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_is_an_hour_off(
    tmp_path: Path, undisturbed: Callable[[bool], TrialResult], skew_s: float, bridged: bool
) -> None:
    assert_same(trial(tmp_path / "skewed", SteppedClock(skew_s=skew_s), bridged=bridged), undisturbed(bridged))


@pytest.mark.parametrize("moment", MOMENTS_S)
@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
def test_a_step_is_nothing_to_a_meter_of_ours(
    tmp_path: Path, undisturbed: Callable[[bool], TrialResult], step_s: float, moment: str
) -> None:
    clock = SteppedClock(step_s=step_s, at_s=MOMENTS_S[moment])
    assert_same(trial(tmp_path / "stepped", clock, bridged=False), undisturbed(False))


@pytest.mark.parametrize("moment", MOMENTS_S)
@pytest.mark.parametrize("step_s", [HOUR_S, 1.0])
def test_a_step_forward_in_energibridges_log_is_taken_out(
    tmp_path: Path, undisturbed: Callable[[bool], TrialResult], step_s: float, moment: str
) -> None:
    clock = SteppedClock(step_s=step_s, at_s=MOMENTS_S[moment])
    result = trial(tmp_path / "stepped", clock, bridged=True)
    assert_same(result, undisturbed(True))
    assert all(f"set forward by {step_s:.3f} s" in each.note for each in result.energy)


@pytest.mark.parametrize("moment", MOMENTS_S)
def test_a_step_back_in_energibridges_log_is_refused_in_words(tmp_path: Path, moment: str) -> None:
    clock = SteppedClock(step_s=-HOUR_S, at_s=MOMENTS_S[moment])
    result = trial(tmp_path / "stepped", clock, bridged=True)
    assert result.state is AttemptState.SUSPECT
    assert any("the clock was set during the run" in reason.message for reason in result.reasons)
    assert result.summary is None or result.summary.energy_j is None
    assert result.duration_s == pytest.approx(2.0)


@pytest.mark.parametrize("step_s", [0.15, -0.15])
def test_a_step_that_hides_among_the_samples_is_refused_in_words(tmp_path: Path, step_s: float) -> None:
    clock = SteppedClock(step_s=step_s, at_s=MOMENTS_S["measure"])
    result = trial(tmp_path / "stepped", clock, bridged=True)
    assert result.state is AttemptState.SUSPECT
    (reason,) = [each for each in result.reasons if each.code == CLOCK_STEP]
    assert "0.150 s" in reason.message and "NTP" in reason.message
    assert result.summary is None or result.summary.energy_j is None


@given(
    steps_s=st.lists(st.floats(0.05, 0.5), min_size=2, max_size=60),
    step_s=st.floats(2.0, 1e6),
    data=st.data(),
)
def test_a_step_is_taken_out_wherever_it_is(steps_s: list[float], step_s: float, data: st.DataObject) -> None:
    time_s = np.cumsum([100.0, *steps_s])
    at = data.draw(st.integers(1, len(steps_s)))
    wall_s = time_s + 1e9 + np.where(np.arange(time_s.size) >= at, step_s, 0.0)
    mapped = to_monotonic(wall_s, 1e9, 1e9 + step_s)
    assert mapped.time_s is not None and mapped.reason is None
    assert mapped.time_s == pytest.approx(time_s, abs=1e-5)


@given(
    steps_s=st.lists(st.floats(0.001, 10.0), max_size=60),
    step_s=st.floats(-1e6, 1e6),
    claimed_s=st.none() | st.floats(-1e6, 1e6),
)
def test_times_are_known_or_there_is_a_reason(steps_s: list[float], step_s: float, claimed_s: float | None) -> None:
    wall_s = np.cumsum([1e9, *steps_s])
    mapped = to_monotonic(wall_s, step_s, None if claimed_s is None else step_s + claimed_s)
    assert (mapped.time_s is None) == (mapped.reason is not None)
    if mapped.time_s is not None:
        assert mapped.time_s.shape == wall_s.shape


@pytest.mark.skipif(not psutil.LINUX, reason="elsewhere the start of a process does not move with the clock")
@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
def test_a_living_orchestrator_is_not_gone_when_the_clock_was_set(
    monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    me, boot_s = owner.this_owner(), psutil.boot_time()
    # The kernel tells the boot in wall time, and psutil counts the start of a process from there.
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot_s + step_s)
    assert psutil.boot_time() == boot_s + step_s
    assert not owner.is_gone(me)
    host, pid, start = me.split(":")
    assert owner.is_gone(f"{host}:{pid}:{int(start) + 100}")


def test_the_trials_of_these_tests_have_a_step_in_every_phase() -> None:
    clock = SteppedClock(step_s=HOUR_S, at_s=1.0)
    before = clock.time_ns()
    clock.sleep(0.999)
    assert clock.time_ns() - before == pytest.approx(0.999e9)
    clock.sleep(0.001)
    assert clock.time_ns() - before == pytest.approx((HOUR_S + 1.0) * 1e9)
