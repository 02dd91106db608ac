import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from control.arrival_rows import ArrivalRows

DURATION_S = 1e9


def made(n_rows: int, chance: np.random.Generator, gap_s: float) -> tuple[ArrivalRows, list[np.ndarray], np.ndarray]:
    """Rows of different lengths, close together at the end of the duration; where each begins."""
    rows = ArrivalRows(n_rows, DURATION_S, capacity=5, padding=8)
    given = [np.sort(DURATION_S - gap_s * (1 + chance.random(int(n)) * 50)) for n in chance.integers(1, 60, n_rows)]
    for row, arrivals_s in enumerate(given):
        rows.put(row, arrivals_s)
    starts = np.array([rows.put(row, arrivals_s)[0] for row, arrivals_s in enumerate(given)])
    return rows, given, starts


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1e-6, 1e-5, 1e-3, 1.0]))
def test_arrivals_closer_than_the_keys_are_rounded_are_told_apart(seed: int, gap_s: float) -> None:
    chance = np.random.default_rng(seed)
    # The last row's offset is 2e11 s: keys there are 3e-5 s apart, arrivals 1e-7 s.
    rows, given, starts = made(100, chance, gap_s)
    for _ in range(3):
        now_s = np.array([max(each[0], np.nextafter(chance.choice(each), chance.choice([0, 2e9]))) for each in given])
        expected = [np.searchsorted(each, now, side="right") for each, now in zip(given, now_s, strict=True)]
        assert (rows.arrived(now_s) - starts).tolist() == [int(each) for each in expected]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 60))
def test_the_late_of_a_batch_are_counted_one_by_one(seed: int, slo_s: int) -> None:
    chance = np.random.default_rng(seed)
    rows, given, starts = made(7, chance, 1.0)
    # Whole seconds: many end just at their objective, and are not late.
    given = [np.floor(each) for each in given]
    for row, arrivals_s in enumerate(given):
        rows.put(row, arrivals_s)
    first = np.array([chance.integers(0, each.size) for each in given])
    batch = np.array([chance.integers(0, min(8, each.size - at) + 1) for each, at in zip(given, first, strict=True)])
    end_s = DURATION_S + chance.integers(0, 20, 7)
    expected = [
        int(np.sum(end - each[at : at + size] > slo_s))
        for each, at, size, end in zip(given, first, batch, end_s, strict=True)
    ]
    assert rows.n_late(end_s, starts + first, batch, slo_s).tolist() == expected


def test_an_empty_queue_goes_on_and_the_newest_are_dropped() -> None:
    rows = ArrivalRows(3, 100.0, capacity=10, padding=8)
    starts = np.array([rows.put(row, np.array([1.0, 2.0, 2.0, 2.0, 50.0]))[0] for row in range(3)])
    head, arrived = starts + np.array([1, 1, 5]), starts + np.array([1, 2, 5])
    later_s = rows.skip_empty(np.array([1.5, 1.5, 60.0]), head, arrived)
    assert later_s.tolist() == [2.0, 1.5, 100.0]
    assert (arrived - starts).tolist() == [4, 2, 5]
    rows.drop_newest(head, np.array([2, 0, 0]), n_kept=1)
    assert (head - starts).tolist() == [3, 1, 5]
    assert rows.time_s[head[0]] == 2.0 and rows.time_s[arrived[0]] == 50.0


def test_rows_grow_and_keep_what_is_in_them() -> None:
    rows = ArrivalRows(2, 1000.0, capacity=2, padding=4)
    first, moved = rows.put(0, np.array([1.0, 2.0]))
    assert (first, moved.tolist()) == (0, [0, 0])
    second, moved = rows.put(1, np.arange(500.0))
    assert moved[0] == 0 and second == moved[1] + 6
    assert rows.time_s[:3].tolist() == [1.0, 2.0, np.inf]
    assert rows.arrived(np.array([1.0, 400.0])).tolist() == [1, second + 401]
