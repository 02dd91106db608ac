"""Numbers as text: as many digits as they carry, and a dash for what was not measured."""

import math

from analysis.statistics import MeanInterval

NOT_MEASURED = "–"


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits, thousands separated; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return NOT_MEASURED
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    if abs(value) >= 1e12 or abs(value) < 1e-6:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 10)}f}"


def mean(value: MeanInterval) -> str:
    """Mean ± half-width of the interval, both to the second digit of the half-width; the mean alone without one."""
    if value.mean is None:
        return NOT_MEASURED
    if not value.half_width:
        return number(value.mean)
    decimals = min(10, max(0, 1 - math.floor(math.log10(value.half_width))))
    return f"{value.mean:,.{decimals}f} ± {value.half_width:,.{decimals}f}"


def p_value(value: float | None) -> str:
    """Three decimals; never 0, which no test gives."""
    if value is None or math.isnan(value):
        return NOT_MEASURED
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def bracket(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval."""
    if low is None or high is None:
        return NOT_MEASURED
    return f"[{number(low, digits)}, {number(high, digits)}]"


def share(value: float | None) -> str:
    """A fraction as percent, one decimal."""
    return NOT_MEASURED if value is None else f"{100 * value:.1f} %"


def many(n: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"
