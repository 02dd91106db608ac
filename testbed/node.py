"""The testbed without HTTP: takes attempts, runs one at a time, keeps what came of them."""

import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from contract.attempt_state import AttemptState
from contract.errors import (
    AttemptConflictError,
    AttemptNotFinishedError,
    AttemptNotFoundError,
    StorageError,
    TestbedBusyError,
)
from contract.node_info import Capability, CheckReport, NodeIdentity, NodeInfo
from contract.routes import MAX_WAIT_S
from contract.telemetry import TelemetrySample
from contract.trial_result import AttemptStatus, TrialResult
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_VERSION
from testbed.aftermath import Aftermath
from testbed.attempt_folder import Progress
from testbed.attempt_store import AttemptStore, check_id
from testbed.bounded_call import ReadyThread
from testbed.child_process import RunningTrial
from testbed.clock import utc_now
from testbed.log import about_attempt
from testbed.model_policy import ModelPolicy
from testbed.node_parts import NodeParts
from testbed.recovery import find_again, find_attempts
from testbed.status_board import StatusBoard
from testbed.supervisor import Attempt, Supervisor, Timing
from testbed.telemetry.board import Running, TelemetryBoard, TelemetryListener
from testbed.trial_check import check_trials

_log = logging.getLogger(__name__)


