"""A trial that sets devices: when, what the record says of it, and what makes it SUSPECT."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contract.errors import ActuatorError, EngineError
from contract.trial_result import SettingTaken, TrialResult
from contract.trial_spec import ActuatorSpec, TrialSpec
from testbed.actuators.base import Actuator, ReadBack, Setting
from testbed.actuators.nvml_clock_actuator import NvmlClockActuator
from testbed.actuators.simulated_actuator import SimulatedActuator
from testbed.attempt_folder import ChildRecord
from testbed.device_settings import DeviceSettings, Wanted
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.fake_engine import FakeEngine
from testbed.restore_ledger import RestoreLedger
from testbed.trial_run import Parts, run_trial
from testbed.workloads.fake_workload import FakeWorkload
from tests.testbed.actuator_double import SettableGpu, SettableNvml
from tests.testbed.test_collect import RECORD as COLLECTED
from tests.testbed.test_collect import gauges, write
from tests.testbed.test_collect import run as collected
from tests.testbed.test_trial_run import SPEC, NoThermometer, StillClock

FOUND = {"clock_mhz": 1410.0, "power_limit_w": 650.0}


class Bench:
    """A trial on two simulated devices; `story` tells in which order things happened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = StillClock()
        self.story: list[str] = []
        self.ledger = RestoreLedger(folder / "restore")
        self.devices = folder / "devices"
        self.devices.mkdir()
        (folder / "out").mkdir()
        for domain in ("gpu:0", "gpu:1"):
            (self.devices / f"{domain}.json").write_text(json.dumps(FOUND))

    def device(self, domain: str = "gpu:0") -> dict[str, Any]:
        return dict(json.loads((self.devices / f"{domain}.json").read_text()))

    def change(self, **values: Any) -> None:
        (self.devices / "gpu:0.json").write_text(json.dumps({**self.device(), **values}))

    def settings(self, wanted: Sequence[Wanted]) -> DeviceSettings:
        return DeviceSettings(wanted, self.ledger, self.clock, lambda folder: Guard(self.story))

    def simulated(self, *clocks_mhz: float) -> list[Wanted]:
        return [
            Wanted(SimulatedActuator(domain=f"gpu:{i}", folder=self.devices), {"clock_mhz": clock_mhz})
            for i, clock_mhz in enumerate(clocks_mhz)
        ]

    def run(self, wanted: Sequence[Wanted], engine: FakeEngine | None = None) -> ChildRecord:
        engine = engine or WatchingEngine(self)
        parts = Parts(engine, None, FakeWorkload(n_items=4), [], NoThermometer(), devices=self.settings(wanted))
        return run_trial(SPEC.model_copy(update={"warmup_requests": 1}), parts, self.folder / "out", self.clock)

    @property
    def entries(self) -> list[str]:
        return [path.name for path in self.ledger.folder.glob("*.json")]


class Guard:
    def __init__(self, story: list[str]) -> None:
        self._story = story
        story.append("watchdog started")

    def dismiss(self) -> None:
        self._story.append("watchdog dismissed")


class WatchingEngine(FakeEngine):
    """Notes at what clock it works."""

    def __init__(self, bench: Bench, before: Callable[[int], None] = lambda n_calls: None) -> None:
        super().__init__(clock=bench.clock, tokens_per_s=100.0)
        self._bench, self._before, self._n_calls = bench, before, 0

    def load(self, *arguments: Any, **options: Any) -> Any:
        self._bench.story.append(f"load at {self._bench.device()['clock_mhz']:g}")
        return super().load(*arguments, **options)

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        self._n_calls += 1
        self._bench.story.append(f"generate at {self._bench.device()['clock_mhz']:g}")
        self._before(self._n_calls)
        return super().generate(requests, concurrency=concurrency, on_completion=on_completion)


class Stalling(SimulatedActuator):
    """Reads back late, or fails in the middle."""

    def __init__(self, *, domain: str, folder: Path, n_late: int = 0, fails: bool = False) -> None:
        super().__init__(domain=domain, folder=folder)
        self._n_late, self._fails = n_late, fails

    def apply(self, setting: Setting) -> ReadBack:
        found = super().apply(setting)
        if self._fails:
            raise ActuatorError("half set")
        return {"clock_mhz": 345.0} if self._n_late else found

    def read(self) -> ReadBack:
        self._n_late -= 1
        return {"clock_mhz": 345.0} if self._n_late > 0 else super().read()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_set_after_the_load_and_before_the_baseline_and_put_back(bench: Bench) -> None:
    record = bench.run(bench.simulated(1005.0, 510.0))
    assert record.error is None and record.reasons == []
    assert bench.story == [
        "load at 1410",
        "watchdog started",
        "generate at 1005",  # the warm-up
        "generate at 1005",
        "watchdog dismissed",
    ]
    first, second = record.settings
    assert (first.actuator, first.domain, first.wanted) == ("simulated", "gpu:0", {"clock_mhz": 1005.0})
    assert first.taken == first.at_end == {"clock_mhz": 1005.0}
    assert first.original == FOUND
    assert first.switch_s == 0.0 and first.is_restored and first.note == ""
    assert (second.domain, second.taken) == ("gpu:1", {"clock_mhz": 510.0})
    assert bench.device() == bench.device("gpu:1") == FOUND
    assert bench.entries == []


