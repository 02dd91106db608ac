"""The open loop: arrivals by the clock, latency from the true arrival, what is lost and left."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contract.errors import InvalidOptionError, InvalidRequestError
from contract.serving import PolicySpec, ServingSpec
from contract.trial_spec import ModelSpec, SamplingSpec
from testbed.clock import Clock
from testbed.engines.base import GenerationRequest
from testbed.engines.fake_engine import FakeEngine
from testbed.engines.simulated_engine import SimulatedEngine
from testbed.open_loop_drive import OpenLoopDrive, Served
from testbed.policies.base import Decision, Observation, Setting, Wait
from testbed.request_queue import OpenRequest
from testbed.simulation.simulated_clock import SimulatedClock

MODEL = ModelSpec(name="m", source="fake:m")
TOKENS = 10


class Choose:
    """A policy that is a function."""

    name = "choose"

    def __init__(self, choose: Callable[[Observation], Decision | Wait]) -> None:
        self.choose = choose
        self.seen: list[Observation] = []

    def decide(self, observation: Observation) -> Decision | Wait:
        self.seen.append(observation)
        return self.choose(observation)

    def reset(self) -> None:
        self.seen = []

    def settings(self) -> Mapping[str, Setting]:
        return {}


class Dial:
    """A clock that takes 50 ms to set."""

    def __init__(self, clock: Clock, clock_mhz: float = 1410.0) -> None:
        self._clock, self.clock_mhz = clock, clock_mhz
        self.turned: list[float] = []

    def turn(self, clock_mhz: float) -> None:
        self._clock.sleep(0.05)
        self.clock_mhz = clock_mhz
        self.turned.append(clock_mhz)


def requests(*arrivals_s: float) -> list[OpenRequest]:
    sampling = SamplingSpec(max_tokens=TOKENS, ignore_eos=True)
    return [
        OpenRequest(GenerationRequest(f"r{i}", ({"role": "user", "content": f"number {i}"},), sampling, i), arrival_s)
        for i, arrival_s in enumerate(arrivals_s)
    ]


def drive(
    policy: Choose,
    *arrivals_s: float,
    duration_s: float = 10.0,
    max_batch: int = 4,
    with_dial: bool = False,
    **serving: object,
) -> tuple[Served, Dial | None]:
    """One second of service for each request: 10 tokens at 10 tokens/s."""
    clock = SimulatedClock()
    engine = FakeEngine(clock=clock, tokens_per_s=10.0)
    engine.load(MODEL, max_concurrency=max_batch, seed=0)
    dial = Dial(clock) if with_dial else None
    spec = ServingSpec.model_validate({"policy": PolicySpec(name="choose"), "slo_s": 2.0, **serving})
    run = OpenLoopDrive(
        requests(*arrivals_s), policy, engine, spec, clock, dial, max_batch=max_batch, duration_s=duration_s
    )
    return run.run(), dial


def latencies_s(served: Served, *arrivals_s: float) -> list[float]:
    start_s = served.record.start_s
    by_id = {done.request_id: done.finished_ns / 1e9 - start_s for done in served.completions}
    return [round(by_id[f"r{i}"] - arrival_s, 6) for i, arrival_s in enumerate(arrivals_s) if f"r{i}" in by_id]


def serve_all(observation: Observation) -> Decision:
    return Decision(1410.0, 4)


def test_a_latency_counts_from_the_true_arrival_and_not_from_being_picked_up() -> None:
    arrivals_s = (1.0, 1.2, 1.9, 5.0)
    served, _ = drive(Choose(serve_all), *arrivals_s)
    # The first goes alone at 1.0 and takes a second; the two that came meanwhile go together at 2.0.
    assert latencies_s(served, *arrivals_s) == [1.0, 1.8, 1.1, 1.0]
    assert [batch.n_requests for batch in served.record.batches] == [1, 2, 1]
    assert served.batch_of == {"r0": 0, "r1": 1, "r2": 1, "r3": 2}


def test_the_policy_sees_true_waits_head_first_and_the_phase_lasts_its_duration() -> None:
    policy = Choose(serve_all)
    served, _ = drive(policy, 1.0, 1.25, 1.75)
    assert policy.seen[1].waits_s == pytest.approx((0.75, 0.25))
    assert served.record.end_s - served.record.start_s == pytest.approx(10.0)
    assert served.record.n_decisions == len(policy.seen) == 2


def test_a_full_queue_loses_what_arrives() -> None:
    arrivals_s = (1.0, 1.1, 1.2, 1.3, 1.4)
    served, _ = drive(Choose(serve_all), *arrivals_s, queue_limit=2)
    record = served.record
    assert [round(each - record.start_s, 6) for each in record.lost_s] == [1.3, 1.4]
    assert record.n_arrived == 5 and len(served.completions) == 3


def test_waiting_lets_time_pass_and_is_counted() -> None:
    policy = Choose(lambda seen: Wait(0.5) if seen.head_wait_s < 0.9 else Decision(1410.0, 4))
    served, _ = drive(policy, 1.0, 1.5)
    assert served.record.n_waits == 2
    assert [batch.n_requests for batch in served.record.batches] == [2]
    assert latencies_s(served, 1.0, 1.5) == [2.0, 1.5]


def test_a_clock_is_changed_only_when_it_is_another_and_the_switch_is_in_the_latency() -> None:
    policy = Choose(lambda seen: Decision(705.0, 1))
    served, dial = drive(policy, 1.0, 4.0, with_dial=True)
    assert dial is not None and dial.turned == [705.0]
    assert latencies_s(served, 1.0, 4.0) == [1.05, 1.0]
    (switch,) = served.record.switches
    assert switch.end_s - switch.start_s == pytest.approx(0.05)
    assert (switch.from_mhz, switch.to_mhz) == (1410.0, 705.0)


def test_a_policys_exit_layer_reaches_the_requests_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine without early exit says so; with `continuous`, the drive does."""
    early = Choose(lambda seen: Decision(1410.0, 4, exit_layer=9))
    with pytest.raises(InvalidRequestError, match="'r0' is to leave the model after 9 layers"):
        drive(early, 1.0)
    with pytest.raises(InvalidOptionError, match=r"chose exit layer 9.*continuous to false"):
        drive(early, 1.0, continuous=True)
    asked: list[list[int | None]] = []
    answer = FakeEngine.generate

    def generate(self: FakeEngine, requests: Any, **options: Any) -> Any:
        asked.append([each.exit_layer for each in requests])
        return answer(self, [replace(each, exit_layer=None) for each in requests], **options)

    monkeypatch.setattr(FakeEngine, "generate", generate)
    turns = iter((9, None))
    drive(Choose(lambda seen: Decision(1410.0, 4, next(turns))), 1.0, 1.2, 1.3)
    assert asked == [[9], [None, None]]


