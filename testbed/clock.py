"""Time as an argument: durations from the monotonic clock, wall time for labels only."""

import time
from datetime import UTC, datetime
from typing import Protocol

_OFFSET_TRIES = 5
_OFFSET_NS = 1_000_000


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


def unix_minus_monotonic_s(clock: Clock) -> float:
    """What maps wall time to monotonic time now.

    Read anew while something else ran between two readings, so that it is not taken for a step of the wall clock.
    """
    best_ns, offset_ns = None, 0
    for _ in range(_OFFSET_TRIES):
        before_ns, unix_ns, after_ns = clock.monotonic_ns(), clock.time_ns(), clock.monotonic_ns()
        if best_ns is None or after_ns - before_ns < best_ns:
            best_ns, offset_ns = after_ns - before_ns, unix_ns - (before_ns + after_ns) // 2
        if best_ns < _OFFSET_NS:
            break
    return offset_ns / 1e9
