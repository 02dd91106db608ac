"""The estimate of a campaign's end: right on average, and no more certain than it can be."""

import random
from collections import Counter

import pytest

from contract.attempt_state import AttemptState, RunState
from orchestrator.campaign_view import AttemptEnd
from orchestrator.progress_view import Tally
from orchestrator.store.base import Claim
from orchestrator.time_left import ENOUGH, time_left
from tests.orchestrator.doubles import spec


def test_nothing_is_said_before_enough_runs_have_ended() -> None:
    assert time_left([10.0] * (ENOUGH - 1), 100) is None
    assert time_left([10.0] * ENOUGH, 0) is None
    assert time_left([10.0] * ENOUGH, 1) is not None


def test_equal_runs_leave_no_doubt() -> None:
    found = time_left([10.0] * 8, 20)
    assert found is not None
    assert (found.low_s, found.left_s, found.high_s) == pytest.approx((200.0, 200.0, 200.0))


def test_what_has_begun_counts_up_to_what_it_is_expected_to_take() -> None:
    for begun_s, left_s in ((4.0, 196.0), (500.0, 190.0)):
        found = time_left([10.0] * 8, 20, begun_s=begun_s)
        assert found is not None and found.left_s == pytest.approx(left_s)


def test_two_testbeds_need_half_the_time() -> None:
    run_s = [8.0, 10.0, 12.0, 9.0, 11.0]
    one, two = time_left(run_s, 20), time_left(run_s, 20, n_at_once=2)
    assert one is not None and two is not None
    assert two.left_s == pytest.approx(one.left_s / 2)


def test_spread_shrinks_as_more_is_known_and_never_goes_below_zero() -> None:
    draw = random.Random(1)
    run_s = [draw.expovariate(0.1) for _ in range(400)]
    early, late = time_left(run_s[:6], 100), time_left(run_s, 100)
    assert early is not None and late is not None
    assert late.high_s - late.low_s < early.high_s - early.low_s
    assert early.low_s >= 0


@pytest.mark.parametrize("n_known", [5, 20, 80])
def test_spread_holds_nine_ends_of_ten(n_known: int) -> None:
    draw = random.Random(n_known)
    n_held, n_campaigns, n_left = 0, 2000, 60
    for _ in range(n_campaigns):
        run_s = [draw.gauss(60, 15) for _ in range(n_known + n_left)]
        found = time_left(run_s[:n_known], n_left)
        assert found is not None
        n_held += found.low_s <= sum(run_s[n_known:]) <= found.high_s
    assert 0.88 <= n_held / n_campaigns <= 0.92


def test_terminal_tells_the_same_estimate() -> None:
    counts = dict.fromkeys(RunState, 0) | {RunState.TODO: 10}
    tally = Tally(counts, Counter())
    for number in range(ENOUGH):
        assert tally.left == ""
        claim = Claim(f"a{number}", f"run_{number}", 1, spec(number), AttemptState.CLAIMED)
        # The first attempt is lost and tried again: the run took both.
        tally.note(AttemptEnd(claim, AttemptState.LOST, RunState.TODO, None, None), 20.0)
        tally.note(AttemptEnd(claim, AttemptState.SUCCEEDED, RunState.DONE, None, None), 40.0)
    assert tally.left == "5 min left (5 min to 5 min)"
