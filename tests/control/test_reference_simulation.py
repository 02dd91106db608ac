from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import InvalidOptionError
from control.outcome import ServingOutcome
from control.reference_simulation import simulate
from control.serving_case import ServingCase
from testbed.policies.base import Decision, Observation, Wait
from testbed.simulation.arrivals import ArrivalSpec, draw_arrivals
from testbed.simulation.service_table import ServiceTable, read_service_table
from tests.control.scripted import Scripted, always, deadline_rule, small_case

A100 = Path(__file__).resolve().parents[3] / "shared" / "data" / "a100"
needs_shared = pytest.mark.skipif(not A100.exists(), reason="the shared A100 tables are not here")


def mean_figures(case: ServingCase, policy: Scripted) -> tuple[float, float]:
    """Joules per request and SLO share, over ten seeds."""
    outcomes = [simulate(case, policy, seed) for seed in range(10)]
    energies = [each.energy_per_request_j or 0.0 for each in outcomes]
    return float(np.mean(energies)), float(np.mean([each.slo_share or 0.0 for each in outcomes]))


@needs_shared
@pytest.mark.parametrize(
    ("clock_mhz", "max_batch", "energy_j", "share"), [(1050.0, 64, 115.4, 0.986), (1410.0, 8, 199.0, 0.984)]
)
def test_the_reference_figures_of_qwen(clock_mhz: float, max_batch: int, energy_j: float, share: float) -> None:
    table = read_service_table(A100 / "a100_qwen25_7b_500_300.csv")
    case = ServingCase(table, 11.0, ArrivalSpec(rate_per_s=0.8))
    found = mean_figures(case, always(clock_mhz, max_batch))
    assert found == (pytest.approx(energy_j, rel=0.01), pytest.approx(share, abs=0.003))


@needs_shared
def test_the_reference_figure_of_llama_s_deadline_rule() -> None:
    table = read_service_table(A100 / "a100_llama31_8b_clean.csv")
    case = ServingCase(table, 20.0, ArrivalSpec(rate_per_s=0.8))
    found = mean_figures(case, deadline_rule(case))
    assert found == (pytest.approx(140.3, rel=0.01), pytest.approx(0.9915, abs=0.003))


def traced(*times_s: float, **changes: object) -> ServingCase:
    """Batch of n: 2 + n seconds at 100 MHz and 100 W, half of that and 300 W at 200 MHz."""
    table = ServiceTable(
        clock_mhz=np.array([100.0, 200.0]),
        batch_sizes=np.array([1, 2]),
        latency_s=np.array([[3.0, 4.0], [1.5, 2.0]]),
        power_w=np.array([[100.0, 100.0], [300.0, 300.0]]),
        source="made",
    )
    given: dict[str, object] = {
        "table": table,
        "slo_s": 5.0,
        "arrivals": ArrivalSpec(kind="trace", trace_s=times_s),
        "duration_s": 20.0,
        "switch_s": 0.5,
    }
    return ServingCase(**(given | changes))  # type: ignore[arg-type]


def test_a_run_worked_out_by_hand() -> None:
    case = traced(1.0, 2.0, 3.0, 4.0, idle_power_w=10.0, switch_energy_j=7.0)
    outcome = simulate(case, always(100.0, 2), 0, keep_records=True)
    # 1.0: one request, 0.5 s of switching, 3 s of service to 4.5; then 2.0 and 3.0 to 8.5; then 4.0 to 11.5.
    assert outcome.requests is not None and outcome.decisions is not None
    assert [each.finish_s for each in outcome.requests] == [4.5, 8.5, 8.5, 11.5]
    assert [each.is_met for each in outcome.requests] == [True, False, False, False]
    assert [each.energy_j for each in outcome.requests] == [300.0, 200.0, 200.0, 300.0]
    assert outcome.service_energy_j == 300 + 400 + 300
    assert outcome.study_energy_j == 300 + 2 * 400 + 300
    # Idle before the first, and from 11.5 to the end at 20.
    assert (outcome.switch_energy_j, outcome.idle_energy_j, outcome.end_s) == (7.0, 10.0 * (1.0 + 8.5), 20.0)
    assert outcome.energy_per_request_j == (1000 + 7 + 95) / 4
    assert outcome.service_energy_per_request_j == 1000 / 4
    assert outcome.study_energy_per_request_j == 1400 / 4
    assert (outcome.slo_share, outcome.n_missed, outcome.n_judged) == (0.25, 3, 4)
    assert outcome.latency_mean_s == (3.5 + 6.5 + 5.5 + 7.5) / 4
    assert outcome.latency_p50_s == 6.0
    assert (outcome.n_decisions, outcome.n_switches, outcome.mean_batch, outcome.throughput_per_s) == (3, 1, 4 / 3, 0.2)
    assert outcome.busy_s == 10.0


