from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InvalidOptionError
from testbed.policies.base import Decision, Observation, Policy
from testbed.policies.registry import POLICIES
from testbed.simulation.service_table import ServiceTable, ServiceTableError
from tests.testbed.policy_cases import SLO_S, small_table

TABLE = small_table()
CLOCKS = TABLE.clock_mhz.tolist()


def build(name: str, table: ServiceTable = TABLE, slo_s: float = SLO_S, **options: Any) -> Policy:
    return POLICIES.create(name, table=table, slo_s=slo_s, **options)


def seen(*waits_s: float, clock_mhz: float = 1200.0, **more: Any) -> Observation:
    return Observation(waits_s, clock_mhz, **more)


def clock_of(policy: Policy, observation: Observation) -> float:
    choice = policy.decide(observation)
    assert isinstance(choice, Decision)
    return choice.clock_mhz


def batch_of(policy: Policy, observation: Observation) -> int:
    choice = policy.decide(observation)
    assert isinstance(choice, Decision)
    return choice.max_batch


waits = st.lists(st.floats(0, 12), min_size=1, max_size=10).map(lambda each: tuple(sorted(each, reverse=True)))


@given(waits, st.sampled_from(CLOCKS))
def test_the_deadline_rule_is_the_slowest_clock_in_time(queue_s: tuple[float, ...], clock_mhz: float) -> None:
    chosen = clock_of(build("deadline", switch_s=0.3), seen(*queue_s, clock_mhz=clock_mhz))
    batch = min(len(queue_s), 6)
    finish_s = [
        queue_s[0] + float(TABLE.latency_s[row, batch - 1]) + (0.3 if clock != clock_mhz else 0.0)
        for row, clock in enumerate(CLOCKS)
    ]
    in_time = [clock for clock, end_s in zip(CLOCKS, finish_s, strict=True) if end_s <= SLO_S]
    assert chosen == (min(in_time) if in_time else CLOCKS[-1])


def test_the_switch_counts_against_the_deadline() -> None:
    policy = build("deadline", switch_s=0.5)
    # At 600 MHz a batch of 1 takes 4 s: in time from a wait of 1.8 s without a switch, too late with one.
    assert clock_of(policy, seen(1.8, clock_mhz=600.0)) == 600.0
    assert clock_of(policy, seen(1.8, clock_mhz=900.0)) == 900.0


@given(waits)
def test_the_cheapest_in_time_never_needs_more_than_the_slowest_in_time(queue_s: tuple[float, ...]) -> None:
    # A table whose middle clock needs least, as measured ones have it.
    table = replace(TABLE, power_w=TABLE.power_w * np.array([1.6, 1.0, 1.2])[:, None])
    batch = min(len(queue_s), 6)
    energies = [
        float(table.energy_j[table.row(clock_of(build(name, table), seen(*queue_s))), batch - 1])
        for name in ("deadline_energy", "deadline")
    ]
    assert energies[0] <= energies[1]


def test_with_every_clock_too_late_the_fastest_is_taken() -> None:
    # In a measured table the highest clock need not be it.
    table = replace(TABLE, latency_s=TABLE.latency_s * np.array([1.0, 0.5, 1.0])[:, None])
    for name in ("deadline", "deadline_energy"):
        assert clock_of(build(name, table), seen(100.0)) == 900.0


def test_constants_do_not_look() -> None:
    observations = [seen(0.0), seen(50.0, 40.0, 1.0, clock_mhz=600.0)]
    assert {build("static_high").decide(each) for each in observations} == {Decision(1200.0, 6)}
    assert {build("static_high", max_batch=2).decide(each) for each in observations} == {Decision(1200.0, 2)}
    assert {build("fixed_clock", clock_mhz=900.0).decide(each) for each in observations} == {Decision(900.0, 6)}
    assert {batch_of(build("fixed_batch", batch=3), each) for each in observations} == {3}


def test_dvfs_only_rises_with_the_queue_and_leaves_the_batch() -> None:
    policy = build("dvfs_only", batch=2, full_queue=4)
    chosen = [policy.decide(seen(*[1.0] * n_queued)) for n_queued in range(1, 8)]
    clocks = [each.clock_mhz for each in chosen if isinstance(each, Decision)]
    assert clocks == sorted(clocks)
    assert (clocks[0], clocks[-1]) == (900.0, 1200.0)
    assert {each.max_batch for each in chosen if isinstance(each, Decision)} == {2}


