"""The child process: builds the parts of a trial and runs it.

    python -m testbed.model_runner SPEC.json OUT_DIR [--meter NAME ...] [--wrapped METER]
    python -m testbed.model_runner --serve
    python -m testbed.model_runner --check < CheckRequest > CheckReport

The first form runs one trial and exits. The second keeps the engine warm (`lifetime: block`): it reads one JSON
line per trial on standard input, `{"spec": ..., "out_dir": ..., "meters": [...]}`, and answers one line,
`{"out_dir": ..., "done": true}`, when record.json is written; the end of input
ends it. The third says what stands in the way of trials, and runs nothing.
"""

import argparse
import faulthandler
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO, cast

import psutil

from contract.errors import ErrorBody, JouleBedError
from contract.node_info import CheckProblem, CheckReport, CheckRequest
from contract.trial_result import LoadReport
from contract.trial_spec import TrialSpec
from contract.units import sha256_of
from testbed import attempt_folder
from testbed.attempt_folder import ChildRecord
from testbed.clock import Clock, SystemClock
from testbed.device_group.group import DeviceGroup, group_of
from testbed.device_settings import data_dir_of, device_settings
from testbed.edge_trial import edge_parts
from testbed.engines.base import Engine
from testbed.engines.build import build_engine
from testbed.meters.base import Meter
from testbed.meters.energibridge_meter import EnergiBridgeMeter
from testbed.meters.registry import METERS
from testbed.meters.selection import MeterSelector
from testbed.meters.thermometer import SystemThermometer
from testbed.open_loop_trial import check_arrivals
from testbed.policy_source import open_loop_parts
from testbed.request_length import refuse_what_cannot_fit
from testbed.simulated_trial import connect, is_simulated, refuse_half_simulated, simulated_clock, thermometer_of
from testbed.simulation.simulated_machine import SimulatedMachine
from testbed.trial_run import Parts, run_trial
from testbed.workloads.registry import WORKLOADS

_EACH_RUNS_OWN = {"run_id", "repetition", "treatment", "seed"}

_SETTLE_PERIODS = 2.5
"""EnergiBridge ends with its child and drops the interval under way: the measured phase must end earlier."""


