"""tegrastats: lines of several JetPack versions, and the program as a fallback meter."""

import stat
import time
from pathlib import Path

import pytest

from contract.errors import InvalidOptionError, MeterError, MeterUnavailableError
from contract.trial_spec import MeterSpec
from testbed.meters.base import MeterProbe
from testbed.meters.selection import MeterSelector
from testbed.meters.tegrastats_line import parse_line
from testbed.meters.tegrastats_meter import TegrastatsMeter
from testbed.registry import Entry, Registry

NANO_JETPACK_4 = (
    "RAM 2462/3964MB (lfb 4x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [14%@102,10%@102,0%@102] "
    "EMC_FREQ 0% GR3D_FREQ 0%@76 APE 25 PLL@24C CPU@26C PMIC@100C GPU@26C AO@32.5C thermal@26.25C POM_5V_IN 1022/1031 "
    "POM_5V_GPU 40/40 POM_5V_CPU 163/163"
)
TX2_JETPACK_3 = (
    "RAM 4722/7860MB (lfb 2x512kB) CPU [25%@1420,off,off,26%@1420,21%@1420] EMC_FREQ 6%@1600 GR3D_FREQ 54%@1134 "
    "APE 150 BCPU@44C MCPU@44C GPU@43C PLL@44C Tboard@39C Tdiode@40.25C PMIC@100C thermal@43.4C VDD_SYS_GPU 152/152 "
    "VDD_SYS_SOC 687/687 VDD_4V0_WIFI 0/0 VDD_IN 4199/4201 VDD_SYS_CPU 535/535 VDD_SYS_DDR 691/691"
)
XAVIER_JETPACK_4 = (
    "RAM 1903/15692MB (lfb 2959x4MB) SWAP 0/7846MB (cached 0MB) CPU [0%@1190,0%@1190,off,off] EMC_FREQ 0%@2133 "
    "GR3D_FREQ 12%@318 APE 150 MTS fg 0% bg 0% AO@36C GPU@35.5C Tdiode@39C PMIC@100C AUX@35.5C CPU@36.5C thermal@36C "
    "Tboard@37C GPU 155/155 CPU 311/330 SOC 934/934 CV 0/0 VDDRQ 155/155 SYS5V 1477/1477"
)
AGX_ORIN_JETPACK_5 = (
    "03-18-2023 13:58:01 RAM 3217/30536MB (lfb 5932x4MB) SWAP 0/15268MB (cached 0MB) CPU [0%@729,1%@729,off,off] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 99%@[1300,1300] VIC_FREQ 729 APE 174 CV0@-256C CPU@46.843C Tboard@36C SOC2@43.843C "
    "Tdiode@36.75C SOC0@44.125C CV1@-256C GPU@-256C tj@46.843C SOC1@43.218C CV2@-256C VDD_GPU_SOC 2400mW/2390mW "
    "VDD_CPU_CV 400mW/400mW VIN_SYS_5V0 4345mW/4345mW NC 0mW/0mW VDDQ_VDD2_1V8AO 500mW/500mW NC 0mW/0mW"
)
ORIN_NANO_JETPACK_6 = (
    "11-21-2024 10:00:00 RAM 2461/7620MB (lfb 3x4MB) SWAP 0/3810MB (cached 0MB) CPU [1%@1510,0%@1510] EMC_FREQ 1%@2133 "
    "GR3D_FREQ 3%@[611] NVDEC off NVJPG off VIC off OFA off APE 200 cpu@48.5C soc2@47.625C soc0@47.7C gpu@48.2C "
    "tj@48.5C soc1@47.4C VDD_IN 4567mW/4571mW VDD_CPU_GPU_CV 521mW/521mW VDD_SOC 1384mW/1384mW"
)
STAND_IN = Path(__file__).parents[1] / "stand_ins" / "tegrastats"


@pytest.mark.parametrize(
    ("line", "power_w", "gpu", "clock_mhz", "memory_mb", "hottest"),
    [
        (NANO_JETPACK_4, {"POM_5V_IN": 1.022, "POM_5V_GPU": 0.04, "POM_5V_CPU": 0.163}, 0.0, 76.0, 2462, ("AO", 32.5)),
        (
            TX2_JETPACK_3,
            {
                "VDD_SYS_GPU": 0.152,
                "VDD_SYS_SOC": 0.687,
                "VDD_4V0_WIFI": 0.0,
                "VDD_IN": 4.199,
                "VDD_SYS_CPU": 0.535,
                "VDD_SYS_DDR": 0.691,
            },
            0.54,
            1134.0,
            4722,
            ("BCPU", 44.0),
        ),
        (
            XAVIER_JETPACK_4,
            {"GPU": 0.155, "CPU": 0.311, "SOC": 0.934, "CV": 0.0, "VDDRQ": 0.155, "SYS5V": 1.477},
            0.12,
            318.0,
            1903,
            ("Tdiode", 39.0),
        ),
        (
            AGX_ORIN_JETPACK_5,
            {"VDD_GPU_SOC": 2.4, "VDD_CPU_CV": 0.4, "VIN_SYS_5V0": 4.345, "VDDQ_VDD2_1V8AO": 0.5},
            0.99,
            1300.0,
            3217,
            ("CPU", 46.843),
        ),
        (
            ORIN_NANO_JETPACK_6,
            {"VDD_IN": 4.567, "VDD_CPU_GPU_CV": 0.521, "VDD_SOC": 1.384},
            0.03,
            611.0,
            2461,
            ("cpu", 48.5),
        ),
    ],
    ids=["nano-4", "tx2-3", "xavier-4", "agx-orin-5", "orin-nano-6"],
)
def test_lines_of_the_jetpacks(
    line: str, power_w: dict[str, float], gpu: float, clock_mhz: float, memory_mb: int, hottest: tuple[str, float]
) -> None:
    told = parse_line(line + "\n")
    assert told.power_w == pytest.approx(power_w)
    assert told.gpu_utilisation == pytest.approx(gpu) and told.gpu_clock_mhz == clock_mhz
    assert told.memory_used_bytes == memory_mb * 2**20
    zone, temp_c = hottest
    assert told.temp_c[zone] == temp_c == max(told.temp_c.values())