def test_batch_only_is_the_largest_batch_in_time_at_its_clock() -> None:
    policy = build("batch_only")
    queue = [0.0] * 5
    # 1200 MHz: 2.0, 2.2, 2.4, 2.6, 2.8 s for 1 to 5.
    assert policy.decide(seen(3.1, *queue)) == Decision(1200.0, 5)
    assert policy.decide(seen(3.5, *queue)) == Decision(1200.0, 3)
    assert policy.decide(seen(5.0, *queue)) == Decision(1200.0, 6)  # none is in time: all


def test_reactive_steps_up_when_waits_are_long_and_down_when_they_are_short() -> None:
    policy = build("reactive", up_share=0.5, down_share=0.25)
    assert clock_of(policy, seen(4.0, clock_mhz=600.0)) == 900.0
    assert clock_of(policy, seen(4.0, clock_mhz=1200.0)) == 1200.0
    assert clock_of(policy, seen(2.0, clock_mhz=900.0)) == 900.0
    assert clock_of(policy, seen(1.0, clock_mhz=900.0)) == 600.0
    assert clock_of(policy, seen(1.0, clock_mhz=600.0)) == 600.0


def test_token_aware_goes_faster_for_long_outputs_and_keeps_to_its_budget() -> None:
    policy = build("token_aware", token_budget=2000)
    short = seen(1.0, 1.0, n_input_tokens=(500, 500), n_output_tokens=(150, 150))
    long = seen(1.0, 1.0, n_input_tokens=(500, 500), n_output_tokens=(150, 400))
    assert clock_of(policy, short) < clock_of(policy, long)
    assert batch_of(policy, short) == 2
    heavy = seen(1.0, 1.0, 1.0, n_input_tokens=(900, 900, 900), n_output_tokens=(100, 100, 100))
    assert batch_of(policy, heavy) == 2
    # One that is over the budget by itself is served alone: it would be queued for ever.
    assert batch_of(policy, seen(1.0, 1.0, n_input_tokens=(9000, 10), n_output_tokens=(9, 9))) == 1
    # Unknown lengths count as the table's: 700 tokens each.
    assert batch_of(policy, seen(1.0, 1.0, 1.0)) == 2


def test_dynamo_like_serves_one_pool_at_a_time() -> None:
    policy = build("dynamo_like", input_edges=[100, 400], output_edges=[50, 200])
    mixed = seen(1.0, 1.0, 1.0, n_input_tokens=(50, 90, 300), n_output_tokens=(10, 20, 20))
    assert batch_of(policy, mixed) == 2
    assert batch_of(policy, seen(1.0, 1.0, 1.0)) == 3


def test_dynamo_like_takes_the_cheapest_clock_that_carries_the_load() -> None:
    policy = build("dynamo_like", slo_s=20.0, headroom=1.0)
    # Batches of 6: 1 per second at 600 MHz, 1.5 at 900 MHz, 2 at 1200 MHz; slower is cheaper in this table.
    for rate, clock_mhz in ((0.5, 600.0), (1.2, 900.0), (1.9, 1200.0), (9.0, 1200.0)):
        assert clock_of(policy, seen(0.0, arrival_rate_per_s=rate)) == clock_mhz


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("fixed_clock", {}, "clock_mhz.*missing"),
        ("fixed_clock", {"clock_mhz": 1000.0}, r"1000 MHz is not in small.*600, 900, 1200"),
        ("batch_only", {"clock_mhz": 1.0}, r"600, 900, 1200"),
        ("fixed_batch", {"batch": 7}, r"batch 7 is not in small.*1 to 6"),
        ("static_high", {"max_batch": 0}, "max_batch"),
        ("deadline", {"max_batch": 100}, "1 to 6"),
        ("deadline", {"switch_s": -1.0}, "switch_s"),
        ("reactive", {"up_share": 0.2, "down_share": 0.3}, "both ways"),
        ("dynamo_like", {"input_edges": [400, 100]}, "rise"),
        ("dynamo_like", {"headroom": 0.5}, "headroom"),
    ],
)
def test_impossible_options_are_refused_in_words(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        build(name, **options)


@pytest.mark.parametrize("slo_s", [0.0, -1.0, float("nan"), float("inf")])
def test_an_objective_is_a_number_above_0(slo_s: float) -> None:
    with pytest.raises(InvalidOptionError, match="slo_s"):
        build("deadline", slo_s=slo_s)


def test_a_table_may_be_the_path_of_its_file(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "table.csv")
    policy = POLICIES.create("deadline", table=tmp_path / "table.csv", slo_s=SLO_S)
    assert policy.settings()["table_sha256"] == TABLE.sha256
    with pytest.raises(ServiceTableError, match="no_such"):
        POLICIES.create("deadline", table=tmp_path / "no_such.csv", slo_s=SLO_S)
