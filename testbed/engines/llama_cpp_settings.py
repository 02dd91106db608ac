"""llama.cpp's parameters from our options, and what the loaded server says that it took."""

import http.client
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from contract.errors import ModelLoadError
from testbed.engines.base import NOT_TAKEN
from testbed.engines.llama_cpp_log import LoadLog
from testbed.options import PartOptions

_DEFAULT_SLOT_CTX = 2048
_MAX_SOCKET_PATH = 100  # sun_path holds 104 to 108 bytes
_TIMEOUT_S = 10.0


class LlamaCppOptions(PartOptions):
    """Options of the llama.cpp engine."""

    n_threads: int | None = Field(default=None, gt=0)
    """Threads that generate; None: one for each processor this process may use."""
    n_threads_batch: int | None = Field(default=None, gt=0)
    """Threads that read prompts; None: as `n_threads`."""
    n_gpu_layers: int | None = Field(default=None, ge=0)
    """Layers put on the GPU; None: all, where the build and the machine have one."""
    n_batch: int = Field(default=2048, gt=0)
    """Prompt tokens that are computed together, at most."""
    n_ctx: int | None = Field(default=None, gt=0)
    """Context of each request in tokens where the model spec has no `max_model_len`; None: 2048."""
    flash_attn: Literal["auto", "on", "off"] = "auto"
    """Flash attention; `auto` takes it where the device has it."""
    gpu: int | None = Field(default=None, ge=0)
    """The only GPU to use, counted as llama.cpp counts them; None: all that there are."""


class ControlSocket:
    """Where the server listens: llama.cpp always does, and some settings can be read back only there.

    A Unix socket in a folder that only this user may enter, so that nothing else can ask during a measurement; a
    loopback port where there are none. Either way a random key is needed.
    """

    def __init__(self) -> None:
        self.api_key = secrets.token_urlsafe(24)
        self._folder = Path(tempfile.mkdtemp(prefix="joulebed-"))
        path = str(self._folder / "llama.sock")
        self.host = path if hasattr(socket, "AF_UNIX") and len(path) < _MAX_SOCKET_PATH else "127.0.0.1"

    def get(self, path: str, listening_address: str) -> dict[str, Any]:
        """A JSON answer of the server.

        Args:
            path: of the resource.
            listening_address: as the server tells it.

        Raises:
            ModelLoadError: no answer.
        """
        connection = _connection(self.host, listening_address)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.api_key}"})
            answer = json.load(connection.getresponse())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ModelLoadError(
                f"llama.cpp loaded the model but does not tell its settings ({type(error).__name__}: {error}). "
                "Try again; if it stays so, reinstall xllamacpp."
            ) from error
        finally:
            connection.close()
        return dict(answer)

    def close(self) -> None:
        """Remove the socket. Idempotent."""
        shutil.rmtree(self._folder, ignore_errors=True)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


def _connection(host: str, listening_address: str) -> http.client.HTTPConnection:
    if host.endswith(".sock"):
        return _UnixConnection(host)
    return http.client.HTTPConnection(host, int(listening_address.rpartition(":")[2]), timeout=_TIMEOUT_S)


