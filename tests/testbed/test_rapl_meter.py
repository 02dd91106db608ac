"""RAPL's rhythm and its odd trees."""

from pathlib import Path

import pytest

from contract.errors import InvalidOptionError
from energy.integrate import CumulativeEnergy
from testbed.meters.rapl_meter import MIN_PERIOD_S, RaplMeter
from tests.testbed.sysfs_double import powercap, put


def zone(root: Path, folder: str, name: str) -> Path:
    put(root / folder / "name", name)
    put(root / folder / "max_energy_range_uj", 262143328850)
    return put(root / folder / "energy_uj", 1_000_000)


@pytest.mark.parametrize(
    ("period_s", "fast", "taken_s"), [(0.2, False, MIN_PERIOD_S), (5.0, False, 5.0), (0.2, True, 0.2)]
)
def test_registers_are_read_once_a_second_unless_asked(
    period_s: float, fast: bool, taken_s: float, tmp_path: Path
) -> None:
    meter = RaplMeter(period_s=period_s, fast=fast, root=powercap(tmp_path / "powercap"))
    meter.start(tmp_path)
    settings = meter.stop().settings
    assert (settings["period_s"], settings["wanted_period_s"], settings["fast"]) == (taken_s, period_s, fast)


def test_a_trial_shorter_than_the_rhythm_is_covered_from_end_to_end(tmp_path: Path) -> None:
    package = tmp_path / "powercap" / "intel-rapl:0" / "energy_uj"
    meter = RaplMeter(root=powercap(tmp_path / "powercap"))
    meter.start(tmp_path)
    put(package, 8_000_000)
    trace = next(each for each in meter.stop().traces if each.domain == "cpu_package")
    assert trace.values.size == 2
    start_s, end_s = trace.time_s
    margin_s = (end_s - start_s) / 10
    cumulative = CumulativeEnergy(trace)
    assert cumulative.window(start_s, end_s).energy_j == pytest.approx(3.0)
    # Marks inside the one interval: the figure is interpolated, and the bound says that it may all be wrong.
    inside = cumulative.window(start_s + margin_s, end_s - margin_s)
    assert inside.energy_j == pytest.approx(2.4)
    assert inside.uncertainty_j is not None and inside.uncertainty_j >= 2.4


def test_two_packages_and_two_psys_keep_their_own_names(tmp_path: Path) -> None:
    for folder, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:1", "package-1"),
        ("intel-rapl:1:0", "dram"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl:3", "psys-1"),
        ("intel-rapl:4", "psys"),
    ):
        zone(tmp_path, folder, name)
    meter = RaplMeter(root=tmp_path)
    meter.start(tmp_path)
    components = {trace.domain: trace.component for trace in meter.stop().traces}
    assert components == {
        "cpu_package": "cpu",
        "cpu_package:1": "cpu",
        "dram:1": "dram",
        "psys": "system",
        "psys:1": "system",
        "psys@intel-rapl:4": "system",
    }


def test_a_zone_without_a_name_is_no_zone(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    put(tmp_path / "intel-rapl:1" / "energy_uj", 5)
    assert RaplMeter(root=tmp_path).probe().domains == ("cpu_package",)


def test_fast_is_true_or_false() -> None:
    with pytest.raises(InvalidOptionError, match="fast"):
        RaplMeter(fast="yes")  # type: ignore[arg-type]
