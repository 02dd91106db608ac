"""A policy that was learned: a small network from a safetensors file, run in NumPy."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError
from testbed.policies.actions import ActionSet
from testbed.policies.base import Decision, Observation, Setting, Wait
from testbed.policies.features import N_FEATURES, FeatureSpec, features
from testbed.simulation.service_table import ServiceTable

FORMAT = "joulebed-learned-policy"
FORMAT_VERSION = 1

Layer = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Weights (out, in) and biases (out,)."""


@dataclass(frozen=True, eq=False)
class PolicyNetwork:
    """Layers with tanh between them: features in, a score per action out.

    Attributes:
        layers: first to last.
        actions: what the scores are of.
        features: what the input is taken relative to.
        table_sha256: of the service table that it was trained on.
        about: how it was learned; JSON.

    Raises:
        InvalidOptionError: the layers do not fit each other, the features or the actions.
    """

    layers: tuple[Layer, ...]
    actions: ActionSet
    features: FeatureSpec
    table_sha256: str
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        width = N_FEATURES
        for weight, bias in self.layers:
            if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
                raise InvalidOptionError(
                    f"learned policy: a layer of shape {weight.shape} with {bias.shape} biases cannot follow {width} "
                    "values. The file is damaged, or of another network: train it again."
                )
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise InvalidOptionError("learned policy: a weight is not a finite number. Train it again.")
            width = weight.shape[0]
        if width != len(self.actions):
            raise InvalidOptionError(
                f"learned policy: the network scores {width} actions, and its actions are {len(self.actions)}. It was "
                "trained for others: train it again."
            )

    def scores(self, vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A score per action.

        Args:
            vector: (..., N_FEATURES).

        Returns:
            (..., number of actions).
        """
        for weight, bias in self.layers[:-1]:
            vector = np.tanh(vector @ weight.T + bias)
        weight, bias = self.layers[-1]
        return vector @ weight.T + bias

    def save(self, path: Path) -> None:
        """Write the file: weights, and everything else as JSON in its header."""
        from safetensors.numpy import save_file

        tensors = {}
        for number, (weight, bias) in enumerate(self.layers):
            tensors[f"layer.{number}.weight"] = np.ascontiguousarray(weight, np.float32)
            tensors[f"layer.{number}.bias"] = np.ascontiguousarray(bias, np.float32)
        stored = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "n_layers": len(self.layers),
            "clocks_mhz": list(self.actions.clocks_mhz),
            "batches": list(self.actions.batches),
            "wait_s": self.actions.wait_s,
            "features": self.features.to_json(),
            "table_sha256": self.table_sha256,
            "about": dict(self.about),
        }
        save_file(tensors, path, metadata={"joulebed": json.dumps(stored, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "PolicyNetwork":
        """Read the file; nothing in it is run.

        Raises:
            InvalidOptionError: it cannot be read, or is no such file.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                stored = json.loads((file.metadata() or {})["joulebed"])
                if (stored["format"], stored["version"]) != (FORMAT, FORMAT_VERSION):
                    raise InvalidOptionError(
                        f"learned policy: {path.name} is a {stored['format']} of version {stored['version']}; needed "
                        f"is a {FORMAT} of version {FORMAT_VERSION}. Train it again with `python -m control train`."
                    )
                layers = tuple(
                    (file.get_tensor(f"layer.{number}.weight"), file.get_tensor(f"layer.{number}.bias"))
                    for number in range(int(stored["n_layers"]))
                )
                actions = ActionSet(tuple(stored["clocks_mhz"]), tuple(stored["batches"]), stored["wait_s"])
                spec = FeatureSpec.from_json(stored["features"])
                return cls(layers, actions, spec, str(stored["table_sha256"]), stored["about"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InvalidOptionError(
                f"learned policy: {path} cannot be read ({error!r}). Give a file that `python -m control train` wrote."
            ) from error


class LearnedPolicy:
    """The network's best-scored action that is worth a thought.

    Args:
        network: from its file.
        table: of the device that it is to steer. Another one than it was trained on is allowed where the clocks are
            the same: a cross-model run; the record says so.

    Raises:
        InvalidOptionError: the table lacks a clock or a batch of the policy.
    """

    name = "learned"

    def __init__(self, network: PolicyNetwork, table: ServiceTable) -> None:
        have = {float(clock) for clock in table.clock_mhz}
        lacking = [clock for clock in network.actions.clocks_mhz if clock not in have]
        if lacking:
            raise InvalidOptionError(
                f"learned policy: it sets {lacking[0]:g} MHz, which the service table does not have. Use a policy that "
                "was trained on a table with the same clocks."
            )
        self.network = network
        self._is_own_table = table.sha256 == network.table_sha256
        self._masks = network.actions.masks(network.features.queue_limit)

    def decide(self, observation: Observation) -> Decision | Wait:
        """See `Policy`."""
        scores = self.network.scores(features(observation, self.network.features))
        allowed = self._masks[min(observation.n_queued, len(self._masks) - 1)]
        return self.network.actions.choice(int(np.where(allowed, scores, -np.inf).argmax()))

    def reset(self) -> None:
        """See `Policy`; nothing is remembered."""

    def settings(self) -> Mapping[str, Setting]:
        """See `Policy`."""
        about = self.network.about
        return {
            "trained_on_this_table": self._is_own_table,
            "table_sha256": self.network.table_sha256,
            "slo_s": self.network.features.slo_s,
            "learner": about.get("learner"),
            "seed": about.get("seed"),
        }