def common_params(
    gguf: Path, options: LlamaCppOptions, max_model_len: int | None, n_slots: int, control: ControlSocket
) -> Any:
    """An `xllamacpp.CommonParams` for this engine.

    Args:
        gguf: the model's file.
        options: ours.
        max_model_len: context of each request in tokens; None takes the option's.
        n_slots: requests in flight, at most.
        control: where it listens.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    # One context is cut into equal slots.
    params.n_ctx = (max_model_len or options.n_ctx or _DEFAULT_SLOT_CTX) * n_slots
    params.n_parallel = n_slots
    params.kv_unified = False
    params.n_batch = options.n_batch
    if options.n_gpu_layers == 0:
        # Zero is zero: llama.cpp would still send large batches of a prompt through a GPU that it sees.
        params.no_op_offload = True
        params.no_kv_offload = True
    if options.gpu is not None:
        params.split_mode = xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE
        params.main_gpu = options.gpu
    params.n_gpu_layers = -1 if options.n_gpu_layers is None else options.n_gpu_layers
    n_threads = options.n_threads or n_usable_cpus()
    for cpu, count in ((params.cpuparams, n_threads), (params.cpuparams_batch, options.n_threads_batch or n_threads)):
        cpu.n_threads = count
        cpu.poll = 0  # wait, do not spin: spinning is energy that no token asked for
    flash = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = {
        "auto": flash.LLAMA_FLASH_ATTN_TYPE_AUTO,
        "on": flash.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": flash.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    }[options.flash_attn]
    # What is asked for or an error, never what happens to fit.
    params.fit_params = False
    # A prompt must cost the same whatever came before it: nothing is kept between requests.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.slot_prompt_similarity = 0.0
    # The answer as it was generated: no parsing of tool calls or thoughts.
    params.force_pure_content_parser = True
    params.ui = False
    params.n_threads_http = 1
    params.hostnames = [control.host]
    params.api_keys = [control.api_key]
    # What llama.cpp took stands in its log at this level only. It costs some 15 lines a request, none a token.
    params.verbosity = 4
    return params


def n_usable_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_names() -> list[str]:
    """GPUs that this build of llama.cpp sees, in its order; empty for a build without any."""
    import xllamacpp

    kinds = xllamacpp.ggml_backend_dev_type
    gpus = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return [f"{each['name']}: {each['description']}" for each in xllamacpp.get_device_info() if each["type"] in gpus]


def check_gpu(options: LlamaCppOptions, gpus: Sequence[str]) -> None:
    """See that the GPU that was named is there.

    Raises:
        ModelLoadError: it is not.
    """
    if options.gpu is not None and options.gpu >= len(gpus):
        there = "; ".join(f"{i}: {name}" for i, name in enumerate(gpus)) or "none"
        raise ModelLoadError(
            f"There is no GPU {options.gpu} for llama.cpp. It sees: {there}. Change engine option 'gpu', or install a "
            "build of xllamacpp for this machine's GPU.",
            gpu=options.gpu,
        )


def read_back(
    params: Any, props: dict[str, Any], options: LlamaCppOptions, log: LoadLog, gpus: Sequence[str]
) -> dict[str, JsonValue]:
    """Settings for the load report: what llama.cpp says that it took, by its log and by GET /props.

    Args:
        params: as the server was started; llama.cpp has no other source for what is marked `requested`.
        props: its own account.
        options: what was asked for.
        log: its account of the load.
        gpus: from `gpu_names`.
    """
    import xllamacpp

    devices = xllamacpp.get_device_info()
    return {
        "n_slots": int(props["total_slots"]),
        "slot_ctx": slot_ctx(props),
        "model_ftype": str(props.get("model_ftype", "")),
        "backend": "gpu" if log.n_layers_offloaded else "cpu" if log.n_layers_offloaded == 0 else None,
        "devices": [f"{device['name']}: {device['description']}" for device in devices],
        "system_info": str(xllamacpp.get_system_info()).strip(),
        "n_threads": log.n_threads,
        "n_threads_requested": int(params.cpuparams.n_threads),
        "n_threads_batch": log.n_threads_batch,
        "n_threads_batch_requested": int(params.cpuparams_batch.n_threads),
        # None: threads spin at a barrier for a moment before they sleep, which costs most where processors are shared.
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "n_batch": log.n_batch,
        "n_batch_requested": int(params.n_batch),
        "n_ubatch": log.n_ubatch,
        "n_layers": log.n_layers,
        "n_gpu_layers": log.n_layers_offloaded,
        "n_gpu_layers_of": log.n_layers_offloadable,
        "n_gpu_layers_requested": int(params.n_gpu_layers),
        "model_buffer_mib": dict(log.model_buffer_mib or {}),
        "flash_attn": log.flash_attn,
        "flash_attn_requested": str(params.flash_attn_type.name).rpartition("_")[2].lower(),
        "cache_prompt": bool(params.cache_prompt),
        "prompt_sha256_of": "prompt as rendered by llama.cpp",
        NOT_TAKEN: not_taken(options, log, gpus),
    }


def not_taken(options: LlamaCppOptions, log: LoadLog, gpus: Sequence[str]) -> dict[str, JsonValue]:
    """Options that were asked for and did not take: name -> what happened, in words; pure.

    An option that was left out asks for nothing. One that the log does not tell is not known to have taken.

    Args:
        options: what was asked for.
        log: what llama.cpp says.
        gpus: that it sees.
    """
    wrong: dict[str, JsonValue] = {}
    given = options.model_fields_set
    n_threads_batch = options.n_threads_batch or options.n_threads
    for name, wanted, took in (
        ("n_threads", options.n_threads, log.n_threads),
        ("n_threads_batch", n_threads_batch if "n_threads_batch" in given else None, log.n_threads_batch),
        ("n_batch", options.n_batch if "n_batch" in given else None, log.n_batch),
        ("n_gpu_layers", options.n_gpu_layers, log.n_layers_offloaded),
    ):
        if wanted is None or wanted == took:
            continue
        told = "llama.cpp does not tell what it took" if took is None else f"llama.cpp took {took}"
        wrong[name] = f"{wanted} was asked for, {told}{_why(name, wanted, log, gpus)}"
    if options.flash_attn != "auto" and log.flash_attn is not None:
        wanted_flash = "enabled" if options.flash_attn == "on" else "disabled"
        if log.flash_attn != wanted_flash:
            wrong["flash_attn"] = f"{options.flash_attn!r} was asked for, llama.cpp has it {log.flash_attn}"
    return wrong


def _why(name: str, wanted: int, log: LoadLog, gpus: Sequence[str]) -> str:
    if name == "n_gpu_layers" and not gpus:
        return ": it sees no GPU, or its build knows none"
    if name == "n_gpu_layers" and log.n_layers is not None and wanted > log.n_layers + 1:
        return f": the model has {log.n_layers} layers and the output layer"
    if name == "n_batch" and log.n_batch is not None and wanted > log.n_batch:
        return ": no batch is larger than the context of all slots. Raise model.max_model_len"
    return ""


def slot_ctx(props: dict[str, Any]) -> int:
    """Context of each request in tokens, from GET /props."""
    return int(props["default_generation_settings"]["n_ctx"])