def test_no_switch_is_in_any_phase(bench: Bench) -> None:
    late = Wanted(Stalling(domain="gpu:0", folder=bench.devices, n_late=10), {"clock_mhz": 1005.0})
    record = bench.run([late])
    assert record.reasons == []
    assert record.settings[0].switch_s == pytest.approx(0.45)
    load, baseline, *_ = record.phases
    assert baseline.start_s - (load.start_s + load.duration_s) == pytest.approx(0.45)


def test_nothing_is_started_for_a_trial_that_sets_nothing(bench: Bench) -> None:
    record = bench.run([])
    assert record.error is None and record.settings == []
    assert "watchdog started" not in bench.story
    assert not bench.ledger.folder.exists()


def test_a_forbidden_device_costs_no_load_and_is_not_touched(bench: Bench) -> None:
    bench.change(forbidden="This machine is somebody else's.")
    record = bench.run(bench.simulated(1005.0))
    assert record.error is not None and record.error.code == "actuator_unavailable"
    assert "somebody else's" in record.error.message
    assert bench.story == [] and bench.device()["clock_mhz"] == 1410.0


def test_a_clock_that_does_not_exist_costs_no_load(bench: Bench) -> None:
    record = bench.run(bench.simulated(1000.0))
    assert record.error is not None and record.error.code == "invalid_option"
    assert bench.story == []


def test_a_device_that_takes_another_clock_makes_it_suspect(bench: Bench) -> None:
    bench.change(offset_mhz=-105.0)
    record = bench.run(bench.simulated(1005.0))
    assert record.error is None
    assert record.settings[0].taken == {"clock_mhz": 900.0}
    assert {reason.code for reason in record.reasons} == {"setting_not_held"}
    assert "set to 1005 and reads 900" in record.reasons[0].message
    assert bench.device()["clock_mhz"] == 1410.0


def test_a_setting_that_somebody_else_changed_makes_it_suspect(bench: Bench) -> None:
    engine = WatchingEngine(bench, lambda n_calls: bench.change(clock_mhz=1980.0) if n_calls == 2 else None)
    record = bench.run(bench.simulated(1005.0), engine)
    assert record.settings[0].taken == {"clock_mhz": 1005.0}
    assert record.settings[0].at_end == {"clock_mhz": 1980.0}
    assert [reason.code for reason in record.reasons] == ["setting_not_held"]
    assert bench.device()["clock_mhz"] == 1410.0


def test_an_idle_gpu_leaves_it_to_the_samples(bench: Bench) -> None:
    gpu = SettableGpu(is_idle=True)
    actuator = NvmlClockActuator(domain="gpu:0", nvml=SettableNvml([gpu]), is_allowed=lambda: True)
    ledger = RestoreLedger(bench.folder / "restore", lambda name, domain, arguments: actuator)
    settings = DeviceSettings(
        [Wanted(actuator, {"clock_mhz": 1005.0})], ledger, bench.clock, lambda _: Guard(bench.story)
    )
    assert settings.apply() == []
    assert gpu.locked_mhz == 1005
    assert settings.read_back() == []
    assert settings.restore() == []
    (taken,) = settings.taken
    assert taken.taken == taken.at_end == {"clock_mhz": None} and "idle" in taken.note
    assert gpu.settings == [("lock", 1005, 1005), ("unlock",)]


@pytest.mark.parametrize("where", ["load", "warmup", "measure"])
def test_put_back_when_the_trial_fails(bench: Bench, where: str) -> None:
    def fail(n_calls: int) -> None:
        if n_calls == {"warmup": 1, "measure": 2}.get(where):
            raise EngineError("It broke.")

    engine = WatchingEngine(bench, fail)
    if where == "load":
        engine.load = lambda *_, **__: fail_now()  # type: ignore[method-assign]
    record = bench.run(bench.simulated(1005.0), engine)
    assert record.error is not None and record.error.code == "engine"
    assert bench.device() == FOUND and bench.entries == []


def fail_now() -> None:
    raise EngineError("It broke.")


def test_put_back_on_a_fault_of_our_own(bench: Bench) -> None:
    engine = WatchingEngine(bench, lambda n_calls: [][n_calls])
    with pytest.raises(IndexError):
        bench.run(bench.simulated(1005.0), engine)
    assert bench.device() == FOUND and bench.entries == []


