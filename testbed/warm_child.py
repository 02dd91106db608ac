"""The warm child of `lifetime: block`: one process that keeps its engine over consecutive trials."""

import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from testbed import attempt_folder
from testbed.attempt_folder import write_atomic
from testbed.child_process import ProcessRecord, kill_group, process_identity, wait_bounded
from testbed.clock import Clock, utc_now

_log = logging.getLogger(__name__)


class WarmChild:
    """A process that takes trials as lines on its input and answers a line for each.

    Args:
        key: what its engine is loaded for; trials of another key need another process.
        command: program and arguments; never a shell's.
        log_path: takes its output until the first trial gives it a log of its own.
        env: the whole environment of the process.
    """

    def __init__(self, key: str, command: Sequence[str], log_path: Path, env: Mapping[str, str]) -> None:
        self.key = key
        self._lock = threading.Lock()
        self._trial: WarmTrial | None = None
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                start_new_session=True,
            )
        threading.Thread(target=self._listen, name=f"warm-{self.process.pid}", daemon=True).start()
        threading.Thread(target=self._wait, name=f"wait-{self.process.pid}", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether it can take another trial."""
        # Not poll() alone: it knows nothing while the waiting thread has not told of an end yet.
        return self.process.poll() is None and process_identity(self.process.pid) is not None

    def order(self, trial: "WarmTrial", line: str) -> None:
        """Give it a trial. A process that is gone shows by the trial's end, not by an exception."""
        assert self.process.stdin is not None
        with self._lock:
            self._trial = trial
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            _log.warning("The warm child %d no longer reads its orders", self.process.pid)
        if self.process.poll() is not None:
            trial.end()  # its last line may have been read before this trial was known

    def close(self, grace_s: float) -> None:
        """End it: the end of its input, after the grace by signals. Idempotent."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(grace_s)
        except (OSError, subprocess.TimeoutExpired):
            _log.warning("The warm child %d did not end by itself", self.process.pid)
        self.kill(0.0)

    def kill(self, grace_s: float) -> None:
        """End it and its group by signals. Idempotent."""
        kill_group(self.process.pid, grace_s)
        wait_bounded(self.process)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as answers:
            for line in answers:
                self._finish(line)

    def _wait(self) -> None:
        # Not the end of its output, which a worker that it left behind may hold open. Nothing is lost with a last
        # line that was not read yet: record.json is what counts.
        self.process.wait()
        self._finish(None)

    def _finish(self, line: bytes | None) -> None:
        with self._lock:
            trial = self._trial
            if trial is None or (line is not None and not trial.is_answer(line)):
                return
            self._trial = None
        trial.end()


class WarmTrial:
    """One trial in a warm child; see `RunningTrial`.

    Args:
        child: where it runs.
        folder: the attempt's folder.
        meters: names of the in-process meters.
    """

    def __init__(self, child: WarmChild, folder: Path, meters: Sequence[str]) -> None:
        self._child = child
        self._folder = folder
        self._meters = list(meters)
        self._ended = threading.Event()
        self._on_end: Callable[[], None] = lambda: None

    @property
    def pid(self) -> int:
        """See `RunningTrial`."""
        return self._child.process.pid

    @property
    def returncode(self) -> int | None:
        """See `RunningTrial`."""
        return self._child.process.returncode

    def begin(self, on_end: Callable[[], None]) -> None:
        """See `RunningTrial`."""
        self._on_end = on_end
        order = {
            "spec": str(self._folder / attempt_folder.SPEC),
            "out_dir": str(self._folder),
            "meters": self._meters,
        }
        self._child.order(self, json.dumps(order))

    def is_answer(self, line: bytes) -> bool:
        """Whether a line of the child says that this trial is done; a library may print others."""
        try:
            answer = json.loads(line)
        except ValueError:
            return False
        return isinstance(answer, dict) and answer.get("out_dir") == str(self._folder)

    def end(self) -> None:
        """Called by the child's listener."""
        self._ended.set()
        self._on_end()

    def has_ended(self) -> bool:
        """See `RunningTrial`."""
        return self._ended.is_set()

    def kill(self, grace_s: float) -> None:
        """See `RunningTrial`: the engine goes with it, since nothing else stops a generation."""
        self._child.kill(grace_s)

    def explain_exit(self) -> None:
        """See `RunningTrial`: nothing is wrapped around a warm child."""

    def clean_up(self) -> None:
        """See `RunningTrial`. A living child stays warm; what a dead one left behind is ended."""
        if not self._child.is_alive:
            self._child.kill(0.0)


class WarmChildKeeper:
    """Keeps at most one warm child, and ends it when it is not wanted any more.

    Args:
        command: starts a warm child.
        env: the whole environment of the child.
        record_path: names the child on disk, so that the next testbed ends one that was left over.
        clock: for the record.
        idle_s: an unused child is closed after this time.
        grace_s: for its orderly end.
        on_closed: called when a child was ended here: what it left behind can be ended, too.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        record_path: Path,
        clock: Clock,
        *,
        idle_s: float = 600.0,
        grace_s: float = 10.0,
        on_closed: Callable[[], object] = lambda: None,
    ) -> None:
        self._command = list(command)
        self._env = dict(env)
        self._record_path = record_path
        self._clock = clock
        self._idle_s = idle_s
        self._grace_s = grace_s
        self._on_closed = on_closed
        self._lock = threading.Lock()
        self._child: WarmChild | None = None
        self._timer: threading.Timer | None = None
        self._rests_since_s: float | None = None

    def trial(self, key: str, folder: Path, meters: Sequence[str]) -> WarmTrial:
        """A trial in the warm child of this key; another key's child is closed first.

        Args:
            key: `TrialSpec.engine_key`.
            folder: the attempt's folder.
            meters: names of the in-process meters.
        """
        with self._lock:
            self._rests_since_s = None
            if self._child is not None and not (self._child.key == key and self._child.is_alive):
                self._close_child()
            if self._child is None:
                self._child = WarmChild(key, self._command, folder / attempt_folder.CHILD_LOG, self._env)
                self._write_record(self._child.process.pid)
            return WarmTrial(self._child, folder, meters)

    @property
    def is_alive(self) -> bool:
        """Whether there is a living child: its helpers belong to its engine, and are left alone."""
        child = self._child
        return child is not None and child.is_alive

    def rest(self) -> None:
        """The trial is over: start to count idle time."""
        with self._lock:
            self._rests_since_s = time.monotonic()
            if self._child is not None and self._timer is None:
                self._look_in(self._idle_s)

    def close(self) -> None:
        """End the child, if there is one. Idempotent."""
        with self._lock:
            self._stop_timer()
            self._close_child()

    def end_leftover(self) -> None:
        """End the warm child of an earlier testbed process, which may still hold memory while it winds down."""
        try:
            record = ProcessRecord.model_validate_json(self._record_path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return
        if process_identity(record.pid) == record.identity:
            kill_group(record.pid, self._grace_s)
        self._record_path.unlink(missing_ok=True)

    def _look_in(self, after_s: float) -> None:
        # One timer for many trials: to start a thread after each would cost each.
        self._timer = threading.Timer(after_s, self._close_idle)
        self._timer.daemon = True
        self._timer.start()

    def _close_idle(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return
            self._timer = None
            since_s = self._rests_since_s
            rested_s = 0.0 if since_s is None else time.monotonic() - since_s
            if since_s is not None and rested_s >= self._idle_s:
                self._close_child()
            elif self._child is not None:
                self._look_in(self._idle_s - rested_s)

    def _write_record(self, pid: int) -> None:
        record = ProcessRecord(
            pid=pid,
            identity=process_identity(pid) or "",
            started_s=self._clock.monotonic_ns() / 1e9,
            started_at=utc_now(self._clock),
        )
        write_atomic(self._record_path, record)

    def _close_child(self) -> None:
        if self._child is not None:
            self._child.close(self._grace_s)
            self._child = None
            self._record_path.unlink(missing_ok=True)
            self._on_closed()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
