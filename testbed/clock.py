"""Time as an argument: durations from the monotonic clock, wall time for labels only."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Source of time. Everything that waits or measures takes one, so that tests need no patience."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of a clock that never steps; system-wide on Linux, so processes may compare it."""
        ...

    def time_ns(self) -> int:
        """Unix time in nanoseconds; may step."""
        ...

    def sleep(self, duration_s: float) -> None:
        """Block for a while without spinning."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic_ns(self) -> int:
        """See `Clock`."""
        return time.monotonic_ns()

    def time_ns(self) -> int:
        """See `Clock`."""
        return time.time_ns()

    def sleep(self, duration_s: float) -> None:
        """See `Clock`."""
        time.sleep(duration_s)


def utc_now(clock: Clock) -> datetime:
    """Aware UTC, for labels."""
    return datetime.fromtimestamp(clock.time_ns() / 1e9, tz=UTC)
