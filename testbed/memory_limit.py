"""A smaller device's memory, simulated: what does not fit into it fails as it would there.

On a GPU, torch may take that much and no more (`torch.cuda.set_per_process_memory_fraction`; vLLM is told a share of
the GPU). On processors the child's private writable memory is limited (RLIMIT_DATA of setrlimit(2)): heap, anonymous
mappings and stacks, whether touched or not. RLIMIT_AS would count the libraries' code and reserved address space too,
which for torch alone are gigabytes; a control group needs root and a writable hierarchy. What is mapped from a file is
not counted by RLIMIT_DATA, so weights that llama.cpp maps are taken off the limit.
"""

import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from contract.errors import InvalidOptionError, JouleBedError, MemoryExhaustedError, ModelLoadError
from contract.trial_spec import TrialSpec
from testbed.engines.model_source import find_model

GIB = 2**30
_MAPS_WEIGHTS = frozenset({"llama_cpp"})
"""Engines that map the weights from their file instead of copying them."""

_REFUSED = re.compile(r"failed to map segment|(can't|[Cc]annot) allocate memory|bad_alloc")

_NEAR = 0.9
"""Share of the limit that was taken when an engine failed, from which memory is the likely cause."""


class MemoryLimit:
    """Holds a process to a simulated memory, and says when that was the reason of a failure.

    Args:
        limit_bytes: of the simulated device.
        gpu_total: bytes of the GPU that the engine will use; None: it runs on processors.
        status: the kernel's account of this process.
    """

    def __init__(
        self, limit_bytes: int, gpu_total: int | None = None, status: Path = Path("/proc/self/status")
    ) -> None:
        self.limit_bytes = limit_bytes
        self._gpu_total = gpu_total
        self._status = status
        self._data_limit_bytes = limit_bytes
        self._before: tuple[int, int] | None = None

    @property
    def gpu_share(self) -> float | None:
        """Share of the GPU's memory that may be taken; None on processors.

        Raises:
            InvalidOptionError: the GPU is smaller than what is to be simulated.
        """
        if self._gpu_total is None:
            return None
        if self.limit_bytes > self._gpu_total:
            raise InvalidOptionError(
                f"engine.memory_limit_gib is {self.limit_bytes / GIB:g}, and the GPU has {self._gpu_total / GIB:.1f} "
                "GiB: a larger device cannot be simulated on a smaller one."
            )
        return self.limit_bytes / self._gpu_total

    @property
    def means(self) -> str:
        """What does the limiting, in words."""
        if self._gpu_total is not None:
            return "torch's share of the GPU"
        return f"RLIMIT_DATA of {self._data_limit_bytes} bytes"

    def apply(self, mapped_bytes: int = 0) -> None:
        """Take hold; before the engine loads.

        Args:
            mapped_bytes: of weights that will be mapped from a file.

        Raises:
            MemoryExhaustedError: the weights alone do not fit.
        """
        share = self.gpu_share
        if share is not None:
            _limit_torch(share)
            return
        self._data_limit_bytes = self.limit_bytes - mapped_bytes
        if self._data_limit_bytes <= 0:
            raise self.does_not_fit(f"its weights alone are {mapped_bytes / GIB:.2f} GiB")
        self._before = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (self._data_limit_bytes, self._before[1]))

    def release(self) -> None:
        """Let go, so that what comes after the trial does not fail. Idempotent."""
        if self._before is not None:
            resource.setrlimit(resource.RLIMIT_DATA, self._before)
            self._before = None

    def explain(self, error: BaseException) -> JouleBedError | None:
        """The limit as the reason of a failure; None where it was not.

        Args:
            error: that the engine raised.
        """
        if isinstance(error, MemoryExhaustedError | MemoryError):
            return self.does_not_fit(str(error) or type(error).__name__)
        is_vague = isinstance(error, ModelLoadError) or not isinstance(error, JouleBedError)
        if self._before is None or not is_vague:
            return None
        is_full = self._data_bytes() >= _NEAR * self._data_limit_bytes
        return self.does_not_fit(str(error)) if is_full or _REFUSED.search(str(error)) else None

    def does_not_fit(self, why: str) -> MemoryExhaustedError:
        """The error, which is a result: the trial does not fit into the simulated device."""
        return MemoryExhaustedError(
            f"Does not fit into {self.limit_bytes / GIB:g} GiB of simulated memory ({why}). Choose a smaller model, "
            "precision or context, or raise engine.memory_limit_gib.",
            memory="simulated",
            limit_bytes=self.limit_bytes,
        )

    def _data_bytes(self) -> int:
        """Private writable memory at its most known: the kernel keeps no peak of it, so what is taken now."""
        try:
            lines = self._status.read_text().splitlines()
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)
        except (OSError, ValueError, IndexError):
            return 0


def memory_limit(spec: TrialSpec, gpu_total: Callable[[], int | None]) -> MemoryLimit | None:
    """The limit that a trial asks for; None for none.

    Args:
        spec: of the trial.
        gpu_total: bytes of the GPU that its engine will use; None where it runs on processors.
    """
    if spec.engine.memory_limit_gib is None:
        return None
    return MemoryLimit(round(spec.engine.memory_limit_gib * GIB), gpu_total())


def mapped_weights_bytes(spec: TrialSpec) -> int:
    """Bytes of the weights that the engine will map from their file.

    Raises:
        ModelNotFoundError: the model is not here.
    """
    if spec.engine.name not in _MAPS_WEIGHTS:
        return 0
    path = find_model(spec.model).path
    return path.stat().st_size if path.is_file() else 0


def engine_options(spec: TrialSpec, limit: MemoryLimit | None) -> dict[str, JsonValue]:
    """The engine's options under a limit: vLLM takes its memory at once, so it is told the share.

    Raises:
        InvalidOptionError: the GPU is smaller than what is to be simulated.
    """
    options = dict(spec.engine.options)
    share = limit.gpu_share if limit is not None else None
    if share is not None and spec.engine.name == "vllm":
        wanted = options.get("gpu_memory_utilization")
        options["gpu_memory_utilization"] = min(share, float(wanted)) if isinstance(wanted, int | float) else share
    return options


def cuda_memory_bytes(spec: TrialSpec, index: int = 0) -> int | None:
    """Bytes of a GPU, where the engine of a trial will use it through CUDA; None otherwise.

    Asks NVML and not torch, which would open a context and take memory itself.

    Args:
        spec: of the trial.
        index: of the GPU, as NVML counts.
    """
    on_cpu = spec.engine.options.get("device") == "cpu" or spec.engine.options.get("n_gpu_layers") == 0
    if on_cpu or spec.engine.name not in ("vllm", "transformers"):
        return None
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index)).total)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _limit_torch(share: float) -> None:
    import torch

    cuda: Any = torch.cuda
    if cuda.is_available():
        for index in range(cuda.device_count()):
            cuda.set_per_process_memory_fraction(share, index)
