"""A sampling thread: sleeps between samples, and knows what it cost."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from contract.errors import MeterError
from energy.trace import FloatArray
from testbed.clock import Clock

Reader = Callable[[], float]
"""Reads one sensor now; raises OSError where it cannot."""

SLOW_PERIOD_S = 1.0
"""Temperatures and the like change slowly, and lists of processes cost much: not read oftener than this."""


@dataclass
class Samples:
    """Readings of one sensor."""

    time_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def arrays(self) -> tuple[FloatArray, FloatArray]:
        """Times and values as vectors."""
        return np.array(self.time_s, dtype=np.float64), np.array(self.values, dtype=np.float64)


def read_each(readers: Mapping[str, Reader], missed: Counter[str]) -> dict[str, float]:
    """Read several sensors; one that fails costs its own sample only.

    Args:
        readers: sensor -> how to read it.
        missed: counts the failures of each sensor.
    """
    values = {}
    for sensor, read in readers.items():
        try:
            values[sensor] = read()
        except OSError:
            missed[sensor] += 1
    return values


def read_energy(readers: Mapping[str, Reader], missed: Counter[str]) -> dict[str, float]:
    """As `read_each`, for what a trial cannot do without.

    Args:
        readers: sensor -> how to read it.
        missed: counts the failures of each sensor, where others answered.

    Raises:
        OSError: none answered.
    """
    failed: Counter[str] = Counter()
    values = read_each(readers, failed)
    if readers and not values:
        raise OSError(f"none of {', '.join(readers)} can be read")
    missed.update(failed)
    return values


class SamplerThread:
    """Calls functions in a fixed rhythm and keeps what they return.

    Each reading is stamped with the middle of the time that it took. A failed reading is counted and left out: a
    repeated old value would look like a measurement. Gauges are read after the energy, under a stamp of their own, so
    that a slow one does not blur the energy's.

    Args:
        read: sensor -> value, now; may raise OSError.
        period_s: rhythm; after a reading that takes longer it rests a period, and makes up for none.
        clock: of the stamps.
        read_gauges: the same for conditions; asked at every sample.
        read_slow_gauges: the same for conditions that change slowly; asked every `SLOW_PERIOD_S`, and at both ends.
        after_sample: called in the background after each sample, with the time; must not raise or wait.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, float]],
        period_s: float,
        clock: Clock,
        *,
        read_gauges: Callable[[], Mapping[str, float]] = dict,
        read_slow_gauges: Callable[[], Mapping[str, float]] = dict,
        after_sample: Callable[[float], None] = lambda now_s: None,
    ) -> None:
        self._read = read
        self._read_gauges = read_gauges
        self._read_slow_gauges = read_slow_gauges
        self._after_sample = after_sample
        self._period_s = period_s
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sampler", daemon=True)
        self._slow_due_s = float("-inf")
        self._thread_cpu_s = 0.0
        self._caller_cpu_s = 0.0
        self.samples: dict[str, Samples] = {}
        self.gauges: dict[str, Samples] = {}
        self.n_failed = 0

    @property
    def cpu_s(self) -> float:
        """CPU seconds that sampling cost so far: the thread's, and the caller's for the first and last sample."""
        return self._thread_cpu_s + self._caller_cpu_s

    def start(self) -> None:
        """Take the first sample, then go on in the background.

        Raises:
            MeterError: the first reading failed.
        """
        if not self._sample_here():
            raise MeterError("The sensors cannot be read any more: run `testbed doctor`.")
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end. Idempotent."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self._slow_due_s = float("-inf")
            self._sample_here()

    def _loop(self) -> None:
        # Event.wait sleeps in the kernel: nothing spins beside a measurement.
        next_s = time.monotonic() + self._period_s
        while not self._stop.wait(max(next_s - time.monotonic(), 0.0)):
            self._sample()
            self._after_sample(self._clock.monotonic_ns() / 1e9)
            self._thread_cpu_s = time.thread_time()
            now_s = time.monotonic()
            # A sensor slower than the period must not turn the rhythm into a loop without rest.
            next_s = next_s + self._period_s if next_s + self._period_s > now_s else now_s + self._period_s
        self._thread_cpu_s = time.thread_time()

    def _sample_here(self) -> bool:
        before_s = time.thread_time()
        is_read = self._sample()
        self._caller_cpu_s += time.thread_time() - before_s
        return is_read

    def _sample(self) -> bool:
        is_read = self._take(self._read, self.samples)
        if not is_read:
            self.n_failed += 1
        self._take(self._read_gauges, self.gauges)
        now_s = self._clock.monotonic_ns() / 1e9
        # Half a period early is on time: otherwise a jitter of a millisecond would put it off by a whole period.
        if now_s >= self._slow_due_s - self._period_s / 2:
            self._slow_due_s = now_s + SLOW_PERIOD_S
            self._take(self._read_slow_gauges, self.gauges)
        return is_read

    def _take(self, read: Callable[[], Mapping[str, float]], into: dict[str, Samples]) -> bool:
        before_ns = self._clock.monotonic_ns()
        try:
            values = read()
        except OSError:
            return False
        time_s = (before_ns + self._clock.monotonic_ns()) / 2e9
        for sensor, value in values.items():
            samples = into.setdefault(sensor, Samples())
            samples.time_s.append(time_s)
            samples.values.append(value)
        return True
