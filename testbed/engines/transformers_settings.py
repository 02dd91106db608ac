"""Options of the Transformers engine, and what the loaded model says that it took."""

from dataclasses import asdict
from importlib import metadata
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from testbed.engines.base import NOT_TAKEN
from testbed.engines.exit_head import HeadChoice
from testbed.engines.exit_rule import ExitRule
from testbed.engines.pruning import LayerRule, Pruned, PruneMethod
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
    exit_layer: int | None = Field(default=None, gt=0)
    """Layers that a token goes through, or with `exit_entropy` the most that it may; None: all. Llama models only, as
    all of these: see `early_exit`."""
    exit_entropy: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Nats: after a token of no higher entropy the next one goes through `exit_min_layer` layers; None: fixed."""
    exit_hysteresis: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Nats above `exit_entropy` from which the next token goes through `exit_layer` layers again; None: 0."""
    exit_min_layer: int | None = Field(default=None, gt=0)
    """Layers of a sure token; given together with `exit_entropy`."""
    exit_head: HeadChoice | None = None
    """Head of requests with early exit: `model` is its own, `half` the same weights in 16 bits where that is exact;
    None: `half`, where it can be had, for batches in which no request is fixed at all layers. See `exit_head`."""
    prune: PruneMethod | None = None
    """`magnitude` sets the smallest weights of each matrix to zero, `layers` drops whole layers; None: neither. Llama
    models only, as all of these: see `pruning`."""
    sparsity: float | None = Field(default=None, ge=0, lt=1)
    """Share of the weights, or of the layers, that goes; given together with `prune`."""
    prune_rule: LayerRule | None = None
    """Which layers go: `deep` (None is the same), `angular` or `even`."""

    @model_validator(mode="after")
    def _exit_is_whole(self) -> Self:
        if (self.exit_entropy is None) != (self.exit_min_layer is None):
            raise ValueError("give exit_entropy and exit_min_layer together, or exit_layer alone")
        if self.exit_hysteresis is not None and self.exit_entropy is None:
            raise ValueError("exit_hysteresis belongs to exit_entropy: give both, or neither")
        return self

    @model_validator(mode="after")
    def _pruning_is_whole(self) -> Self:
        if (self.prune is None) != (self.sparsity is None):
            raise ValueError("give prune and sparsity together, or neither")
        if self.prune_rule is not None and self.prune != "layers":
            raise ValueError("prune_rule says which layers go: it belongs to prune 'layers'")
        if self.prune == "magnitude" and self.quantization is not None:
            raise ValueError(
                "prune 'magnitude' sets weights to zero, and quantization holds them as codes: leave one out"
            )
        return self


def read_back(
    model: Any,
    options: TransformersOptions,
    weights: str,
    rule: ExitRule | None = None,
    head: HeadChoice | None = None,
    pruned: Pruned | None = None,
) -> dict[str, JsonValue]:
    """Settings of a loaded model, from the model itself.

    Args:
        model: of transformers.
        options: where the model cannot tell: the cache is made per batch.
        weights: where they came from, in words.
        rule: of early exit, where there is one.
        head: that requests without a rule of their own take, where it was looked at.
        pruned: what pruning did, where it was asked for.
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
        **({} if rule is None else {"early_exit": asdict(rule)}),
        **({} if head is None else {"exit_head": head}),
        **({} if pruned is None else {"pruning": _told(pruned), NOT_TAKEN: {**pruned.not_taken()}}),
        "batching": "static",
        "torch": metadata.version("torch"),
        "weights": weights,
    }


def _told(pruned: Pruned) -> dict[str, JsonValue]:
    return {**asdict(pruned), "layers_left": list(pruned.layers_left)}
