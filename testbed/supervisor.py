"""Follows one attempt from the start of its child to its result. One of the two places with a broad catch."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from contract.attempt_state import AttemptState
from contract.errors import DeadlineExceededError, JouleBedError, error_from_body
from contract.node_info import NodeIdentity
from contract.trial_result import TrialResult
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_VERSION
from testbed import attempt_folder
from testbed.attempt_folder import ChildRecord, Progress
from testbed.bounded_call import BoundedCall, OverdueError
from testbed.child_log import bound_log, log_tail, spare_disk
from testbed.child_process import AdoptedTrial, ProcessRecord, RunningTrial, ask_where, process_identity
from testbed.child_verdict import count_oom_kills, death, sharpen
from testbed.clock import Clock, utc_now
from testbed.deadline import DeadlineWatch, collecting_took_too_long
from testbed.progress_tail import ProgressTail

_log = logging.getLogger(__name__)

_SEARCHED_BYTES = 2**18
"""How much of the log's end is searched for what a failure was."""


class Collect(Protocol):
    """Turns an attempt's files into its result; `testbed.collect.collect`."""

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
        log_bytes: a longer child.log loses its middle; the blocks on disk are freed while the trial runs.
    """

    poll_s: float = 0.5
    grace_s: float = 5.0
    exit_s: float = 30.0
    log_bytes: int = 32 * 2**20


class Supervisor:
    """Runs one attempt to its end, whatever happens on the way.

    Args:
        attempt: what to run.
        start: starts the child, or finds it again. Called in `run`; what it raises ends the attempt.
        collect: makes the result.
        save: stores it; does not raise on a full disk.
        on_progress: told of every step, from the supervisor's thread.
        identity: of this node, for the result.
        clock: of this machine.
        timing: patience.
        reclaim: ends what the child left behind; called once, when it has ended, whatever it ended by. Bounded.
        oom_kills: counts the kernel's kills for want of memory; None where it does not tell.
    """

    def __init__(
        self,
        attempt: Attempt,
        start: Callable[[], RunningTrial],
        *,
        collect: Collect,
        save: Callable[[TrialResult], None],
        on_progress: Callable[[Progress], None],
        identity: NodeIdentity,
        clock: Clock,
        timing: Timing,
        reclaim: Callable[[], None] = lambda: None,
        oom_kills: Callable[[], int | None] = count_oom_kills,
    ) -> None:
        self.attempt = attempt
        self._start = start
        self._collect = collect
        self._save = save
        self._on_progress = on_progress
        self._identity = identity
        self._clock = clock
        self._timing = timing
        self._reclaim = reclaim
        self._oom_kills = oom_kills
        self._oom_kills_before: int | None = None
        self._deadlines = DeadlineWatch(attempt.spec, attempt.started_s)
        self._progress = ProgressTail(attempt.folder / attempt_folder.PROGRESS)
        self._log_path = attempt.folder / attempt_folder.CHILD_LOG
        self._wake = threading.Event()
        self._cancel_asked = threading.Event()
        self._was_cancelled = False
        self._collecting: BoundedCall[TrialResult] = BoundedCall(f"collect-{attempt.attempt_id}")

    @property
    def still_collects(self) -> bool:
        """After `run`: whether collecting was given up on, and still goes on. It would disturb a measurement."""
        return self._collecting.goes_on

    def cancel(self) -> None:
        """Ask for the end of the trial; returns at once. Idempotent, and without effect once the child is done."""
        self._cancel_asked.set()
        self._wake.set()

    def run(self) -> TrialResult:
        """Run the attempt; blocking, and bounded by its deadlines. Never raises: what goes wrong is in the result."""
        failure = self._live()
        try:
            self._reclaim()
            bound_log(self._log_path, self._timing.log_bytes)
        except Exception:  # noqa: BLE001 (the supervisor: an attempt must end, with a reason)
            _log.exception("Attempt %s: what it left behind could not be ended", self.attempt.attempt_id)
        self._note(Progress(state=AttemptState.COLLECTING, at_s=self._now_s()))
        finished_at = utc_now(self._clock)
        try:
            result = self._collect_bounded(failure, finished_at)
            self._save(result)
        except JouleBedError as error:
            return self._bare_result(failure or error, finished_at)
        except Exception as error:  # noqa: BLE001 (the supervisor: an attempt must end, with a reason)
            _log.exception("Attempt %s: its files could not be collected", self.attempt.attempt_id)
            return self._bare_result(failure or _internal(error), finished_at)
        return result

    def _live(self) -> JouleBedError | None:
        """Start the child and follow it to its end; why it failed, or None."""
        trial: RunningTrial | None = None
        try:
            self._oom_kills_before = self._oom_kills()
            trial = self._start()
            trial.begin(self._wake.set)
            # The child loads meanwhile.
            self._write_process(trial)
            self._collecting.prepare()
            return self._watch(trial)
        except JouleBedError as error:
            failure = self._sharpen(error)
        except Exception as error:  # noqa: BLE001 (the supervisor: an attempt must end, with a reason)
            _log.exception("Attempt %s: its supervisor failed", self.attempt.attempt_id)
            failure = self._sharpen(_internal(error))
        if trial is not None and not trial.has_ended():
            trial.kill(self._timing.grace_s)
        return failure

    def _watch(self, trial: RunningTrial) -> JouleBedError | None:
        recorded_s: float | None = None
        while not trial.has_ended():
            # Past a deadline, only the exit of a complete trial is waited for.
            left_s = self._deadlines.left_s(self._now_s())
            self._wake.wait(min(self._timing.poll_s, left_s or self._timing.poll_s))
            self._wake.clear()
            self._read_progress()
            if trial.has_ended():
                break
            if self._cancel_asked.is_set():
                self._was_cancelled = True
                trial.kill(self._timing.grace_s)
                return None
            spare_disk(self._log_path, self._timing.log_bytes)
            if (self.attempt.folder / attempt_folder.RECORD).exists():
                recorded_s = recorded_s or self._now_s()
                if self._now_s() - recorded_s > self._timing.exit_s:
                    _log.warning("Attempt %s is complete, but its process does not leave", self.attempt.attempt_id)
                    trial.kill(self._timing.grace_s)
                    return self._recorded_failure()
                continue
            if self._deadlines.left_s(self._now_s()) <= 0:
                ask_where(trial.pid)
                overdue = self._deadlines.exceeded(self._now_s(), log_tail(self._log_path))
                trial.kill(self._timing.grace_s)
                return overdue
        trial.clean_up()
        self._read_progress()
        return self._verdict(trial)

    def _verdict(self, trial: RunningTrial) -> JouleBedError | None:
        """What the end of the child means. record.json is its last act: with it, the trial is complete."""
        bound_log(self._log_path, self._timing.log_bytes)
        complaint = trial.explain_exit()
        if complaint is not None:
            return self._sharpen(complaint)
        if (self.attempt.folder / attempt_folder.RECORD).exists():
            return self._recorded_failure()
        return death(
            pid=trial.pid,
            returncode=trial.returncode,
            tail=log_tail(self._log_path),
            text=self._log_text(),
            oom_kills=self._new_oom_kills(),
        )

    def _recorded_failure(self) -> JouleBedError | None:
        """The error that the child recorded itself, made as sharp as its log allows."""
        try:
            record = ChildRecord.model_validate_json((self.attempt.folder / attempt_folder.RECORD).read_bytes())
        except (OSError, ValidationError):
            return None  # collecting says so
        return self._sharpen(error_from_body(record.error)) if record.error else None

    def _sharpen(self, error: JouleBedError) -> JouleBedError:
        return sharpen(error, tail=log_tail(self._log_path), text=self._log_text(), oom_kills=self._new_oom_kills())

    def _log_text(self) -> str:
        return "\n".join(log_tail(self._log_path, n_lines=_SEARCHED_BYTES, n_bytes=_SEARCHED_BYTES))

    def _new_oom_kills(self) -> int | None:
        now = self._oom_kills()
        return None if now is None or self._oom_kills_before is None else now - self._oom_kills_before

    def _write_process(self, trial: RunningTrial) -> None:
        if isinstance(trial, AdoptedTrial):
            self._oom_kills_before = trial.record.oom_kills
            return
        record = ProcessRecord(
            pid=trial.pid,
            identity=process_identity(trial.pid) or "",
            started_s=self.attempt.started_s,
            started_at=self.attempt.started_at,
            oom_kills=self._oom_kills_before,
        )
        # Not synced: it serves a restart of the testbed, and no child outlives one of the machine.
        attempt_folder.write_whole(self.attempt.folder / attempt_folder.PROCESS, record)

    def _read_progress(self) -> None:
        new = self._progress.new()
        for progress in new:
            self._deadlines.note(progress)
        if new:
            self._note(new[-1])

    def _note(self, progress: Progress) -> None:
        self._on_progress(progress)

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    def _collect_bounded(self, failure: JouleBedError | None, finished_at: datetime) -> TrialResult:
        attempt = self.attempt

        def work() -> TrialResult:
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

        limit_s = attempt.spec.deadline.collect_s
        try:
            return self._collecting.call(work, limit_s)
        except OverdueError:
            raise collecting_took_too_long(limit_s) from None

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
        self._save(result)
        return result


def _internal(error: Exception) -> JouleBedError:
    return JouleBedError(
        f"The testbed failed by a fault of its own ({type(error).__name__}: {error}). "
        "The traceback is in its log: please report it."
    )