def test_a_full_queue_loses_the_newest_and_a_loss_is_a_miss() -> None:
    case = traced(0.0, 1.0, 1.1, 1.2, 1.3, queue_limit=2)
    outcome = simulate(case, always(200.0, 1), 0, keep_records=True)
    assert outcome.requests is not None
    assert [each.is_lost for each in outcome.requests] == [False, False, False, True, True]
    assert (outcome.n_served, outcome.n_lost, outcome.n_met) == (3, 2, 3)
    assert (outcome.slo_share, outcome.n_missed) == (3 / 5, 2)


def test_waiting_lets_time_pass_and_serves_more_at_once() -> None:
    case = traced(1.0, 2.5, idle_power_w=10.0)
    policy = Scripted(lambda seen: Wait(0.5) if seen.n_queued < 2 else Decision(200.0, 2))
    outcome = simulate(case, policy, 0, keep_records=True)
    assert [seen.waits_s for seen in policy.seen] == [(0.0,), (0.5,), (1.0,), (1.5, 0.0)]
    assert (outcome.n_waits, outcome.n_decisions, outcome.service_energy_j) == (3, 4, 600.0)
    assert outcome.idle_energy_j == 10.0 * (1.0 + 1.5 + (20 - 4.5))


def test_who_waits_for_ever_leaves_requests_unfinished_and_missed() -> None:
    outcome = simulate(traced(1.0, 2.0), Scripted(lambda _: Wait(1.0)), 0)
    assert (outcome.n_served, outcome.n_unfinished, outcome.n_unfinished_missed) == (0, 2, 2)
    assert (outcome.slo_share, outcome.energy_per_request_j, outcome.latency_p99_s) == (0.0, None, None)


def test_without_draining_what_can_still_be_met_is_no_miss() -> None:
    case = traced(10.0, 13.0, 14.0, 19.0, duration_s=19.5, drain=False)
    outcome = simulate(case, always(100.0, 1), 0)
    # 10.0 to 13.5, then 13.0 to 16.5, then 14.0 to 19.5: the last is unfinished, and could be served by 24.
    assert (outcome.n_served, outcome.n_unfinished, outcome.n_unfinished_missed) == (3, 1, 0)
    assert (outcome.end_s, outcome.n_judged) == (19.5, 3)
    late = simulate(replace(case, slo_s=1.9), always(100.0, 1), 0)
    assert (late.n_unfinished, late.n_unfinished_missed, late.n_judged) == (1, 1, 4)


def test_nothing_arrives() -> None:
    outcome = simulate(traced(30.0, 31.0, idle_power_w=10.0), always(100.0, 1), 0)
    assert (outcome.n_arrived, outcome.slo_share, outcome.energy_per_request_j) == (0, None, None)
    assert (outcome.idle_energy_j, outcome.end_s, outcome.decision_mean_s) == (200.0, 20.0, None)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Decision(150.0, 1), "chose 150 MHz, which made does not have"),
        (Decision(100.0, 3), "a batch of 3; 1 to 2 are allowed"),
        (Decision(100.0, 0), "a batch of 0"),
        (Wait(0.0), "waits 0.0 s"),
        (Wait(float("nan")), "waits nan s"),
    ],
)
def test_a_choice_that_there_is_not(choice: Decision | Wait, said: str) -> None:
    with pytest.raises(InvalidOptionError, match=said):
        simulate(traced(1.0, 2.0), Scripted(lambda _: choice), 0)


