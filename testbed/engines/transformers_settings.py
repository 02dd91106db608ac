"""Options of the Transformers engine, and what the loaded model says that it took."""

from importlib import metadata
from typing import Any, Literal

from pydantic import Field, JsonValue

from testbed.options import PartOptions


class TransformersOptions(PartOptions):
    """Options of the Transformers engine; None leaves the library's own choice, which the load report tells."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where torch finds one."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Numbers that the weights are held in; `auto` is the model's."""
    quantization: Literal["int8"] | None = None
    """`int8`: weights of the linear layers in 8 bits, by bitsandbytes."""
    kv_cache: Literal["dynamic", "static"] = "dynamic"
    """Keys and values: `dynamic` grows with the answer; `static` is allocated whole for each batch."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """Implementation of attention."""
    threads: int | None = Field(default=None, gt=0)
    """Threads on the CPU; None: torch's own choice."""


def read_back(model: Any, options: TransformersOptions, weights: str) -> dict[str, JsonValue]:
    """Settings of a loaded model, from the model itself.

    Args:
        model: of transformers.
        options: where the model cannot tell: the cache is made per batch.
        weights: where they came from, in words.
    """
    import torch

    parameter = next(model.parameters())
    device = parameter.device
    return {
        "device": str(device) if device.type == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})",
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": options.quantization,
        "kv_cache": options.kv_cache,
        "attention": model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "n_layers": model.config.num_hidden_layers,
        "batching": "static",
        "torch": metadata.version("torch"),
        "weights": weights,
    }
