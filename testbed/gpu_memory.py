"""Whether the GPUs are free of what an ended trial held: the driver takes its time, and a hung one keeps it."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from testbed.meters.gpu_process import in_pid_namespace

_T = TypeVar("_T")

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
    """

    def __init__(self, nvml: ModuleType | Any | None = None, *, is_namespaced: bool | None = None) -> None:
        self._nvml = nvml
        self._is_namespaced = in_pid_namespace() if is_namespaced is None else is_namespaced
        self._is_absent = False
        self._used_before: dict[int, int] = {}

    def remember(self) -> None:
        """Note how much memory is in use before a child starts."""
        if self._is_namespaced:
            self._used_before = self._look(lambda nvml, gpu: int(nvml.nvmlDeviceGetMemoryInfo(gpu).used))

    def held(self, is_alive: Callable[[int], bool], is_ours: Callable[[int], bool]) -> Held:
        """What ended trials still hold.

        Args:
            is_alive: whether there is such a process, and no mere zombie.
            is_ours: whether a living process belongs to a trial that is over.
        """
        if self._is_namespaced:
            used = self._look(lambda nvml, gpu: int(nvml.nvmlDeviceGetMemoryInfo(gpu).used))
            more = {gpu: now - self._used_before.get(gpu, now) for gpu, now in used.items()}
            words = [f"gpu:{gpu} has {m / 2**30:.1f} GiB more in use" for gpu, m in more.items() if m > _SLACK_BYTES]
            return Held("; ".join(words), is_certain=False)
        words = []
        for gpu, pids in self._look(_compute_pids).items():
            for pid in pids:
                if not is_alive(pid):
                    words.append(f"gpu:{gpu} still holds memory of process {pid}, which has ended")
                elif is_ours(pid):
                    words.append(f"gpu:{gpu} holds memory of process {pid}, which cannot be ended")
        return Held("; ".join(words), is_certain=True)

    def _look(self, read: Callable[[Any, Any], _T]) -> dict[int, _T]:
        """What each GPU answers; GPUs that do not answer are left out."""
        nvml = self._library()
        if nvml is None:
            return {}
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


def _compute_pids(nvml: Any, gpu: Any) -> list[int]:
    return [int(process.pid) for process in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)]
