import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InvalidOptionError
from testbed.simulation.arrivals import ArrivalSpec, draw_arrivals

specs = st.one_of(
    st.builds(ArrivalSpec, rate_per_s=st.floats(0.001, 50)),
    st.builds(ArrivalSpec, kind=st.just("gamma"), rate_per_s=st.floats(0.01, 50), cv=st.floats(0.01, 30)),
)


@given(spec=specs, duration_s=st.floats(0.1, 200), longer=st.floats(1, 5), seed=st.integers(0, 2**64 - 1))
def test_rising_within_the_duration_and_a_longer_run_begins_the_same(
    spec: ArrivalSpec, duration_s: float, longer: float, seed: int
) -> None:
    times = draw_arrivals(spec, duration_s, seed)
    assert np.all(np.diff(times) >= 0) and np.all((times >= 0) & (times < duration_s))
    more = draw_arrivals(spec, duration_s * longer, seed)
    assert more[more < duration_s].tolist() == times.tolist()


@pytest.mark.parametrize(("kind", "cv"), [("poisson", None), ("gamma", 0.3), ("gamma", 1.0), ("gamma", 3.0)])
def test_rate_and_burstiness_are_those_asked_for(kind: str, cv: float | None) -> None:
    spec = ArrivalSpec(kind=kind, rate_per_s=4.0, cv=cv)  # type: ignore[arg-type]
    gaps = np.diff(draw_arrivals(spec, 50_000.0, seed=1))
    # 200,000 gaps: the standard error of their mean is cv / 450 of it.
    assert gaps.mean() == pytest.approx(1 / 4, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv or 1.0, rel=0.03)


def test_poisson_is_numpy_s_own_stream() -> None:
    expected = np.cumsum(np.random.default_rng(7).exponential(1 / 0.8, 10_000))
    times = draw_arrivals(ArrivalSpec(rate_per_s=0.8), 3600.0, 7)
    assert times.tolist() == expected[expected < 3600].tolist()


def test_seeds_differ() -> None:
    spec = ArrivalSpec(rate_per_s=1.0)
    first = draw_arrivals(spec, 100.0, 1)
    assert first.tolist() == draw_arrivals(spec, 100.0, 1).tolist() != draw_arrivals(spec, 100.0, 2).tolist()


def test_a_trace_is_kept_or_stretched() -> None:
    spec = ArrivalSpec(kind="trace", trace_s=(0.0, 1.0, 1.0, 4.0))
    assert draw_arrivals(spec, 4.0, 0).tolist() == [0, 1, 1]
    assert spec.mean_rate_per_s == 1.0
    slower = ArrivalSpec(kind="trace", trace_s=(0.0, 1.0, 1.0, 4.0), rate_per_s=0.5)
    assert draw_arrivals(slower, 100.0, 0).tolist() == [0, 2, 2, 8]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "bursty", "rate_per_s": 1}, "no kind 'bursty'"),
        ({}, "poisson needs rate_per_s"),
        ({"rate_per_s": 0}, "above 0"),
        ({"rate_per_s": float("nan")}, "above 0"),
        ({"rate_per_s": -1}, "above 0"),
        ({"kind": "gamma", "rate_per_s": 1}, "takes cv"),
        ({"rate_per_s": 1, "cv": 2}, "takes cv"),
        ({"kind": "gamma", "rate_per_s": 1, "cv": 0}, "give 0.01 to 30"),
        ({"kind": "trace"}, "takes trace_s"),
        ({"rate_per_s": 1, "trace_s": (1.0, 2.0)}, "takes trace_s"),
        ({"kind": "trace", "trace_s": (1.0,)}, "two times"),
        ({"kind": "trace", "trace_s": (-1.0, 2.0)}, "two times"),
        ({"kind": "trace", "trace_s": (0.0, float("inf"))}, "two times"),
        ({"kind": "trace", "trace_s": (0.0, 2.0, 1.0)}, "time 2 of the trace"),
    ],
)
def test_wrong_arrivals_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidOptionError, match=said):
        ArrivalSpec(**options)  # type: ignore[arg-type]


def test_a_wrong_draw_is_refused() -> None:
    spec = ArrivalSpec(rate_per_s=1.0)
    for duration_s in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidOptionError, match="duration"):
            draw_arrivals(spec, duration_s, 0)
    with pytest.raises(InvalidOptionError, match="seed -1"):
        draw_arrivals(spec, 1.0, -1)
    with pytest.raises(InvalidOptionError, match="lower rate"):
        draw_arrivals(spec, 1e9, 0)
