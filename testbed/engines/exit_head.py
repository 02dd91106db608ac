"""The head of tokens that may leave early: the model's weights in half the bytes, where that loses nothing.

One token is one vector times the head's whole matrix, and reading the matrix is the time that takes, at any depth: what
no exit saves. Weights that were quantised, or trained in bfloat16, use at most 8 of the 24 significant bits of a 32-bit
float; times a power of two, 16-bit floats hold them. FBGEMM, which comes with torch on x86, multiplies 32-bit vectors
by such a matrix and adds up in 32 bits: these logits are the model's but for the order of the sums, which rounds their
last bits another way. Where they must be the library's bit by bit, at all layers, the model's own head stays.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

from contract.errors import InvalidOptionError
from testbed.engines.exit_rule import ExitRule

Head = Callable[[Any], Any]
"""From normed hidden states (..., n_hidden) to logits (..., n_vocabulary)."""
HeadChoice = Literal["model", "half"]


class ExitHead:
    """Which head a batch takes. Packs the second one when a batch first takes it.

    Args:
        model: `LlamaForCausalLM`, its weights as they will stay.
        wanted: `model`: always its own; `half`: always the packed one; None: the packed one where it can be had, for
            batches in which no row is fixed at all layers.
    """

    def __init__(self, model: Any, wanted: HeadChoice | None) -> None:
        self._model = model
        self._wanted = wanted

    def choose(self, rules: Sequence[ExitRule]) -> HeadChoice:
        """Which of the two a batch takes.

        Args:
            rules: of its rows.

        Raises:
            InvalidOptionError: `half` was asked for, and cannot be had.
        """
        n_layers = self._model.config.num_hidden_layers
        if self._wanted == "model" or (self._wanted is None and any(rule.shallowest == n_layers for rule in rules)):
            return "model"
        if self._why_not is None:
            return "half"
        if self._wanted is None:
            return "model"
        raise InvalidOptionError(
            f"Engine 'transformers': option 'exit_head' cannot be 'half': {self._why_not}. Leave it out, or choose "
            "'model'.",
            name="exit_head",
        )

    def of(self, rules: Sequence[ExitRule]) -> Head:
        """The head that `choose` names."""
        own: Head = self._model.lm_head
        return self._packed if self.choose(rules) == "half" else own

    @cached_property
    def _why_not(self) -> str | None:
        return why_not_half(self._model)

    @cached_property
    def _packed(self) -> Head:
        return packed_half(self._model.lm_head)


def why_not_half(model: Any) -> str | None:
    """What keeps the head from being packed in 16 bits, in words; None: nothing does.

    Args:
        model: of transformers.
    """
    import torch

    head: Any = getattr(model, "lm_head", None)
    if type(head) is not torch.nn.Linear or head.weight.dtype != torch.float32 or head.weight.device.type != "cpu":
        return "that is for a head in 32 bits on the CPU"
    if torch.backends.quantized.engine not in ("x86", "fbgemm"):
        return "torch has no FBGEMM on this machine"
    scaled = head.weight.detach() * _scale(head.weight)
    # What is lost below the smallest 16-bit float is less than a sum in 32 bits rounds its largest term by.
    if not bool(((scaled.half().float() - scaled).abs() <= 2.0**-24 * scaled.abs().max()).all()):
        return "16 bits do not hold this head's weights"
    return None


def packed_half(linear: Any) -> Head:
    """The same product with the weights in 16 bits: half the bytes to read. Vectors, sums and logits have 32.

    Args:
        linear: whose weights 16 bits hold (see `why_not_half`): others would be rounded.
    """
    import torch

    scale = _scale(linear.weight)
    packed = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach() * scale, linear.bias)

    def head(hidden: Any) -> Any:
        return torch.ops.quantized.linear_dynamic_fp16(hidden / scale, packed)

    return head


def _scale(weight: Any) -> float:
    """The power of two that brings the largest weight to 2^14 to 2^15: so small ones keep their bits."""
    _, exponent = math.frexp(float(weight.detach().abs().max()))
    return math.ldexp(1.0, 15 - exponent)
