"""Which limit comes next, on a clock that is only a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.attempt_state import AttemptState
from contract.trial_spec import DeadlineSpec, TrialSpec
from testbed.attempt_folder import Progress
from testbed.deadline import BASELINE_SLACK_S, DeadlineWatch, collecting_took_too_long
from tests.testbed.node_doubles import spec

LIMITS = DeadlineSpec(load_s=100, warmup_s=50, measure_s=1000, stall_s=200, collect_s=30, total_s=2000)
START_S = 5_000.0


def watch(limits: DeadlineSpec = LIMITS, baseline_s: float = 10.0) -> DeadlineWatch:
    return DeadlineWatch(trial(limits, baseline_s), START_S)


def trial(limits: DeadlineSpec, baseline_s: float = 10.0) -> TrialSpec:
    return spec().model_copy(update={"deadline": limits, "baseline_s": baseline_s})


def step(state: str, at_s: float, done: int = 0) -> Progress:
    return Progress(state=AttemptState(state), at_s=START_S + at_s, n_requests_done=done, n_requests=80)


@pytest.mark.parametrize(
    ("steps", "name", "end_s"),
    [
        ([], "load_s", 100),
        ([step("LOADING", 40)], "load_s", 100),  # counted from the submission: a child that does not start is seen
        ([step("BASELINE", 60)], "baseline", 60 + 10 + BASELINE_SLACK_S),
        ([step("WARMUP", 70)], "warmup_s", 120),
        ([step("WARMUP", 70), step("MEASURING", 80)], "stall_s", 280),
        ([step("MEASURING", 80), step("MEASURING", 90, 1), step("MEASURING", 270, 2)], "stall_s", 470),
        ([step("MEASURING", 80), step("MEASURING", 270, 2), step("MEASURING", 400, 2)], "stall_s", 470),
        ([step("MEASURING", 80), step("MEASURING", 1000, 79)], "measure_s", 1080),
        ([step("MEASURING", 80), step("COLLECTING", 1000)], "collect_s", 1030),
        ([step("COLLECTING", 1990)], "total_s", 2000),
        ([step("MEASURING", 1990)], "total_s", 2000),
    ],
)
def test_each_state_has_its_limit(steps: list[Progress], name: str, end_s: float) -> None:
    deadlines = watch()
    for each in steps:
        deadlines.note(each)
    assert (deadlines.nearest().name, deadlines.nearest().end_s) == (name, START_S + end_s)
    assert deadlines.left_s(START_S + end_s - 7) == 7
    assert deadlines.exceeded(START_S + end_s - 0.001, []) is None
    error = deadlines.exceeded(START_S + end_s, ["last words"])
    assert error is not None
    assert error.retryable
    assert error.detail["deadline"] == name
    assert error.detail["log_tail"] == ["last words"]
    assert error.detail["state"] == (steps[-1].state if steps else "SUBMITTED")
    assert f"{error.detail['limit_s']:g} s" in error.message
    assert name == "baseline" or f"deadline.{name}" in error.message


@pytest.mark.parametrize("state", ["WARMUP", "MEASURING"])
def test_a_limit_that_is_not_set_leaves_the_whole(state: str) -> None:
    deadlines = watch(DeadlineSpec(warmup_s=None, measure_s=None, stall_s=None, total_s=7200))
    deadlines.note(step(state, 10))
    assert deadlines.nearest().name == "total_s"


def test_a_hung_engine_costs_a_quarter_of_an_hour_by_default_and_not_two() -> None:
    deadlines = watch(DeadlineSpec())
    deadlines.note(step("MEASURING", 100, 12))
    error = deadlines.exceeded(START_S + 100 + 900, [])
    assert error is not None
    assert error.detail["deadline"] == "stall_s"
    assert "12 of 80" in error.message


STATES = ["LOADING", "BASELINE", "WARMUP", "MEASURING", "COLLECTING"]


@given(
    st.lists(st.tuples(st.sampled_from(STATES), st.floats(0, 1e4), st.integers(0, 80)), max_size=20),
    st.floats(0, 2e4),
)
def test_nothing_outlasts_the_whole(steps: list[tuple[str, float, int]], now_s: float) -> None:
    deadlines = watch()
    for state, at_s, done in sorted(steps, key=lambda each: each[1]):
        deadlines.note(step(state, at_s, done))
    assert deadlines.nearest().end_s <= START_S + LIMITS.total_s
    left_s = deadlines.left_s(START_S + now_s)
    assert (left_s > 0) is (deadlines.exceeded(START_S + now_s, []) is None)
    assert now_s < LIMITS.total_s or left_s == 0


def test_collecting_names_its_limit() -> None:
    error = collecting_took_too_long(30.0)
    assert error.detail["deadline"] == "collect_s"
    assert "deadline.collect_s = 30 s" in error.message
