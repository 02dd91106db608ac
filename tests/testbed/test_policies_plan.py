import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from contract.errors import InvalidOptionError
from testbed.policies.base import Decision, Observation, Wait
from testbed.policies.from_file import build_planned
from testbed.policies.look_ahead import LookAhead, arrival_matrix, poisson_chances
from testbed.policies.plan import Plan
from testbed.policies.planned_policy import PlannedPolicy
from tests.testbed.policy_cases import SLO_S, small_plan, small_table

TABLE = small_table()
RATE, PRICE, WAIT, COST = 0.7, 300.0, 0.5, -60.0


def value_of_serving(latency_s: np.ndarray) -> np.ndarray:
    value = TABLE.energy_j.T + 20 * latency_s
    return np.stack([value, value + 3.0])


LATENCY = np.ascontiguousarray(TABLE.latency_s.T)
VALUE = value_of_serving(LATENCY)
LONGER = np.tile(np.linspace(800, 900, 30, dtype=np.float32)[None, :, None], (3, 1, 16))


def look_ahead(**changes: Any) -> LookAhead:
    given: dict[str, Any] = {
        "serve_value_j": VALUE,
        "latency_s": LATENCY,
        "longer_value_j": LONGER,
        "step_s": 0.5,
        "slo_s": SLO_S,
        "switch_s": 0.05,
        "wait_s": WAIT,
        "rate_per_s": RATE,
        "price_j": PRICE,
        "wait_cost_w": COST,
    }
    return LookAhead(**(given | changes))


def by_hand(waits_s: list[float], clock: int) -> tuple[float, float]:
    """Best value of serving now, and of waiting once: the recursion as its docstring says, one number at a time."""
    chances = [math.exp(-RATE * WAIT) * (RATE * WAIT) ** k / math.factorial(k) for k in range(12)]

    def serve(step: int, new: int) -> float:
        found = []
        if len(waits_s) + new > TABLE.max_batch:
            return float(LONGER[clock, min(len(waits_s) + new - TABLE.max_batch, 30) - 1, 0])
        for row in range(3):
            n = min(len(waits_s) + new, TABLE.max_batch)
            finish_s = float(LATENCY[n - 1, row]) + (0.05 if row != clock else 0.0)
            late = sum(wait + step * WAIT + finish_s > SLO_S for wait in waits_s)
            waited = step * WAIT
            part = min(max((waited + finish_s - SLO_S) / waited, 0.0), 1.0) if step else 0.0
            found.append(float(VALUE[int(row != clock), n - 1, row]) + PRICE * (late + new * part))
        return min(found)

    n_steps = math.ceil((SLO_S - waits_s[0]) / WAIT)
    after = [serve(n_steps, new) for new in range(12 * (n_steps + 1))]
    for step in range(n_steps - 1, -1, -1):
        waiting = [
            sum(chance * after[new + k] for k, chance in enumerate(chances)) + COST * WAIT
            for new in range(len(after) - len(chances))
        ]
        if step == 0:
            return serve(0, 0), waiting[0]
        after = [min(serve(step, new), each) for new, each in enumerate(waiting)]
    raise AssertionError


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 5.9), min_size=1, max_size=5).map(lambda each: sorted(each, reverse=True)),
    st.integers(0, 2),
)
def test_the_look_ahead_is_the_recursion_done_by_hand(waits_s: list[float], clock: int) -> None:
    serving, waiting = by_hand(waits_s, clock)
    if abs(serving - waiting) < 0.5:  # a tie but for what few arrivals beyond the counted ones are worth
        return
    assert (look_ahead().clock(waits_s, clock) is None) == (waiting < serving)


def test_it_waits_while_there_is_time_and_serves_before_the_deadline() -> None:
    looks = look_ahead()
    waits_s = np.arange(0, 6, 0.1)
    answers = [looks.clock([wait_s], 2) for wait_s in waits_s.tolist()]
    first = next(number for number, each in enumerate(answers) if each is not None)
    assert first > 0
    served_s = waits_s[first] + LATENCY[0, answers[first] or 0]
    assert served_s <= SLO_S


def test_without_waiting_it_always_serves() -> None:
    looks = look_ahead(wait_s=None)
    assert all(looks.clock([wait_s], 0) is not None for wait_s in (0.0, 1.0, 5.0, 50.0))


def test_a_dearer_miss_is_never_served_slower() -> None:
    queue = [3.6, 3.0, 2.0]
    finish = [float(LATENCY[2, look_ahead(wait_s=None, price_j=price).clock(queue, 0) or 0]) for price in (0, 50, 5000)]
    assert all(late >= early for late, early in pairwise(finish))
    assert finish[-1] < finish[0]


def test_many_short_waits_are_weighed_like_few_long_ones() -> None:
    """0.05 s at a time is finer than what is looked ahead by; what it comes to is near."""
    fine, coarse = look_ahead(wait_s=0.05), look_ahead(wait_s=0.2)
    same = [
        (fine.clock([wait_s, wait_s / 2], 1) is None) == (coarse.clock([wait_s, wait_s / 2], 1) is None)
        for wait_s in np.arange(0, 6, 0.05).tolist()
    ]
    assert np.mean(same) > 0.95


@settings(deadline=None)
@given(st.floats(1e-3, 60), st.integers(1, 40))
def test_arrivals_are_poisson(mean: float, n: int) -> None:
    chances = poisson_chances(mean, n)
    assert chances == pytest.approx([math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(n)])
    matrix = arrival_matrix(mean, n)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(n))
    assert matrix.min() >= -1e-12
    assert np.tril(matrix, -1).max(initial=0.0) == 0.0


