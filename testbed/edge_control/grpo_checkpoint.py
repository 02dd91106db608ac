"""A checkpoint of GRPO: weights, reference, optimiser and generator in one safetensors file, read without torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError
from testbed.policies.factored_policy import FactoredPolicy, FactoredSpace

FORMAT = "joulebed-grpo"
FORMAT_VERSION = 2

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GrpoConfig:
    """How a policy is learned.

    Attributes:
        seed: of weights and everything drawn.
        group_size: actions that are compared with each other.
        n_epochs: gradient steps on each group.
        learning_rate: of Adam.
        clip_range: of the probability ratio.
        kl_weight: of the KL to the reference.
        entropy_weight: of the bonus for undecided heads.
        entropy_decay: the bonus is multiplied with it after each update.
        reference_every: updates between two references; 0: the first weights stay the reference.
        max_gradient: norm to which gradients are cut.
        hidden: widths of the layers.

    Raises:
        InvalidOptionError: a group of less than two, or a figure out of range.
    """

    seed: int = 0
    group_size: int = 16
    n_epochs: int = 4
    learning_rate: float = 0.003
    clip_range: float = 0.2
    kl_weight: float = 0.01
    entropy_weight: float = 0.003
    entropy_decay: float = 1.0
    reference_every: int = 50
    max_gradient: float = 1.0
    hidden: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        if self.group_size < 2 or self.n_epochs < 1 or self.reference_every < 0 or not all(w > 0 for w in self.hidden):
            raise InvalidOptionError(
                f"GRPO needs groups of 2 or more, 1 epoch or more, layers of 1 or more; got {self}."
            )
        if not (self.learning_rate > 0 and self.clip_range > 0 and self.max_gradient > 0):
            raise InvalidOptionError(f"GRPO: learning rate, clip range and gradient norm must be above 0; got {self}.")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A file of `GrpoLearner.save`, read; nothing in it is run.

    Attributes:
        space: of the actions.
        n_features: of a state.
        config: that it was learned with.
        n_updates: so far.
        n_adam_steps: so far.
        tensors: weights, reference, moments.
        rng: state of the generator.
        metrics: as they were given.
    """

    space: FactoredSpace
    n_features: int
    config: GrpoConfig
    n_updates: int
    n_adam_steps: int
    tensors: Mapping[str, Floats]
    rng: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def policy(self) -> FactoredPolicy:
        """To choose with, without torch."""
        n_weights = sum(name.startswith("weight.") for name in self.tensors)
        return FactoredPolicy(self.space, layers_of([self.tensors[f"weight.{number}"] for number in range(n_weights)]))

    @classmethod
    def load(cls, path: Path, space: FactoredSpace) -> "Checkpoint":
        """Read a checkpoint.

        Args:
            path: of the file.
            space: of the actions that shall be chosen.

        Raises:
            InvalidOptionError: it cannot be read, is no such file, has a weight that is not a number, or is of another
                action space.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                stored = json.loads((file.metadata() or {})["joulebed"])
                if (stored["format"], stored["version"]) != (FORMAT, FORMAT_VERSION):
                    raise InvalidOptionError(
                        f"GRPO: {path.name} is a {stored['format']} of version {stored['version']}; needed is "
                        f"a {FORMAT} of version {FORMAT_VERSION}. Train it again."
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            found = FactoredSpace(tuple(stored["names"]), tuple(tuple(each) for each in stored["values"]))
            known = {each.name for each in fields(GrpoConfig)}
            settings = {name: value for name, value in stored["config"].items() if name in known}
            config = GrpoConfig(**{**settings, "hidden": tuple(settings["hidden"])})
            checkpoint = cls(
                found,
                int(stored["n_features"]),
                config,
                int(stored["n_updates"]),
                int(stored["n_adam_steps"]),
                tensors,
                stored["rng"],
                stored["metrics"],
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InvalidOptionError(
                f"GRPO: {path} cannot be read ({error!r}). Give a checkpoint that GRPO wrote."
            ) from error
        if found != space:
            raise InvalidOptionError(
                f"GRPO: {path.name} chooses {_describe(found)}; wanted is {_describe(space)}. It is a checkpoint of "
                "another action space: train one for this."
            )
        if not all(np.isfinite(each).all() for each in tensors.values()):
            raise InvalidOptionError(f"GRPO: a weight of {path.name} is not a number. Take an earlier checkpoint.")
        return checkpoint


def layers_of(weights: list[Floats]) -> tuple[tuple[Floats, Floats], ...]:
    """Weights and biases side by side as layers.

    Args:
        weights: of each layer its weights, then its biases.
    """
    return tuple((weights[i], weights[i + 1]) for i in range(0, len(weights), 2))


def _describe(space: FactoredSpace) -> str:
    parts = zip(space.names, space.values, strict=True)
    return " x ".join(f"{name} {each[0]}..{each[-1]} ({len(each)})" for name, each in parts)
