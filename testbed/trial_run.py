"""The whole story of one trial, as the child lives it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from contract.attempt_state import AttemptState
from contract.errors import InvalidRequestError, JouleBedError
from contract.node_info import TemperatureReading
from contract.trial_result import (
    LoadReport,
    MeterCost,
    Phase,
    PhaseWindow,
    SettingTaken,
    SteadyReport,
    SuspectReason,
    WorkloadReport,
)
from contract.trial_spec import SamplingSpec, TrialSpec
from contract.units import sha256_of
from energy.trace_log import write_gauges, write_traces
from testbed import attempt_folder
from testbed.answer_record import Answers, write_answers
from testbed.attempt_folder import ChildRecord, DeviceRecord, Progress
from testbed.clock import Clock, unix_minus_monotonic_s
from testbed.conditions import resident_peak_bytes
from testbed.device_group.group import DeviceAnswers, DeviceGroup
from testbed.device_settings import DeviceSettings, no_settings
from testbed.edge_control.record import EdgeRecord
from testbed.edge_trial import EdgeParts, serve_edge
from testbed.engines.base import Engine, GenerationRequest
from testbed.meters.base import Meter, Thermometer
from testbed.open_loop_drive import Served
from testbed.open_loop_trial import OpenLoopParts, check_arrivals, serve
from testbed.prompt_length import pad_prompts, wrong_lengths
from testbed.request_length import refuse_what_cannot_fit, sampling_of
from testbed.serving_record import ServingRecord
from testbed.steady_state import SteadyState
from testbed.workloads.base import PreparedWorkload, Workload

_WARMUP_MESSAGES = ({"role": "user", "content": "Name three colours."},)
_WARMUP_TOKENS = 16
_HAVE_LOGS = frozenset({"energibridge"})
"""Meters that leave a log of their own, which is the evidence: a second copy could only differ from it."""


@dataclass(frozen=True)
class Parts:
    """What a trial is made of.

    Attributes:
        engine: not loaded yet, or warm.
        warm: the engine's load report when it is warm, else None.
        workload: what is asked.
        meters: in-process meters; empty when EnergiBridge is wrapped around this process.
        thermometer: for the start temperature.
        settle_s: kept idle after the measured phase, so that a sampler outside still brackets its end.
        wrapper_cpu_s: CPU seconds used so far by a sampler that is wrapped around this process; None without one.
        wrapper_settings: the same meter's name -> its settings.
        devices: what is set on devices for this trial, and put back at its end.
        group: the engine, where the trial names several devices.
        open_loop: who decides, where the trial is one with arrivals.
        edge: who decides, where the trial is one of edge control.
        progress_clock: times progress, which the testbed sets against its own clock; None: the trial's.
    """

    engine: Engine
    warm: LoadReport | None
    workload: Workload
    meters: Sequence[Meter]
    thermometer: Thermometer
    settle_s: float = 0.0
    wrapper_cpu_s: Callable[[], float | None] = lambda: None
    wrapper_settings: Mapping[str, JsonValue] = field(default_factory=dict)
    devices: DeviceSettings = field(default_factory=no_settings)
    group: DeviceGroup | None = None
    open_loop: OpenLoopParts | None = None
    edge: EdgeParts | None = None
    progress_clock: Clock | None = None


@dataclass
class _Story:
    """What is known so far; becomes the record, also when the trial ends early."""

    origin_s: float
    unix_minus_monotonic_s: float
    end_unix_minus_monotonic_s: float | None = None
    phases: list[PhaseWindow] = field(default_factory=list)
    load: LoadReport | None = None
    workload: WorkloadReport | None = None
    start_temp_c: float | None = None
    meter_settings: dict[str, JsonValue] = field(default_factory=dict)
    meters: list[MeterCost] = field(default_factory=list)
    settings: list[SettingTaken] = field(default_factory=list)
    steady: SteadyReport | None = None
    temperatures: list[list[TemperatureReading]] = field(default_factory=list)
    memory_peak_bytes: int | None = None
    devices: list[DeviceRecord] = field(default_factory=list)
    serving: ServingRecord | None = None
    edge: EdgeRecord | None = None
    reasons: list[SuspectReason] = field(default_factory=list)

    def record(self, error: JouleBedError | None) -> ChildRecord:
        return ChildRecord(**vars(self), error=error.body() if error else None)


class ProgressLog:
    """Appends `Progress` lines; one write per line, so a reader never sees half of one for long.

    Args:
        path: progress.jsonl.
        clock: times the lines.
        meters: asked for their latest power, which costs no sample.
    """

    def __init__(self, path: Path, clock: Clock, meters: Sequence[Meter] = ()) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._clock = clock
        self._meters = meters
        self._last = (AttemptState.LOADING, 0, 0)

    def wait_for(self, devices: Sequence[str]) -> None:
        """Write a line of the same state: which devices are not done with it."""
        self.note(*self._last, waits_for=devices)

    def note(self, state: AttemptState, done: int = 0, of: int = 0, *, waits_for: Sequence[str] = ()) -> None:
        """Write one line."""
        self._last = (state, done, of)
        power_w = {domain: watts for meter in self._meters for domain, watts in meter.latest_power_w().items()}
        line = Progress(
            state=state,
            at_s=self._clock.monotonic_ns() / 1e9,
            n_requests_done=done,
            n_requests=of,
            power_w=power_w,
            waits_for=list(waits_for),
        )
        self._file.write(line.model_dump_json() + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def run_trial(spec: TrialSpec, parts: Parts, out_dir: Path, clock: Clock) -> ChildRecord:
    """Run one trial and write its files, record.json last.

    Errors that JouleBed raises on purpose end the trial and are told in the record; what was measured until then
    is kept. Others are the caller's to catch.

    Args:
        spec: what to run.
        parts: with what; the engine is left loaded.
        out_dir: the attempt's folder.
        clock: of this machine.

    Returns:
        What record.json holds.
    """
    monotonic_ns = clock.monotonic_ns()
    story = _Story(monotonic_ns / 1e9, unix_minus_monotonic_s(clock))
    progress = ProgressLog(out_dir / attempt_folder.PROGRESS, parts.progress_clock or clock, parts.meters)
    error: JouleBedError | None = None
    if parts.group is not None:
        parts.group.on_wait = progress.wait_for
    try:
        _walk(spec, parts, out_dir, clock, story, progress)
    except JouleBedError as raised:
        error = raised
    finally:
        story.reasons += parts.devices.restore()
        story.settings = parts.devices.taken
        if parts.group is None:
            story.memory_peak_bytes = resident_peak_bytes()
        else:
            # The memory is in the devices' processes, and their peaks need not have been at the same time.
            story.devices = parts.group.records
            story.reasons += parts.group.reasons
        story.end_unix_minus_monotonic_s = unix_minus_monotonic_s(clock)
        progress.close()
    record = story.record(error)
    attempt_folder.write_whole(out_dir / attempt_folder.RECORD, record)
    return record


def _walk(spec: TrialSpec, parts: Parts, out_dir: Path, clock: Clock, story: _Story, progress: ProgressLog) -> None:
    progress.note(AttemptState.LOADING)
    # Drawn before anything is loaded or measured: a wrong option must not cost a model load.
    prepared = parts.workload.prepare()
    check_arrivals(spec, prepared)
    refuse_what_cannot_fit(prepared.items, spec.sampling, spec.model.max_model_len)
    parts.devices.check()
    temperatures = parts.thermometer.read()
    story.temperatures.append(temperatures)
    story.start_temp_c = max((reading.temp_c for reading in temperatures), default=None)
    wrapper_cpu_start_s, wrapper_start_ns = parts.wrapper_cpu_s(), clock.monotonic_ns()
    story.meter_settings.update(parts.wrapper_settings)

    started: list[Meter] = []
    try:
        for meter in parts.meters:
            meter.start(out_dir)
            started.append(meter)
        prepared, answers, served = _measure(spec, parts, prepared, clock, story, progress)
        clock.sleep(parts.settle_s)
    finally:
        # Also on the way out of a failure: a sampler that outlives its trial would disturb the next one.
        _stop_meters(started, out_dir, story)
    wrapper_cpu_end_s = parts.wrapper_cpu_s()
    for name in parts.wrapper_settings:
        is_known = wrapper_cpu_start_s is not None and wrapper_cpu_end_s is not None
        cpu_s = wrapper_cpu_end_s - wrapper_cpu_start_s if is_known else None  # type: ignore[operator]
        story.meters.append(_cost(name, cpu_s, (clock.monotonic_ns() - wrapper_start_ns) / 1e9))

    progress.note(AttemptState.COLLECTING)
    story.serving = served.record if served is not None else None
    story.workload = write_answers(spec, parts.workload, prepared, answers, out_dir, group=parts.group, served=served)


def _measure(
    spec: TrialSpec,
    parts: Parts,
    prepared: PreparedWorkload,
    clock: Clock,
    story: _Story,
    progress: ProgressLog,
) -> tuple[PreparedWorkload, list[Answers], Served | None]:
    concurrency = spec.workload.concurrency
    with _phase(Phase.LOAD, story, clock):
        story.load = parts.warm or parts.engine.load(spec.model, max_concurrency=spec.load_concurrency, seed=spec.seed)
    prepared = pad_prompts(parts.engine, prepared)
    refuse_what_cannot_fit(prepared.items, spec.sampling, story.load.max_model_len, "of the loaded model")
    # After the load, whose speed is not part of the treatment, and before the baseline: net energy is energy above
    # the idle power of the same setting, and no switch is in any phase.
    story.reasons += parts.devices.apply()
    if spec.baseline_s > 0:
        progress.note(AttemptState.BASELINE)
        with _phase(Phase.BASELINE, story, clock):
            clock.sleep(spec.baseline_s)
    requests = [
        GenerationRequest(
            item.item_id,
            item.messages,
            sampling_of(spec.sampling, item),
            _request_seed(spec.seed, index),
            spec.sampling.exit_layer_of(index),
        )
        for index, item in enumerate(prepared.items)
    ]
    if not requests:
        raise InvalidRequestError("The workload has no items: choose n_items > 0.")
    if spec.warmup_requests > 0 or spec.steady is not None:
        progress.note(AttemptState.WARMUP)
        with _phase(Phase.WARMUP, story, clock):
            if spec.warmup_requests > 0:
                parts.engine.generate(_warmup_requests(spec), concurrency=concurrency)
            _reach_steady_state(spec, parts, requests[0].sampling, clock, story, progress)
    n_done, n_requests = 0, len(requests) * max(len(spec.devices), 1)

    def count() -> None:
        nonlocal n_done
        n_done += 1
        progress.note(AttemptState.MEASURING, n_done, n_requests)

    story.temperatures.append(parts.thermometer.read())
    progress.note(AttemptState.MEASURING, 0, n_requests)
    served: Served | None = None
    with _phase(Phase.MEASURE, story, clock):
        if parts.edge is not None:
            control = serve_edge(spec, parts.edge, parts, prepared, requests, clock, count)
            prepared, story.edge = control.prepared, control.record
            answers: list[Answers] = [(None, control.completions)]
        elif parts.open_loop is not None:
            served = serve(spec, parts.open_loop, parts.engine, parts.devices, prepared, requests, clock, count)
            answers = [(None, served.completions)]
        elif parts.group is None:
            alone = parts.engine.generate(requests, concurrency=concurrency, on_completion=lambda _: count())
            answers = [(None, alone)]
        else:
            driven = parts.group.drive(requests, concurrency=concurrency, on_done=count)
            answers = [(each.device, each.completions) for each in driven]
    if parts.group is not None:
        story.phases[-1] = _span(driven, story)
    story.temperatures.append(parts.thermometer.read())
    story.reasons += parts.devices.read_back()
    story.reasons += wrong_lengths(prepared, [each for _, completions in answers for each in completions])
    return prepared, answers, served


def _span(driven: Sequence[DeviceAnswers], story: _Story) -> PhaseWindow:
    """The measured phase of several devices: first start to last end, without the way there and back."""
    start_ns = min(each.start_ns for each in driven)
    return PhaseWindow(
        phase=Phase.MEASURE,
        start_s=max(start_ns / 1e9 - story.origin_s, 0.0),
        duration_s=(max(each.end_ns for each in driven) - start_ns) / 1e9,
    )


class _phase:
    """Marks a phase with the monotonic clock, also when it ends in an exception."""

    def __init__(self, phase: Phase, story: _Story, clock: Clock) -> None:
        self._phase, self._story, self._clock = phase, story, clock

    def __enter__(self) -> None:
        self._start_ns = self._clock.monotonic_ns()

    def __exit__(self, *exc: object) -> None:
        end_ns = self._clock.monotonic_ns()
        self._story.phases.append(
            PhaseWindow(
                phase=self._phase,
                start_s=max(self._start_ns / 1e9 - self._story.origin_s, 0.0),
                duration_s=(end_ns - self._start_ns) / 1e9,
            )
        )


def _request_seed(trial_seed: int, index: int) -> int:
    """A seed per request, so that equal prompts of a trial are independent draws."""
    return int(sha256_of([trial_seed, index])[:7], 16)


def _warmup_requests(spec: TrialSpec) -> list[GenerationRequest]:
    # Never an item of the workload: its prompt would be in the engine's caches when it is measured.
    sampling = SamplingSpec(
        temperature=spec.sampling.temperature,
        top_p=spec.sampling.top_p,
        max_tokens=min(spec.sampling.max_tokens, _WARMUP_TOKENS),
    )
    return [
        GenerationRequest(
            f"warmup-{i}",
            _WARMUP_MESSAGES,
            sampling,
            _request_seed(spec.seed, -1 - i),
            spec.sampling.exit_layer_of(i),
        )
        for i in range(spec.warmup_requests)
    ]


def _reach_steady_state(
    spec: TrialSpec, parts: Parts, sampling: SamplingSpec, clock: Clock, story: _Story, progress: ProgressLog
) -> None:
    if spec.steady is None:
        return
    concurrency = spec.workload.concurrency

    def step(number: int) -> None:
        first = 1000 + number * concurrency  # far from the warm-up's own
        requests = [
            GenerationRequest(
                f"steady-{i}",
                _WARMUP_MESSAGES,
                sampling,
                _request_seed(spec.seed, -i),
                spec.sampling.exit_layer_of(i - first),
            )
            for i in range(first, first + concurrency)
        ]
        parts.engine.generate(requests, concurrency=concurrency)
        progress.note(AttemptState.WARMUP, number + 1)

    story.steady = SteadyState(spec.steady, parts.thermometer, parts.meters, clock).reach(step)


def _stop_meters(meters: Sequence[Meter], out_dir: Path, story: _Story) -> None:
    for meter in meters:
        try:
            report = meter.stop()
        except JouleBedError as failure:
            story.reasons.append(SuspectReason(code=failure.code, message=f"Meter {meter.name}: {failure.message}"))
            story.meters.append(_cost(meter.name, None, None))
            continue
        story.meter_settings[meter.name] = dict(report.settings)
        story.reasons += [SuspectReason(code="meter", message=f"{meter.name}: {text}") for text in report.warnings]
        story.meters.append(_cost(meter.name, report.sampler_cpu_s, report.window_s))
        if meter.name in _HAVE_LOGS:
            continue
        write_traces(out_dir / f"trace_{meter.name}.csv", report.traces)
        if report.gauges:
            write_gauges(out_dir / f"gauges_{meter.name}.csv", report.gauges)


def _cost(name: str, cpu_s: float | None, window_s: float | None) -> MeterCost:
    cpu_share = cpu_s / window_s if cpu_s is not None and window_s else None
    return MeterCost(name=name, cpu_s=cpu_s, window_s=window_s, cpu_share=cpu_share)