class ModelRunner:
    """Runs trials, and keeps the engine between them where the spec asks for it.

    Args:
        clock: of this machine.
        wrapped: whether EnergiBridge runs around this process.
    """

    def __init__(self, clock: Clock, *, wrapped: bool = False) -> None:
        self._clock = clock
        self._wrapped = wrapped
        self._engine: Engine | None = None
        self._engine_key = ""
        self._load: LoadReport | None = None

    def run(self, spec_path: Path, out_dir: Path, meter_names: Sequence[str]) -> ChildRecord:
        """Run one trial; whatever happens, record.json is there afterwards, unless the process dies."""
        try:
            spec = TrialSpec.model_validate_json(spec_path.read_bytes())
            # The time of a simulated server is not this machine's.
            clock = simulated_clock(spec, self._clock) if is_simulated(spec) else self._clock
            record = run_trial(spec, self._build(spec, meter_names, out_dir, clock), out_dir, clock)
        except JouleBedError as error:
            record = self._failed(out_dir, error)
        except Exception as error:  # noqa: BLE001
            # A supervisor: the node learns of every failure by the record, never by a lost child.
            record = self._failed(out_dir, _unforeseen(error, "See child.log."))
        if record.error is not None or record.load is None or spec.engine.lifetime == "trial":
            self.close()
        else:
            self._load = record.load.model_copy(update={"load_s": 0.0, "reused": True})
        return record

    def close(self) -> None:
        """Free the engine. Idempotent."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self._engine_key, self._load = None, "", None

    def _build(self, spec: TrialSpec, meter_names: Sequence[str], out_dir: Path, clock: Clock) -> Parts:
        # The cheap parts first, so that a wrong option costs no engine.
        refuse_half_simulated(spec, meter_names)
        data_dir = data_dir_of(os.environ, out_dir)
        devices = device_settings(spec.actuators, data_dir, clock)
        workload = WORKLOADS.create_from_spec(spec.workload.name, spec.workload.options)
        meters: list[Meter] = []
        for name in meter_names:
            options = spec.meter.options if name == spec.meter.name else {}
            meters.append(METERS.create_from_spec(name, options, period_s=spec.meter.period_s))
        if self._engine is None or self._engine_key != spec.engine_key():
            self.close()
            self._engine = group_of(spec, out_dir, self._clock) if spec.devices else build_engine(spec)
            self._engine_key = spec.engine_key()
        group = self._engine if isinstance(self._engine, DeviceGroup) else None
        if group is not None:
            group.begin_trial(out_dir / attempt_folder.CHILD_LOG)
        machine = connect(spec, self._engine, meters, clock, data_dir) if is_simulated(spec) else None
        served_by = machine if isinstance(machine, SimulatedMachine) else None
        thermometer = SystemThermometer() if machine is None else thermometer_of(machine)
        outside = self._wrapped or "energibridge" in meter_names
        return Parts(
            engine=self._engine,
            warm=self._load,
            workload=workload,
            meters=meters,
            thermometer=thermometer,
            settle_s=_SETTLE_PERIODS * spec.meter.period_s if outside else 0.0,
            wrapper_cpu_s=_parent_cpu_s if self._wrapped else lambda: None,
            wrapper_settings={"energibridge": dict(_wrapping_meter(spec).settings())} if self._wrapped else {},
            devices=devices,
            group=group,
            open_loop=open_loop_parts(spec, self._engine, served_by) if spec.serving is not None else None,
            edge=edge_parts(spec, self._engine) if spec.edge is not None else None,
            progress_clock=self._clock,
        )

    def _failed(self, out_dir: Path, error: JouleBedError) -> ChildRecord:
        monotonic_ns = self._clock.monotonic_ns()
        record = ChildRecord(
            origin_s=monotonic_ns / 1e9,
            unix_minus_monotonic_s=(self._clock.time_ns() - monotonic_ns) / 1e9,
            error=error.body(),
        )
        attempt_folder.write_whole(out_dir / attempt_folder.RECORD, record)
        return record


def _unforeseen(error: Exception, where: str) -> JouleBedError:
    traceback.print_exception(error)
    return JouleBedError(f"{type(error).__name__}: {error}. {where}")


def _error_of(step: Callable[[], object]) -> ErrorBody | None:
    try:
        step()
    except JouleBedError as error:
        return error.body()
    except Exception as error:  # noqa: BLE001
        # A supervisor, as in `ModelRunner.run`: what one run stumbles over says nothing of the others.
        return _unforeseen(error, "A fault of JouleBed's own, or of a library: report it.").body()
    return None


def _wrapping_meter(spec: TrialSpec) -> EnergiBridgeMeter:
    options = spec.meter.options if spec.meter.name == EnergiBridgeMeter.name else {}
    meter = METERS.create_from_spec(EnergiBridgeMeter.name, options, period_s=spec.meter.period_s)
    return cast(EnergiBridgeMeter, meter)


def _check_engine(spec: TrialSpec) -> None:
    if spec.devices:
        group_of(spec, Path(), SystemClock()).check(spec.model)
        return
    build_engine(spec).check(spec.model)


def _check_serving(spec: TrialSpec) -> None:
    refuse_half_simulated(spec, [spec.meter.name])
    if spec.serving is not None:
        open_loop_parts(spec, build_engine(spec), None)
    if spec.edge is not None:
        edge_parts(spec, build_engine(spec))


def _check_workload(spec: TrialSpec) -> None:
    prepared = WORKLOADS.create_from_spec(spec.workload.name, spec.workload.options).prepare()
    check_arrivals(spec, prepared)
    refuse_what_cannot_fit(prepared.items, spec.sampling, spec.model.max_model_len)


def check(request: CheckRequest) -> CheckReport:
    """Build the parts of each trial as `ModelRunner` would, up to the model's files; load and measure nothing."""
    selector = MeterSelector()
    problems = []
    # A campaign repeats few models and workloads many times, and a hub that is out of reach takes long to say so.
    known: dict[str, ErrorBody | None] = {}
    for spec in request.specs:
        steps: dict[str, Callable[[], object]] = {
            sha256_of(spec.model_dump(mode="json", include={"engine", "model", "devices"})): lambda spec=spec: (  # type: ignore[misc]
                _check_engine(spec)
            ),
            sha256_of(
                [
                    spec.workload.model_dump_json(),
                    spec.sampling.model_dump_json(),
                    spec.model.max_model_len,
                    spec.serving is None,
                ]
            ): (
                lambda spec=spec: _check_workload(spec)  # type: ignore[misc]
            ),
            sha256_of([spec.model_dump(mode="json", exclude=_EACH_RUNS_OWN), "serving"]): lambda spec=spec: (  # type: ignore[misc]
                _check_serving(spec)
            ),
            sha256_of(spec.meter): lambda spec=spec: selector.choose(spec.meter),  # type: ignore[misc]
            sha256_of([each.model_dump(mode="json") for each in spec.actuators]): lambda spec=spec: (  # type: ignore[misc]
                device_settings(spec.actuators, data_dir_of(os.environ, Path()), SystemClock()).check()
            ),
        }
        for key, step in steps.items():
            if key not in known:
                known[key] = _error_of(step)
            error = known[key]
            if error is not None:
                problems.append(CheckProblem(run_id=spec.run_id, error=error))
                break
    return CheckReport(problems=problems)


