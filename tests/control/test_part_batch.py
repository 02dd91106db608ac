"""A part of the queue is served where that saves deadlines: by the sum done by hand, and on a table with steps."""

from dataclasses import replace

import numpy as np
import pytest

from control.plan_grid import part_batches
from control.planner import PlannedPolicy, plan_for_price
from control.reference_simulation import simulate
from control.serving_case import ServingCase
from testbed.policies.base import Decision, Observation
from testbed.policies.look_ahead import poisson_chances
from testbed.policies.part_batch import PartBatch
from testbed.simulation.arrivals import ArrivalSpec
from testbed.simulation.service_table import ServiceTable

BATCHES = np.arange(1, 17)


def stepped_table() -> ServiceTable:
    """Two seconds for up to 4 requests, a fifth more for up to 8, and so on."""
    clocks = np.array([600.0, 900.0, 1200.0])
    steps = 1.2 ** ((BATCHES - 1) // 4)
    return ServiceTable(
        clock_mhz=clocks,
        batch_sizes=BATCHES,
        latency_s=2.0 * (1200 / clocks)[:, None] ** 0.3 * steps[None, :],
        power_w=(clocks / 6)[:, None] + 2.0 * BATCHES[None, :],
        source="stepped",
    )


CASE = ServingCase(stepped_table(), 4.7, ArrivalSpec(rate_per_s=1.2), wait_s=None, duration_s=1800.0)


def whole_only(case: ServingCase, price_j: float) -> PlannedPolicy:
    """The plan without its choices of parts."""
    plan = plan_for_price(case, price_j)
    actions = replace(plan.action_set, batches=plan.action_set.batches[-1:])
    grid = (plan.grid_actions // len(plan.action_set.batches)).astype(np.int16)
    bare = replace(plan, action_set=actions, grid_actions=grid, part_energy_j=plan.part_energy_j[:0])
    return PlannedPolicy(bare, case.table)


def cost_j(case: ServingCase, policy: PlannedPolicy, price_j: float) -> float:
    runs = [simulate(case, policy, seed) for seed in range(6)]
    n_judged, n_met = sum(each.n_judged for each in runs), sum(each.n_met for each in runs)
    return sum(each.energy_j for each in runs) / n_judged + price_j * (1 - n_met / n_judged)


def test_a_queue_may_be_cut_at_the_steps_of_the_table() -> None:
    assert part_batches(CASE.table, 16) == (4, 8, 12)
    assert part_batches(CASE.table, 8) == (4,)
    smooth = replace(CASE.table, latency_s=np.tile(1 + 0.01 * BATCHES, (3, 1)))
    assert part_batches(smooth, 16) == ()


def test_an_old_head_is_served_before_the_step() -> None:
    """Alone with three others it is in time, and with a fifth it is not."""
    policy = PlannedPolicy(plan_for_price(CASE, 500.0), CASE.table)
    choice = policy.decide(Observation((2.5, 2.4, 0.6, 0.2, 0.1), 1200.0))
    assert choice == Decision(1200.0, 4)
    whole = policy.decide(Observation((2.5, 2.4, 0.6, 0.2), 1200.0))
    assert isinstance(whole, Decision) and whole.max_batch >= 4


@pytest.mark.parametrize("price_j", [100.0, 400.0])
def test_cutting_queues_is_cheaper_than_never_doing_it(price_j: float) -> None:
    with_parts = PlannedPolicy(plan_for_price(CASE, price_j), CASE.table)
    assert cost_j(CASE, with_parts, price_j) < cost_j(CASE, whole_only(CASE, price_j), price_j) - 0.5


def test_a_part_is_worth_what_is_added_up_by_hand() -> None:
    plan = plan_for_price(CASE, 300.0)
    table, price_j, rate = CASE.table, 300.0, CASE.arrivals.mean_rate_per_s
    waits_s, set_to, batch = np.array([2.6, 1.5, 1.0, 0.6, 0.2]), 1, 4
    parts = PartBatch(
        (batch,),
        energy_j=plan.part_energy_j[:1],
        serve_value_j=plan.serve_value_j,
        latency_s=plan.latency_s,
        slo_s=CASE.slo_s,
        switch_s=CASE.switch_s,
        switch_energy_j=0.0,
        rate_per_s=rate,
        price_j=price_j,
        gain_w=plan.gain_w,
    )
    by_clock = []
    for clock in range(3):
        first_s = float(table.latency_s[clock, batch - 1]) + (0.0 if clock == set_to else CASE.switch_s)
        value = float(table.energy_j[clock, batch - 1]) - plan.gain_w * first_s
        value += price_j * int((waits_s[:batch] + first_s > CASE.slo_s).sum())
        chances = poisson_chances(rate * first_s, 12)
        for n_new, chance in enumerate(chances):
            queued, follow = 1 + n_new, []
            for then in range(3):
                second_s = float(table.latency_s[then, queued - 1]) + (0.0 if then == clock else CASE.switch_s)
                late = int(waits_s[4] + first_s + second_s > CASE.slo_s)
                late_new = n_new * min(max((first_s + second_s - CASE.slo_s) / first_s, 0.0), 1.0)
                own = plan.serve_value_j[int(then != clock), queued - 1, then]
                follow.append(float(own) + price_j * (late + late_new))
            value += float(chance) * min(follow)
        by_clock.append(value)
    found = parts.best(-waits_s, set_to)
    assert found is not None
    # Cut off at 12 arrivals or a few fewer: what is beyond is next to nothing.
    assert found.value_j == pytest.approx(min(by_clock), abs=1.0)
    assert found.row == int(np.argmin(by_clock))
    assert parts.best(-waits_s[:4], set_to) is None
