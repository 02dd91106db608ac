"""GRPO as a way to seek one setting with a few hundred evaluations."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from testbed.edge_control.grpo import GrpoLearner, GrpoUpdate
from testbed.edge_control.grpo_checkpoint import GrpoConfig
from testbed.edge_control.seekers import CONFIRMED, Seeker
from testbed.edge_control.task import N_FEATURES, EdgeTask

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NOMINAL_C = 65.0
"""The state in which settings are sought: about what the fan-on grid was measured at."""

STATIC_GRPO = GrpoConfig(group_size=10, learning_rate=0.012, entropy_weight=0.05)
"""For a few hundred evaluations of one state."""

_N_DRAWS = 16
"""Groups that are drawn at most, to find one of settings that were not measured."""


@dataclass(frozen=True)
class EntropyPlan:
    """How undecided the policy shall be, from first to last: as a share of the entropy of even odds.

    A bonus of one size for the whole search either lets a head decide on the noise of its first groups or never lets
    it decide; so the bonus is steered to an entropy that falls evenly.

    Attributes:
        first: share at the start.
        last: share at the end; above 0, so that neighbours of what is likeliest are still measured.
        gain: per nat, how fast the bonus is changed.
        least: bonus.
        most: bonus.
    """

    first: float = 0.92
    last: float = 0.40
    gain: float = 0.5
    least: float = 0.005
    most: float = 2.0

    def bonus(self, now: float, entropy: float, even: float, done: float) -> float:
        """The bonus for the next update.

        Args:
            now: of the update before.
            entropy: of the policy, nats, sum over the heads.
            even: of even odds, nats.
            done: share of the search, 0 to 1.
        """
        goal = even * (self.first + (self.last - self.first) * done)
        return float(np.clip(now * np.exp(self.gain * (goal - entropy)), self.least, self.most))


class GrpoSeeker(Seeker):
    """GRPO in one state: groups of settings that were not measured yet, then the best of them once more.

    Settings are drawn until a group's worth of new ones is there. Those that come up again cost no evaluation: they
    are in the group with the mean of what was measured of them, so that the group is what the policy has drawn.

    Args:
        task: the problem.
        seed: of a new learner.
        learner: goes on from there instead.
        takes_best_seen: recommend the best that was seen, as the others do, and learn with all evaluations.
        confirm_share: of the evaluations, for measuring the best again; not with `takes_best_seen`.
        plan: of the entropy.
        is_fan_on: the state that is told to the policy.
    """

    name = "grpo"

    def __init__(
        self,
        task: EdgeTask,
        seed: int,
        learner: GrpoLearner | None = None,
        takes_best_seen: bool = False,
        confirm_share: float = CONFIRMED,
        plan: EntropyPlan | None = None,
        is_fan_on: bool = True,
    ) -> None:
        super().__init__(task.space, seed, 0.0 if takes_best_seen else confirm_share)
        self.learner = learner or GrpoLearner(task.space, N_FEATURES, replace(STATIC_GRPO, seed=seed))
        self.updates: list[GrpoUpdate] = []
        self._plan = plan or EntropyPlan()
        self._features = task.features(NOMINAL_C, is_fan_on)
        self._even = float(np.log(task.space.sizes).sum())
        self._bonus = self.learner.config.entropy_weight
        self._group = np.empty((0, len(task.space.names)), dtype=np.int64)
        self._n_explored = self._n_to_explore = 0

    def _explore(self, n_most: int) -> Ints:
        """A whole group, or none; fewer where the policy has little else in mind than what was measured."""
        size = self.learner.config.group_size
        self._n_to_explore = self._n_to_explore or n_most
        if n_most < size:
            return np.empty((0, len(self._space.names)), dtype=np.int64)
        groups = self.learner.policy.sample_groups(self._features, _N_DRAWS, size, self.learner.rng)
        drawn = groups.reshape(-1, len(self._space.names))
        new: dict[tuple[int, ...], None] = {}
        for number, choice in enumerate(drawn.tolist()):
            if tuple(choice) not in self._tally.rewards:
                new[tuple(choice)] = None
            if len(new) == size:
                drawn = drawn[: number + 1]
                break
        self._group = drawn
        return np.array(list(new), dtype=np.int64).reshape(-1, len(self._space.names))

    def _explored(self, choices: Ints, rewards: Floats) -> None:
        entropy = -sum(float((each * np.log(each + 1e-300)).sum()) for each in self._shares())
        self._n_explored += len(choices)
        done = min(self._n_explored / self._n_to_explore, 1.0)
        self._bonus = self._plan.bonus(self._bonus, entropy, self._even, done)
        known = self._tally.means(self._group)
        self.updates.append(
            self.learner.update(self._features[None], self._group[None], known[None], entropy_weight=self._bonus)
        )

    def _shares(self) -> list[Floats]:
        return self.learner.policy.probabilities(self._features)

    def settings(self) -> Mapping[str, JsonValue]:
        """See `Chooser`."""
        config = self.learner.config
        return {
            **super().settings(),
            "seed": config.seed,
            "group_size": config.group_size,
            "learning_rate": config.learning_rate,
            "entropy_first": self._plan.first,
            "entropy_last": self._plan.last,
            "n_updates": self.learner.n_updates,
        }
