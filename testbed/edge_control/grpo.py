"""Group Relative Policy Optimization for actions with several heads.

Source: Shao et al., DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models, 2024,
section 4. A group of actions is drawn for each state; the advantage of each is its reward less the group's mean, over
the group's standard deviation; there is no value function. The loss has the clipped ratio of PPO and a KL to a
reference policy.

Differences from the paper: an action is one step, so there is one ratio per action, the product over its heads; the KL
is exact and not estimated, as the heads are small; there is an entropy bonus; the reference is renewed every
`reference_every` updates (the paper's iterative variant) or never.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError
from testbed.edge_control.grpo_checkpoint import FORMAT, FORMAT_VERSION, Checkpoint, GrpoConfig, layers_of
from testbed.edge_control.reward import EdgeRewardError
from testbed.policies.factored_policy import FactoredPolicy, FactoredSpace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TINY = 1e-8


@dataclass(frozen=True)
class GrpoUpdate:
    """What an update did.

    Attributes:
        number: 1 for the first.
        reward_mean: of all actions.
        entropy: nats, sum over the heads, before it.
        kl: to the reference, after the last epoch but one.
        clip_share: of actions whose ratio was cut in the last epoch.
        duration_s: of the update alone.
    """

    number: int
    reward_mean: float
    entropy: float
    kl: float
    clip_share: float
    duration_s: float


def advantages(rewards: Floats) -> Floats:
    """Relative to the group: less its mean, over its standard deviation; 0 where all are alike.

    Args:
        rewards: (..., group).

    Raises:
        EdgeRewardError: a reward is not a number.
    """
    if not np.isfinite(rewards).all():
        raise EdgeRewardError(
            f"{int((~np.isfinite(rewards)).sum())} of {rewards.size} rewards of a group are not numbers; nothing was "
            "learned. Leave these actions out, or measure them again."
        )
    centred = rewards - rewards.mean(axis=-1, keepdims=True)
    spread = rewards.std(axis=-1, keepdims=True)
    return np.asarray(np.where(spread > _TINY, centred / (spread + _TINY), 0.0))


class GrpoLearner:
    """A policy, its reference and the optimiser.

    Args:
        space: of the actions.
        n_features: of a state.
        config: see there.
        clock: for the time that updates take, seconds.
    """

    def __init__(
        self,
        space: FactoredSpace,
        n_features: int,
        config: GrpoConfig | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        import torch

        self.space, self.n_features, self.config = space, n_features, config or GrpoConfig()
        self.rng = np.random.default_rng(self.config.seed)
        self.n_updates = 0
        self._clock = clock
        widths = (n_features, *self.config.hidden, sum(space.sizes))
        weights = []
        for number, (n_in, n_out) in enumerate(pairwise(widths)):
            # Nearly even odds at the start: the last layer is small.
            scale = 0.01 if number == len(widths) - 2 else 1.0
            weights += [scale * self.rng.standard_normal((n_out, n_in)) / math.sqrt(n_in), np.zeros(n_out)]
        self._weights = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in weights]
        self._adam = torch.optim.Adam(self._weights, lr=self.config.learning_rate)
        self._policy = self._snapshot()
        self._reference = self._policy

    @property
    def policy(self) -> FactoredPolicy:
        """As it is now; a copy."""
        return self._policy

    def propose(self, features: Floats) -> Ints:
        """(group_size, heads): a group of actions for one state.

        Args:
            features: (n_features,).
        """
        return self._policy.sample(features, self.config.group_size, self.rng)

    def update(
        self,
        features: Floats,
        choices: Ints,
        rewards: Floats,
        *,
        rate: float = 1.0,
        entropy_weight: float | None = None,
    ) -> GrpoUpdate:
        """Learn from groups that the policy, as it is, has drawn.

        Args:
            features: (states, n_features).
            choices: (states, group, heads).
            rewards: (states, group).
            rate: the learning rate is multiplied with it, this once.
            entropy_weight: this once; None: as configured.

        Raises:
            EdgeRewardError: a reward is not a number; the policy is as before.
        """
        import torch

        began = self._clock()
        gains = torch.tensor(advantages(np.asarray(rewards, dtype=float)))
        states, taken = torch.tensor(np.asarray(features, dtype=float)), torch.tensor(choices)
        planned = self.config.entropy_weight * self.config.entropy_decay**self.n_updates
        bonus = planned if entropy_weight is None else entropy_weight
        with torch.no_grad():
            old = _log_probability(self._heads(states), taken)
            reference = [torch.tensor(np.log(each)) for each in self._reference.probabilities(states.numpy())]
        for group in self._adam.param_groups:
            group["lr"] = rate * self.config.learning_rate
        first_entropy = kl_value = clip_share = 0.0
        for epoch in range(self.config.n_epochs):
            heads = self._heads(states)
            ratio = (_log_probability(heads, taken) - old).exp()
            low, high = 1 - self.config.clip_range, 1 + self.config.clip_range
            gain = torch.minimum(ratio * gains, ratio.clamp(low, high) * gains).mean()
            entropy = -sum((each.exp() * each).sum(-1) for each in heads).mean()
            pairs = zip(heads, reference, strict=True)
            kl = sum((each.exp() * (each - other)).sum(-1) for each, other in pairs).mean()
            loss = -gain + self.config.kl_weight * kl - bonus * entropy
            self._adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._weights, self.config.max_gradient)
            self._adam.step()
            kl_value = float(kl.detach())
            clip_share = float(((ratio < low) | (ratio > high)).double().mean())
            if epoch == 0:
                first_entropy = float(entropy.detach())
        self.n_updates += 1
        self._policy = self._snapshot()
        if self.config.reference_every and self.n_updates % self.config.reference_every == 0:
            self._reference = self._policy
        return GrpoUpdate(
            self.n_updates, float(np.mean(rewards)), first_entropy, kl_value, clip_share, self._clock() - began
        )

    def save(self, path: Path, metrics: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint: weights, reference, optimiser, and the state of what is drawn.

        Args:
            path: a `.safetensors` file.
            metrics: for the header; JSON.
        """
        from safetensors.numpy import save_file

        tensors = {}
        reference = [each for layer in self._reference.layers for each in layer]
        for number, weight in enumerate(self._weights):
            tensors[f"weight.{number}"] = weight.detach().numpy().copy()
            tensors[f"reference.{number}"] = np.ascontiguousarray(reference[number])
            state = self._adam.state.get(weight, {})
            for name in ("exp_avg", "exp_avg_sq"):
                if name in state:
                    tensors[f"{name}.{number}"] = state[name].numpy().copy()
        stored = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "names": list(self.space.names),
            "values": [list(each) for each in self.space.values],
            "n_features": self.n_features,
            "config": asdict(self.config),
            "n_updates": self.n_updates,
            "n_adam_steps": _adam_steps(self._adam, self._weights),
            "rng": self.rng.bit_generator.state,
            "metrics": dict(metrics or {}),
        }
        save_file(tensors, path, metadata={"joulebed": json.dumps(stored, sort_keys=True)})

    @classmethod
    def resume(cls, path: Path, space: FactoredSpace, clock: Callable[[], float] = time.perf_counter) -> "GrpoLearner":
        """Go on from a checkpoint as if it had never ended; the state of the environment is the caller's.

        Args:
            path: written by `save`.
            space: of the actions that shall be chosen.
            clock: for the time that updates take.

        Raises:
            InvalidOptionError: it cannot be read, is no such file, or is of another action space.
        """
        import torch

        checkpoint = Checkpoint.load(path, space)
        learner = cls(space, checkpoint.n_features, checkpoint.config, clock)
        try:
            with torch.no_grad():
                for number, weight in enumerate(learner._weights):
                    weight.copy_(torch.tensor(checkpoint.tensors[f"weight.{number}"]))
                    if checkpoint.n_adam_steps:
                        moments = {
                            name: torch.tensor(checkpoint.tensors[f"{name}.{number}"])
                            for name in ("exp_avg", "exp_avg_sq")
                        }
                        steps = torch.tensor(float(checkpoint.n_adam_steps))
                        learner._adam.state[weight] = {"step": steps, **moments}
            reference = [checkpoint.tensors[f"reference.{number}"] for number in range(len(learner._weights))]
            learner.rng.bit_generator.state = checkpoint.rng
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InvalidOptionError(f"GRPO: {path} lacks a part ({error!r}). Train it again.") from error
        learner.n_updates = checkpoint.n_updates
        learner._policy = learner._snapshot()
        learner._reference = FactoredPolicy(space, layers_of(reference))
        return learner

    def _heads(self, states: Any) -> list[Any]:
        """Log-probabilities of each head, (states, size)."""
        import torch

        values = states
        for number in range(0, len(self._weights) - 2, 2):
            values = torch.tanh(values @ self._weights[number].T + self._weights[number + 1])
        logits = values @ self._weights[-2].T + self._weights[-1]
        return [torch.log_softmax(part, dim=-1) for part in torch.split(logits, list(self.space.sizes), dim=-1)]

    def _snapshot(self) -> FactoredPolicy:
        return FactoredPolicy(self.space, layers_of([each.detach().numpy().copy() for each in self._weights]))


def _log_probability(heads: list[Any], taken: Any) -> Any:
    """(states, group): of whole actions."""
    return sum(each.gather(-1, taken[..., head]) for head, each in enumerate(heads))


def _adam_steps(adam: Any, weights: list[Any]) -> int:
    state = adam.state.get(weights[0])
    return int(state["step"]) if state else 0