def test_power_now_and_the_average_are_told_apart() -> None:
    assert parse_line(NANO_JETPACK_4).power_w["POM_5V_IN"] == pytest.approx(1.022)
    assert parse_line(NANO_JETPACK_4).average_w["POM_5V_IN"] == pytest.approx(1.031)
    assert parse_line(AGX_ORIN_JETPACK_5).average_w["VDD_GPU_SOC"] == pytest.approx(2.39)


@pytest.mark.parametrize("line", [NANO_JETPACK_4, TX2_JETPACK_3, XAVIER_JETPACK_4, AGX_ORIN_JETPACK_5])
def test_a_line_that_is_cut_off_tells_less_and_nothing_wrong(line: str) -> None:
    whole = parse_line(line)
    for end in range(len(line)):
        part = parse_line(line[:end])
        assert set(part.power_w) <= set(whole.power_w) and set(part.temp_c) <= set(whole.temp_c)


def test_without_power_there_is_none() -> None:
    told = parse_line("tegrastats: must be run as root")
    assert not told.power_w and told.gpu_utilisation is None and told.memory_used_bytes is None


def script(folder: Path, text: str) -> str:
    path = folder / "tegrastats"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_watts_conditions_and_the_sum_of_a_program(tmp_path: Path) -> None:
    meter = TegrastatsMeter(period_s=0.02, program=str(STAND_IN))
    assert meter.probe().domains == ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    meter.start(tmp_path)
    time.sleep(0.2)
    report = meter.stop()
    traces = {trace.domain: trace for trace in report.traces}
    assert {domain: trace.component for domain, trace in traces.items()} == {
        "VDD_IN": "system",
        "VDD_CPU_GPU_CV": "part",
        "VDD_SOC": "part",
    }
    assert 4.5 <= traces["VDD_IN"].values.mean() <= 4.507 and traces["VDD_IN"].values.size >= 2
    gauges = {f"{gauge.domain}/{gauge.quantity}": float(gauge.values[0]) for gauge in report.gauges}
    assert gauges["tj/temp_c"] == 48.5 and gauges["gpu:0/utilisation"] == 0.45
    assert not report.warnings


def test_a_program_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    meter = TegrastatsMeter(period_s=0.02, program=script(tmp_path, f"echo '{ORIN_NANO_JETPACK_6}'; sleep 0.1; exit 3"))
    meter.start(tmp_path)
    time.sleep(0.4)
    assert "exit status 3" in meter.stop().warnings[0]


def test_a_program_that_tells_no_power_is_not_available(tmp_path: Path) -> None:
    program = script(tmp_path, "echo 'RAM 1/2MB'; sleep 1")
    probe = TegrastatsMeter(program=program).probe()
    assert not probe.available and "sudo" in probe.message
    with pytest.raises(MeterError, match="told no rail"):
        TegrastatsMeter(program=program).start(tmp_path)


def test_where_there_is_no_program_it_says_so(tmp_path: Path) -> None:
    meter = TegrastatsMeter(program=str(tmp_path / "none"))
    assert not meter.probe().available
    with pytest.raises(MeterUnavailableError, match="no program"):
        meter.start(tmp_path)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(InvalidOptionError, match="tegrastats"):
        TegrastatsMeter(total_rail="VDD_IN", added_rails={"VDD_IN": "cpu"})


class _Probed:
    """A meter that answers its probe only."""

    def __init__(self, *, available: bool) -> None:
        self._available = available

    def probe(self) -> MeterProbe:
        return MeterProbe(self._available, "told by a test")


def _here(**_: object) -> _Probed:
    return _Probed(available=True)


def _gone(**_: object) -> _Probed:
    return _Probed(available=False)


@pytest.mark.parametrize(("jetson", "chosen"), [("_here", ("jetson",)), ("_gone", ("tegrastats",))])
def test_it_is_chosen_only_where_the_rails_cannot_be_read(jetson: str, chosen: tuple[str, ...]) -> None:
    names = {"energibridge": "_gone", "rapl": "_gone", "nvml": "_gone", "jetson": jetson, "tegrastats": "_here"}
    entries = {name: Entry(f"{__name__}:{factory}") for name, factory in names.items()}
    selector = MeterSelector(meters=Registry("meter", entries))  # type: ignore[arg-type]
    choice = selector.choose(MeterSpec())
    assert choice.names == chosen
    assert set(choice.reasons) == set(names) - set(chosen)
