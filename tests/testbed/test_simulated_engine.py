"""The simulated server: exactly what its table says, at the clock that its device is set to."""

import pytest

from contract.errors import InvalidOptionError, InvalidRequestError, ModelNotFoundError
from contract.trial_spec import ModelSpec, SamplingSpec
from energy.integrate import CumulativeEnergy
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.simulated_engine import SimulatedEngine
from testbed.meters.simulated_meter import SimulatedMeter
from testbed.simulation.service_table import ServiceTableError
from testbed.simulation.simulated_clock import SimulatedClock

TABLE = {
    "source": "made up",
    "clock_mhz": [705.0, 1410.0],
    "batch_sizes": [1, 2, 3],
    "latency_s": [[2.0, 2.2, 2.4], [1.0, 1.1, 1.2]],
    "power_w": [[100.0, 110.0, 120.0], [200.0, 220.0, 240.0]],
}
MODEL = ModelSpec(name="table", source="fake:table", max_model_len=64)


def asks(n: int, words: int = 3, **sampling: object) -> list[GenerationRequest]:
    drawn = SamplingSpec.model_validate({"max_tokens": 10, "ignore_eos": True, **sampling})
    return [GenerationRequest(f"q{i}", ({"role": "user", "content": "word " * words},), drawn, i) for i in range(n)]


def loaded(clock: SimulatedClock, clock_mhz: float = 1410.0, **options: object) -> SimulatedEngine:
    engine = SimulatedEngine(table=TABLE, **options)
    engine.connect(clock, lambda: clock_mhz)
    engine.load(MODEL, max_concurrency=3, seed=0)
    return engine


@pytest.mark.parametrize(("clock_mhz", "expected_s"), [(1410.0, 1.2 + 1.1), (705.0, 2.4 + 2.2), (800.0, 2.4 + 2.2)])
def test_batches_take_what_the_table_says(clock_mhz: float, expected_s: float) -> None:
    clock = SimulatedClock()
    before_ns, seen = clock.monotonic_ns(), list[Completion]()
    done = loaded(clock, clock_mhz).generate(asks(5), concurrency=3, on_completion=seen.append)
    assert (clock.monotonic_ns() - before_ns) / 1e9 == pytest.approx(expected_s)
    assert [each.request_id for each in done] == [f"q{i}" for i in range(5)] and seen == done
    assert len({each.finished_ns for each in done[:3]}) == len({each.finished_ns for each in done[3:]}) == 1
    assert all(each.n_output_tokens == 10 and each.finish_reason == "length" for each in done)
    # The table has an end for a batch, and no time for a token: none is made up.
    assert all(each.token_ns == () for each in done)


def test_energy_is_exact_whatever_the_sampling_period() -> None:
    for period_s in (0.01, 0.3, 60.0):
        clock = SimulatedClock()
        engine = loaded(clock, idle_power_w=50.0, switch_s=0.5, switch_energy_j=7.0)
        meter = SimulatedMeter(period_s=period_s)
        meter.connect(engine.machine)
        meter.start(None)  # type: ignore[arg-type]
        start_s = clock.monotonic_ns() / 1e9
        clock.sleep(10.0)
        engine.generate(asks(2), concurrency=2)
        engine.machine.switch()
        end_s = clock.monotonic_ns() / 1e9
        (trace,) = meter.stop().traces
        energy = CumulativeEnergy(trace)
        assert energy.window(start_s, end_s).energy_j == pytest.approx(10 * 50.0 + 1.1 * 220.0 + 7.0)
        assert energy.at(start_s + 10.55) - energy.at(start_s + 10.0) == pytest.approx(0.55 * 220.0)
        assert energy.window(start_s, end_s).n_unexplained == 0


def test_a_pause_between_many_short_batches_is_no_gap_in_the_record() -> None:
    clock = SimulatedClock()
    engine = loaded(clock, idle_power_w=50.0)
    meter = SimulatedMeter(period_s=60.0)
    meter.connect(engine.machine)
    meter.start(None)  # type: ignore[arg-type]
    clock.sleep(50.0)
    mark_s = clock.monotonic_ns() / 1e9
    engine.generate(asks(200), concurrency=2)
    clock.sleep(50.0)
    (trace,) = meter.stop().traces
    window = CumulativeEnergy(trace).window(mark_s - 20.0, clock.monotonic_ns() / 1e9 - 20.0)
    assert window.n_cut_gaps == 0
    assert window.energy_j == pytest.approx(50.0 * 50.0 + 100 * 1.1 * 220.0)


def test_the_clock_moves_by_what_is_slept_and_is_paced_where_that_is_wanted() -> None:
    slept: list[float] = []

    class Real:
        def monotonic_ns(self) -> int:
            return 5_000_000_000

        def time_ns(self) -> int:
            return 1_700_000_000_000_000_000

        def sleep(self, duration_s: float) -> None:
            slept.append(duration_s)

    clock = SimulatedClock(Real(), speedup=60.0)
    clock.sleep(30.0)
    assert clock.monotonic_ns() == 35_000_000_000 and clock.time_ns() == 1_700_000_030_000_000_000
    assert slept == [0.5]


def test_what_the_table_does_not_have_is_refused() -> None:
    engine = SimulatedEngine(table=TABLE)
    with pytest.raises(ServiceTableError, match="1 to 3"):
        engine.load(MODEL, max_concurrency=4, seed=0)
    with pytest.raises(ModelNotFoundError, match="fake:NAME"):
        engine.check(ModelSpec(name="m", source="hf:org/m"))
    with pytest.raises(InvalidRequestError, match="load"):
        engine.generate(asks(1), concurrency=1)
    with pytest.raises(InvalidOptionError, match="cells"):
        SimulatedEngine(table={**TABLE, "latency_s": [[1.0], [2.0]]})
    with pytest.raises(ServiceTableError, match="power_w"):
        SimulatedEngine(table={**TABLE, "power_w": [[100.0, 110.0, -1.0], [200.0, 220.0, 240.0]]})
    with pytest.raises(InvalidOptionError, match="surprise"):
        SimulatedEngine(table=TABLE, surprise=1)
    with pytest.raises(InvalidOptionError, match="no testbed here"):
        SimulatedEngine(table="mine.csv")


def test_a_prompt_beyond_the_context_is_refused() -> None:
    engine = loaded(SimulatedClock())
    with pytest.raises(InvalidRequestError, match="64"):
        engine.generate(asks(1, words=70), concurrency=1)
    with pytest.raises(InvalidRequestError, match="64"):
        engine.generate(asks(1, words=60), concurrency=1)
