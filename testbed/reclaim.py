"""Ends what trials leave behind, so that their memory is free before the next one.

Every child inherits a mark in its environment. It is found by it in /proc wherever it went: in a session of its own,
re-parented to init, and also by the next testbed process when this one was killed. A parent's list of children, or
PR_SET_CHILD_SUBREAPER, would be lost with the parent.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from testbed.child_process import process_identity
from testbed.gpu_memory import GpuMemory

_log = logging.getLogger(__name__)

MARK = "JOULEBED_TESTBED"
"""Environment variable of all children: the data folder of their testbed, which has one testbed at a time."""

SPARED = "JOULEBED_SPARED"
"""Environment variable of a process that must outlive its trial, such as a watchdog."""


@dataclass(frozen=True)
class Patience:
    """How long is waited, at most.

    Attributes:
        process_s: for processes that got SIGKILL. One that waits for a hung driver may never go.
        exec_s: for processes without any environment: the kernel shows none for an instant when a program starts.
        gpu_s: for the driver to free their memory.
        first_poll_s: between the first looks.
        last_poll_s: between the later ones.
    """

    process_s: float = 10.0
    gpu_s: float = 30.0
    exec_s: float = 0.2
    first_poll_s: float = 0.005
    last_poll_s: float = 0.25


class Reclaimer:
    """Ends marked processes, and waits for their GPU memory.

    Args:
        data_dir: of the testbed, absolute.
        gpu: its GPUs.
        patience: how long is waited.
        proc: the kernel's process folder; psutil serves where there is none.
        monotonic_s: seconds of the monotonic clock.
        sleep: waits.
    """

    def __init__(
        self,
        data_dir: Path,
        gpu: GpuMemory,
        patience: Patience = Patience(),
        *,
        proc: Path = Path("/proc"),
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._mark = str(data_dir)
        self._gpu = gpu
        self._patience = patience
        self._proc = proc
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._obstacle = ""
        self._bare: dict[int, str] = {}

    def environment(self) -> dict[str, str]:
        """What a child's environment needs to be found again.

        SPT_NOENV keeps setproctitle, which vLLM names its workers with, from writing over the environment.
        """
        return {MARK: self._mark, "SPT_NOENV": "1"}

    def before_child(self) -> None:
        """A child is about to start: note what the GPUs hold by then."""
        self._gpu.remember()

    def end_all(self) -> str:
        """End every marked process and wait until its memory is free; bounded by the patience.

        Returns:
            What is in the way of the next trial, in words; empty for nothing.
        """
        started_s = self._monotonic_s()
        seen: set[int] = set()
        poll_s = self._patience.first_poll_s
        while True:
            left, bare = self._scan()
            for pid in left:
                self._kill(pid, is_new=pid not in seen)
            seen |= set(left)
            waited_s = self._monotonic_s() - started_s
            held = self._gpu.held(self._is_alive, self._is_marked)
            if not left and not held.words and (not bare or waited_s >= self._patience.exec_s):
                break
            if waited_s >= (self._patience.process_s if left else self._patience.gpu_s):
                break
            self._sleep(poll_s)
            poll_s = min(2 * poll_s, self._patience.last_poll_s)
        self._bare |= bare
        return self._note(left, held.words, is_certain=held.is_certain)

    def obstacle(self) -> str:
        """What is in the way of a trial now: what the last `end_all` left, if it is still there. Cheap when nothing is.

        Returns:
            Words for a person, with the process and what to do; empty for nothing.
        """
        if self._obstacle:
            held = self._gpu.held(self._is_alive, self._is_marked)
            self._note(self.find(), held.words, is_certain=held.is_certain)
        return self._obstacle

    def find(self) -> list[int]:
        """Numbers of the marked processes that live, and are not to be spared."""
        return self._scan()[0]

    def _scan(self) -> tuple[list[int], dict[int, str]]:
        """The marked processes, and those that may turn out to be marked: number -> identity."""
        if not (self._proc / "self").exists():
            return self._find_portably(), {}
        needle = b"\0" + f"{MARK}={self._mark}".encode() + b"\0"
        found, empty = [], []
        for name in os.listdir(self._proc):  # noqa: PTH208 (a few hundred, after every trial)
            if not name.isdecimal():
                continue
            try:
                with (self._proc / name / "environ").open("rb") as file:
                    environ = b"\0" + file.read() + b"\0"
            except OSError:  # it has ended, or is somebody else's
                continue
            if environ == b"\0\0":
                empty.append(int(name))
            if needle in environ and f"\0{SPARED}=".encode() not in environ and int(name) != os.getpid():
                found.append(int(name))
        bare = {pid: process_identity(pid, self._proc) or "" for pid in empty if self._has_program(pid)}
        unknown = {pid: identity for pid, identity in bare.items() if identity and self._bare.get(pid) != identity}
        return [pid for pid in found if self._is_alive(pid)], unknown

    def _has_program(self, pid: int) -> bool:
        """Whether it is no thread of the kernel, and no zombie: those have no environment either."""
        try:
            (self._proc / str(pid) / "exe").readlink()
        except OSError:
            return False
        return True

    def _find_portably(self) -> list[int]:
        found = []
        for process in psutil.process_iter():
            try:
                environ = process.environ()
                if environ.get(MARK) == self._mark and SPARED not in environ and process.pid != os.getpid():
                    found.append(process.pid)
            except (psutil.Error, OSError):
                continue
        return found

    def _kill(self, pid: int, *, is_new: bool) -> None:
        try:
            process = psutil.Process(pid)  # which signals no other process that got the same number
            if is_new:
                _log.info("Ending process %d (%s), which a trial left behind", pid, process.name())
            process.kill()
        except psutil.Error:
            return

    def _is_alive(self, pid: int) -> bool:
        if process_identity(pid, self._proc) is not None:
            return True
        # Where /proc hides the processes of others (hidepid), they are alive all the same; a zombie shows.
        return psutil.pid_exists(pid) and not (self._proc / str(pid)).exists()

    def _is_marked(self, pid: int) -> bool:
        return pid in self.find()

    def _note(self, left: list[int], held: str, *, is_certain: bool) -> str:
        words = [f"process {pid} does not end ({_state_of(pid)})" for pid in left]
        if held and is_certain:
            words.append(held)
        elif held:
            _log.warning("GPU memory was not freed after the trial, as far as a container can tell: %s", held)
        before, self._obstacle = self._obstacle, "; ".join(words)
        if self._obstacle and self._obstacle != before:
            _log.error("An ended trial is in the way of the next one: %s", self._obstacle)
        return self._obstacle


def _state_of(pid: int) -> str:
    try:
        return str(psutil.Process(pid).status())
    except psutil.Error:
        return "gone"
