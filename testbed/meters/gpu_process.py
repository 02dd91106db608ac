"""Who else is on the GPU: processes that do not belong to this trial."""

from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

_HOST_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's fixed number of the initial namespace (PROC_PID_INIT_INO)."""

_WITHOUT_NUMBERS = (
    "cannot tell: this container numbers its processes by itself, and none of ours is on NVML's list. Share the "
    "host's (docker run --pid=host)"
)


def own_process_tree() -> set[int]:
    """This process, its ancestors, and all descendants of the testbed that it belongs to.

    The testbed is the farthest ancestor with `testbed` on its command line; this process where there is none. So a
    warm engine beside this process, or its workers, are no strangers.
    """
    here = psutil.Process()
    try:
        ancestors = here.parents()
        root = next((each for each in reversed(ancestors) if _is_testbed(each)), here)
        family = root.children(recursive=True)
    except psutil.Error:
        ancestors, family = [], []
    return {here.pid, *(each.pid for each in ancestors), *(each.pid for each in family)}


def in_pid_namespace(proc: Path = Path("/proc")) -> bool:
    """Whether this process has numbers of its own, as in a container. NVML tells the host's.

    Args:
        proc: the kernel's process folder.
    """
    try:
        return str((proc / "self" / "ns" / "pid").readlink()) != _HOST_PID_NAMESPACE
    except OSError:
        return True


def process_name(pid: int) -> str:
    """A process's name; `?` where it cannot be told."""
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return "?"


class ForeignProcesses:
    """Counts strangers among the processes on a GPU, and remembers whom it saw.

    The process tree is walked only when a number appears that was not seen before: walking it costs milliseconds.

    Args:
        own_pids: processes that belong to the trial.
        is_namespaced: whether NVML's numbers may not be ours.
        exists: whether there is such a process.
        name_of: its name.
    """

    def __init__(
        self,
        own_pids: Callable[[], set[int]] = own_process_tree,
        *,
        is_namespaced: bool | None = None,
        exists: Callable[[int], bool] = psutil.pid_exists,
        name_of: Callable[[int], str] = process_name,
    ) -> None:
        self._own_pids = own_pids
        self._is_namespaced = in_pid_namespace() if is_namespaced is None else is_namespaced
        self._exists = exists
        self._name_of = name_of
        self._own: set[int] = set()
        self._strangers: dict[int, str] = {}
        self._absent: set[int] = set()

    @property
    def can_tell(self) -> bool:
        """Whether the counts mean anything: False in a container until one of our own numbers was on a list."""
        return bool(self._own) or not self._is_namespaced

    def count(self, pids: Iterable[int]) -> int:
        """How many of these are strangers.

        Args:
            pids: of the processes that NVML lists for a GPU; one that has just ended is not counted.
        """
        listed = set(pids)
        new = listed - self._own - self._strangers.keys() - self._absent
        if new:
            own = self._own_pids()
            self._own |= new & own
            self._strangers |= {pid: self._name_of(pid) for pid in new - own if self._exists(pid)}
            self._absent |= new - own - self._strangers.keys()
        return len(listed & self._strangers.keys())

    def describe(self) -> str:
        """Whom it saw, in words."""
        if not self.can_tell:
            return _WITHOUT_NUMBERS
        seen = [f"{name} ({pid})" for pid, name in sorted(self._strangers.items())]
        return ", ".join(seen) or "none"


def _is_testbed(process: psutil.Process) -> bool:
    try:
        arguments = process.cmdline()
    except psutil.Error:
        return False
    return any(Path(each).name.startswith("testbed") for each in arguments[:4])
