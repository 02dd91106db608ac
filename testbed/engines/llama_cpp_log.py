"""llama.cpp's own account of a load: what it writes to standard error, caught and read.

Some of what it took stands nowhere else: layers on the GPU, the batch after it was cut to the context.
"""

import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LOADED = "model loaded"
_FLUSH_S = 2.0
_STEP_S = 0.01

_N_LAYERS = re.compile(r"print_info: n_layer +=\s*(\d+)")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_THREADS = re.compile(r"system_info: n_threads = (\d+) \(n_threads_batch = (\d+)\)")
_CONTEXT = re.compile(r"llama_context: (n_ctx|n_batch|n_ubatch) +=\s*(\d+)")
_FLASH = re.compile(r"Flash Attention (enabled|disabled)|flash_attn += (enabled|disabled)")
_BUFFER = re.compile(r"(?:load_tensors|llm_load_tensors): +(\S+) model buffer size = +([\d.]+) MiB")


@dataclass(frozen=True)
class LoadLog:
    """What the log says; None: it does not say.

    Attributes:
        n_layers: depth of the model.
        n_layers_offloaded: on GPUs, as llama.cpp counts: the output layer is one more. 0 where a build without any
            GPU loaded the model: it has nothing to tell.
        n_layers_offloadable: of how many.
        n_threads: that generate.
        n_threads_batch: that read prompts.
        n_batch: prompt tokens computed together, after cutting.
        n_ubatch: the same, on the device.
        flash_attn: `enabled` or `disabled`, as resolved.
        model_buffer_mib: device -> weights on it, MiB.
    """

    n_layers: int | None = None
    n_layers_offloaded: int | None = None
    n_layers_offloadable: int | None = None
    n_threads: int | None = None
    n_threads_batch: int | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    flash_attn: str | None = None
    model_buffer_mib: dict[str, float] | None = None


def read_load_log(text: str, *, has_gpu: bool) -> LoadLog:
    """Read a load from the log; pure.

    Args:
        text: from the start of the load on; of several loads the last one counts.
        has_gpu: whether llama.cpp sees one. Without it no layer can be on one, and the log is silent about it.
    """
    n_layers, offloaded, threads = _last(_N_LAYERS, text), _last(_OFFLOADED, text), _last(_THREADS, text)
    context = {match[1]: int(match[2]) for match in _CONTEXT.finditer(text)}
    flash = _last(_FLASH, text)
    n_offloaded = int(offloaded[1]) if offloaded else 0 if n_layers and not has_gpu else None
    return LoadLog(
        n_layers=int(n_layers[1]) if n_layers else None,
        n_layers_offloaded=n_offloaded,
        n_layers_offloadable=int(offloaded[2]) if offloaded else None,
        n_threads=int(threads[1]) if threads else None,
        n_threads_batch=int(threads[2]) if threads else None,
        n_batch=context.get("n_batch"),
        n_ubatch=context.get("n_ubatch"),
        flash_attn=(flash[1] or flash[2]) if flash else None,
        model_buffer_mib={match[1]: float(match[2]) for match in _BUFFER.finditer(text)} or None,
    )


@contextmanager
def caught_log(sleep: Callable[[float], None] = time.sleep) -> Iterator[Callable[[], str]]:
    """Catch what is written to standard error, at the level of file descriptors, and let it through.

    Where standard error is a file, as a trial's child.log is, the file itself is read: nothing is lost even if the
    process dies. Elsewhere a temporary file stands in, and is copied when the block ends.

    Args:
        sleep: llama.cpp writes from a thread of its own, which is waited for.

    Yields:
        What was written so far, once the load was told in full or two seconds have passed.
    """
    sys.stderr.flush()
    is_file = stat.S_ISREG(os.fstat(2).st_mode) and Path("/proc/self/fd/2").exists()
    if is_file:
        path, start = Path("/proc/self/fd/2"), os.fstat(2).st_size
        yield lambda: _settled(lambda: _from(path, start), sleep)
        return
    with tempfile.TemporaryFile() as file:
        original = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: _settled(
                lambda: os.pread(file.fileno(), file.seek(0, os.SEEK_END), 0).decode("utf-8", "replace"), sleep
            )
        finally:
            os.dup2(original, 2)
            size = file.seek(0, os.SEEK_END)
            os.write(original, os.pread(file.fileno(), size, 0))
            os.close(original)


def _settled(read: Callable[[], str], sleep: Callable[[float], None]) -> str:
    for _ in range(round(_FLUSH_S / _STEP_S)):
        text = read()
        if _LOADED in text:
            return text
        sleep(_STEP_S)
    return read()


def _from(path: Path, start: int) -> str:
    with path.open("rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", "replace")


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return max(pattern.finditer(text), key=lambda match: match.start(), default=None)
