"""The testbed's drive on a simulated device against the reference simulation: the same batches, joules and latencies.

Both have their own idea of time: the drive counts whole nanoseconds of a clock, the reference adds up seconds.
Latencies may differ by that rounding, and by nothing else; batches may not differ at all.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from contract.serving import PolicySpec, ServingSpec
from contract.trial_spec import ModelSpec, SamplingSpec
from control.reference_simulation import simulate
from control.serving_case import ServingCase
from testbed.attempt_folder import RequestRecord
from testbed.engines.base import GenerationRequest
from testbed.engines.simulated_engine import SimulatedEngine
from testbed.meters.simulated_meter import SimulatedMeter
from testbed.open_loop_drive import OpenLoopDrive
from testbed.policies.base import Decision, Observation, Setting, Wait
from testbed.request_queue import OpenRequest
from testbed.serving_result import serving_report
from testbed.simulation.arrivals import ArrivalSpec, draw_arrivals
from testbed.simulation.simulated_clock import SimulatedClock

JITTER_S = 1e-6
CLOCKS = (705.0, 1050.0, 1410.0)
MAX_BATCH = 16
SLO_S = 8.0


def made_up_table() -> dict[str, object]:
    """Latency falls with the clock and rises with the batch; power rises with both."""
    sizes = np.arange(1, MAX_BATCH + 1)
    return {
        "source": "made up for a test",
        "clock_mhz": list(CLOCKS),
        "batch_sizes": sizes.tolist(),
        "latency_s": [(2.0 * (1410 / clock) ** 0.7 * (1 + 0.03 * sizes)).tolist() for clock in CLOCKS],
        "power_w": [((60 + 0.1 * clock) * (1 + 0.01 * sizes)).tolist() for clock in CLOCKS],
        "n_input_tokens": 500,
        "n_output_tokens": 300,
    }


class Rule:
    def __init__(self, name: str, choose: Callable[[Observation], Decision | Wait]) -> None:
        self.name, self._choose = name, choose

    def decide(self, observation: Observation) -> Decision | Wait:
        return self._choose(observation)

    def reset(self) -> None:
        pass

    def settings(self) -> Mapping[str, Setting]:
        return {}


def serve_all(seen: Observation) -> Decision:
    return Decision(1050.0, MAX_BATCH)


def by_wait(seen: Observation) -> Decision | Wait:
    # Not 2.0: after two waits of 1 s that is a tie, which rounding decides.
    if seen.n_queued < 3 and seen.head_wait_s < 1.9:
        return Wait(1.0)
    return Decision(705.0 if seen.head_wait_s < 3.0 else 1410.0, MAX_BATCH)


def by_rate(seen: Observation) -> Decision | Wait:
    rate = seen.arrival_rate_per_s or 0.0
    return Decision(CLOCKS[min(int(rate * 2), 2)], 1 + int(rate * 4) % MAX_BATCH)


def one_by_one(seen: Observation) -> Decision:
    return Decision(705.0, 1)


CASES = {
    "steady": (serve_all, 0.8, {}),
    "waits and switches": (by_wait, 0.8, {"idle_power_w": 55.0, "switch_energy_j": 7.0}),
    "by the estimated rate": (by_rate, 1.5, {"idle_power_w": 20.0}),
    "an overflowing queue": (one_by_one, 1.2, {"queue_limit": 5}),
    "cut off at its end": (one_by_one, 1.2, {"drain": False}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_testbed_serves_the_same_batches_as_the_reference(name: str, seed: int) -> None:
    choose, rate_per_s, changes = CASES[name]
    options = {"idle_power_w": 0.0, "switch_energy_j": None, "queue_limit": 100, "drain": True, **changes}
    arrivals, duration_s = ArrivalSpec(rate_per_s=rate_per_s), 600.0
    engine = SimulatedEngine(
        table=made_up_table(), idle_power_w=options["idle_power_w"], switch_energy_j=options["switch_energy_j"]
    )
    case = ServingCase(table=engine.table, slo_s=SLO_S, arrivals=arrivals, duration_s=duration_s, **options)
    expected = simulate(case, Rule("rule", choose), seed, keep_records=True)

    clock = SimulatedClock()
    state = {"clock_mhz": CLOCKS[-1]}
    machine = engine.connect(clock, lambda: state["clock_mhz"])
    meter = SimulatedMeter(period_s=10.0)
    meter.connect(machine)
    engine.load(ModelSpec(name="m", source="fake:m"), max_concurrency=MAX_BATCH, seed=0)

    class Dial:
        clock_mhz = CLOCKS[-1]

        def turn(self, clock_mhz: float) -> None:
            self.clock_mhz = state["clock_mhz"] = clock_mhz
            machine.switch()

    times_s = draw_arrivals(arrivals, duration_s, seed)
    sampling = SamplingSpec(max_tokens=300, ignore_eos=True)
    requests = [
        OpenRequest(GenerationRequest(f"r{i}", ({"role": "user", "content": "x"},), sampling, i), float(at), 500, 300)
        for i, at in enumerate(times_s)
    ]
    spec = ServingSpec(
        policy=PolicySpec(name="rule"),
        slo_s=SLO_S,
        queue_limit=int(str(options["queue_limit"])),
        drain=bool(options["drain"]),
        clock_domain="gpu:0",
    )
    meter.start(None)  # type: ignore[arg-type]
    served = OpenLoopDrive(
        requests, Rule("rule", choose), engine, spec, clock, Dial(), max_batch=MAX_BATCH, duration_s=duration_s
    ).run()
    (trace,) = meter.stop().traces

    assert expected.requests is not None and expected.decisions is not None
    sizes = [decision.n_served for decision in expected.decisions if decision.n_served]
    assert [batch.n_requests for batch in served.record.batches] == sizes
    clocks = [decision.clock_mhz for decision in expected.decisions if decision.n_served]
    assert [batch.clock_mhz for batch in served.record.batches] == clocks
    assert served.record.n_waits == expected.n_waits and len(served.record.switches) == expected.n_switches
    assert len(served.record.lost_s) == expected.n_lost
    assert len(served.record.unfinished_s) == expected.n_unfinished

    finished_s = {done.request_id: done.finished_ns / 1e9 for done in served.completions}
    latencies = {
        i: finished_s[f"r{i}"] - served.record.start_s - at for i, at in enumerate(times_s) if f"r{i}" in finished_s
    }
    told = {i: r.finish_s - r.arrival_s for i, r in enumerate(expected.requests) if r.finish_s is not None}
    assert latencies.keys() == told.keys()
    assert max(abs(latencies[i] - told[i]) for i in told) < JITTER_S

    kept = served.record.model_copy(update={"floor_s": case.floor_latency_s})
    report = serving_report(spec, kept, [record(served, done, times_s) for done in served.completions], [trace])
    assert report.n_met == expected.n_met and report.slo_share is not None
    assert report.n_judged == expected.n_judged
    assert report.service_energy_j == pytest.approx(expected.service_energy_j, rel=1e-6)
    assert report.switch_energy_j == pytest.approx(expected.switch_energy_j, rel=1e-6, abs=1e-6)
    assert report.idle_energy_j == pytest.approx(expected.idle_energy_j, rel=1e-6, abs=1e-3)
    assert report.service_energy_per_request_j == pytest.approx(expected.service_energy_per_request_j, rel=1e-6)
    assert report.study_energy_per_request_j == pytest.approx(expected.study_energy_per_request_j, rel=1e-6)
    assert report.energy_per_request_j == pytest.approx(expected.energy_per_request_j, rel=1e-6)
    assert report.latency.p99_s == pytest.approx(expected.latency_p99_s, abs=JITTER_S)
    assert report.throughput_per_s == pytest.approx(expected.throughput_per_s, rel=1e-6)


def record(served: object, done: object, times_s: np.ndarray) -> RequestRecord:  # type: ignore[type-arg]
    completion, start_s = done, served.record.start_s  # type: ignore[attr-defined]
    index = int(completion.request_id[1:])  # type: ignore[attr-defined]
    return RequestRecord(
        item_id=completion.request_id,  # type: ignore[attr-defined]
        prompt_sha256="0" * 64,
        n_prompt_tokens=500,
        n_output_tokens=300,
        finish_reason="length",
        submitted_s=completion.submitted_ns / 1e9,  # type: ignore[attr-defined]
        first_token_s=None,
        finished_s=completion.finished_ns / 1e9,  # type: ignore[attr-defined]
        token_s=[],
        messages=[],
        answer="",
        gold_label=None,
        predicted_label=None,
        is_correct=None,
        arrival_s=start_s + float(times_s[index]),
    )