def _parent_cpu_s() -> float | None:
    """CPU seconds of the process around this one: EnergiBridge, in the one-shot form."""
    try:
        times = psutil.Process(os.getppid()).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def serve(runner: ModelRunner, orders: TextIO, answers: TextIO) -> None:
    """Run trials as they are ordered, until the end of input.

    Args:
        runner: keeps the engine.
        orders: one JSON object a line.
        answers: one JSON object a line, flushed.
    """
    for line in orders:
        order = json.loads(line)
        out_dir = Path(order["out_dir"])
        # Libraries print where they like: give each trial a log of its own at the level of file descriptors.
        log = os.open(out_dir / attempt_folder.CHILD_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        runner.run(Path(order["spec"]), out_dir, order["meters"])
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(json.dumps({"out_dir": order["out_dir"], "done": True}) + "\n")
        answers.flush()


def _protected_stdout() -> TextIO:
    """Standard output for ourselves; what libraries print goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of the child."""
    parser = argparse.ArgumentParser(prog="python -m testbed.model_runner", description=__doc__.splitlines()[0])
    parser.add_argument("spec", nargs="?", type=Path)
    parser.add_argument("out_dir", nargs="?", type=Path)
    parser.add_argument("--meter", action="append", default=[], help="in-process meter; may be repeated")
    parser.add_argument("--wrapped", metavar="METER", help="meter whose program runs around this process")
    parser.add_argument("--check", action="store_true", help="say what stands in the way of trials")
    parser.add_argument("--serve", action="store_true", help="keep the engine warm; trials come on standard input")
    given = parser.parse_args(arguments)
    if given.check:
        with _protected_stdout() as answers:
            answers.write(check(CheckRequest.model_validate_json(sys.stdin.read())).model_dump_json())
        return
    # A testbed that is about to end this process asks first where it hangs; the answer goes to child.log.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    runner = ModelRunner(SystemClock(), wrapped=given.wrapped is not None)
    try:
        if given.serve:
            with _protected_stdout() as answers:
                serve(runner, sys.stdin, answers)
        elif given.spec is None or given.out_dir is None:
            parser.error("give SPEC and OUT_DIR, or --serve")
        else:
            runner.run(given.spec, given.out_dir, given.meter)
    finally:
        runner.close()


if __name__ == "__main__":
    main()
