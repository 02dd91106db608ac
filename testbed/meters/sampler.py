"""A sampling thread: sleeps between samples, and knows what it cost."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from contract.errors import MeterError
from energy.trace import FloatArray
from testbed.clock import Clock


@dataclass
class Samples:
    """Readings of one sensor."""

    time_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def arrays(self) -> tuple[FloatArray, FloatArray]:
        """Times and values as vectors."""
        return np.array(self.time_s, dtype=np.float64), np.array(self.values, dtype=np.float64)


class SamplerThread:
    """Calls a function in a fixed rhythm and keeps what it returns.

    Each reading is stamped with the middle of the time that it took. A failed reading is counted and left out: a
    repeated old value would look like a measurement.

    Args:
        read: sensor -> value, now; may raise OSError.
        period_s: rhythm; after a reading that takes longer it rests a period, and makes up for none.
        clock: of the stamps.
    """

    def __init__(self, read: Callable[[], Mapping[str, float]], period_s: float, clock: Clock) -> None:
        self._read = read
        self._period_s = period_s
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sampler", daemon=True)
        self.samples: dict[str, Samples] = {}
        self.n_failed = 0
        self.cpu_s = 0.0

    def start(self) -> None:
        """Take the first sample, then go on in the background.

        Raises:
            MeterError: the first reading failed.
        """
        if not self._sample():
            raise MeterError("The sensors cannot be read any more: run `testbed doctor`.")
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end. Idempotent."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self._sample()

    def _loop(self) -> None:
        # Event.wait sleeps in the kernel: nothing spins beside a measurement.
        next_s = time.monotonic() + self._period_s
        while not self._stop.wait(max(next_s - time.monotonic(), 0.0)):
            self._sample()
            self.cpu_s = time.thread_time()
            now_s = time.monotonic()
            # A sensor slower than the period must not turn the rhythm into a loop without rest.
            next_s = next_s + self._period_s if next_s + self._period_s > now_s else now_s + self._period_s

    def _sample(self) -> bool:
        before_ns = self._clock.monotonic_ns()
        try:
            values = self._read()
        except OSError:
            self.n_failed += 1
            return False
        time_s = (before_ns + self._clock.monotonic_ns()) / 2e9
        for sensor, value in values.items():
            samples = self.samples.setdefault(sensor, Samples())
            samples.time_s.append(time_s)
            samples.values.append(value)
        return True
