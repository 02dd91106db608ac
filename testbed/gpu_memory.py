"""Whether the GPUs are free of what an ended trial held: the driver takes its time, and a hung one keeps it."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from testbed.bounded_call import BoundedCall, OverdueError
from testbed.meters.gpu_process import in_pid_namespace

_T = TypeVar("_T")

_LOOK_S = 20.0
"""A driver without persistence mode takes seconds to start; a hung one never answers."""

_SLACK_BYTES = 512 * 2**20
"""What a context of the driver may come and go with; a model holds more."""


@dataclass(frozen=True)
class Held:
    """What is still held.

    Attributes:
        words: by whom and where, for a person; empty for nothing.
        is_certain: whether it is an ended process's. Where processes cannot be told, only more memory is in use
            than before, which may be somebody else's.
    """

    words: str = ""
    is_certain: bool = False


class GpuMemory:
    """Looks at the GPUs with NVML, which is opened for each look only. Without NVML it costs nothing.

    Args:
        nvml: the library's module; pynvml by default, and nothing is looked at where that is not installed.
        is_namespaced: whether NVML's process numbers may not be ours, as in a container.
        look_s: a driver that does not answer for so long hangs.
    """

    def __init__(
        self, nvml: ModuleType | Any | None = None, *, is_namespaced: bool | None = None, look_s: float = _LOOK_S
    ) -> None:
        self._nvml = nvml
        self._is_namespaced = in_pid_namespace() if is_namespaced is None else is_namespaced
        self._is_absent = False
        self._used_before: dict[int, int] = {}
        self._look_s = look_s
        self._overdue: BoundedCall[Any] | None = None

    def remember(self) -> None:
        """Note how much memory is in use before a child starts."""
        if self._is_namespaced:
            self._used_before = self._look(_used_bytes) or {}

    def held(self, is_alive: Callable[[int], bool], is_ours: Callable[[int], bool]) -> Held:
        """What ended trials still hold.

        Args:
            is_alive: whether there is such a process, and no mere zombie.
            is_ours: whether a living process belongs to a trial that is over.
        """
        if self._is_namespaced:
            used = self._look(_used_bytes)
            if used is None:
                return _HANGS
            more = {gpu: now - self._used_before.get(gpu, now) for gpu, now in used.items()}
            words = [f"gpu:{gpu} has {m / 2**30:.1f} GiB more in use" for gpu, m in more.items() if m > _SLACK_BYTES]
            return Held("; ".join(words), is_certain=False)
        words = []
        found = self._look(_compute_pids)
        if found is None:
            return _HANGS
        for gpu, pids in found.items():
            for pid in pids:
                if not is_alive(pid):
                    words.append(f"gpu:{gpu} still holds memory of process {pid}, which has ended")
                elif is_ours(pid):
                    words.append(f"gpu:{gpu} holds memory of process {pid}, which cannot be ended")
        return Held("; ".join(words), is_certain=True)

    def _look(self, read: Callable[[Any, Any], _T]) -> dict[int, _T] | None:
        """What each GPU answers; GPUs that answer with an error are left out. None: the driver hangs."""
        nvml = self._library()
        if nvml is None:
            return {}
        if self._overdue is not None and self._overdue.goes_on:
            return None
        look: BoundedCall[dict[int, _T]] = BoundedCall("nvml")
        try:
            return look.call(lambda: self._answers(nvml, read), self._look_s)
        except OverdueError:
            self._overdue = look
            return None

    def _answers(self, nvml: Any, read: Callable[[Any, Any], _T]) -> dict[int, _T]:
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return {}
        answers = {}
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                try:
                    answers[index] = read(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
                except nvml.NVMLError:
                    continue
        finally:
            nvml.nvmlShutdown()
        return answers

    def _library(self) -> Any:
        if self._is_absent:
            return None
        if self._nvml is None:
            try:
                import pynvml
            except ModuleNotFoundError:
                self._is_absent = True
                return None
            self._nvml = pynvml
        return self._nvml


_HANGS = Held("the GPU driver does not answer: restart the machine", is_certain=True)


def _used_bytes(nvml: Any, gpu: Any) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(gpu).used)


def _compute_pids(nvml: Any, gpu: Any) -> list[int]:
    return [int(process.pid) for process in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)]
