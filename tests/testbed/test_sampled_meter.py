"""The in-process meters where things go wrong: races, first readings that fail, odd trees, wrong options."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contract.errors import InvalidOptionError, MeterError, MeterUnavailableError
from contract.trial_result import EnergyMethod
from contract.trial_spec import MeterSpec
from energy.trace import Trace
from testbed.clock import SystemClock
from testbed.meters.base import MeterProbe
from testbed.meters.energibridge_meter import EnergiBridgeMeter
from testbed.meters.rapl_meter import RaplMeter
from testbed.meters.sampled_meter import SampledMeter
from testbed.meters.sampler import SamplerThread, Samples
from testbed.meters.selection import MeterSelector


class Sensor(SampledMeter):
    """One sensor that says what it is told."""

    name = "sensor"

    def __init__(self, *, fails: bool = False, kind: str = "counter") -> None:
        super().__init__(period_s=0.02)
        self.fails = fails
        self.kind = kind
        self.n_open = 0

    def probe(self) -> MeterProbe:
        return MeterProbe(True, "here", ("x",))

    def _open(self) -> None:
        self.n_open += 1

    def _close(self) -> None:
        self.n_open -= 1

    def _read(self) -> Mapping[str, float]:
        if self.fails:
            raise OSError("gone")
        return {"x": 1.0}

    def _trace(self, sensor: str, samples: Samples) -> Trace:
        time_s, values = samples.arrays()
        return Trace(sensor, "cpu", self.kind, EnergyMethod.COUNTER, self.name, time_s, values)  # type: ignore[arg-type]


def test_telemetry_between_the_two_halves_of_a_sample_does_not_end_the_trial(tmp_path: Path) -> None:
    meter = Sensor(kind="power")
    meter.start(tmp_path)
    assert meter._sampler is not None
    # What another thread sees while the sampler has kept the time of its next sample, but not yet its value.
    meter._sampler.samples["x"] = Samples([1.0, 2.0], [50.0])
    assert meter.latest_power_w() == {"x": 50.0}
    meter._sampler.samples["x"] = Samples([1.0], [])
    assert meter.latest_power_w() == {}
    meter._sampler.samples.clear()
    meter.stop()


def test_a_first_reading_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    meter = Sensor(fails=True)
    with pytest.raises(MeterError, match="testbed doctor"):
        meter.start(tmp_path)
    assert meter.n_open == 0
    assert meter.stop().traces == ()


def test_readings_slower_than_the_period_leave_time_to_others() -> None:
    n = 0

    def slow() -> Mapping[str, float]:
        nonlocal n
        n += 1
        time.sleep(0.03)
        return {"x": 1.0}

    sampler = SamplerThread(slow, 0.02, SystemClock())
    sampler.start()
    time.sleep(0.5)
    sampler.stop()
    # Back to back they would be 16; with a period of rest after each, ten.
    assert n <= 13
    assert not any(thread.name == "sampler" for thread in threading.enumerate())


def zone(root: Path, folder: str, name: str, energy: str = "1000000\n") -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text("262143328850\n")
    (path / "energy_uj").write_text(energy)
    return path


def test_dram_carries_its_packages_number_not_its_folders(tmp_path: Path) -> None:
    # psys takes the folder between the packages, so that package-1 is intel-rapl:2.
    for folder, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "dram"),
        ("intel-rapl:1", "psys"),
        ("intel-rapl:2", "package-1"),
        ("intel-rapl:2:0", "dram"),
        ("intel-rapl:2:1", "uncore"),
    ):
        zone(tmp_path, folder, name)
    assert RaplMeter(root=tmp_path).probe().domains == (
        "cpu_package",
        "dram",
        "psys",
        "cpu_package:1",
        "dram:1",
        "cpu_uncore:1",
    )


def test_a_zone_that_reads_as_nothing_is_a_failed_reading_not_a_dead_thread(tmp_path: Path) -> None:
    path = zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    meter = RaplMeter(period_s=0.02, fast=True, root=tmp_path / "powercap")
    meter.start(tmp_path)
    (path / "energy_uj").write_text("")
    time.sleep(0.1)
    (path / "energy_uj").write_text("2000000\n")
    time.sleep(0.1)
    report = meter.stop()
    assert "readings failed" in report.warnings[0]
    assert report.traces[0].values.size >= 3  # it went on afterwards


def test_a_program_that_cannot_be_executed_is_unavailable(tmp_path: Path) -> None:
    program = tmp_path / "energibridge"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    meter = EnergiBridgeMeter(program=str(program), gpu=False)
    assert not meter.probe().available
    with pytest.raises(MeterUnavailableError, match="cannot be started"):
        meter.start(tmp_path)


def test_a_meter_that_was_mended_is_found_without_a_restart() -> None:
    answers = iter([MeterProbe(False, "Run: sudo chmod"), MeterProbe(True, "here")])
    registry: Any = SimpleNamespace(
        create_from_spec=lambda name, options, **own: SimpleNamespace(probe=lambda: next(answers))
    )
    selector = MeterSelector(meters=registry)
    with pytest.raises(MeterUnavailableError, match="sudo chmod"):
        selector.choose(MeterSpec(name="rapl"))
    assert selector.choose(MeterSpec(name="rapl")).names == ("rapl",)
    assert selector.choose(MeterSpec(name="rapl")).names == ("rapl",)  # remembered: a third look would find no answer


@pytest.mark.parametrize("options", [{"colour": 1}, {"power_w": "much"}, {"power_w": -1.0}])
def test_wrong_options_of_a_named_meter_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match="fake"):
        MeterSelector().choose(MeterSpec(name="fake", options=options))
