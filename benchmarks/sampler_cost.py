"""What sampling costs: CPU seconds per measured second of each native meter, in per cent of one core.

    python benchmarks/sampler_cost.py                    # on trees and a library that only look like the hardware
    python benchmarks/sampler_cost.py --real             # the meters that this machine has, too
    python benchmarks/sampler_cost.py --seconds 60

Each meter runs alone at 200 ms while this process sleeps. The cost is the sampling thread's own CPU time
(`MeterReport.sampler_cpu_s`, user and system) over the time between start and stop (`MeterReport.window_s`); what a
driver does in interrupts or in other threads is not in it. `rapl` stands twice: at its own rhythm of one read a
second, and asked to be as fast as the others.

On the doubles this bounds our own share: a real driver's calls come on top, and are measured with --real on the
machine itself. The limit holds for the doubles, as the least that must be true; a meter over it fails the benchmark.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from testbed.meters.base import Meter  # noqa: E402
from testbed.meters.estimate_meter import EstimateMeter  # noqa: E402
from testbed.meters.jetson_meter import JetsonMeter  # noqa: E402
from testbed.meters.nvml_meter import NvmlMeter  # noqa: E402
from testbed.meters.rapl_meter import RaplMeter  # noqa: E402
from tests.testbed.nvml_double import GpuDouble, NvmlDouble  # noqa: E402
from tests.testbed.sysfs_double import jetson, powercap  # noqa: E402

PERIOD_S = 0.2
LIMIT_PERCENT = 0.5


def doubles(folder: Path) -> dict[str, Callable[[], Meter]]:
    """Meters on what looks like hardware: one GPU with a process of another user, five RAPL zones, an AGX Orin."""
    stranger = 1
    roots = jetson(folder / "jetson")
    tree = powercap(folder / "powercap")
    return {
        "rapl": lambda: RaplMeter(period_s=PERIOD_S, root=tree),
        "rapl, fast": lambda: RaplMeter(period_s=PERIOD_S, fast=True, root=tree),
        "nvml": lambda: NvmlMeter(period_s=PERIOD_S, nvml=NvmlDouble([GpuDouble(compute_pids=[stranger])])),
        "jetson": lambda: JetsonMeter(period_s=PERIOD_S, **roots),  # type: ignore[arg-type]
        "estimate": lambda: EstimateMeter(period_s=PERIOD_S),
    }


def real() -> dict[str, Callable[[], Meter]]:
    """The same meters on this machine's own sensors."""
    return {
        "rapl": lambda: RaplMeter(period_s=PERIOD_S),
        "rapl, fast": lambda: RaplMeter(period_s=PERIOD_S, fast=True),
        "nvml": lambda: NvmlMeter(period_s=PERIOD_S),
        "jetson": lambda: JetsonMeter(period_s=PERIOD_S),
    }


def cost_percent(meter: Meter, seconds: float) -> tuple[float, int]:
    """Per cent of one core, and the samples of the trace that has most."""
    with tempfile.TemporaryDirectory(prefix="sampler-cost-") as folder:
        meter.start(Path(folder))
        time.sleep(seconds)
        report = meter.stop()
    assert report.sampler_cpu_s is not None and report.window_s is not None
    return 100 * report.sampler_cpu_s / report.window_s, max(trace.time_s.size for trace in report.traces)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each meter runs")
    parser.add_argument("--real", action="store_true", help="measure this machine's own sensors as well")
    arguments = parser.parse_args()
    worst = 0.0
    print(f"{'meter':<20} {'% of one core':>14} {'samples':>8}")
    with tempfile.TemporaryDirectory(prefix="sampler-cost-") as folder:
        for name, make in doubles(Path(folder)).items():
            percent, n_samples = cost_percent(make(), arguments.seconds)
            worst = max(worst, percent)
            print(f"{name:<20} {percent:14.3f} {n_samples:8d}")
    for name, make in real().items() if arguments.real else ():
        meter = make()
        probe = meter.probe()
        if not probe.available:
            print(f"{name + ' (real)':<20} {'-':>14} {'-':>8}  {probe.message}")
            continue
        percent, n_samples = cost_percent(meter, arguments.seconds)
        print(f"{name + ' (real)':<20} {percent:14.3f} {n_samples:8d}")
    print(f"worst of the doubles: {worst:.3f} % (limit {LIMIT_PERCENT} %)")
    return 0 if worst < LIMIT_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
