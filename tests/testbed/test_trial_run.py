"""The trial as the child lives it, on a clock that moves only when somebody sleeps."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import EngineError, MeterError
from contract.node_info import TemperatureReading
from contract.trial_result import EnergyMethod, MeterCost
from contract.trial_spec import EngineSpec, ModelSpec, SamplingSpec, TrialSpec, WorkloadSpec
from energy.trace import Gauge, Trace
from energy.trace_log import read_gauges, read_traces
from testbed.attempt_folder import ChildRecord, RequestRecord
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.fake_engine import FakeEngine
from testbed.meters.base import Meter, MeterProbe, MeterReport
from testbed.trial_run import Parts, run_trial
from testbed.workloads.fake_workload import FakeWorkload

SPEC = TrialSpec(
    experiment="e",
    run_id="run_0_repetition_0",
    repetition=0,
    treatment={},
    seed=0,
    model=ModelSpec(name="m", source="fake:m"),
    engine=EngineSpec(name="fake"),
    sampling=SamplingSpec(max_tokens=10, ignore_eos=True),
    workload=WorkloadSpec(name="fake", concurrency=2),
    baseline_s=1.0,
    warmup_requests=0,
)
TIME_S = np.arange(0.0, 3.0)
TRACE = Trace("cpu_package", "cpu", "counter", EnergyMethod.COUNTER, "scripted", TIME_S, 100 * TIME_S)
GAUGE = Gauge("gpu:0", "clock_mhz", "scripted", TIME_S, TIME_S / 3 + 1005)


class StillClock:
    def __init__(self) -> None:
        self.now_ns = 5_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time_ns(self) -> int:
        return self.now_ns

    def sleep(self, duration_s: float) -> None:
        self.now_ns += round(duration_s * 1e9)


class NoThermometer:
    def read(self) -> list[TemperatureReading]:
        return []


class ScriptedMeter:
    """Delivers what it is given."""

    def __init__(self, report: MeterReport | MeterError, name: str = "scripted") -> None:
        self.name = name
        self._report = report

    def probe(self) -> MeterProbe:
        return MeterProbe(True, "")

    def start(self, out_dir: Path) -> None:
        pass

    def latest_power_w(self) -> dict[str, float]:
        return {}

    def stop(self) -> MeterReport:
        if isinstance(self._report, MeterError):
            raise self._report
        return self._report


class Forgetful(FakeEngine):
    """Answers in another order, and leaves the last request out."""

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        return super().generate(requests, concurrency=concurrency, on_completion=on_completion)[-2::-1]


class Shallow(FakeEngine):
    """Leaves each model where a request asks for it; two tokens a layer apart where it asks for nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[list[int | None]] = []

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        layers = [each.exit_layer for each in requests]
        self.asked.append(layers)
        plain = [replace(each, exit_layer=None) for each in requests]
        done = super().generate(plain, concurrency=concurrency, on_completion=on_completion)
        return [
            replace(each, token_exit_layer=(k, k + 1), token_entropy_nats=(1.0, 2.0)) if k else each
            for each, k in zip(done, layers, strict=True)
        ]


def run(
    folder: Path,
    *meters: Meter,
    engine: type[FakeEngine] = FakeEngine,
    options: dict[str, float] | None = None,
    spec: TrialSpec = SPEC,
    **parts: object,
) -> ChildRecord:
    clock = StillClock()
    built = Parts(
        engine=engine(clock=clock, **{"tokens_per_s": 10.0} | (options or {})),
        warm=None,
        workload=FakeWorkload(n_items=4),
        meters=meters,
        thermometer=NoThermometer(),
    )
    return run_trial(spec, replace(built, **parts), folder, clock)  # type: ignore[arg-type]


def requests(folder: Path) -> list[RequestRecord]:
    lines = (folder / "requests.jsonl").read_text().splitlines()
    return [RequestRecord.model_validate_json(line) for line in lines]


def test_samples_and_gauges_are_written_to_the_last_bit(tmp_path: Path) -> None:
    run(tmp_path, ScriptedMeter(MeterReport((TRACE,), 0.02, gauges=(GAUGE,), window_s=4.0)))
    (trace,) = read_traces(tmp_path / "trace_scripted.csv")
    assert np.array_equal(trace.values, TRACE.values)
    (gauge,) = read_gauges(tmp_path / "gauges_scripted.csv")
    assert (gauge.domain, gauge.quantity, gauge.source) == ("gpu:0", "clock_mhz", "scripted")
    assert np.array_equal(gauge.time_s, GAUGE.time_s) and np.array_equal(gauge.values, GAUGE.values)


