"""Time that only sleeping moves: an hour of a simulated device takes as long as it takes to compute."""

from testbed.clock import Clock, SystemClock


class SimulatedClock:
    """See `Clock`. Starts at the real time, and then goes on by exactly what is slept, and by nothing else.

    What the program computes meanwhile takes no time on it, so that a simulated trial is the same on every machine:
    a clock that merely ran faster would make milliseconds of the scheduler into seconds of the simulation.

    Args:
        real: where it starts, and what paces it.
        speedup: simulated seconds per real one, for those who watch; None: as fast as the machine goes.
    """

    def __init__(self, real: Clock | None = None, speedup: float | None = None) -> None:
        self._real = real or SystemClock()
        self._speedup = speedup
        self._now_ns = self._real.monotonic_ns()
        self._unix_ns = self._real.time_ns() - self._now_ns

    def monotonic_ns(self) -> int:
        """See `Clock`."""
        return self._now_ns

    def time_ns(self) -> int:
        """See `Clock`: unix time as if the simulated time had passed."""
        return self._now_ns + self._unix_ns

    def sleep(self, duration_s: float) -> None:
        """See `Clock`."""
        if self._speedup is not None:
            self._real.sleep(duration_s / self._speedup)
        self._now_ns += round(duration_s * 1e9)
