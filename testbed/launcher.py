"""Turns a spec into a child process: one of its own, one in EnergiBridge, or the warm one."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from pydantic import ValidationError

from contract.errors import ChildDiedError, DeadlineExceededError, JouleBedError
from contract.node_info import CheckReport, CheckRequest
from contract.trial_spec import MeterSpec, TrialSpec
from testbed import attempt_folder
from testbed.child_log import last_lines
from testbed.child_process import OneShotTrial, RunningTrial, kill_group, wait_bounded
from testbed.clock import Clock
from testbed.gpu_memory import GpuMemory
from testbed.reclaim import Reclaimer
from testbed.warm_child import WarmChildKeeper

ENERGIBRIDGE = "energibridge"

RUNNER_COMMAND = (sys.executable, "-m", "testbed.model_runner")
"""The child; see `testbed.model_runner`."""


class WrappingMeter(Protocol):
    """A meter whose program runs around the child."""

    def wrap(self, command: list[str], out_dir: Path) -> list[str]:
        """The command that runs `command` inside the meter's program."""
        ...

    def explain_exit(self, returncode: int, out_dir: Path) -> JouleBedError | None:
        """What an exit status of the program means; None when it means nothing bad."""
        ...


def energibridge_meter(spec: MeterSpec) -> WrappingMeter:
    """EnergiBridge with the options of a spec; with its own where the spec chose `auto`."""
    from testbed.meters.registry import METERS

    options = spec.options if spec.name == ENERGIBRIDGE else {}
    return cast(WrappingMeter, METERS.create_from_spec(ENERGIBRIDGE, options, period_s=spec.period_s))


class Launcher:
    """Starts the children of a node. One trial at a time; never two model processes at once.

    Args:
        data_dir: the node's.
        env: environment of the children.
        clock: for records.
        runner_command: what a child runs, without its arguments.
        wrapping_meter: builds the meter that is wrapped around a child of its own.
        idle_s: an unused warm child is closed after this time.
        grace_s: for the orderly end of a warm child.
        reclaimer: ends what children leave behind; a real one by default.
    """

    def __init__(
        self,
        data_dir: Path,
        env: Mapping[str, str],
        clock: Clock,
        *,
        runner_command: Sequence[str] = RUNNER_COMMAND,
        wrapping_meter: Callable[[MeterSpec], WrappingMeter] = energibridge_meter,
        idle_s: float = 600.0,
        grace_s: float = 10.0,
        reclaimer: Reclaimer | None = None,
    ) -> None:
        self._reclaimer = reclaimer or Reclaimer(data_dir.resolve(), GpuMemory())
        # A child that dies must have its last words in the log, not in a buffer, and the lines where it crashed.
        self._env = {
            **env,
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            **self._reclaimer.environment(),
        }
        self._command = list(runner_command)
        self._wrapping_meter = wrapping_meter
        self._check: subprocess.Popen[bytes] | None = None
        self.warm = WarmChildKeeper(
            [*runner_command, "--serve"],
            self._env,
            data_dir / "warm_child.json",
            clock,
            idle_s=idle_s,
            grace_s=grace_s,
            on_closed=self._reclaimer.end_all,
        )

    def start(self, spec: TrialSpec, folder: Path, meters: Sequence[str]) -> RunningTrial:
        """Start, or choose, the child for a trial.

        Args:
            spec: what to run; spec.json in the folder is what the child reads.
            folder: the attempt's.
            meters: names of the chosen meters.

        Raises:
            OSError: the program cannot be started.
            JouleBedError: the wrapping meter cannot be built from its options.
        """
        if spec.engine.lifetime == "block":
            if not self.warm.is_alive:
                self._reclaimer.before_child()
            return self.warm.trial(spec.engine_key(), folder, meters)
        self.warm.close()
        self._reclaimer.before_child()
        command = [*self._command, str(folder / attempt_folder.SPEC), str(folder)]
        for name in meters:
            if name != ENERGIBRIDGE:
                command += ["--meter", name]
        if ENERGIBRIDGE not in meters:
            return OneShotTrial(command, folder, self._env)
        meter = self._wrapping_meter(spec.meter)
        wrapped = meter.wrap([*command, "--wrapped", ENERGIBRIDGE], folder)
        return OneShotTrial(
            wrapped, folder, self._env, explain_exit=lambda returncode: meter.explain_exit(returncode, folder)
        )

    def check(self, request: CheckRequest, limit_s: float = 300.0) -> CheckReport:
        """Ask a process of its own what stands in the way of trials; blocking.

        Args:
            request: the trials.
            limit_s: importing a big engine from a cold disk takes a minute.

        Raises:
            ChildDiedError: it ended without an answer.
            DeadlineExceededError: it took longer than `limit_s`.
        """
        process = subprocess.Popen(
            [*self._command, "--check"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._env,
            start_new_session=True,
        )
        self._check = process
        try:
            answer, errors = process.communicate(request.model_dump_json().encode(), limit_s)
        except subprocess.TimeoutExpired as error:
            raise DeadlineExceededError(
                f"The check of the trials took longer than {limit_s:g} s, so its process was ended. Try again.",
                limit_s=limit_s,
            ) from error
        finally:
            self._check = None
            kill_group(process.pid, 0.0)
            wait_bounded(process)
            if not self.warm.is_alive:
                self._reclaimer.end_all()
        try:
            return CheckReport.model_validate_json(answer)
        except ValidationError as error:
            raise ChildDiedError(
                f"The process that checks the trials ended with exit status {process.returncode} and no answer. "
                "Its last output is in detail.log_tail.",
                exit_status=process.returncode,
                log_tail=last_lines(errors.decode(errors="replace")),
            ) from error

    def reclaim(self) -> None:
        """A trial is over: end what it left behind, and wait until its GPU memory is free; blocking, bounded.

        A living warm child keeps what it has.
        """
        if not self.warm.is_alive:
            self._reclaimer.end_all()

    def obstacle(self) -> str:
        """What an ended trial left that stands in the way of the next, in words; empty for nothing. Cheap."""
        return self._reclaimer.obstacle()

    def end_check(self) -> None:
        """End a check that runs in another thread; it raises `ChildDiedError` there."""
        process = self._check
        if process is not None and process.poll() is None:
            kill_group(process.pid, 0.0)
