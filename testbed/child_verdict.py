"""What a failure was: a child that died, or an engine's error, told by signal, exit status, kernel and last words.

Engines wrap what happened in an error of their own, and a worker's death shows in its parent as "engine core
initialization failed": the class that decides on a retry is found in the text, and memory that ran out is never
tried again blindly.
"""

import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contract.errors import (
    ChildDiedError,
    DeviceError,
    EngineError,
    JouleBedError,
    MemoryExhaustedError,
    ModelLoadError,
    TestbedRestartedError,
)

_GPU_MEMORY = re.compile(
    r"(CUDA|HIP) out of memory|(CUDA|HIP) error: out of memory|torch(\.cuda)?\.OutOfMemoryError"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED"
    r"|cudaMalloc failed: out of memory|Free memory on device .{0,200}is less than desired",
    re.DOTALL,
)
_CACHE_MEMORY = re.compile(
    r"No available memory for the cache blocks|larger than the (maximum )?available KV cache memory"
)
"""vLLM's, on a GPU and on a processor alike."""
_HOST_MEMORY = re.compile(
    r"\w*MemoryError\b|std::bad_alloc|Cannot allocate memory|can't allocate memory|not enough memory: you tried to"
    r"|unable to allocate \S+ buffer|insufficient memory|GGML_ASSERT\(ctx->mem_buffer != NULL\) failed"
    # A thread whose stack is refused says no more than this: telling only where `testbed.memory_limit` took hold.
    r"|Held to [\d.]+ GiB by engine\.memory_limit_gib[\s\S]*?'std::system_error'"
)
_DEVICE = re.compile(
    r"CUDA error:|HIP error:|CUDA_ERROR_(?!OUT_OF_MEMORY)\w+|cudaError(?!MemoryAllocation)[A-Z]\w+|device-side assert"
    r"|unspecified launch failure|illegal memory access|\bXid\b|GPU is lost|fallen off the bus|uncorrectable ECC"
    r"|CUBLAS_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)|\bNCCL error"
)
_VAGUE = (EngineError, ModelLoadError, TestbedRestartedError)
"""Classes that may hide a sharper one; so does the root itself, which stands for an unexpected exception."""

_CRASHES = frozenset({"SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL"})
_LAST_WORDS = 300


def count_oom_kills(root: Path = Path("/")) -> int | None:
    """How often the kernel ended a process of our control group because memory ran out; None where it does not say.

    Of the machine, where the control group has no such counter (its root, and cgroup v1 without the memory
    controller). Children stay in the group of the testbed.

    Args:
        root: of the file system.
    """
    for file in [*_cgroup_files(root), root / "proc/vmstat"]:
        try:
            text = file.read_text()
        except OSError:
            continue
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        if found:
            return int(found[1])
    return None


def death(
    *,
    pid: int,
    returncode: int | None,
    tail: Sequence[str],
    text: str = "",
    oom_kills: int | None = None,
    what: str = "The trial's process",
) -> JouleBedError:
    """Why a child that left no record died.

    Args:
        pid: its number.
        returncode: exit status, negative for a signal; None where nobody can know it.
        tail: last lines of its log, for the error's detail.
        text: more of the log's end, which is searched.
        oom_kills: how often the kernel ended a process for memory while it lived; None where that is unknown.
        what: it was.
    """
    detail: dict[str, Any] = {"pid": pid, "log_tail": list(tail)}
    hint = ""
    if returncode is None:
        how = "ended"
    elif returncode < 0:
        detail["signal"] = name = signal_name(-returncode)
        how = f"was killed by {name}"
        hint = _hint(name, oom_kills)
    else:
        detail["exit_status"] = returncode
        how = f"ended with exit status {returncode}"
    words = _exception_line(tail)
    if words:
        hint = f" Its last words: {words}{hint}"
    error = ChildDiedError(
        f"{what} {how} without a result.{hint} Its output is in child.log.",
        **detail,
    )
    was_killed = returncode is None or returncode == -signal.SIGKILL
    return _sharpened(error, text or "\n".join(tail), oom_kills if was_killed else None) or error