def test_a_meter_with_a_log_of_its_own_is_not_copied_and_hides_no_other(tmp_path: Path) -> None:
    # The log may be there before the other meter stops.
    (tmp_path / "energibridge.csv").write_text("Delta,Time\n")
    report = MeterReport((TRACE,), 0.02, gauges=(GAUGE,), window_s=4.0)
    run(tmp_path, ScriptedMeter(report, "energibridge"), ScriptedMeter(report, "nvml"))
    assert sorted(path.name for path in tmp_path.glob("*_*.csv")) == ["gauges_nvml.csv", "trace_nvml.csv"]


def test_the_cost_of_each_meter_is_in_the_record(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        ScriptedMeter(MeterReport((TRACE,), 0.02, window_s=4.0), "known"),
        ScriptedMeter(MeterReport((TRACE,), None, window_s=4.0), "untold"),
        ScriptedMeter(MeterReport((TRACE,), 0.02), "untimed"),
        ScriptedMeter(MeterError("It broke."), "broken"),
    )
    assert record.meters == [
        MeterCost(name="known", cpu_s=0.02, window_s=4.0, cpu_share=0.005),
        MeterCost(name="untold", cpu_s=None, window_s=4.0),
        MeterCost(name="untimed", cpu_s=0.02, window_s=None),
        MeterCost(name="broken", cpu_s=None, window_s=None),
    ]
    assert [reason.code for reason in record.reasons] == ["meter"]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_program_around_the_trial_has_its_cost_there_too(tmp_path: Path, is_known: bool) -> None:
    cpu_s = iter([1.0, 1.06])
    record = run(
        tmp_path,
        wrapper_cpu_s=lambda: next(cpu_s) if is_known else None,
        wrapper_settings={"energibridge": {"version": "1"}},
        settle_s=1.0,
    )
    # 1 s of baseline, 2 x 10 tokens at 10 per s, 1 s to settle.
    (cost,) = record.meters
    assert (cost.name, cost.window_s) == ("energibridge", pytest.approx(4.0))
    assert cost.cpu_s == (pytest.approx(0.06) if is_known else None)
    assert cost.cpu_share == (pytest.approx(0.015) if is_known else None)


def test_a_prompt_without_an_answer_is_counted_not_hidden(tmp_path: Path) -> None:
    assert (sound := run(tmp_path).workload) is not None
    assert (sound.n_planned, sound.n_requests) == (4, 4)
    kept = requests(tmp_path)
    assert (short := run(tmp_path, engine=Forgetful).workload) is not None
    assert (short.n_planned, short.n_requests) == (4, 3)
    assert [each.answer for each in requests(tmp_path)] == [each.answer for each in kept[:3]]
    assert short.score is not None and short.score.n_items == 3


def test_requests_take_the_exit_layers_in_turn_and_the_report_has_their_mean(tmp_path: Path) -> None:
    sampling = SamplingSpec(max_tokens=10, ignore_eos=True, exit_layers=(4, 8, 12))
    spec = SPEC.model_copy(update={"sampling": sampling, "warmup_requests": 2})
    engine = Shallow(clock=StillClock())
    record = run(tmp_path, spec=spec, engine=lambda **_: engine)  # type: ignore[arg-type]
    assert engine.asked == [[4, 8], [4, 8, 12, 4]], "warm-up, then the four items"
    assert [each.token_exit_layer for each in requests(tmp_path)] == [[4, 5], [8, 9], [12, 13], [4, 5]]
    assert record.workload is not None
    assert (record.workload.exit_layer, record.workload.entropy_nats) == (7.5, 1.5)


def test_without_early_exit_the_report_has_no_mean(tmp_path: Path) -> None:
    """Nor where some requests do not tell: a mean of the others would not be the run's."""
    engine = Shallow(clock=StillClock())
    plain = run(tmp_path, engine=lambda **_: engine)  # type: ignore[arg-type]
    assert engine.asked == [[None] * 4]
    assert plain.workload is not None
    assert plain.workload.exit_layer is plain.workload.entropy_nats is None


def test_meters_are_stopped_and_their_samples_kept_when_the_engine_fails(tmp_path: Path) -> None:
    meter = ScriptedMeter(MeterReport((TRACE,), 0.02, window_s=4.0))
    record = run(tmp_path, meter, options={"fail_on": 1})
    assert record.error is not None and record.error.code == EngineError.code
    assert (tmp_path / "trace_scripted.csv").exists() and len(record.meters) == 1
