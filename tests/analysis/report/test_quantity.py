import math

import pytest

from analysis.report.quantity import bracket, many, mean, number, p_value, share
from analysis.statistics import mean_interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0.0, "0"),
        (1234567.0, "1,234,567"),
        (0.00123456, "0.001235"),
        (-12.3456, "-12.35"),
    ],
)
def test_a_number_has_the_digits_it_carries(value: float | None, text: str) -> None:
    assert number(value) == text


def test_an_interval_decides_the_digits_of_its_mean() -> None:
    # t(2, 0.975) = 4.303: 4.303 x 1 / sqrt(3) = 2.48
    assert mean(mean_interval([99.0, 100.0, 101.0])) == "100.0 ± 2.5"
    assert mean(mean_interval([100.0])) == "100.0"
    assert mean(mean_interval([])) == "–"
    # No spread at all is no interval of width 0 either.
    assert mean(mean_interval([7.0, 7.0, 7.0])) == "7.000"


def test_a_p_value_is_never_nought() -> None:
    assert p_value(0.0) == "< 0.001"
    assert p_value(0.04951) == "0.050"
    assert p_value(None) == "–"


def test_words() -> None:
    assert many(1, "run") == "1 run"
    assert many(1200, "run") == "1,200 runs"
    assert share(0.125) == "12.5 %"
    assert bracket(1.0, None) == "–"
    assert bracket(1.0, 2.5) == "[1.00, 2.50]"
