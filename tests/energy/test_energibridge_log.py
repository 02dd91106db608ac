"""EnergiBridge's dialects, its bad logs, and the public ones."""

import re
from pathlib import Path

import numpy as np
import pytest

from contract.errors import LogFormatError
from energy.energibridge_log import read_energibridge_log
from energy.integrate import CumulativeEnergy

RUNS = Path(__file__).resolve().parents[3] / "shared" / "data" / "greenlab" / "runs"

INTEL = """Delta,Time,DRAM_ENERGY (J),GPU0_POWER (mWatts),GPU1_POWER (mWatts),PACKAGE_ENERGY (J),PP0_ENERGY (J)
0,1000000,0,100000,50000,10,6
200,1000000,0,100000,50000,12,7
200,1000200,0,100000,50000,22,12
200,1000400,0,100000,50000,32,17
"""


def log(folder: Path, text: str) -> Path:
    path = folder / "energibridge.csv"
    path.write_text(text)
    return path


def joules(path: Path, **options: str) -> dict[str, float | None]:
    found = {}
    for trace in read_energibridge_log(path, **options).traces:
        window = CumulativeEnergy(trace).window(trace.time_s[0], trace.time_s[-1])
        found[f"{trace.domain}/{trace.component}"] = window.energy_j
    return found


def test_intel_with_two_gpus(tmp_path: Path) -> None:
    # DRAM 0 throughout is an absent sensor; of the two rows with one Time, the later counts.
    assert joules(log(tmp_path, INTEL)) == pytest.approx(
        {"cpu_package/cpu": 20.0, "cpu_core/part": 10.0, "gpu:0/gpu": 40.0, "gpu:1/gpu": 20.0}
    )


def test_columns_in_any_order_and_any_separator(tmp_path: Path) -> None:
    rows = [line.split(",")[::-1] for line in INTEL.splitlines()]
    text = "\n".join(";".join(row) for row in rows) + "\n"
    assert joules(log(tmp_path, text), separator=";") == pytest.approx(joules_of_intel(tmp_path))


def joules_of_intel(folder: Path) -> dict[str, float | None]:
    (folder / "other").mkdir()
    return joules(log(folder / "other", INTEL))


def test_amd_cores_are_parts_of_the_package(tmp_path: Path) -> None:
    text = "Delta,Time,CORE0_ENERGY (J),CORE1_ENERGY (J),CPU_ENERGY (J)\n0,0,1,1,5\n1,1000,2,3,9\n1,2000,3,5,13\n"
    assert joules(log(tmp_path, text)) == pytest.approx(
        {"cpu_core:0/part": 2.0, "cpu_core:1/part": 4.0, "cpu_package/cpu": 8.0}
    )


def test_macos_is_in_watts(tmp_path: Path) -> None:
    text = "Delta,Time,CPU_POWER (Watts),SYSTEM_POWER (Watts)\n0,0,10,30\n1,1000,10,30\n1,2000,10,30\n"
    assert joules(log(tmp_path, text)) == pytest.approx({"cpu_package/cpu": 20.0, "psys/system": 60.0})


def test_rows_longer_than_the_header_are_tolerated(tmp_path: Path) -> None:
    assert joules(log(tmp_path, INTEL.replace(",7\n", ",7,99\n")))["cpu_core/part"] == pytest.approx(10.0)


def test_a_last_line_that_was_cut_off_is_left_out_and_noted(tmp_path: Path) -> None:
    # "3" is the beginning of 32.5 or of 3: nothing tells, so the row does not count.
    read = read_energibridge_log(log(tmp_path, INTEL + "200,1000600,0,100000,50000,4"))
    assert read.n_rows == 3
    assert "cut off" in read.notes[0]
    assert all("cut off" in trace.note for trace in read.traces)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("Delta,Time,PACKAGE_ENERGY (J)\n", 2, "no complete row"),
        ("Delta,Time,USED_MEMORY\n0,1,2\n", 1, "no column"),
        ("Delta,When,PACKAGE_ENERGY (J)\n0,1,2\n", 1, "no column Time"),
        (INTEL.replace("200,1000200,0,100000,50000,22,12", "200,1000200,0,100000,50000,x,12"), 4, "'x'"),
        (INTEL.replace("200,1000200,0,100000,50000,22,12", "200,1000200,0"), 4, "3 fields"),
        (INTEL.replace("1000400", "999000"), 5, "backwards"),
        (INTEL.replace("32,17", "nan,17"), 5, "not finite"),
    ],
)
def test_bad_logs_are_named_by_file_and_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = log(tmp_path, text)
    with pytest.raises(LogFormatError, match=re.escape(words)) as caught:
        read_energibridge_log(path)
    assert caught.value.detail == {"file": str(path), "line": line}
    assert str(path) in caught.value.message


def test_a_missing_log_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(LogFormatError, match="no such file"):
        read_energibridge_log(tmp_path / "energibridge.csv")


@pytest.mark.skipif(not RUNS.is_dir(), reason="the public logs are not here (../shared/data/greenlab/runs)")
def test_the_public_logs_agree_with_their_own_summaries() -> None:
    wrapped = []
    for folder in sorted(RUNS.iterdir()):
        traces = {trace.domain: trace for trace in read_energibridge_log(folder / "energibridge.csv").traces}
        package = traces["cpu_package"]
        window = CumulativeEnergy(package).window(package.time_s[0], package.time_s[-1])
        assert window.energy_j is not None and window.energy_j > 0
        mean_w = window.energy_j / (package.time_s[-1] - package.time_s[0])
        assert 30 < mean_w < 150, folder.name
        if window.n_wraps:
            wrapped.append(folder.name)
        said = re.search(r"joules: ([\d.]+)", (folder / "energibridge-summary.txt").read_text())
        if said and not window.n_wraps:
            # The summary is the same counter without its last interval.
            last_interval_j = float(np.diff(package.values)[-1])
            assert abs(window.energy_j - float(said.group(1))) <= last_interval_j + 1e-6, folder.name
    assert wrapped == ["run_4_repetition_0"]