def test_without_a_drain_nothing_is_begun_after_the_end_and_what_is_left_is_counted() -> None:
    arrivals_s = (1.0, 1.1, 1.2, 1.3)
    one = Choose(lambda seen: Decision(1410.0, 1))
    served, _ = drive(one, *arrivals_s, duration_s=2.5, drain=False)
    assert len(served.completions) == 2
    assert [round(each - served.record.start_s, 6) for each in served.record.unfinished_s] == [1.2, 1.3]
    drained, _ = drive(one, *arrivals_s, duration_s=2.5)
    assert len(drained.completions) == 4 and not drained.record.unfinished_s


def test_a_policy_that_waits_for_ever_ends() -> None:
    served, _ = drive(Choose(lambda seen: Wait(1.0)), 1.0, 2.0, duration_s=3.0)
    assert served.record.is_given_up and len(served.record.unfinished_s) == 2


@pytest.mark.parametrize("choice", [Wait(0.0), Wait(float("inf")), Decision(1410.0, 0), Decision(1410.0, 5)])
def test_an_impossible_choice_is_refused(choice: Decision | Wait) -> None:
    with pytest.raises(InvalidOptionError, match="choose"):
        drive(Choose(lambda seen: choice), 1.0)


def test_continuous_batching_lets_a_request_join_those_in_flight() -> None:
    arrivals_s = (1.0, 1.25, 1.5)
    served, _ = drive(Choose(serve_all), *arrivals_s, continuous=True)
    # The engine looks up at its steps, 0.1 s apart: at 1.3 for the second, at 1.5 for the third.
    assert latencies_s(served, *arrivals_s) == [1.0, 1.05, 1.0]
    assert not served.record.batches and not served.batch_of


def test_the_policy_says_how_many_may_be_in_flight() -> None:
    policy = Choose(lambda seen: Decision(1410.0, 1))
    served, _ = drive(policy, 1.0, 1.25, 1.5, continuous=True)
    assert latencies_s(served, 1.0, 1.25, 1.5) == [1.0, 1.75, 2.5]
    assert max(seen.n_in_service for seen in policy.seen) == 1
    # Asked at arrivals and ends, not at each of the 30 tokens.
    assert len(policy.seen) <= 8


def test_continuous_waits_end_and_a_run_without_a_drain_ends_with_its_duration() -> None:
    waits = Choose(lambda seen: Wait(0.5) if seen.head_wait_s < 0.4 else Decision(1410.0, 4))
    served, _ = drive(waits, 1.0, continuous=True)
    assert latencies_s(served, 1.0) == [1.5]
    for_ever, _ = drive(Choose(lambda seen: Wait(1.0)), 1.0, duration_s=3.0, continuous=True)
    assert for_ever.record.is_given_up
    ended, _ = drive(
        Choose(lambda seen: Decision(1410.0, 1)), 1.0, 1.1, 1.2, duration_s=2.5, drain=False, continuous=True
    )
    assert len(ended.completions) == 2 and len(ended.record.unfinished_s) == 1


def test_an_engine_that_serves_whole_batches_refuses_continuous() -> None:
    clock = SimulatedClock()
    table = {
        "source": "made up",
        "clock_mhz": [705.0, 1410.0],
        "batch_sizes": [1],
        "latency_s": [[2.0], [1.0]],
        "power_w": [[100.0], [200.0]],
    }
    engine = SimulatedEngine(table=table)
    engine.load(MODEL, max_concurrency=1, seed=0)
    spec = ServingSpec(policy=PolicySpec(name="choose"), slo_s=2.0, continuous=True)
    run = OpenLoopDrive(requests(1.0), Choose(serve_all), engine, spec, clock, None, max_batch=1, duration_s=2.0)
    with pytest.raises(InvalidOptionError, match=r"serving\.continuous"):
        run.run()


def test_the_estimated_rate_nears_the_true_one() -> None:
    arrivals_s = np.cumsum(np.random.default_rng(1).exponential(0.5, 400)).tolist()
    policy = Choose(serve_all)
    drive(policy, *arrivals_s, duration_s=250.0)
    assert policy.seen[-1].arrival_rate_per_s == pytest.approx(2.0, rel=0.3)
