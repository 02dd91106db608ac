"""Follows one attempt from the start of its child to its result. One of the two places with a broad catch."""

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from contract.attempt_state import AttemptState
from contract.errors import ChildDiedError, DeadlineExceededError, JouleBedError
from contract.trial_result import NodeIdentity, TrialResult
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_VERSION
from testbed import attempt_folder
from testbed.attempt_folder import Progress, write_atomic
from testbed.child_process import (
    AdoptedTrial,
    ProcessRecord,
    RunningTrial,
    log_tail,
    process_identity,
)
from testbed.clock import Clock, utc_now

_log = logging.getLogger(__name__)

_BEFORE_LOADED = frozenset({AttemptState.SUBMITTED, AttemptState.LOADING})


class Collect(Protocol):
    """Turns an attempt's files into its result and writes result.json; `testbed.collect.collect`."""

    def __call__(
        self,
        folder: Path,
        *,
        attempt_id: str,
        spec: TrialSpec,
        node: NodeIdentity,
        started_at: datetime,
        finished_at: datetime,
        failure: JouleBedError | None = None,
        cancelled: bool = False,
    ) -> TrialResult:
        """See `testbed.collect.collect`."""
        ...


@dataclass(frozen=True)
class Attempt:
    """What a supervisor works on.

    Attributes:
        attempt_id: its id.
        spec: what it runs.
        folder: its files.
        started_s: when it was submitted, or given to its child; monotonic. Deadlines count from here.
        started_at: the same in UTC, for labels.
    """

    attempt_id: str
    spec: TrialSpec
    folder: Path
    started_s: float
    started_at: datetime


@dataclass(frozen=True)
class Timing:
    """How patient supervisors are.

    Attributes:
        poll_s: how often progress is read. The end of a child is noticed at once, whatever this is. Long enough
            to cost nothing in a measured phase.
        grace_s: between SIGTERM and SIGKILL.
        exit_s: for a child to leave once its record is written; engines have been seen to hang there.
    """

    poll_s: float = 0.5
    grace_s: float = 5.0
    exit_s: float = 30.0


class ProgressTail:
    """Reads the newest complete line of progress.jsonl, each byte once.

    Args:
        path: may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._part = b""

    def latest(self) -> Progress | None:
        """The newest line since the last call; None when there is no new one, or it cannot be read."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return None
        self._offset += len(new)
        *lines, self._part = (self._part + new).split(b"\n")
        if not lines:
            return None
        try:
            return Progress.model_validate_json(lines[-1])
        except ValidationError:
            _log.warning("%s has a line that is no progress: %r", self._path, lines[-1][:200])
            return None


