"""A small network with a head for each part of an action, run in NumPy: 36 scores instead of 5,808."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Layer = tuple[Floats, Floats]
"""Weights (out, in) and biases (out,)."""


@dataclass(frozen=True)
class FactoredSpace:
    """Actions that are one choice for each head.

    Attributes:
        names: of the heads.
        values: of each head, what its choices mean.

    Raises:
        InvalidOptionError: no heads, a head without choices, or names that do not fit.
    """

    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.values) or not all(self.values):
            raise InvalidOptionError(f"action space: each head needs a name and a choice at least; got {self}.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Choices of each head."""
        return tuple(len(each) for each in self.values)

    @property
    def n_actions(self) -> int:
        """All combinations."""
        return math.prod(self.sizes)

    def all_choices(self) -> Ints:
        """(n_actions, heads): every combination, the last head fastest."""
        return np.stack(np.unravel_index(np.arange(self.n_actions), self.sizes), axis=1).astype(np.int64)

    def meaning(self, choices: Ints) -> Ints:
        """What choices mean, such as a bin or a batch.

        Args:
            choices: (..., heads), indices.

        Raises:
            InvalidOptionError: a choice that there is not.
        """
        wanted = np.asarray(choices)
        if wanted.shape[-1:] != (len(self.names),):
            raise InvalidOptionError(f"action space: {len(self.names)} heads, got choices of shape {wanted.shape}.")
        columns = []
        for head, (name, values) in enumerate(zip(self.names, self.values, strict=True)):
            column = wanted[..., head]
            wrong = (column < 0) | (column >= len(values))
            if wrong.any():
                raise InvalidOptionError(
                    f"action space: no {name} number {np.extract(wrong, column)[0]}; there are 0 to {len(values) - 1}."
                )
            columns.append(np.array(values, dtype=np.int64)[column])
        return np.stack(columns, axis=-1)


@dataclass(frozen=True, eq=False)
class FactoredPolicy:
    """Layers with tanh between them; the last one's outputs are the heads' logits side by side.

    Attributes:
        space: what is chosen.
        layers: first to last.
    """

    space: FactoredSpace
    layers: tuple[Layer, ...]

    def logits(self, features: Floats) -> Floats:
        """(..., sum of sizes).

        Args:
            features: (..., inputs of the first layer).
        """
        values = np.asarray(features, dtype=float)
        for weight, bias in self.layers[:-1]:
            values = np.tanh(values @ weight.T + bias)
        weight, bias = self.layers[-1]
        return np.asarray(values @ weight.T + bias)

    def probabilities(self, features: Floats) -> list[Floats]:
        """Of each head (..., size).

        Args:
            features: (..., inputs).
        """
        found, first = [], 0
        logits = self.logits(features)
        for size in self.space.sizes:
            part = logits[..., first : first + size]
            weights = np.exp(part - part.max(axis=-1, keepdims=True))
            found.append(weights / weights.sum(axis=-1, keepdims=True))
            first += size
        return found

    def best(self, features: Floats) -> Ints:
        """(..., heads): the likeliest choice of each head.

        Args:
            features: (..., inputs).
        """
        logits, first, found = self.logits(features), 0, []
        for size in self.space.sizes:
            found.append(logits[..., first : first + size].argmax(axis=-1))
            first += size
        return np.stack(found, axis=-1).astype(np.int64)

    def sample(self, features: Floats, n_samples: int, rng: np.random.Generator) -> Ints:
        """(n_samples, heads): drawn for one state.

        Args:
            features: (inputs,).
            n_samples: how many.
            rng: draws them.
        """
        return np.asarray(self.sample_groups(features, 1, n_samples, rng)[0])

    def sample_groups(self, features: Floats, n_groups: int, n_samples: int, rng: np.random.Generator) -> Ints:
        """(n_groups, n_samples, heads): as so many calls of `sample` would give, with one pass of the network.

        Args:
            features: (inputs,).
            n_groups: how many.
            n_samples: of each.
            rng: draws them.
        """
        uniform = rng.random((n_groups, len(self.space.sizes), n_samples))
        columns = []
        for head, share in enumerate(self.probabilities(features)):
            edges = np.cumsum(share)
            drawn = np.searchsorted(edges, uniform[:, head] * edges[-1], side="right")
            columns.append(np.minimum(drawn, share.size - 1))
        return np.stack(columns, axis=-1).astype(np.int64)