class TestbedNode:
    """Runs trials, one at a time. Thread-safe. Attempts of an earlier process are taken up when it is built.

    Args:
        store: holds the attempts; closed with the node.
        parts: everything else.
    """

    __test__ = False  # not a pytest class

    def __init__(self, store: AttemptStore, parts: NodeParts) -> None:
        self._store = store
        self._parts = parts
        self._aftermath = Aftermath(store, parts)
        self._board = StatusBoard(parts.clock)
        self._changed = self._board.changed  # guards the three below
        self._progress: Progress | None = None
        self._supervisor: Supervisor | None = None
        self._thread: ReadyThread | None = None
        self._next_thread = ReadyThread()
        self._submitting = threading.Lock()
        self._describing = threading.Lock()
        self._capabilities: list[Capability] | None = None
        self._ended: Counter[AttemptState] = Counter()
        self._last_result: TrialResult | None = None
        self._straggler: Supervisor | None = None
        self._telemetry = TelemetryBoard(
            running=self._running, find=self._board.find, temperatures=parts.thermometer.read, clock=parts.clock
        )
        self._recover()

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        default_meter: str = "auto",
        child_env: Mapping[str, str] | None = None,
        keep_acknowledged: int = 50,
        idle_s: float = 600.0,
        timing: Timing = Timing(),  # noqa: B008 (frozen)
        models: ModelPolicy = ModelPolicy(),  # noqa: B008 (frozen)
    ) -> "TestbedNode":
        """A node of real parts on this machine.

        Args:
            data_dir: where attempts are kept; one node at a time.
            default_meter: what the meter name `auto` stands for.
            child_env: added to this process's environment for the children.
            keep_acknowledged: how many acknowledged attempts stay on disk.
            idle_s: an unused warm engine is freed after this time.
            timing: patience of supervisors.
            models: which ones may be loaded.

        Raises:
            UsageError: the data folder cannot be used.
            UnknownNameError: no such default meter.
        """
        # Here, because the real parts bring the numerics along, which a node with parts of its own may not want.
        from testbed.composition import node_parts

        env = {**os.environ, **(child_env or {})}
        parts = node_parts(
            data_dir.resolve(), default_meter=default_meter, env=env, idle_s=idle_s, timing=timing, models=models
        )
        return cls(AttemptStore(data_dir, keep_acknowledged=keep_acknowledged), parts)

    def check(self, specs: Sequence[TrialSpec]) -> CheckReport:
        """What stands in the way of these trials here; loads no model and measures nothing.

        Blocking, seconds: a process of its own builds the parts, since engines are heavy to import. While a trial
        runs, only names are looked at, so that its measurement is not disturbed.

        Raises:
            ChildDiedError: the process that checks ended without an answer.
            DeadlineExceededError: it took too long.
            DeviceNotRestoredError: a device is still set as in an earlier trial.
        """
        with self._submitting:
            with self._changed:
                is_running = self._supervisor is not None or self._board.is_closing
            return check_trials(specs, self._parts, is_running=is_running)

    def submit(self, attempt_id: str, spec: TrialSpec) -> AttemptStatus:
        """Start an attempt. Idempotent: the same id and spec again answers where it is.

        When it returns, the attempt is on disk.

        Raises:
            AttemptConflictError: the id is taken by another spec, or was acknowledged and pruned.
            TestbedBusyError: another trial runs, one that has ended left something that cannot be ended, or the
                testbed is being stopped.
            UnknownNameError: the spec names an engine, meter or workload that does not exist.
            MeterUnavailableError: the wanted meter cannot measure here.
            DeviceNotRestoredError: a device is still set as in an earlier trial.
        """
        check_id(attempt_id)
        with self._submitting:
            known = self._known(attempt_id, spec)
            if known is not None:
                return known
            self._parts.check(spec)
            self._aftermath.require_free(self._straggler)
            self._parts.restore()
            meters = tuple(self._parts.choose_meters(spec.meter))
            started_s = self._now_s()
            started_at = utc_now(self._parts.clock)
            status = AttemptStatus(
                attempt_id=attempt_id,
                run_id=spec.run_id,
                spec_sha256=spec.sha256(),
                state=AttemptState.SUBMITTED,
                version=0,
                updated_at=started_at,
            )
            folder = self._store.create(attempt_id, spec)
            supervisor = self._supervise(
                Attempt(attempt_id, spec, folder, started_s, started_at),
                lambda: self._parts.launcher.start(spec, folder, meters),
            )
            self._start(status, supervisor)
            return status

    def status(
        self, attempt_id: str, *, after_version: int = -1, wait_s: float = 0.0, with_result: bool = False
    ) -> AttemptStatus:
        """Where an attempt is; waits up to `wait_s` for a version above `after_version`.

        A final status is answered at once, since nothing follows.

        Args:
            attempt_id: of a submitted attempt.
            after_version: the version that is known already.
            wait_s: at most `MAX_WAIT_S` is waited.
            with_result: bring the result of an attempt that is over, and its small artifacts.

        Raises:
            AttemptNotFoundError: it was never submitted, or was acknowledged and pruned.
        """
        status = self._board.wait(attempt_id, after_version, min(wait_s, MAX_WAIT_S))
        if with_result and status.state.is_final:
            result = self._store.result(attempt_id)
            contents = self._store.small_artifacts(result) if result is not None else {}
            return status.model_copy(update={"result": result, "contents": contents})
        return status

    def result(self, attempt_id: str) -> TrialResult:
        """The outcome of a finished attempt.

        Raises:
            AttemptNotFoundError: see `status`; or its result is damaged.
            AttemptNotFinishedError: it still runs.
        """
        status = self.status(attempt_id)
        if not status.state.is_final:
            raise AttemptNotFinishedError(
                f"Attempt {attempt_id} is {status.state} and has no result yet. Poll its status until it is final.",
                state=str(status.state),
            )
        result = self._store.result(attempt_id)
        if result is None:
            raise AttemptNotFoundError(
                f"The result of attempt {attempt_id} cannot be read any more: its file is damaged or gone. Its other "
                "files stay on the testbed; the run has to be measured again."
            )
        return result

    def artifact_path(self, attempt_id: str, name: str) -> Path:
        """Where an artifact of a finished attempt is.

        Raises:
            AttemptNotFoundError: no such attempt, or its result lists no such artifact.
            AttemptNotFinishedError: it still runs.
        """
        return self._store.artifact_path(self.result(attempt_id), name)

    def cancel(self, attempt_id: str) -> AttemptStatus:
        """Stop an attempt if it runs; answers at once, the status turns CANCELLED when the child is gone. Idempotent.

        Raises:
            AttemptNotFoundError: see `status`.
        """
        with self._changed:
            status = self._board.get(attempt_id)
            if self._supervisor is not None and self._supervisor.attempt.attempt_id == attempt_id:
                self._supervisor.cancel()
            return status

    def acknowledge(self, attempt_id: str) -> AttemptStatus:
        """The result and all artifacts are safe elsewhere: the attempt may be pruned. Idempotent.

        Raises:
            AttemptNotFoundError: see `status`.
            AttemptNotFinishedError: it still runs.
        """
        with self._changed:
            status = self._board.get(attempt_id)
            if not status.state.is_final:
                raise AttemptNotFinishedError(
                    f"Attempt {attempt_id} is {status.state}: acknowledge it when its result was fetched."
                )
            pruned = self._store.acknowledge(attempt_id)
            for each in pruned:
                self._board.remove(each)
        if pruned:
            self._store.delete(pruned)
        return status

    def acknowledge_known(self, attempt_ids: Sequence[str]) -> None:
        """Acknowledge several; one that is not here any more, or still runs, is left out."""
        for attempt_id in attempt_ids:
            try:
                self.acknowledge(attempt_id)
            except (AttemptNotFoundError, AttemptNotFinishedError, StorageError) as error:
                _log.warning("Attempt %s was not acknowledged: %s", attempt_id, error.message)

    def info(self) -> NodeInfo:
        """This testbed's description of itself, with its temperatures now."""
        with self._describing:
            if self._capabilities is None:
                self._capabilities = self._parts.capabilities()
        with self._changed:
            running = self._supervisor.attempt.attempt_id if self._supervisor else None
        disk = shutil.disk_usage(self.data_dir)
        return NodeInfo(
            protocol_version=PROTOCOL_VERSION,
            software_version=self._parts.software_version,
            identity=self._parts.identity,
            capabilities=self._capabilities,
            temperatures=self._parts.thermometer.read(),
            running_attempt_id=running,
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
        )

    def listen(self, after: str = "") -> TelemetryListener:
        """Listen to what the running trial samples. The caller closes it; while nobody listens, nothing is done.

        Args:
            after: `event_id` of the last event that was taken, to go on from there.

        Raises:
            TooManyListenersError: as many listen as may.
        """
        return self._telemetry.listen(after)

    def telemetry(self) -> TelemetrySample:
        """What happens now, without the trial's points. Costs nothing unless it is called."""
        with self._changed:
            status = self._board.get(self._supervisor.attempt.attempt_id) if self._supervisor else None
            progress = self._progress
        return TelemetrySample(
            attempt_id=status.attempt_id if status else None,
            run_id=status.run_id if status else None,
            state=status.state if status else None,
            n_requests_done=status.n_requests_done if status else 0,
            n_requests=status.n_requests if status else 0,
            power_w=progress.power_w if status and progress else {},
            temperatures=self._parts.thermometer.read(),
            at_s=self._now_s(),
            at=utc_now(self._parts.clock),
        )

    def ended(self) -> dict[AttemptState, int]:
        """How many attempts ended in which state, since this node was made."""
        with self._changed:
            return dict(self._ended)

    def last_result(self) -> TrialResult | None:
        """Of the last trial that ended with measurements, since this node was made."""
        with self._changed:
            return self._last_result

    @property
    def software_version(self) -> str:
        """Of this distribution."""
        return self._parts.software_version

    @property
    def identity(self) -> NodeIdentity:
        """Of this machine and its software."""
        return self._parts.identity

    @property
    def data_dir(self) -> Path:
        """Where attempts are kept."""
        return self._store.data_dir

    @property
    def is_closing(self) -> bool:
        """Whether `end_waits` or `close` was called."""
        return self._board.is_closing

    def end_waits(self) -> None:
        """Answer all long polls now and take no more attempts: the testbed is about to close."""
        self._board.end_waits()

    def close(self) -> None:
        """Orderly end: a running trial is cancelled and marked so, the warm engine is freed. Idempotent."""
        self.end_waits()
        self._parts.launcher.end_check()
        with self._submitting, self._changed:
            thread = self._thread
            if self._supervisor is not None:
                self._supervisor.cancel()
        if thread is not None:
            thread.join()
        self._parts.launcher.warm.close()
        self._parts.launcher.reclaim()
        self._telemetry.close()
        self._store.close()

    def _known(self, attempt_id: str, spec: TrialSpec) -> AttemptStatus | None:
        with self._changed:
            known = self._board.find(attempt_id)
            if known is not None:
                if known.spec_sha256 != spec.sha256():
                    raise AttemptConflictError(
                        f"Attempt {attempt_id} was submitted with another spec. Use a new attempt id.",
                        submitted_sha256=known.spec_sha256,
                    )
                return known
            if self._store.is_pruned(attempt_id):
                raise AttemptConflictError(
                    f"Attempt {attempt_id} was run and acknowledged, and is not kept any more. Use a new attempt id."
                )
            if self._board.is_closing:
                raise TestbedBusyError("This testbed is being stopped. Submit again when it has been restarted.")
            if self._supervisor is not None:
                running = self._supervisor.attempt.attempt_id
                raise TestbedBusyError(
                    f"This testbed runs attempt {running}, and runs one at a time. "
                    "Wait for its end or cancel it, then submit again.",
                    running_attempt_id=running,
                )
            return None

    def _supervise(self, attempt: Attempt, start: Callable[[], RunningTrial], *, has_child: bool = True) -> Supervisor:
        return Supervisor(
            attempt,
            start,
            collect=self._aftermath.collect,
            save=self._store.save_result,
            on_progress=lambda progress: self._note(attempt.attempt_id, progress),
            identity=self._parts.identity,
            clock=self._parts.clock,
            timing=self._parts.timing,
            oom_kills=self._parts.oom_kills,
            reclaim=lambda: self._aftermath.tidy(has_child=has_child),
        )

    def _start(self, status: AttemptStatus, supervisor: Supervisor) -> None:
        with self._changed:
            self._board.put(status)
            self._supervisor = supervisor
            self._progress = None
            self._thread, self._next_thread = self._next_thread, ReadyThread()
            self._thread.run(lambda: self._run(supervisor), f"attempt-{status.attempt_id}")

    def _run(self, supervisor: Supervisor) -> None:
        attempt = supervisor.attempt
        with about_attempt(attempt.attempt_id, attempt.spec.run_id):
            _log.info("Attempt started: %s on %s", attempt.spec.workload.name, attempt.spec.model.name)
            result = supervisor.run()
        if supervisor.attempt.spec.engine.lifetime == "block":
            self._parts.launcher.warm.rest()
        self._telemetry.attempt_ended(attempt.attempt_id)
        with self._changed:
            if self._supervisor is supervisor:
                self._supervisor = None
                self._progress = None
            if supervisor.still_collects:
                self._straggler = supervisor
            self._ended[result.state] += 1
            self._last_result = result if result.state.has_result else self._last_result
            self._board.step(result.attempt_id, Progress(state=result.state, at_s=self._now_s()), result)
        # Whoever waits for the end is told first.
        with about_attempt(attempt.attempt_id, attempt.spec.run_id):
            why = result.error.message if result.error else "; ".join(reason.message for reason in result.reasons)
            _log.info("Attempt ended %s%s", result.state.value, f": {why}" if why else "")
        with self._changed:  # as whoever takes it
            self._next_thread.prepare()

    def _running(self) -> Running | None:
        with self._changed:
            attempt = self._supervisor.attempt if self._supervisor else None
            if attempt is None:
                return None
            power_w = self._progress.power_w if self._progress else {}
            return Running(self._board.get(attempt.attempt_id), attempt.folder, power_w)

    def _note(self, attempt_id: str, progress: Progress) -> None:
        with self._changed:
            self._progress = progress
            self._board.step(attempt_id, progress)

    def _recover(self) -> None:
        """Take up what an earlier process left: finished attempts as they are, others to their end."""
        for found in find_attempts(self._store, self._parts.clock):
            self._board.put(found.status)
            if found.attempt is None:
                continue
            is_alive, start = find_again(found.attempt, found.record)
            # A child that is gone must not have the one that runs ended as if it had been left behind.
            supervisor = self._supervise(found.attempt, start, has_child=is_alive)
            if is_alive and self._supervisor is None:
                _log.info("Attempt %s is still running: following it to its end", found.status.attempt_id)
                self._start(found.status, supervisor)
            else:
                _log.info("Attempt %s was left unfinished: collecting what there is", found.status.attempt_id)
                self._run(supervisor)
        if self._supervisor is None:
            self._parts.launcher.warm.end_leftover()
            self._aftermath.tidy(has_child=True)

    def _now_s(self) -> float:
        return self._parts.clock.monotonic_ns() / 1e9
