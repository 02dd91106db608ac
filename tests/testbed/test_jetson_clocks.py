"""Whether clocks are held as `jetson_clocks` holds them, from a Jetson's files."""

from pathlib import Path

import pytest

from testbed.meters.jetson_clocks import FREE, HELD, UNKNOWN, clocks_state

GPU_HZ, CPU_KHZ = (306000000, 1300500000), (729600, 2201600)


def board(root: Path, gpu: tuple[int, int], cpus: list[tuple[int, int]]) -> tuple[Path, Path]:
    device = root / "devfreq" / "17000000.gpu"
    device.mkdir(parents=True)
    (device / "available_frequencies").write_text(" ".join(map(str, GPU_HZ)))
    (device / "min_freq").write_text(str(gpu[0]))
    (device / "max_freq").write_text(str(gpu[1]))
    (device / "cur_freq").write_text(str(gpu[0]))
    for number, (low, high) in enumerate(cpus):
        policy = root / "cpufreq" / f"policy{4 * number}"
        policy.mkdir(parents=True)
        (policy / "scaling_min_freq").write_text(str(low))
        (policy / "scaling_max_freq").write_text(str(high))
        (policy / "cpuinfo_max_freq").write_text(str(CPU_KHZ[1]))
    return root / "devfreq", root / "cpufreq"


@pytest.mark.parametrize(
    ("gpu", "cpus", "told"),
    [
        (GPU_HZ, [CPU_KHZ, CPU_KHZ], f"gpu {FREE}, cpu {FREE}"),
        ((GPU_HZ[1],) * 2, [(CPU_KHZ[1],) * 2] * 2, f"gpu {HELD}, cpu {HELD}"),
        # Held, but not at the highest: somebody else did that.
        ((GPU_HZ[0],) * 2, [CPU_KHZ], f"gpu {FREE}, cpu {FREE}"),
        (GPU_HZ, [(CPU_KHZ[1],) * 2, CPU_KHZ], f"gpu {FREE}, cpu partly held at the highest clock"),
        (GPU_HZ, [], f"gpu {FREE}, cpu {UNKNOWN}"),
    ],
)
def test_the_state_is_told_for_gpu_and_processors(
    tmp_path: Path, gpu: tuple[int, int], cpus: list[tuple[int, int]], told: str
) -> None:
    assert clocks_state(*board(tmp_path, gpu, cpus)) == told


def test_a_file_that_is_not_there_is_no_free_clock(tmp_path: Path) -> None:
    devfreq, cpufreq = board(tmp_path, GPU_HZ, [CPU_KHZ])
    (devfreq / "17000000.gpu" / "min_freq").unlink()
    assert clocks_state(devfreq, cpufreq) == f"gpu {UNKNOWN}, cpu {FREE}"
    assert clocks_state(tmp_path / "none", tmp_path / "none") == f"gpu {UNKNOWN}, cpu {UNKNOWN}"
