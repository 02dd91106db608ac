"""Early exit: a Llama model stops at layer k, and the final norm and head read the hidden state there.

`exit_rule` says which k a token takes, `exit_head` which head reads its state.

Attention needs the keys and values of all earlier tokens in each layer that a token goes through. With a fixed k the
upper layers are never asked, and their cache stays empty; in a batch of several k, a layer sees and keeps the rows that
come to it, and no others. With k by token, a layer that earlier tokens left out gets
their keys and values from the hidden states that they left with (state propagation: Schuster et al., Confident Adaptive
Language Modeling, NeurIPS 2022), when the next token goes that deep, for all missing tokens in one product: the values
are those of filling at once, weights are read once instead of once a token, and layers that nothing goes through again
cost nothing. Exact keys and values would take the left-out layers themselves, as the verifying pass of LayerSkip does
(Elhoushi et al., ACL 2024): then the work is put off and not saved.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contract.errors import EngineError
from testbed.engines.exit_head import Head
from testbed.engines.exit_rule import ExitRule

if TYPE_CHECKING:
    import torch


def entropy_nats(logits: "torch.Tensor") -> "torch.Tensor":
    """Shannon entropy of the distribution that logits stand for, before temperature and nucleus.

    Args:
        logits: shape (..., n_vocabulary), any float type; -inf is a probability of 0.

    Returns:
        Nats, shape (...), float32 at least.
    """
    import torch

    # Weights in 16 bits would round the sum of many small terms away.
    logs = torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    # exp(-inf) * -inf is no number.
    return -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(-1)


class ExitRun:
    """Takes one batch of sequences through a Llama model, each step to a layer of its own.

    With all layers at every step and the model's own head its logits are the library's, bit by bit.

    Args:
        model: `LlamaForCausalLM`.
        cache: of keys and values, empty; the run's own.
        ceilings: layers that each row may take at most; one number for all rows.
        head: that reads the states; None: the model's own.
    """

    def __init__(self, model: Any, cache: Any, ceilings: int | Sequence[int], head: Head | None = None) -> None:
        self._model = model
        self._head: Head = head or model.lm_head
        self._cache = cache
        rows = [ceilings] if isinstance(ceilings, int) else list(ceilings)
        self._deepest = deepest = max(rows)
        # Layer before which rows leave for good -> rows that go on.
        self._going_on = {
            index: [row for row, ceiling in enumerate(rows) if ceiling > index] for index in {*rows} - {deepest}
        }
        # Steps since the last one that went deepest: hidden states they left with, and their rotary cos and sin.
        self._left: list[tuple[Any, Any, Any]] = []
        # Layer -> how many of those its cache holds.
        self._held = [0] * deepest
        # Number of a step -> what layers need that lack it and the later ones; within one step.
        self._shared: dict[int, tuple[Any, Any, Any]] = {}

    def logits(self, ids: Any, mask: Any, positions: Any, layer: int, n_kept: int = 1) -> Any:
        """Logits of the last positions of a step.

        Args:
            ids: tokens, shape (n_rows, n_tokens).
            mask: 1 for tokens, 0 for padding, of this and all earlier steps, shape (n_rows, n_so_far).
            positions: of the tokens, shape (n_rows, n_tokens).
            layer: how many layers the step goes through, 1 to the highest ceiling; each row to its own at most.
            n_kept: positions from the end whose logits are wanted.

        Returns:
            Shape (n_rows, n_kept, n_vocabulary).
        """
        from transformers.masking_utils import create_causal_mask

        if not 1 <= layer <= self._deepest:
            raise ValueError(f"layer {layer} is none of 1 to {self._deepest}")
        body = self._model.model
        hidden = body.embed_tokens(ids)
        causal = create_causal_mask(
            config=self._model.config,
            inputs_embeds=hidden,
            attention_mask=mask,
            past_key_values=self._cache,
            position_ids=positions,
        )
        rotary = body.rotary_emb(hidden, position_ids=positions)
        whole, rows, seen = hidden, _Rows(None), (causal, rotary, positions)
        for index, block in enumerate(body.layers[:layer]):
            if index in self._going_on:
                whole, rows = rows.put(hidden, whole), _Rows(self._going_on[index])
                hidden = rows.of(whole)
                seen = (rows.of(causal), (rows.of(rotary[0]), rows.of(rotary[1])), rows.of(positions))
                self._shared.clear()
            if self._held[index] < len(self._left):
                hidden = self._catch_up(index, block, hidden, rows, *seen[:2])
                continue
            hidden = block(
                hidden,
                attention_mask=seen[0],
                position_embeddings=seen[1],
                position_ids=seen[2],
                past_key_values=self._cache,
                use_cache=True,
            )
        hidden = rows.put(hidden, whole)
        self._shared.clear()
        if layer == self._deepest:
            self._left.clear()
            self._held = [0] * self._deepest
        else:
            self._left.append((hidden, *rotary))
            self._held[:layer] = [len(self._left)] * layer
        return self._head(body.norm(hidden)[:, -n_kept:])

    def _catch_up(
        self, index: int, block: Any, hidden: Any, rows: "_Rows", causal: Any, rotary: tuple[Any, Any]
    ) -> Any:
        """What a layer makes of this step, after it was given the keys and values of the steps that left before it.

        The library's layer, but for one thing: the states of those steps go through the norm and the projections of
        keys and values together with this step's. Apart, they would read the weights once more.
        """
        import torch
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        from transformers.models.llama.modeling_llama import eager_attention_forward, rotate_half

        missing, cos, sin = self._missing(self._held[index], rows, rotary)
        n_now, attention = hidden.shape[1], block.self_attn
        normed = block.input_layernorm(torch.cat([missing, hidden], dim=1))
        shape = (*normed.shape[:2], -1, attention.head_dim)
        keys = attention.k_proj(normed).view(shape).transpose(1, 2)
        values = attention.v_proj(normed).view(shape).transpose(1, 2)
        queries = attention.q_proj(normed[:, -n_now:]).view(len(hidden), n_now, -1, attention.head_dim).transpose(1, 2)
        keys = keys * cos + rotate_half(keys) * sin
        queries = queries * cos[:, :, -n_now:] + rotate_half(queries) * sin[:, :, -n_now:]
        keys, values = self._cache.update(keys, values, index)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self._model.config._attn_implementation, eager_attention_forward)
        mixed, _ = attend(attention, queries, keys, values, causal, dropout=0.0, scaling=attention.scaling)
        hidden = hidden + attention.o_proj(mixed.reshape(len(hidden), n_now, -1))
        return hidden + block.mlp(block.post_attention_layernorm(hidden))

    def _missing(self, first: int, rows: "_Rows", rotary: tuple[Any, Any]) -> tuple[Any, Any, Any]:
        """States that the steps from `first` on left with, and rotary cos and sin of those steps and of this one.

        Layers that lack the same steps share them.
        """
        import torch

        if first not in self._shared:
            left = [[rows.of(each) for each in step] for step in self._left[first:]]
            states, cos, sin = zip(*left, strict=True)
            self._shared[first] = (
                torch.cat(states, dim=1),
                torch.cat([*cos, rotary[0]], dim=1).unsqueeze(1),
                torch.cat([*sin, rotary[1]], dim=1).unsqueeze(1),
            )
        return self._shared[first]


class _Rows:
    """Some rows of a batch; None: all of them, which costs nothing."""

    def __init__(self, numbers: list[int] | None) -> None:
        self._numbers = numbers

    def of(self, tensor: Any) -> Any:
        """These rows of a tensor (n_rows, ...); one that is the same for all rows, or None, as it is."""
        if self._numbers is None or tensor is None or tensor.shape[0] == 1:
            return tensor
        return tensor[self._numbers]

    def put(self, part: Any, whole: Any) -> Any:
        """The whole with these rows replaced; a new tensor, as the old one may be kept."""
        if self._numbers is None:
            return part
        replaced = whole.clone()
        replaced[self._numbers] = part
        return replaced


@dataclass
class RowExit:
    """What early exit notes of one request.

    Attributes:
        wanted: layers that its next token asks for.
        layers: layers that the step of each token went through.
        entropies_nats: of the distribution of each token.
    """

    wanted: int
    layers: list[int] = field(default_factory=list)
    entropies_nats: list[float] = field(default_factory=list)


class BatchExit:
    """Early exit for one batch: a step goes as deep as the least sure row that is still being answered.

    Args:
        model: `LlamaForCausalLM`.
        cache: empty.
        rules: one for each row; a row goes no deeper than its own rule allows, whatever the others need.
        head: see `ExitRun`.
    """

    def __init__(self, model: Any, cache: Any, rules: Sequence[ExitRule], head: Head | None = None) -> None:
        self._rules = rules
        self._run = ExitRun(model, cache, [rule.deepest for rule in rules], head)
        self.rows = [RowExit(rule.deepest) for rule in rules]

    def logits(self, ids: Any, mask: Any, positions: Any, live: list[bool]) -> Any:
        """Logits of a step's last position, and notes on the rows.

        Args:
            ids: as in `ExitRun.logits`; so are mask and positions.
            mask: see there.
            positions: see there.
            live: rows that are still being answered; at least one.

        Returns:
            Shape (n_rows, n_vocabulary).

        Raises:
            EngineError: they are no numbers.
        """
        layer = max(row.wanted for row, is_live in zip(self.rows, live, strict=True) if is_live)
        logits = self._run.logits(ids, mask, positions, layer)[:, -1]
        entropies = entropy_nats(logits).tolist()
        for row, rule, entropy, is_live in zip(self.rows, self._rules, entropies, live, strict=True):
            if is_live:
                if math.isnan(entropy):
                    raise EngineError(
                        "The model's logits are no numbers (NaN). Choose another dtype, such as float32, and look at "
                        "the weights.",
                        exit_layer=layer,
                    )
                row.layers.append(min(layer, rule.deepest))
                row.entropies_nats.append(entropy)
                row.wanted = rule.next_layer(row.wanted, entropy)
        return logits
