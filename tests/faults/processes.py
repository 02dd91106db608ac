"""Finds the processes of one campaign, whoever started them, by a mark that all of them inherit."""

import contextlib
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MARK = "JOULEBED_FAULT_SUITE"
"""Environment variable of the nodes of a campaign; its value is the campaign's own."""

Kind = Literal["orchestrator", "testbed", "runner", "energibridge", "other"]

_WATCH_S = 0.25


@dataclass(frozen=True)
class Found:
    """A living process of the campaign."""

    pid: int
    kind: Kind
    words: tuple[str, ...]


def find(mark: str, proc: Path = Path("/proc")) -> list[Found]:
    """All living processes with a mark, this one excepted."""
    needle = b"\0" + f"{MARK}={mark}".encode() + b"\0"
    found = []
    for name in os.listdir(proc):  # noqa: PTH208 (names alone, four times a second)
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            if needle not in b"\0" + (proc / name / "environ").read_bytes():
                continue
            words = tuple((proc / name / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
            state = (proc / name / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if words and state not in "ZX":
            found.append(Found(int(name), _kind(words), words))
    return found


def _kind(words: tuple[str, ...]) -> Kind:
    if words[1:4] == ("-m", "orchestrator", "run"):
        return "orchestrator"
    if words[1:4] == ("-m", "testbed", "serve"):
        return "testbed"
    if words[1:3] == ("-m", "testbed.model_runner"):
        return "other" if "--check" in words else "runner"
    if len(words) > 1 and words[1].endswith("stand_ins/energibridge"):
        return "energibridge"
    return "other"


def kill(pid: int) -> bool:
    """SIGKILL; whether there was a process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def wait_until_none(mark: str, limit_s: float, *, spare: frozenset[int] = frozenset()) -> list[Found]:
    """Wait until no process with a mark is left; those that are left after the limit."""
    end_s = time.monotonic() + limit_s
    while left := [each for each in find(mark) if each.pid not in spare]:
        if time.monotonic() > end_s:
            return left
        time.sleep(0.1)
    return []


@dataclass
class RunnerWatch:
    """Looks all the time whether two trials run at once on a testbed.

    Attributes:
        collisions: sets of runners of one testbed that were alive together in two looks.
        n_looks: how often was looked.
    """

    mark: str
    collisions: set[tuple[str, ...]] = field(default_factory=set)
    n_looks: int = 0

    @contextmanager
    def watching(self) -> Iterator["RunnerWatch"]:
        """Look for the length of a block, in a thread."""
        done = threading.Event()
        thread = threading.Thread(target=self._look, args=(done,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()

    def _look(self, done: threading.Event) -> None:
        # One look may catch a runner that has its SIGKILL already; two in a row do not.
        before: set[tuple[int, int]] = set()
        while not done.wait(_WATCH_S):
            self.n_looks += 1
            of_testbed: defaultdict[str, list[Found]] = defaultdict(list)
            for each in find(self.mark):
                if each.kind == "runner":
                    of_testbed[_data_dir(each.pid)].append(each)
            pairs = {
                (first.pid, second.pid)
                for runners in of_testbed.values()
                for first in runners
                for second in runners
                if first.pid < second.pid
            }
            for pair in pairs & before:
                self.collisions.add(tuple(" ".join(each.words) for each in find(self.mark) if each.pid in pair))
            before = pairs


def _data_dir(pid: int) -> str:
    """Of the testbed that a runner belongs to: the testbed's own mark says."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((each.decode() for each in variables if each.startswith(b"JOULEBED_TESTBED=")), "")
