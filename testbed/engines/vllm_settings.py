"""vLLM's options, what it is told through the environment, and what it says that it took."""

import os
from importlib import metadata
from typing import Any, Literal

from pydantic import Field, JsonValue

from testbed.options import PartOptions

_CPU_THREADS = "OMP_NUM_THREADS"


class VllmOptions(PartOptions):
    """Options of the vLLM engine; None leaves vLLM's own choice, which the load report tells."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Numbers that the weights are held in; `auto` is the model's."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of the GPU's memory that vLLM takes."""
    enforce_eager: bool | None = None
    """No compilation or CUDA graphs. None: true on the CPU, where compiling needs a C++ compiler and minutes, else
    false."""
    max_num_seqs: int | None = Field(default=None, gt=0)
    """Requests that may be computed together; None: what the engine is loaded for."""
    tensor_parallel_size: int = Field(default=1, gt=0)
    """GPUs that share the model."""
    kv_cache_gib: int | None = Field(default=None, gt=0)
    """Memory for keys and values on the CPU."""
    threads: int | None = Field(default=None, gt=0)
    """OpenMP threads on the CPU, left to the scheduler to place. None: vLLM binds one to each core."""
    prefix_caching: bool | None = None
    """Whether prompts of one `generate` call share the work on a common beginning. Never between calls."""
    drive: Literal["steps", "async"] = "steps"
    """`steps`: in the trial's own process, which takes each step, so that a policy decides between two of them.
    `async`: vLLM's asynchronous engine, in a process of its own, as its server has it: it runs on while a policy
    decides."""


def prepare_environment(threads: int | None, kv_cache_gib: int | None) -> None:
    """Set what vLLM reads from the environment only; to be called before vLLM and torch are imported.

    Args:
        threads: OpenMP threads on the CPU; None leaves them to vLLM.
        kv_cache_gib: memory for keys and values on the CPU; None leaves it to vLLM.
    """
    # The engine in our own process: no hop between a token and its time, no busy reader in a second process.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if kv_cache_gib is not None:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gib)
    if threads is not None:
        os.environ[_CPU_THREADS] = str(threads)
        # Bound threads that share a core with any other process wait for each other at every barrier.
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        import torch

        # The variable is read once, when the first library with OpenMP is loaded: that may have been another engine.
        torch.set_num_threads(threads)


def version() -> str:
    """Version of the installed distribution: the CPU build has a name of its own."""
    import vllm

    for distribution in ("vllm", "vllm-cpu"):
        try:
            return f"{distribution} {metadata.version(distribution)}"
        except metadata.PackageNotFoundError:
            continue
    return f"vllm {vllm.__version__}"


def read_back(config: Any, drive: str) -> dict[str, JsonValue]:
    """Settings of a loaded engine, from its own configuration.

    Args:
        config: its `VllmConfig`.
        drive: of the options. The threads of another process cannot be read back: None.
    """
    import torch
    from vllm.platforms import current_platform

    cache, model, scheduler = config.cache_config, config.model_config, config.scheduler_config
    on_cpu = bool(current_platform.is_cpu())
    settings: dict[str, JsonValue] = {
        "drive": drive,
        "platform": str(current_platform.device_type),
        "device": str(current_platform.get_device_name()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "load_format": str(config.load_config.load_format),
        "quantization": None if model.quantization is None else str(model.quantization),
        "enforce_eager": bool(model.enforce_eager),
        "max_num_seqs": int(scheduler.max_num_seqs),
        "max_num_batched_tokens": int(scheduler.max_num_batched_tokens),
        "tensor_parallel_size": int(config.parallel_config.tensor_parallel_size),
        "prefix_caching": bool(cache.enable_prefix_caching),
        "kv_cache_block_tokens": None if cache.block_size is None else int(cache.block_size),
        "n_kv_cache_blocks": None if cache.num_gpu_blocks is None else int(cache.num_gpu_blocks),
        "torch_version": str(torch.__version__),
    }
    if on_cpu:
        settings["threads"] = int(torch.get_num_threads()) if drive == "steps" else None
        settings["omp_wait_policy"] = os.environ.get("OMP_WAIT_POLICY")
        settings["threads_bind"] = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "auto")
        settings["kv_cache_gib"] = _cpu_cache_gib(cache)
    else:
        settings["gpu_memory_utilization"] = float(cache.gpu_memory_utilization)
        settings["cuda_version"] = torch.version.cuda
    return settings


def _cpu_cache_gib(cache: Any) -> float | None:
    n_bytes = getattr(cache, "cpu_kvcache_space_bytes", None) or getattr(cache, "kv_cache_memory_bytes", None)
    return None if n_bytes is None else n_bytes / 2**30