def sharpen(
    error: JouleBedError, *, tail: Sequence[str], text: str = "", oom_kills: int | None = None
) -> JouleBedError:
    """The sharper error that a vague one stands for; the same error where there is none.

    Args:
        error: from the child's record, or of the testbed.
        tail: last lines of the child's log, for the error's detail.
        text: more of the log's end, which is searched.
        oom_kills: see `death`: a worker of the engine may have been killed.
    """
    if type(error) is not JouleBedError and not isinstance(error, _VAGUE):
        return error
    error.detail.setdefault("log_tail", list(tail))
    sharper = _sharpened(error, f"{error.message}\n{text or chr(10).join(tail)}", oom_kills)
    if sharper is None:
        return error
    whose = re.match(r"Device (gpu|cores):[\d,-]+: ", error.message)
    if whose and whose[0] not in sharper.message:
        named = type(sharper)(whose[0] + sharper.message)
        named.detail = sharper.detail
        return named
    return sharper


def signal_name(number: int) -> str:
    """Such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _sharpened(error: JouleBedError, text: str, oom_kills: int | None) -> JouleBedError | None:
    detail = {**error.detail, "was": error.code}
    if oom_kills:
        return MemoryExhaustedError(
            "The machine's memory ran out, and the kernel ended the trial's process or one of its workers. Choose a "
            f"smaller model, context or concurrency, or add memory or swap. ({error.message})",
            **detail,
            memory="host",
            oom_kills=oom_kills,
        )
    for pattern, memory, advice in (
        (_GPU_MEMORY, "gpu", "Lower gpu_memory_utilization, model.max_model_len or the concurrency, or free the GPU"),
        (
            _CACHE_MEMORY,
            "cache",
            "Lower model.max_model_len or the concurrency, or give the engine's cache more memory",
        ),
        (_HOST_MEMORY, "host", "Choose a smaller model, context or concurrency, or add memory"),
    ):
        found = pattern.search(text)
        if found:
            return MemoryExhaustedError(
                f"Memory ran out ({_line_of(text, found)}). {advice}: the same trial would need as much again.",
                **detail,
                memory=memory,
            )
    found = _DEVICE.search(text)
    if found:
        return DeviceError(
            f"The GPU or its driver failed ({_line_of(text, found)}). It is tried again; if that fails too, look at "
            "`nvidia-smi` and the kernel's log for Xid messages, and reset the GPU or reboot.",
            **detail,
        )
    return None


def _hint(name: str, oom_kills: int | None) -> str:
    if name in _CRASHES:
        return " It crashed in native code: the Python lines that led there are at the end of its output."
    if name != "SIGKILL":
        return ""
    if oom_kills is None:
        return " SIGKILL often means that memory ran out: look at the kernel's log."
    return " The kernel counts no kill for want of memory: somebody sent the signal."


def _exception_line(tail: Sequence[str]) -> str:
    """The exception at the end of a Python traceback; empty where the log ends otherwise."""
    lines = [line for line in tail if line.strip()]
    if not any(line.startswith("Traceback (most recent call last)") for line in lines):
        return ""
    last = lines[-1].strip()
    return last[:_LAST_WORDS] if re.match(r"[\w.]+(:|$)", last) else ""


def _line_of(text: str, found: re.Match[str]) -> str:
    start = text.rfind("\n", 0, found.start()) + 1
    end = text.find("\n", found.start())
    line = text[start : end if end >= 0 else len(text)].strip()
    if len(line) > _LAST_WORDS:
        line = text[found.start() : found.start() + _LAST_WORDS].split("\n")[0]
    return line


def _cgroup_files(root: Path) -> list[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        path = path.lstrip("/")
        if not controllers:
            files.append(root / "sys/fs/cgroup" / path / "memory.events")
        elif "memory" in controllers.split(","):
            files.append(root / "sys/fs/cgroup/memory" / path / "memory.oom_control")
    return files
