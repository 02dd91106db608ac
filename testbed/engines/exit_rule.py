"""After how many layers a token leaves: the rule, and how options and requests ask for one.

k is fixed, for all requests or for each of its own, or chosen for each token from the entropy of the token before it.
That one is known without a second pass through the head, which weighs as much as several layers: a rule that asks the
head at every layer pays for it at every layer.
"""

from dataclasses import dataclass
from typing import Any

from contract.errors import InvalidOptionError, InvalidRequestError, ModelLoadError
from testbed.engines.base import GenerationRequest


@dataclass(frozen=True)
class ExitRule:
    """After how many layers a token leaves: a threshold with hysteresis on the entropy of the token before.

    Attributes:
        deepest: layers of an unsure token, and of the prompt.
        shallowest: layers of a sure one; equal to `deepest`: fixed.
        entropy_nats: at or below it the next token takes `shallowest`.
        hysteresis_nats: above the threshold by more than this, the next takes `deepest`; between, all stays as it is.
    """

    deepest: int
    shallowest: int
    entropy_nats: float = 0.0
    hysteresis_nats: float = 0.0

    @property
    def is_fixed(self) -> bool:
        """Whether all tokens leave at the same layer."""
        return self.shallowest == self.deepest

    def next_layer(self, layer: int, entropy_nats: float) -> int:
        """Layers of the next token.

        Args:
            layer: that this one asked for.
            entropy_nats: of this one's distribution.
        """
        if entropy_nats <= self.entropy_nats:
            return self.shallowest
        if entropy_nats <= self.entropy_nats + self.hysteresis_nats:
            return layer
        return self.deepest


def is_llama(model: Any) -> bool:
    """Whether a model of transformers is of the Llama architecture, whose parts this and `pruning` know by name."""
    from transformers import LlamaForCausalLM

    return isinstance(model, LlamaForCausalLM)


def exit_rule(
    model: Any,
    *,
    exit_layer: int | None,
    exit_entropy: float | None = None,
    exit_hysteresis: float | None = None,
    exit_min_layer: int | None = None,
) -> ExitRule | None:
    """The rule that options of the engine stand for; None: no early exit was asked for.

    Args:
        model: of transformers, loaded.
        exit_layer: layers of all tokens, or the most of a token; None: all layers of the model.
        exit_entropy: threshold in nats; None: fixed.
        exit_hysteresis: in nats; None: none.
        exit_min_layer: layers of a sure token, where there is a threshold.

    Raises:
        ModelLoadError: not a Llama architecture.
        InvalidOptionError: more layers than the model has, or a sure token's above an unsure one's.
    """
    if exit_layer is None and exit_entropy is None:
        return None
    if not is_llama(model):
        raise ModelLoadError(
            f"Early exit knows the Llama architecture (Llama, TinyLlama, SmolLM2, ...), and this model is a "
            f"{type(model).__name__}. Leave out the options exit_*, or take such a model.",
            architecture=type(model).__name__,
        )
    n_layers = len(model.model.layers)
    deepest = n_layers if exit_layer is None else exit_layer
    shallowest = deepest if exit_entropy is None or exit_min_layer is None else exit_min_layer
    for name, layer in (("exit_layer", deepest), ("exit_min_layer", shallowest)):
        if not 1 <= layer <= n_layers:
            raise InvalidOptionError(
                f"Engine 'transformers': option {name!r} cannot be {layer}: this model has {n_layers} layers. Choose "
                f"1 to {n_layers}.",
                name=name,
                n_layers=n_layers,
            )
    if shallowest > deepest:
        raise InvalidOptionError(
            f"Engine 'transformers': option 'exit_min_layer' cannot be {shallowest} where tokens leave after "
            f"{deepest} layers at most. Lower it, or raise exit_layer.",
            name="exit_min_layer",
            n_layers=n_layers,
        )
    return ExitRule(deepest, shallowest, exit_entropy or 0.0, exit_hysteresis or 0.0)


def request_rule(model: Any, request: GenerationRequest, otherwise: ExitRule | None) -> ExitRule:
    """The rule of one request in a batch where some leave early.

    Args:
        model: of transformers, loaded.
        request: whose own layer goes before the engine's.
        otherwise: the engine's rule; None: all layers.

    Raises:
        InvalidRequestError: its own layer, of a model that is no Llama or has fewer.
    """
    layer = request.exit_layer
    n_layers = int(model.config.num_hidden_layers)
    if layer is None:
        return otherwise or ExitRule(n_layers, n_layers)
    if not is_llama(model):
        raise InvalidRequestError(
            f"Request {request.request_id!r} is to leave the model after {layer} layers; early exit knows the Llama "
            f"architecture, and this model is a {type(model).__name__}. Leave out sampling.exit_layers.",
            request_id=request.request_id,
            architecture=type(model).__name__,
        )
    if not 1 <= layer <= n_layers:
        raise InvalidRequestError(
            f"Request {request.request_id!r} is to leave the model after {layer} layers, and it has {n_layers}. Choose "
            f"1 to {n_layers} in sampling.exit_layers.",
            request_id=request.request_id,
            exit_layer=layer,
            n_layers=n_layers,
        )
    return ExitRule(layer, layer)
