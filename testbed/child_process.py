"""Processes that run trials: started, found again after a restart, and ended with all that they started."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import psutil

from contract.errors import JouleBedError
from contract.units import WireModel
from testbed import attempt_folder

_log = logging.getLogger(__name__)

_POLL_S = 0.02
_KILL_LIMIT_S = 10.0
_TELL_S = 0.3


class ProcessRecord(WireModel):
    """process.json: enough to find the child after a restart and to keep its deadlines."""

    pid: int
    """Also its process group and session: every child leads its own."""
    identity: str
    """Boot and start time: another process that got the same pid has another one."""
    started_s: float
    """When the trial was given to it; seconds of the monotonic clock."""
    started_at: datetime
    """The same, in UTC, for labels."""
    oom_kills: int | None = None
    """`testbed.child_verdict.count_oom_kills` at its start."""


class RunningTrial(Protocol):
    """A trial in a child process, as its supervisor sees it."""

    @property
    def pid(self) -> int:
        """Of the child; also its process group."""
        ...

    @property
    def returncode(self) -> int | None:
        """Exit status of the process, negative for a signal; None while it lives, or where nobody can know it."""
        ...

    def begin(self, on_end: Callable[[], None]) -> None:
        """Let the trial run.

        Args:
            on_end: called once from any thread as soon as `has_ended` is true.
        """
        ...

    def has_ended(self) -> bool:
        """Whether the trial is over: answered, or its process is gone. Cheap."""
        ...

    def kill(self, grace_s: float) -> None:
        """End the process and its group: SIGTERM, after `grace_s` SIGKILL; returns when they are gone.

        A process that hangs in the kernel may stay all the same: `testbed.reclaim` keeps the next trial from it.
        """
        ...

    def explain_exit(self) -> JouleBedError | None:
        """After `has_ended`: what a program wrapped around the child had to complain of; None for nothing."""
        ...

    def clean_up(self) -> None:
        """After `has_ended`: end what the process left behind, so that its memory is free for the next trial."""
        ...


def process_identity(pid: int, proc: Path = Path("/proc")) -> str | None:
    """Identity of a living process; None where there is none, or only a zombie.

    Boot id and start tick, which no step of the wall clock changes; where there is no /proc, psutil's start time.
    """
    if not (proc / "self").exists():
        return _portable_identity(pid)
    try:
        stat = (proc / str(pid) / "stat").read_text()
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The command's name, in brackets, may hold anything: count from the last bracket. State is field 3 of
    # proc(5), the start tick field 22.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZXx" else f"{boot}:{fields[19]}"


def _portable_identity(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"epoch:{process.create_time():.2f}"
    except psutil.Error:
        return None


def kill_group(group: int, grace_s: float) -> None:
    """End a process group: SIGTERM, after the grace SIGKILL; returns when no member lives. Idempotent.

    Args:
        group: process group, never our own.
        grace_s: time to leave orderly; 0 kills at once.
    """
    if grace_s > 0 and _signal_group(group, signal.SIGTERM):
        _wait_for_group(group, grace_s)
    if _signal_group(group, signal.SIGKILL):
        _wait_for_group(group, _KILL_LIMIT_S)


def ask_where(group: int) -> None:
    """Have a process group that is about to be ended write to its log where it is; waits a moment for it.

    `testbed.model_runner` answers SIGUSR1 with the Python lines of all threads; other programs end by it.

    Args:
        group: process group, never our own.
    """
    if _signal_group(group, signal.SIGUSR1):
        time.sleep(_TELL_S)


def wait_bounded(process: subprocess.Popen[bytes]) -> None:
    """Reap a process that was killed; leaves one alone that hangs in the kernel."""
    try:
        process.wait(_KILL_LIMIT_S)
    except subprocess.TimeoutExpired:
        _log.error("Process %d does not end: it waits in the kernel, perhaps for a hung driver", process.pid)


def run_bounded(command: Sequence[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, or end it and all that it started; `subprocess.run` waits for one that cannot be ended.

    Args:
        command: program and arguments; never a shell's.
        limit_s: seconds it may take.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it took longer.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=limit_s)
    except BaseException:
        kill_group(process.pid, 0.0)
        wait_bounded(process)
        raise
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    said = (each.decode(errors="replace") for each in (out, errors))
    return subprocess.CompletedProcess(command, process.returncode, *said)


def _signal_group(group: int, number: int) -> bool:
    """Whether there was a group to signal."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
        return False
    return True


def _wait_for_group(group: int, limit_s: float) -> None:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s and _signal_group(group, 0) and _has_living_member(group):
        time.sleep(_POLL_S)


def _has_living_member(group: int) -> bool:
    # A member whose parent does not reap it stays as a zombie: it holds neither memory nor device.
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
        except (OSError, psutil.Error):
            continue
    return False


def kill_strays(folder: Path) -> None:
    """End children of an attempt that was killed between their start and the writing of process.json."""
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        if "testbed.model_runner" in arguments and str(folder) in arguments and process.pid != os.getpid():
            try:
                kill_group(os.getpgid(process.pid), 0.0)
            except ProcessLookupError:
                continue


class OneShotTrial:
    """A process of its own for one trial (`lifetime: trial`).

    Args:
        command: program and arguments; never a shell's.
        folder: the attempt's; child.log in it takes the process's output.
        env: the whole environment of the process.
        explain_exit: reads the exit status of a program that is wrapped around the child.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        explain_exit: Callable[[int], JouleBedError | None] = lambda returncode: None,
    ) -> None:
        self._explain_exit = explain_exit
        self._ended = threading.Event()
        with (folder / attempt_folder.CHILD_LOG).open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """See `RunningTrial`."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """See `RunningTrial`."""
        return self._process.returncode

    def begin(self, on_end: Callable[[], None]) -> None:
        """See `RunningTrial`; the process runs already, this waits for it without polling."""

        def wait() -> None:
            self._process.wait()
            self._ended.set()
            on_end()

        threading.Thread(target=wait, name=f"wait-{self.pid}", daemon=True).start()

    def has_ended(self) -> bool:
        """See `RunningTrial`."""
        return self._ended.is_set()

    def kill(self, grace_s: float) -> None:
        """See `RunningTrial`."""
        kill_group(self.pid, grace_s)
        wait_bounded(self._process)

    def explain_exit(self) -> JouleBedError | None:
        """See `RunningTrial`."""
        return None if not self.returncode else self._explain_exit(self.returncode)

    def clean_up(self) -> None:
        """See `RunningTrial`."""
        kill_group(self.pid, 0.0)


class AdoptedTrial:
    """The child of an earlier testbed process that was killed: not ours to wait for, so it is looked for.

    Args:
        record: the attempt's process.json.
    """

    returncode: int | None = None

    def __init__(self, record: ProcessRecord) -> None:
        self.record = record

    @property
    def pid(self) -> int:
        """See `RunningTrial`."""
        return self.record.pid

    def begin(self, on_end: Callable[[], None]) -> None:
        """See `RunningTrial`; the supervisor's own rhythm is what notices the end."""

    def has_ended(self) -> bool:
        """See `RunningTrial`."""
        return process_identity(self.pid) != self.record.identity

    def kill(self, grace_s: float) -> None:
        """See `RunningTrial`."""
        if not self.has_ended():
            kill_group(self.pid, grace_s)

    def explain_exit(self) -> None:
        """See `RunningTrial`: its exit status went to the process that started it."""

    def clean_up(self) -> None:
        """See `RunningTrial`."""
        # The kernel keeps the number of a group that still has members; a living leader is somebody else's.
        if process_identity(self.pid) is None:
            kill_group(self.pid, 0.0)