@pytest.mark.parametrize("looks_ahead", [True, False])
def test_a_plan_comes_back_from_its_file_as_it_was(looks_ahead: bool, tmp_path: Path) -> None:
    plan = small_plan(TABLE, looks_ahead=looks_ahead)
    plan.save(tmp_path / "plan.safetensors")
    back = Plan.load(tmp_path / "plan.safetensors")
    assert np.array_equal(back.grid_actions, plan.grid_actions)
    assert np.array_equal(back.serve_value_j, plan.serve_value_j)
    assert (back.action_set, back.about, back.price_j, back.gain_w) == (
        plan.action_set,
        plan.about,
        plan.price_j,
        plan.gain_w,
    )
    policies = [PlannedPolicy(plan, TABLE), PlannedPolicy.load(tmp_path / "plan.safetensors", TABLE)]
    for wait_s in np.arange(0, 9, 0.25).tolist():
        for n_queued in (1, 3, 6, 9):
            observation = Observation((wait_s,) * n_queued, 900.0)
            assert policies[0].decide(observation) == policies[1].decide(observation)


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    plan = small_plan(TABLE, looks_ahead=False)
    source = np.random.default_rng(2)
    n_queued, clock = source.integers(1, 15, 200), source.integers(0, 3, 200)
    head_s = source.uniform(0, 12, 200)
    waits = [[wait_s] * int(n) for n, wait_s in zip(n_queued, head_s.tolist(), strict=True)]
    together = plan.actions(n_queued, head_s, clock)
    assert together.tolist() == plan.actions_of_waits(waits, clock).tolist()
    ahead = replace(plan, looks_ahead=True)
    found = ahead.actions_of_waits(waits, clock)
    observed = [Observation(tuple(each), float(TABLE.clock_mhz[row])) for each, row in zip(waits, clock, strict=True)]
    assert found.tolist() == [ahead.action(each) for each in observed]
    assert found.min() >= 0
    assert found.max() < len(plan.action_set)


def test_a_wait_between_two_points_of_the_grid_counts_as_the_longer() -> None:
    plan = small_plan(TABLE, looks_ahead=False)
    steps = [plan.action_of_waits([wait_s], 0) for wait_s in (1.5, 1.51, 2.0)]
    assert plan.action_set.choice(steps[0]) == Wait(0.5)
    assert isinstance(plan.action_set.choice(steps[1]), Decision)
    assert steps[1] == steps[2]


def test_a_clock_that_the_plan_lacks_is_taken_for_the_nearest() -> None:
    plan = small_plan(TABLE)
    assert [plan.clock_index(clock) for clock in (600.0, 210.0, 1000.0, 5000.0)] == [0, 0, 1, 2]


def test_another_table_or_objective_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.safetensors"
    small_plan(TABLE).save(path)
    other = replace(TABLE, power_w=TABLE.power_w * 1.01, source="other.csv")
    with pytest.raises(InvalidOptionError, match=r"made for the table small .*not for other\.csv.*Plan again"):
        PlannedPolicy.load(path, other)
    with pytest.raises(InvalidOptionError, match=r"SLO of 6 s, not 7 s"):
        build_planned(TABLE, 7.0, path)


def test_an_empty_queue_is_no_question() -> None:
    with pytest.raises(InvalidOptionError, match="empty"):
        PlannedPolicy(small_plan(TABLE), TABLE).decide(Observation((), 600.0))


def _rewrite(path: Path, header: dict[str, Any], **arrays: np.ndarray) -> None:
    with safe_open(path, "numpy") as file:
        stored = json.loads(file.metadata()["joulebed"])
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(kept | arrays, path, metadata={"joulebed": json.dumps(stored | header)})


@pytest.mark.parametrize(
    ("header", "arrays", "words"),
    [
        ({"format": "joulebed-learned-policy"}, {}, "needed is a joulebed-plan"),
        ({"version": 99}, {}, "version 99"),
        ({"clocks_mhz": [600.0, 900.0]}, {}, "do not fit"),
        ({"clocks_mhz": [900.0, 600.0, 1200.0]}, {}, "rise"),
        ({"step_s": 0.0}, {}, "do not fit"),
        ({"gain_w": float("nan")}, {}, "do not fit"),
        ({"slo_s": "soon"}, {}, "cannot be read"),
        ({}, {"grid_actions": np.full((3, 8, 16), 9, np.int16)}, "do not fit its 4 actions"),
        ({}, {"latency_s": np.ones((2, 3))}, "do not fit"),
        ({}, {"serve_value_j": np.full((2, 6, 3), np.inf)}, "do not fit"),
    ],
)
def test_a_file_for_something_else_is_refused(
    header: dict[str, Any], arrays: dict[str, np.ndarray], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "plan.safetensors"
    small_plan(TABLE).save(path)
    _rewrite(path, header, **arrays)
    with pytest.raises(InvalidOptionError, match=words):
        Plan.load(path)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.safetensors"
    with pytest.raises(InvalidOptionError, match="cannot be read"):
        Plan.load(path)
    small_plan(TABLE).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InvalidOptionError, match="cannot be read"):
        Plan.load(path)
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(InvalidOptionError, match="cannot be read"):
        Plan.load(path)
