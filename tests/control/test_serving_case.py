from dataclasses import replace

import numpy as np
import pytest

from control.constant import constants
from control.feasibility import feasibility
from control.reference_simulation import simulate
from control.serving_case import ServingCaseError
from testbed.policies.base import Decision
from testbed.simulation.arrivals import ArrivalSpec
from tests.control.scripted import Scripted, deadline_rule, small_case, small_table


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slo_s": 0.0}, "slo_s is 0.0; give seconds above 0"),
        ({"slo_s": float("nan")}, "slo_s is nan"),
        ({"duration_s": -1.0}, "duration_s is -1.0"),
        ({"duration_s": float("inf")}, "duration_s is inf"),
        ({"wait_s": 0.0}, "wait_s is 0.0"),
        ({"wait_s": 1e-4}, "or None: no waiting"),
        ({"switch_s": -0.1}, "switch_s is -0.1; give seconds, 0 or above"),
        ({"switch_energy_j": -1.0}, "switch_energy_j is -1.0; give joules"),
        ({"idle_power_w": float("inf")}, "idle_power_w is inf; give watts"),
        ({"queue_limit": 0}, "queue_limit is 0"),
        ({"max_batch": 5}, "small has batches of 1 to 4"),
        ({"max_batch": 0}, "max_batch is 0"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ServingCaseError, match=said):
        small_case(**changes)


def test_what_follows_from_the_arguments() -> None:
    case = small_case(idle_power_w=40.0, switch_s=0.5)
    assert (case.joules_per_switch, case.batch_limit) == (20.0, 4)
    assert replace(case, switch_energy_j=3.0).joules_per_switch == 3.0
    assert case.floor_latency_s == pytest.approx(2.0)


def test_an_slo_below_the_floor_can_be_met_by_none() -> None:
    found = feasibility(small_case(slo_s=1.9))
    assert (found.is_possible, found.best_share, found.reached_share) == (False, 0.0, 0.0)
    assert "at best 0.0% can be met" in found.message and "takes 2 s" in found.message


def test_a_little_above_the_floor_little_can_be_met() -> None:
    found = feasibility(small_case(slo_s=2.2, duration_s=2000.0))
    assert not found.is_possible and 0 < found.reached_share < found.best_share < 0.6
    assert f"at best {found.best_share:.1%} can be met" in found.message


def test_more_requests_than_the_server_can_take() -> None:
    found = feasibility(small_case(rate_per_s=10.0, slo_s=10.0, duration_s=2000.0))
    # The best batch is 4 in 2.6 s.
    assert found.best_share == pytest.approx(4 / 2.6 / 10, rel=0.05)
    assert not found.is_possible and found.reached_share <= found.best_share


def test_what_can_be_met_and_what_is_open() -> None:
    met = feasibility(small_case(slo_s=20.0, rate_per_s=0.5))
    assert met.is_possible and met.reached_share == 1.0 and "can be met: " in met.message
    unclear = feasibility(small_case(slo_s=3.2, rate_per_s=0.3), wanted_share=0.9)
    assert unclear.is_possible and unclear.reached_share < 0.9 and "is open" in unclear.message


@pytest.mark.parametrize("slo_s", [2.05, 2.3, 2.6, 3.0, 4.0])
@pytest.mark.parametrize("rate_per_s", [0.1, 0.7, 3.0])
def test_no_policy_is_above_the_bound(slo_s: float, rate_per_s: float) -> None:
    case = small_case(rate_per_s, slo_s=slo_s, duration_s=500.0, switch_s=0.0)
    bound = feasibility(case, seed=3).best_share
    chance = np.random.default_rng(0)
    random = Scripted(lambda _: Decision(1200.0, int(chance.integers(1, 5))))
    # Serve singly what can still be met, and all the rest together, to be rid of it.
    clears = Scripted(lambda seen: Decision(1200.0, 1 if seen.head_wait_s + 2.0 <= slo_s else 4))
    for policy in (random, clears, deadline_rule(case)):
        assert (simulate(case, policy, 3).slo_share or 0.0) <= bound


def test_constants_all_at_once_are_each_alone() -> None:
    case = small_case(arrivals=ArrivalSpec(kind="gamma", rate_per_s=0.8, cv=2.0), table=small_table(2, 3))
    found = constants(case, 0.9, [5])
    assert sorted((each.decision.clock_mhz, each.decision.max_batch) for each in found) == [
        (clock, batch) for clock in (600.0, 1200.0) for batch in (1, 2, 3)
    ]
    for each in found:
        alone = simulate(case, Scripted(lambda _, choice=each.decision: choice), 5)  # type: ignore[misc]
        assert (each.energy_per_request_j, each.slo_share) == (alone.energy_per_request_j, alone.slo_share)
