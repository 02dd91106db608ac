"""How values are written on the pages: what was not measured is a dash, never a zero."""

from collections.abc import Callable
from datetime import UTC, datetime

from markupsafe import Markup, escape

from contract.attempt_state import RunState
from orchestrator.time_words import told_span, told_time

NOTHING = "–"
"""Not measured."""

STATE_WORDS = {
    RunState.DONE: "done",
    RunState.SUSPECT: "suspect",
    RunState.FAILED: "failed",
    RunState.RUNNING: "running",
    RunState.TODO: "to do",
}
"""In the order of the progress bar."""


def figure(value: float | int | str | bool | None, digits: int = 4) -> str:
    """A value in a cell: floats with significant digits, plain below a million; text as it is."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(digits - whole, 0)}f}".replace(",", "\u202f")


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def span(duration_s: float | None) -> str:
    """See `told_span`."""
    return NOTHING if duration_s is None else told_span(duration_s)


def clock_time(at: datetime | None, now: datetime) -> str:
    """See `told_time`."""
    return NOTHING if at is None else told_time(at, now)


def iso(at: datetime | None) -> str:
    """For `datetime` attributes, which scripts read."""
    return "" if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds")


def state_word(state: str) -> str:
    """`TODO` -> `to do`; the state of an attempt in small letters."""
    return STATE_WORDS[RunState(state)] if state in set(RunState) else state.lower().replace("_", " ")


def with_code(text: str) -> Markup:
    """Text whose `commands` stand in backticks, as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


FILTERS: dict[str, Callable[..., str]] = {
    "figure": figure,
    "percent": percent,
    "span": span,
    "clock_time": clock_time,
    "iso": iso,
    "state_word": state_word,
    "with_code": with_code,
}
"""Of the templates."""
