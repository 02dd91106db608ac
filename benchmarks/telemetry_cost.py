"""What live telemetry costs a testbed: the sampler's CPU with and without a listener, and the listener's own.

    python benchmarks/telemetry_cost.py
    python benchmarks/telemetry_cost.py --seconds 30 --pairs 5
    python benchmarks/telemetry_cost.py --real            # this machine's own sensors, where it has any

Each meter runs at 200 ms while this process sleeps, in turns without and with a listener that takes an event a second,
as a dashboard does. `sampler` is the sampling thread's own CPU time over the time between start and stop, the figure
that each result carries; the ratio is that with a listener over that without. `listener` is the CPU time of taking the
events and making them JSON, which the testbed's API pays and not the trial's process. While nobody listens a sample
costs one comparison, and one look a second whether the socket is there; that is timed by itself below.

The limit: a listener may cost the sampler a tenth of a per cent of one core at most.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.sampler_cost import doubles, real  # noqa: E402
from contract.attempt_state import AttemptState  # noqa: E402
from contract.trial_result import AttemptStatus  # noqa: E402
from testbed.clock import SystemClock  # noqa: E402
from testbed.meters.base import Meter  # noqa: E402
from testbed.meters.live_feed import LiveFeed  # noqa: E402
from testbed.telemetry.board import Running, TelemetryBoard  # noqa: E402

EVENT_S = 1.0
LIMIT_PERCENT = 0.1
CALLS = 200_000


@dataclass
class Cost:
    """Of one run of a meter.

    Attributes:
        sampler_percent: of one core.
        listener_percent: of one core; 0 without one.
        n_points: that the listener was told.
        largest_gap_s: between two samples of the trace that has most.
    """

    sampler_percent: float
    listener_percent: float
    n_points: int
    largest_gap_s: float


def cost(meter: Meter, seconds: float, *, is_heard: bool) -> Cost:
    """Run a meter."""
    with tempfile.TemporaryDirectory(prefix="telemetry-cost-") as name:
        folder = Path(name)
        board = board_on(folder)
        meter.start(folder)
        n_points, listener_cpu_s = 0, 0.0
        if is_heard:
            with board.listen() as listener:
                end_s = time.monotonic() + seconds
                while time.monotonic() < end_s:
                    before_s = time.thread_time()
                    sample = listener.next()
                    sample.model_dump_json()
                    listener_cpu_s += time.thread_time() - before_s
                    n_points += sum(len(series.time_s) for series in sample.series)
                    time.sleep(EVENT_S)
        else:
            time.sleep(seconds)
        report = meter.stop()
        board.close()
    assert report.sampler_cpu_s is not None and report.window_s is not None
    longest = max((trace.time_s for trace in report.traces), key=len)
    return Cost(
        100 * report.sampler_cpu_s / report.window_s,
        100 * listener_cpu_s / report.window_s,
        n_points,
        float((longest[1:] - longest[:-1]).max()),
    )


def board_on(folder: Path) -> TelemetryBoard:
    """A board whose running attempt is in a folder."""
    status = AttemptStatus(
        attempt_id="a1",
        run_id="run_0_repetition_0",
        spec_sha256="0" * 64,
        state=AttemptState.MEASURING,
        version=1,
        updated_at=datetime.now(UTC),
    )
    return TelemetryBoard(
        running=lambda: Running(status, folder, {}),
        find=lambda attempt_id: status,
        temperatures=list,
        clock=SystemClock(),
    )


def silent_call_us() -> float:
    """CPU of telling nobody, per sample, at the period of the others."""
    with tempfile.TemporaryDirectory(prefix="telemetry-cost-") as folder:
        feed = LiveFeed(Path(folder), "none")
        before_s = time.thread_time()
        for index in range(CALLS):
            feed.tell(index * 0.2, tuple)
        return 1e6 * (time.thread_time() - before_s) / CALLS


def compare(name: str, make: Callable[[], Meter], seconds: float, pairs: int) -> float:
    """Print one meter's row; what a listener adds, in per cent of one core."""
    alone, heard = [], []
    for _ in range(pairs):
        alone.append(cost(make(), seconds, is_heard=False))
        heard.append(cost(make(), seconds, is_heard=True))
    without = statistics.mean(each.sampler_percent for each in alone)
    with_one = statistics.mean(each.sampler_percent for each in heard)
    listener = statistics.mean(each.listener_percent for each in heard)
    gap_ms = [1e3 * max(each.largest_gap_s for each in group) for group in (alone, heard)]
    n_points = statistics.mean(each.n_points for each in heard)
    print(
        f"{name:<18} {without:9.4f} {with_one:9.4f} {with_one / without:7.2f} {listener:10.4f} {n_points:8.0f} "
        f"{gap_ms[0]:7.0f} {gap_ms[1]:7.0f}",
        flush=True,
    )
    return with_one - without


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each run takes")
    parser.add_argument("--pairs", type=int, default=2, help="runs without and with a listener, in turns")
    parser.add_argument("--real", action="store_true", help="this machine's own sensors as well")
    arguments = parser.parse_args()
    print(f"{'':<18} {'sampler, % of a core':^19} {'':>7} {'listener,':>10} {'':>8} {'longest gap, ms':^15}")
    print(f"{'meter':<18} {'alone':>9} {'heard':>9} {'ratio':>7} {'%':>10} {'points':>8} {'alone':>7} {'heard':>7}")
    added = []
    with tempfile.TemporaryDirectory(prefix="telemetry-cost-") as folder:
        for name, make in doubles(Path(folder)).items():
            added.append(compare(name, make, arguments.seconds, arguments.pairs))
    for name, make in real().items() if arguments.real else ():
        probe = make().probe()
        if probe.available:
            compare(f"{name} (real)", make, arguments.seconds, arguments.pairs)
        else:
            print(f"{name + ' (real)':<18} {probe.message}")
    print(f"nobody listens: {silent_call_us():.2f} us of CPU per sample")
    print(f"a listener adds at most {max(added):.4f} % of one core (limit {LIMIT_PERCENT} %)")
    return 0 if max(added) < LIMIT_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
