"""Times and spans of time as people read them. Always UTC, as in the logs of both nodes."""

from datetime import UTC, datetime


def told_time(at: datetime, now: datetime) -> str:
    """`03:12:05 UTC`, with the date before it where that is not today's.

    Args:
        at: aware.
        now: aware.
    """
    at = at.astimezone(UTC)
    is_today = at.date() == now.astimezone(UTC).date()
    return at.strftime("%H:%M:%S UTC" if is_today else "%Y-%m-%d %H:%M:%S UTC")


def told_span(duration_s: float) -> str:
    """`0.4 s`, `45 s`, `2 min 5 s`, `2 h 10 min`, `3 d 4 h`: two units, no more."""
    if duration_s < 10:
        return f"{max(duration_s, 0):.1f} s"
    seconds = round(duration_s)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return _pair(seconds // 60, "min", seconds % 60, "s")
    if seconds < 86400:
        return _pair(seconds // 3600, "h", seconds % 3600 // 60, "min")
    return _pair(seconds // 86400, "d", seconds % 86400 // 3600, "h")


def told_since(at: datetime, now: datetime) -> str:
    """`since 03:12:05 UTC (2 h 10 min)`."""
    return f"since {told_time(at, now)} ({told_span((now - at).total_seconds())})"


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"
