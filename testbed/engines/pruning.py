"""Pruning of a loaded Llama model: weights of small magnitude set to zero, or whole layers dropped, without retraining.

`magnitude`: in each matrix of attention and feed-forward by itself, the stated share of weights with the smallest
magnitude becomes zero (Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015;
one share for all matrices, and none for embedding, head and norms, is the baseline of SparseGPT, Frantar and Alistarh,
ICML 2023, and of Wanda, Sun et al., ICLR 2024). The matrices stay dense: a dense kernel multiplies zeros as it does any
number, and neither time nor memory is saved.

`layers`: the stated share of layers is taken out, and their keys and values with them. Which ones, for n of N:

| rule | layers | source |
|---|---|---|
| `deep` | the n before the last one | Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers, ICLR 2025 |
| `angular` | the n in a row that turn hidden states by the smallest angle | the same |
| `even` | n at equal distances, as "every other" | Fan et al., Reducing Transformer Depth on Demand, ICLR 2020 |
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from contract.errors import InvalidOptionError, ModelLoadError
from testbed.engines.exit_rule import is_llama

PruneMethod = Literal["magnitude", "layers"]
LayerRule = Literal["deep", "angular", "even"]

CALIBRATION = (
    "The river rises in the hills and reaches the sea near the old harbour.",
    "Water boils at a lower temperature on a mountain than at the coast.",
    "She asked whether the train to the north would stop at every station.",
    "If all the doors are locked, the caretaker must have gone home already.",
    "The council met on Monday and agreed to repair the bridge before winter.",
    "A cell that divides copies its genetic material first.",
    "He did not say that the book was bad, only that he had not finished it.",
    "Prices rose by three per cent last year, and wages by two.",
)
"""What `angular` measures hidden states on, at the last token of each."""

_ZERO_TOLERANCE = 0.001
_LAYER_TOLERANCE = 0.01


@dataclass(frozen=True)
class Pruned:
    """What was done to a model, read back from it.

    Attributes:
        method: `magnitude` or `layers`.
        sparsity: that was asked for.
        layer_rule: of `layers`; else None.
        zero_share: of the weights in the matrices of the layers that are left; None where they are quantised.
        zero_share_before: before any was set to zero; quantised files hold some.
        layers_left: their numbers in the whole model, from 0.
        n_layers_before: of the whole model.
        n_parameters: of the model as it is now, zeros included; tied ones once.
        n_parameters_before: of the whole model.
    """

    method: PruneMethod
    sparsity: float
    layer_rule: LayerRule | None
    zero_share: float | None
    zero_share_before: float | None
    layers_left: tuple[int, ...]
    n_layers_before: int
    n_parameters: int
    n_parameters_before: int

    def not_taken(self) -> dict[str, str]:
        """Option -> what came of it, where that is not what was asked for."""
        if self.zero_share is not None and self.method == "magnitude":
            if abs(self.zero_share - self.sparsity) <= _ZERO_TOLERANCE:
                return {}
            return {
                "sparsity": f"{self.sparsity:g} was asked for, and {self.zero_share:.4f} of the weights are zero "
                f"({self.zero_share_before or 0:.4f} were before)"
            }
        n_dropped = self.n_layers_before - len(self.layers_left)
        if abs(n_dropped / self.n_layers_before - self.sparsity) <= _LAYER_TOLERANCE:
            return {}
        return {
            "sparsity": f"{self.sparsity:g} was asked for, and {n_dropped} of {self.n_layers_before} layers are out, a "
            f"share of {n_dropped / self.n_layers_before:.4f}"
        }


def prune(
    model: Any,
    method: PruneMethod,
    sparsity: float,
    *,
    layer_rule: LayerRule = "deep",
    calibration_ids: Sequence[Sequence[int]] = (),
) -> Pruned:
    """Prune a model in place.

    Args:
        model: of transformers, loaded.
        method: see the module.
        sparsity: share of the weights of each matrix, or of the layers, to the nearest one.
        layer_rule: which layers.
        calibration_ids: tokens of the texts that `angular` looks at; at least one text.

    Raises:
        ModelLoadError: no Llama architecture, or weights that are no plain numbers.
        InvalidOptionError: no layer would be left.
    """
    import torch

    if not is_llama(model):
        raise ModelLoadError(
            f"Pruning knows the Llama architecture (Llama, TinyLlama, SmolLM2, ...), and this model is a "
            f"{type(model).__name__}. Leave out the option prune, or take such a model.",
            architecture=type(model).__name__,
        )
    n_layers, n_parameters, before = len(model.model.layers), model.num_parameters(), _zero_share(model)
    left = tuple(range(n_layers))
    with torch.no_grad():
        if method == "magnitude":
            _zero_smallest(model, sparsity)
        else:
            left = _layers_left(model, _n_dropped(n_layers, sparsity), layer_rule, calibration_ids)
            _keep_layers(model, left)
    return Pruned(
        method=method,
        sparsity=sparsity,
        layer_rule=layer_rule if method == "layers" else None,
        zero_share=_zero_share(model),
        zero_share_before=before,
        layers_left=left,
        n_layers_before=n_layers,
        n_parameters=model.num_parameters(),
        n_parameters_before=n_parameters,
    )


def dropped_layers(n_layers: int, n_dropped: int, rule: Literal["deep", "even"]) -> tuple[int, ...]:
    """Layers to drop, from 0, by a rule that looks at no model.

    Args:
        n_layers: of the model.
        n_dropped: of them, fewer than all.
        rule: see the module.
    """
    if rule == "deep":
        return tuple(range(n_layers - 1 - n_dropped, n_layers - 1))
    return tuple(int((number + 0.5) * n_layers / n_dropped) for number in range(n_dropped))


def angular_distances(model: Any, n_between: int, calibration_ids: Sequence[Sequence[int]]) -> list[float]:
    """How far hidden states turn over `n_between` layers in a row: d = arccos(cos angle) / pi, 0 to 1.

    Args:
        model: `LlamaForCausalLM`.
        n_between: layers in a row.
        calibration_ids: tokens of each text; their last ones are compared, and the mean is taken over texts.

    Returns:
        For each first layer of such a row.
    """
    import torch

    states: list[Any] = []
    # The library's own list of hidden states has the last one after the final norm.
    hook = model.model.norm.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    turns = []
    try:
        for ids in calibration_ids:
            states.clear()
            entered = model.model(
                input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False, output_hidden_states=True
            ).hidden_states
            line = torch.stack([each[0, -1].double() for each in (*entered[:-1], states[0])])
            cosines = torch.nn.functional.cosine_similarity(line[:-n_between], line[n_between:], dim=-1)
            turns.append(cosines.clamp(-1, 1).arccos() / math.pi)
    finally:
        hook.remove()
    return [float(each) for each in torch.stack(turns).mean(0)]


def _n_dropped(n_layers: int, sparsity: float) -> int:
    n_dropped = math.floor(sparsity * n_layers + 0.5)
    if n_dropped >= n_layers:
        raise InvalidOptionError(
            f"Engine 'transformers': option 'sparsity' cannot be {sparsity:g} for layers: of this model's {n_layers} "
            f"none would be left. Choose {(n_layers - 1) / n_layers:.3g} at most.",
            name="sparsity",
            n_layers=n_layers,
        )
    return n_dropped


def _layers_left(
    model: Any, n_dropped: int, rule: LayerRule, calibration_ids: Sequence[Sequence[int]]
) -> tuple[int, ...]:
    n_layers = len(model.model.layers)
    if n_dropped == 0:
        dropped: Sequence[int] = ()
    elif rule == "angular":
        turns = angular_distances(model, n_dropped, calibration_ids)
        first = turns.index(min(turns))
        dropped = range(first, first + n_dropped)
    else:
        dropped = dropped_layers(n_layers, n_dropped, rule)
    return tuple(index for index in range(n_layers) if index not in dropped)


def _keep_layers(model: Any, left: Sequence[int]) -> None:
    from torch.nn import ModuleList

    body, config = model.model, model.config
    body.layers = ModuleList(body.layers[index] for index in left)
    # The cache is made from the configuration, and each layer finds its place in it by its number.
    config.num_hidden_layers = len(left)
    for index, block in enumerate(body.layers):
        block.self_attn.layer_idx = index


def _matrices(model: Any) -> Iterator[tuple[str, Any]]:
    """The linear layers of all blocks, with their names."""
    from torch.nn import Linear

    for name, module in model.model.layers.named_modules():
        if isinstance(module, Linear):
            yield name, module


def _zero_smallest(model: Any, sparsity: float) -> None:
    from torch.nn.utils import prune as torch_prune

    for name, module in _matrices(model):
        if not module.weight.is_floating_point():
            raise ModelLoadError(
                f"Pruning by magnitude needs weights that are plain numbers, and layer {name} holds "
                f"{module.weight.dtype}: the model is quantised. Take its unquantised weights.",
                dtype=str(module.weight.dtype),
            )
        torch_prune.l1_unstructured(module, "weight", amount=float(sparsity))
        torch_prune.remove(module, "weight")  # the mask, not the zeros


def _zero_share(model: Any) -> float | None:
    n_weights = n_left = 0
    for _, module in _matrices(model):
        if not module.weight.is_floating_point():
            return None
        n_weights += module.weight.numel()
        n_left += int(module.weight.count_nonzero())
    return 1 - n_left / n_weights