class Supervisor:
    """Runs one attempt to its end, whatever happens on the way.

    Args:
        attempt: what to run.
        start: starts the child, or finds it again. Called in `run`; what it raises ends the attempt.
        collect: makes the result.
        on_progress: told of every step, from the supervisor's thread.
        identity: of this node, for the result.
        clock: of this machine.
        timing: patience.
    """

    def __init__(
        self,
        attempt: Attempt,
        start: Callable[[], RunningTrial],
        *,
        collect: Collect,
        on_progress: Callable[[Progress], None],
        identity: NodeIdentity,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self.attempt = attempt
        self._start = start
        self._collect = collect
        self._on_progress = on_progress
        self._identity = identity
        self._clock = clock
        self._timing = timing
        self._state = AttemptState.SUBMITTED
        self._progress = ProgressTail(attempt.folder / attempt_folder.PROGRESS)
        self._wake = threading.Event()
        self._cancel_asked = threading.Event()
        self._was_cancelled = False

    def cancel(self) -> None:
        """Ask for the end of the trial; returns at once. Idempotent, and without effect once the child is done."""
        self._cancel_asked.set()
        self._wake.set()

    def run(self) -> TrialResult:
        """Run the attempt; blocking. Never raises: what goes wrong is in the result."""
        failure = self._live()
        self._note(Progress(state=AttemptState.COLLECTING, at_s=self._now_s()))
        finished_at = utc_now(self._clock)
        attempt = self.attempt
        try:
            return self._collect(
                attempt.folder,
                attempt_id=attempt.attempt_id,
                spec=attempt.spec,
                node=self._identity,
                started_at=attempt.started_at,
                finished_at=finished_at,
                failure=failure,
                cancelled=self._was_cancelled,
            )
        except Exception as error:  # noqa: BLE001 (the supervisor: an attempt must end, with a reason)
            _log.exception("Attempt %s: its files could not be collected", attempt.attempt_id)
            return self._bare_result(failure or _internal(error), finished_at)

    def _live(self) -> JouleBedError | None:
        """Start the child and follow it to its end; why it failed, or None."""
        trial: RunningTrial | None = None
        try:
            trial = self._start()
            self._write_process(trial)
            trial.begin(self._wake.set)
            return self._watch(trial)
        except JouleBedError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 (the supervisor: an attempt must end, with a reason)
            _log.exception("Attempt %s: its supervisor failed", self.attempt.attempt_id)
            failure = _internal(error)
        if trial is not None and not trial.has_ended():
            trial.kill(self._timing.grace_s)
        return failure

    def _watch(self, trial: RunningTrial) -> JouleBedError | None:
        recorded_s: float | None = None
        while not trial.has_ended():
            # Past the deadline, only the exit of a complete trial is waited for.
            self._wake.wait(min(self._timing.poll_s, self._time_left_s() or self._timing.poll_s))
            self._wake.clear()
            self._read_progress()
            if trial.has_ended():
                break
            if self._cancel_asked.is_set():
                self._was_cancelled = True
                trial.kill(self._timing.grace_s)
                return None
            if (self.attempt.folder / attempt_folder.RECORD).exists():
                recorded_s = recorded_s or self._now_s()
                if self._now_s() - recorded_s > self._timing.exit_s:
                    _log.warning("Attempt %s is complete, but its process does not leave", self.attempt.attempt_id)
                    trial.kill(self._timing.grace_s)
                    return None
                continue
            overdue = self._overdue()
            if overdue is not None:
                trial.kill(self._timing.grace_s)
                return overdue
        trial.clean_up()
        self._read_progress()
        return self._verdict(trial)

    def _verdict(self, trial: RunningTrial) -> JouleBedError | None:
        """What the end of the child means. record.json is its last act: with it, the trial is complete."""
        folder = self.attempt.folder
        complaint = trial.explain_exit()
        if complaint is not None:
            return complaint
        if (folder / attempt_folder.RECORD).exists():
            return None
        code = trial.returncode
        detail: dict[str, object] = {"pid": trial.pid, "log_tail": log_tail(folder / attempt_folder.CHILD_LOG)}
        if code is None:
            how = "ended"
        elif code < 0:
            detail["signal"] = how = _signal_name(-code)
            how = f"was killed by {how}"
        else:
            detail["exit_status"] = code
            how = f"ended with exit status {code}"
        hint = " SIGKILL often means that memory ran out: look at the kernel's log." if code == -signal.SIGKILL else ""
        return ChildDiedError(
            f"The trial's process {how} without a result. Its last output is in detail.log_tail, "
            f"all of it in {attempt_folder.CHILD_LOG}.{hint}",
            **detail,
        )

    def _write_process(self, trial: RunningTrial) -> None:
        if isinstance(trial, AdoptedTrial):
            return
        record = ProcessRecord(
            pid=trial.pid,
            identity=process_identity(trial.pid) or "",
            started_s=self.attempt.started_s,
            started_at=self.attempt.started_at,
        )
        # Not synced: it serves a restart of the testbed, and no child outlives one of the machine.
        path = self.attempt.folder / attempt_folder.PROCESS
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(record.model_dump_json(indent=1), encoding="utf-8")
        temporary.replace(path)

    def _read_progress(self) -> None:
        progress = self._progress.latest()
        if progress is not None:
            self._note(progress)

    def _note(self, progress: Progress) -> None:
        self._state = progress.state
        self._on_progress(progress)

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    def _time_left_s(self) -> float:
        limit_s = self.attempt.spec.deadline.total_s
        if self._state in _BEFORE_LOADED:
            limit_s = min(limit_s, self.attempt.spec.deadline.load_s)
        return max(self.attempt.started_s + limit_s - self._now_s(), 0.0)

    def _overdue(self) -> DeadlineExceededError | None:
        if self._time_left_s() > 0:
            return None
        deadline = self.attempt.spec.deadline
        passed_s = self._now_s() - self.attempt.started_s
        if self._state in _BEFORE_LOADED and passed_s < deadline.total_s:
            name, limit_s, what = "load_s", deadline.load_s, "Loading the model"
        else:
            name, limit_s, what = "total_s", deadline.total_s, f"The trial (last seen {self._state})"
        return DeadlineExceededError(
            f"{what} took longer than deadline.{name} = {limit_s:g} s, so its process was ended. "
            f"Raise deadline.{name} in the trial's spec if that was too short.",
            deadline=name,
            limit_s=limit_s,
            state=str(self._state),
            log_tail=log_tail(self.attempt.folder / attempt_folder.CHILD_LOG),
        )

    def _bare_result(self, failure: JouleBedError, finished_at: datetime) -> TrialResult:
        """A result without measurements, for when even collecting failed."""
        attempt = self.attempt
        result = TrialResult(
            protocol_version=PROTOCOL_VERSION,
            attempt_id=attempt.attempt_id,
            run_id=attempt.spec.run_id,
            spec_sha256=attempt.spec.sha256(),
            state=AttemptState.TIMED_OUT if isinstance(failure, DeadlineExceededError) else AttemptState.FAILED,
            error=failure.body(),
            started_at=attempt.started_at,
            finished_at=finished_at,
            node=self._identity,
        )
        try:
            write_atomic(attempt.folder / attempt_folder.RESULT, result)
        except OSError:
            _log.exception("Attempt %s: its result cannot be written", attempt.attempt_id)
        return result


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _internal(error: Exception) -> JouleBedError:
    return JouleBedError(
        f"The testbed failed by a fault of its own ({type(error).__name__}: {error}). "
        "The traceback is in its log: please report it."
    )