def test_waiting_where_there_is_none() -> None:
    with pytest.raises(InvalidOptionError, match="give the case a wait_s"):
        simulate(traced(1.0, 2.0, wait_s=None), Scripted(lambda _: Wait(1.0)), 0)


def check_physics(case: ServingCase, outcome: ServingOutcome, seed: int) -> None:
    """What holds for every policy."""
    assert outcome.requests is not None and outcome.decisions is not None
    arrivals_s = draw_arrivals(case.arrivals, case.duration_s, seed).tolist()
    assert [each.arrival_s for each in outcome.requests] == arrivals_s
    assert outcome.n_arrived == outcome.n_served + outcome.n_lost + outcome.n_unfinished
    served = [each for each in outcome.requests if each.finish_s is not None and each.start_s is not None]
    energies = [each.energy_j or 0.0 for each in served]
    assert sum(energies) == pytest.approx(outcome.service_energy_j)
    assert outcome.study_energy_j >= outcome.service_energy_j * (1 - 1e-12)
    spans = sorted({(each.start_s, each.finish_s) for each in served})
    # One batch at a time, first come first served, nobody before the arrival, none faster than the floor.
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert all(one.start_s <= other.start_s for one, other in pairwise(served))  # type: ignore[operator]
    for each in served:
        assert each.start_s >= each.arrival_s and each.finish_s - each.arrival_s >= case.floor_latency_s - 1e-9  # type: ignore[operator]
        assert each.is_met == (each.finish_s - each.arrival_s <= case.slo_s)  # type: ignore[operator]
    idle_and_switching_s = outcome.end_s - outcome.busy_s
    assert idle_and_switching_s >= outcome.n_switches * case.switch_s - 1e-6
    idle_s = idle_and_switching_s - outcome.n_switches * case.switch_s
    assert outcome.idle_energy_j == pytest.approx(case.idle_power_w * idle_s, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    rate_per_s=st.floats(0.05, 5.0),
    seed=st.integers(0, 1000),
    queue_limit=st.integers(1, 30),
    drain=st.booleans(),
    waits=st.floats(0, 0.9),
)
def test_physics_holds_for_any_policy(
    rate_per_s: float, seed: int, queue_limit: int, drain: bool, waits: float
) -> None:
    case = small_case(rate_per_s, queue_limit=queue_limit, drain=drain, idle_power_w=40.0, switch_s=0.2)
    chance = np.random.default_rng(seed)
    clocks = case.table.clock_mhz.tolist()

    def choose(seen: Observation) -> Decision | Wait:
        assert 1 <= seen.n_queued <= queue_limit and list(seen.waits_s) == sorted(seen.waits_s, reverse=True)
        if chance.random() < waits:
            return Wait(float(chance.choice([0.1, 1.0])))
        return Decision(clocks[chance.integers(len(clocks))], int(chance.integers(1, 5)))

    check_physics(case, simulate(case, Scripted(choose), seed, keep_records=True), seed)


def test_progress_and_the_time_of_decisions_are_told() -> None:
    ticks = iter(range(10**6))
    told: list[float] = []
    outcome = simulate(small_case(), always(1200.0, 4), 0, clock=lambda: next(ticks) * 0.001, on_progress=told.append)
    assert outcome.decision_mean_s == pytest.approx(0.001) and outcome.decision_max_s == pytest.approx(0.001)
    assert told and outcome.wall_s == pytest.approx(0.001 * (2 * outcome.n_decisions + 1))
    figures = outcome.figures()
    assert figures["energy_per_request_j"] == outcome.energy_per_request_j and "requests" not in figures
