"""Wraps, missing samples and marks in any combination: the joules are those of a counter that never wraps."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.trial_result import EnergyMethod
from energy.counter import MAX_POWER_W, unwrap_counter
from energy.integrate import CumulativeEnergy
from energy.trace import Trace

UNIT_J = 2.0**-14
"""Energy unit of Intel's registers: a counter is a whole number of these, modulo 2^32, so all sums here are exact."""
MODULUS = 2**32


def trace(time_s: np.ndarray, values: np.ndarray, wrap_j: float | None = None, source: str = "rapl") -> Trace:
    return Trace("cpu_package", "cpu", "counter", EnergyMethod.COUNTER, source, time_s, values, wrap_j=wrap_j)


@given(
    before=st.lists(st.integers(1, 400 * 2**14), min_size=3, max_size=30),
    after=st.lists(st.integers(1, 400 * 2**14), min_size=3, max_size=30),
    landing=st.sampled_from([0, 1, 2]),
    known=st.booleans(),
)
def test_a_reading_right_after_a_wrap(before: list[int], after: list[int], landing: int, known: bool) -> None:
    """The reading after the wrap is 0, or one or two units; steps are from one unit to 400 J, at 200 ms."""
    before[-1] = max(before[-1], landing + 1)
    steps = np.array([*before, *after], dtype=np.int64)
    units = np.concatenate([[0], np.cumsum(steps)])
    start = MODULUS - int(units[len(before)]) + landing
    raw_j = ((units + start) % MODULUS) * UNIT_J
    assert raw_j[len(before)] == landing * UNIT_J
    unwound = unwrap_counter(np.arange(units.size) * 0.2, raw_j, wrap_j=MODULUS * UNIT_J if known else None)
    assert (unwound.n_wraps, unwound.unexplained, unwound.wrap_j) == (1, (), MODULUS * UNIT_J)
    assert np.array_equal(unwound.energy_j, units * UNIT_J)


@given(shares=st.lists(st.floats(0.05, 0.999), min_size=3, max_size=60), start=st.floats(0.0, 0.999))
def test_wrap_upon_wrap(shares: list[float], start: float) -> None:
    """Sampled so rarely that most steps wrap, one right after the other; no step is a whole modulus."""
    wrap_j = 65_536.0
    true_j = np.concatenate([[0.0], np.cumsum(np.array(shares) * wrap_j)])
    time_s = np.arange(true_j.size) * (wrap_j / MAX_POWER_W)
    raw_j = (true_j + start * wrap_j) % wrap_j
    unwound = unwrap_counter(time_s, raw_j, wrap_j=wrap_j)
    assert unwound.unexplained == ()
    assert unwound.n_wraps == int((np.diff(raw_j) < 0).sum())
    assert unwound.energy_j == pytest.approx(true_j, rel=1e-9, abs=1e-6)


def test_two_wraps_in_succession() -> None:
    # 60 kJ a minute, a kilowatt, past 2^16 J: each of these steps wraps.
    raw_j = (np.arange(4) * 60_000.0 + 60_000.0) % 65_536.0
    assert raw_j.tolist() == [60_000.0, 54_464.0, 48_928.0, 43_392.0]
    unwound = unwrap_counter(np.arange(4) * 60.0, raw_j, wrap_j=65_536.0)
    assert (unwound.n_wraps, unwound.energy_j.tolist()) == (3, [0.0, 60_000.0, 120_000.0, 180_000.0])


@st.composite
def wrapped_logs(draw: st.DrawFn) -> tuple[Trace, Trace, list[float]]:
    """A trace that wraps, with samples missing; the same that does not; and marks inside them."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wrap_j = draw(st.sampled_from([500.0, 4_096.0, 65_536.0, 262_144.0]))
    n = draw(st.integers(20, 200))
    time_s = np.cumsum(chance.uniform(0.15, 0.25, n))
    true_j = np.cumsum(chance.uniform(20.0, 600.0, n) * 0.2)
    # Somewhere in the log a wrap; for a small modulus many.
    start_j = wrap_j - draw(st.floats(0.0, 1.0)) * float(true_j[-1]) % wrap_j
    keep = chance.random(n) >= draw(st.floats(0.0, 0.5))
    keep[[0, -1]] = True
    # No two samples in succession may be further apart than a modulus: nobody could tell.
    for index in range(1, n - 1):
        last = int(np.flatnonzero(keep[:index])[-1])
        keep[index] |= bool(true_j[index + 1] - true_j[last] >= 0.9 * wrap_j)
    marks = draw(st.lists(st.floats(float(time_s[0]), float(time_s[-1])), min_size=2, max_size=8, unique=True))
    raw_j = (true_j + start_j) % wrap_j
    return trace(time_s[keep], raw_j[keep], wrap_j), trace(time_s[keep], true_j[keep]), sorted(marks)


@settings(max_examples=300)
@given(log=wrapped_logs())
def test_wraps_and_missing_samples_change_no_window(log: tuple[Trace, Trace, list[float]]) -> None:
    wrapped, smooth, marks_s = log
    one, other = CumulativeEnergy(wrapped), CumulativeEnergy(smooth)
    for start_s, end_s in itertools.pairwise(marks_s):
        found, wanted = one.window(start_s, end_s), other.window(start_s, end_s)
        assert found.n_unexplained == 0
        assert found.energy_j == pytest.approx(wanted.energy_j, rel=1e-9, abs=1e-6)
        assert found.uncertainty_j == pytest.approx(wanted.uncertainty_j, rel=1e-9, abs=1e-6)
        assert found.n_samples == wanted.n_samples
    assert one.window(float(wrapped.time_s[0]), float(wrapped.time_s[-1])).n_wraps == int(
        (np.diff(wrapped.values) < 0).sum()
    )


@given(
    period_s=st.floats(0.01, 1.0),
    offset=st.floats(0.0, 1.0),
    start_s=st.floats(0.0, 3.0),
    missing=st.floats(0.0, 0.5),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["power", "counter"]),
)
def test_constant_power_is_1000_j_at_any_period(
    period_s: float, offset: float, start_s: float, missing: float, seed: int, kind: str
) -> None:
    time_s = np.arange(-1.0 - offset * period_s, 16.0, period_s)
    keep = np.random.default_rng(seed).random(time_s.size) >= missing
    keep[[0, -1]] = True
    time_s = time_s[keep]
    constant = Trace("gpu:0", "gpu", "power", EnergyMethod.SAMPLED, "test", time_s, np.full_like(time_s, 100.0))
    sampled = constant if kind == "power" else trace(time_s, (100.0 * time_s + 900.0) % 1_200.0, 1_200.0)
    found = CumulativeEnergy(sampled).window(start_s, start_s + 10.0)
    assert found.energy_j == pytest.approx(1000.0, rel=1e-4)
    if kind == "power":
        assert found.uncertainty_j == pytest.approx(0.0, abs=1e-6)


@given(power_w=st.floats(1.0, 1500.0), reset_j=st.floats(5_000.0, 50_000.0), at=st.integers(5, 95))
def test_a_reset_is_never_taken_for_a_wrap(power_w: float, reset_j: float, at: int) -> None:
    # 20 s at 200 ms from 60 kJ up: back by more than the steps between, and far from a whole modulus.
    time_s = np.arange(100) * 0.2
    values = 60_000.0 + power_w * time_s
    values[at:] -= reset_j
    unwound = unwrap_counter(time_s, values, wrap_j=262_144.0)
    assert (unwound.n_wraps, unwound.unexplained) == (0, (at,))
    assert CumulativeEnergy(trace(time_s, values, 262_144.0)).window(0.1, 19.0).energy_j is None
