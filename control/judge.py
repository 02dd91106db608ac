"""Judges a policy while it learns, on arrivals kept for that, and keeps the best.

What it must have on those arrivals is more than the wanted share, by two standard errors of what ten other runs may
differ by, from the spread between its own episodes: a share that is just kept here is missed on every second set of
runs.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from control.imitation import choose
from control.outcome import ServingOutcome
from control.rollout import energy_and_share, episodes
from control.serving_case import ServingCase
from control.vector_env import VectorEnv
from testbed.policies.actions import ActionSet
from testbed.policies.features import FeatureSpec
from testbed.policies.learned_policy import Layer, PolicyNetwork

VALIDATION_SEED = 1_000_000_000
"""First seed of the arrivals that choose among what was learned; never used for training or evaluation."""

_RUNS_TO_KEEP = 10


@dataclass(frozen=True)
class Checkpoint:
    """How well the policy did on the validation seeds at one point of its training.

    Attributes:
        stage: `imitation` or `ppo`.
        n_steps: decisions that PPO had seen.
        energy_per_request_j: J.
        slo_share: 0 to 1.
        miss_price: then.
        margin: of the share that it must have above the wanted one, to have that on other runs too.
        wanted_share: 0 to 1.
    """

    stage: str
    n_steps: int
    energy_per_request_j: float
    slo_share: float
    miss_price: float
    margin: float
    wanted_share: float

    @property
    def lack(self) -> float:
        """Of the share; 0 or below: it has it, with the margin."""
        return self.wanted_share + self.margin - self.slo_share

    @property
    def order(self) -> tuple[float, float]:
        """The least is best: energy, of those that meet the share; else what is lacking."""
        return (max(self.lack, 0.0), self.energy_per_request_j)


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        network: the best checkpoint's.
        best: that checkpoint.
        curve: all checkpoints, in order.
        agreement: with the teacher, at the end of the imitation; None: there was none.
    """

    network: PolicyNetwork
    best: Checkpoint
    curve: tuple[Checkpoint, ...]
    agreement: float | None


class Judge:
    """Keeps the best policy so far: least energy among those that meet the share; else the largest share.

    Args:
        case: that is learned.
        wanted_share: of requests within the SLO, 0 to 1.
        margin: to have above it on the validation episodes; None: see above. Never more than half of what the wanted
            share leaves to all requests.
        env: of as many copies as there are validation episodes.
        actor: torch module that is trained.
        about: how it is learned, for the policies' files.
        on_checkpoint: told of each checkpoint with its policy.
    """

    def __init__(
        self,
        case: ServingCase,
        wanted_share: float,
        margin: float | None,
        env: VectorEnv,
        actor: Any,
        about: Mapping[str, Any],
        on_checkpoint: Callable[[Checkpoint, PolicyNetwork], None],
    ) -> None:
        self._case, self._wanted, self._margin = case, wanted_share, margin
        self._env, self._actor, self._about = env, actor, about
        self._tell = on_checkpoint
        self._seeds = [VALIDATION_SEED + i for i in range(env.n_copies)]
        self.curve: list[Checkpoint] = []
        self._best: tuple[int, PolicyNetwork] | None = None

    def look(self, stage: str, n_steps: int, price: float) -> None:
        """Judge the policy as it is now."""
        found = episodes(self._env, lambda seen, allowed: choose(self._actor, seen, allowed), self._seeds)
        energy_j, share = energy_and_share(found)
        margin = self._margin_of(found)
        checkpoint = Checkpoint(stage, n_steps, energy_j, share, price, margin, self._wanted)
        network = self._network(layers_of(self._actor), checkpoint)
        self.curve.append(checkpoint)
        if self._best is None or checkpoint.order < self.curve[self._best[0]].order:
            self._best = len(self.curve) - 1, network
        self._tell(checkpoint, network)

    def verdict(self, agreement: float | None, price: float) -> Learned:
        """The best; that of a look now where there was none yet, at this price of a miss."""
        if self._best is None:
            self.look("ppo", 0, price)
        assert self._best is not None  # there was a look
        return Learned(self._best[1], self.curve[self._best[0]], tuple(self.curve), agreement)

    @property
    def best(self) -> tuple[int, tuple[Layer, ...]] | None:
        """Index in the curve and layers of the best so far."""
        return None if self._best is None else (self._best[0], self._best[1].layers)

    def resume(self, curve: Sequence[Checkpoint], best: tuple[int, tuple[Layer, ...]] | None) -> None:
        """Go on from what another judge of the same training had seen."""
        self.curve = list(curve)
        self._best = None if best is None else (best[0], self._network(best[1], self.curve[best[0]]))

    @property
    def aim(self) -> float | None:
        """The share that the last policy had to have; None: there was none yet."""
        return self._wanted + self.curve[-1].margin if self.curve else None

    def _margin_of(self, found: Sequence[ServingOutcome]) -> float:
        margin = self._margin
        if margin is None:
            shares = [each.slo_share for each in found if each.slo_share is not None]
            run_sd = statistics.stdev(shares) if len(shares) > 1 else 0.0
            hours = 3600.0 / min(self._case.duration_s, 3600.0)
            margin = 2 * run_sd * math.sqrt(hours / _RUNS_TO_KEEP + 1 / len(found))
        return min(margin, (1 - self._wanted) / 2)

    def _network(self, layers: tuple[Layer, ...], checkpoint: Checkpoint) -> PolicyNetwork:
        case, actions = self._case, self._env.actions
        about = {**self._about, "wanted_share": self._wanted, "validation": asdict(checkpoint)}
        return network_of(layers, case, actions, {**about, "case": case.settings()})


def layers_of(actor: Any) -> tuple[Layer, ...]:
    """Copies of the weights of a torch actor: linear layers with tanh between them."""
    return tuple(
        (module.weight.detach().numpy().copy(), module.bias.detach().numpy().copy())
        for module in actor.modules()
        if hasattr(module, "weight")
    )


def network_of(
    layers: tuple[Layer, ...], case: ServingCase, actions: ActionSet, about: Mapping[str, Any]
) -> PolicyNetwork:
    """Layers as the testbed runs them.

    Args:
        layers: first to last.
        case: that they were trained on.
        actions: what they score.
        about: for the file.
    """
    spec = FeatureSpec.of(case.table, case.slo_s, case.queue_limit, case.max_batch)
    return PolicyNetwork(layers, actions, spec, case.table.sha256, about)