def test_those_that_were_set_are_put_back_when_a_later_one_fails(bench: Bench) -> None:
    wanted = bench.simulated(1005.0)
    broken: Actuator = Stalling(domain="gpu:1", folder=bench.devices, fails=True)
    record = bench.run([*wanted, Wanted(broken, {"clock_mhz": 510.0})])
    assert record.error is not None and record.error.code == "actuator"
    assert bench.device() == bench.device("gpu:1") == FOUND
    assert bench.entries == []


def test_a_refusal_that_changed_nothing_leaves_nothing_to_put_back(bench: Bench) -> None:
    gpu = SettableGpu(is_forbidden=True)
    actuator = NvmlClockActuator(domain="gpu:0", nvml=SettableNvml([gpu]), is_allowed=lambda: True)
    record = bench.run([Wanted(actuator, {"clock_mhz": 1005.0})])
    assert record.error is not None and record.error.code == "actuator_unavailable"
    assert bench.entries == [] and gpu.settings == []


def test_what_cannot_be_put_back_is_told_and_the_next_trial_refused(bench: Bench) -> None:
    engine = WatchingEngine(bench, lambda n_calls: bench.change(refuses="read-only") if n_calls == 2 else None)
    record = bench.run(bench.simulated(1005.0), engine)
    assert [reason.code for reason in record.reasons] == ["device_not_restored"]
    assert not record.settings[0].is_restored
    assert bench.story[-1] != "watchdog dismissed"  # it tries again when this process ends
    refused = bench.run(bench.simulated(1005.0))
    assert refused.error is not None and refused.error.code == "device_not_restored"
    assert "gpu:0" in refused.error.message and "echo" in refused.error.message
    bench.change(refuses="")
    assert bench.run(bench.simulated(1005.0)).reasons == []
    assert bench.device()["clock_mhz"] == 1410.0


def test_a_watchdog_that_cannot_be_started_means_that_nothing_is_touched(bench: Bench) -> None:
    def broken(folder: Path) -> Guard:
        raise ActuatorError("no more processes")

    settings = DeviceSettings(bench.simulated(1005.0), bench.ledger, bench.clock, broken)
    with pytest.raises(ActuatorError, match="no more processes"):
        settings.apply()
    assert bench.device() == FOUND and settings.restore() == []


class TestSpec:
    def spec(self, *actuators: dict[str, Any]) -> TrialSpec:
        return TrialSpec.model_validate({**SPEC.model_dump(), "actuators": list(actuators)})

    def test_has_none_by_default(self) -> None:
        assert SPEC.actuators == []

    def test_sets_each_device_once(self) -> None:
        one = {"name": "nvml_clock", "domain": "gpu:0", "setting": {"clock_mhz": 1005}}
        assert self.spec(one, {**one, "domain": "gpu:1"}).actuators[0].setting == {"clock_mhz": 1005.0}
        with pytest.raises(ValidationError, match="twice"):
            self.spec(one, one)

    @pytest.mark.parametrize("domain", ["", "../gpu:0", "/etc/passwd", "gpu 0", ".", "a" * 65, "gpu:0\n"])
    def test_a_domain_is_no_path(self, domain: str) -> None:
        with pytest.raises(ValidationError):
            ActuatorSpec(name="simulated", domain=domain, setting={"clock_mhz": 1005.0})

    @pytest.mark.parametrize("setting", [{}, {"clock_mhz": float("nan")}, {"clock_mhz": float("inf")}])
    def test_a_setting_is_of_finite_numbers(self, setting: dict[str, float]) -> None:
        with pytest.raises(ValidationError):
            ActuatorSpec(name="simulated", domain="gpu:0", setting=setting)


class TestResult:
    """What the samples say of a clock that an actuator set."""

    def collected(self, folder: Path, *, actuator: str = "nvml_clock") -> TrialResult:
        setting = SettingTaken(
            actuator=actuator, domain="gpu:0", wanted={"clock_mhz": 1005.0}, taken={"clock_mhz": None}
        )
        write(folder, COLLECTED.model_copy(update={"settings": [setting]}))
        result = collected(folder)
        assert result.settings == [setting]
        return result

    def test_a_clock_that_held_is_sound(self, tmp_path: Path) -> None:
        assert self.collected(gauges(tmp_path)).reasons == []

    def test_a_clock_that_did_not_hold_makes_it_suspect(self, tmp_path: Path) -> None:
        result = self.collected(gauges(tmp_path, clock_mhz=1410.0))
        assert [reason.code for reason in result.reasons] == ["clock_not_held"]
        assert "1005" in result.reasons[0].message

    def test_a_clock_that_nobody_sampled_makes_it_suspect(self, tmp_path: Path) -> None:
        assert [reason.code for reason in self.collected(tmp_path).reasons] == ["clock_unverified"]

    def test_a_simulated_device_has_no_samples(self, tmp_path: Path) -> None:
        assert self.collected(tmp_path, actuator="simulated").reasons == []
