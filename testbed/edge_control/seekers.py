"""Choosers that seek one setting with a number of evaluations: at random, Bayesian, and GRPO."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from contract.errors import MissingPackageError
from testbed.edge_control.choosers import Sensed
from testbed.edge_control.grpo import GrpoLearner, GrpoUpdate
from testbed.edge_control.grpo_checkpoint import GrpoConfig
from testbed.edge_control.reward import EdgeRewardError
from testbed.edge_control.task import N_FEATURES, EdgeTask
from testbed.policies.factored_policy import FactoredSpace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NOMINAL_C = 65.0
"""The state in which settings are sought: about what the fan-on grid was measured at."""

STATIC_GRPO = GrpoConfig(group_size=10, learning_rate=0.015, entropy_weight=0.05)
"""For a few hundred evaluations of one state."""


class _Seeker:
    """Remembers the best that was seen, and serves with what it recommends."""

    def __init__(self, space: FactoredSpace, seed: int) -> None:
        self._space, self._seed = space, seed
        self._best: tuple[float, Ints] | None = None

    def learn(self, choices: Ints, rewards: Floats) -> None:
        """See `Chooser`."""
        if not np.isfinite(rewards).all():
            raise EdgeRewardError("A reward is not a number; nothing was learned. Measure these settings again.")
        best = int(rewards.argmax())
        if self._best is None or float(rewards[best]) > self._best[0]:
            self._best = float(rewards[best]), np.asarray(choices[best])

    def recommended(self) -> Ints | None:
        """See `Chooser`."""
        return None if self._best is None else self._best[1]

    def choose(self, sensed: Sensed) -> Ints:
        """See `Chooser`: what was found, or the middle of the space where nothing was sought."""
        found = self.recommended()
        return np.array(self._space.sizes, dtype=np.int64) // 2 if found is None else found

    def settings(self) -> Mapping[str, JsonValue]:
        """See `Chooser`."""
        return {"seed": self._seed}


class RandomSeeker(_Seeker):
    """Different settings at random; the best that was seen.

    Args:
        space: of settings.
        seed: of what is drawn.
        group_size: proposed at a time.
    """

    name = "random"

    def __init__(self, space: FactoredSpace, seed: int, group_size: int = 10) -> None:
        super().__init__(space, seed)
        self._choices = np.random.default_rng(seed).permutation(space.all_choices())
        self._n_proposed, self._group_size = 0, group_size

    def propose(self, n_most: int) -> Ints:
        """See `Chooser`."""
        first = self._n_proposed
        self._n_proposed += min(n_most, self._group_size)
        return np.asarray(self._choices[first : self._n_proposed])


class TpeSeeker(_Seeker):
    """Optuna's tree-structured Parzen estimator, as it comes, with every head ordered; the best that was seen.

    Args:
        space: of settings.
        seed: of the sampler.

    Raises:
        MissingPackageError: Optuna is not installed.
    """

    name = "tpe"

    def __init__(self, space: FactoredSpace, seed: int) -> None:
        super().__init__(space, seed)
        try:
            import optuna  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise MissingPackageError("The Bayesian optimiser needs Optuna: pip install optuna.") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        self._trial: optuna.trial.Trial | None = None

    def propose(self, n_most: int) -> Ints:
        """See `Chooser`: one at a time, as each depends on all before it."""
        if n_most < 1:
            return np.empty((0, len(self._space.names)), dtype=np.int64)
        self._trial = trial = self._study.ask()
        heads = zip(self._space.names, self._space.sizes, strict=True)
        return np.array([[trial.suggest_int(name, 0, size - 1) for name, size in heads]], dtype=np.int64)

    def learn(self, choices: Ints, rewards: Floats) -> None:
        """See `Chooser`."""
        super().learn(choices, rewards)
        assert self._trial is not None  # it was proposed
        self._study.tell(self._trial, float(rewards[0]))


class GrpoSeeker(_Seeker):
    """GRPO in one state; in the end its likeliest setting, whether it was measured or not.

    Args:
        task: the problem.
        seed: of a new learner.
        learner: goes on from there instead.
        takes_best_seen: recommend the best that was seen, as the others do.
    """

    name = "grpo"

    def __init__(
        self, task: EdgeTask, seed: int, learner: GrpoLearner | None = None, takes_best_seen: bool = False
    ) -> None:
        super().__init__(task.space, seed)
        self.learner = learner or GrpoLearner(task.space, N_FEATURES, replace(STATIC_GRPO, seed=seed))
        self.updates: list[GrpoUpdate] = []
        self._features = task.features(NOMINAL_C, True)
        self._takes_best_seen = takes_best_seen

    def propose(self, n_most: int) -> Ints:
        """See `Chooser`: a whole group, or none."""
        if n_most < self.learner.config.group_size:
            return np.empty((0, len(self._space.names)), dtype=np.int64)
        return self.learner.propose(self._features)

    def learn(self, choices: Ints, rewards: Floats) -> None:
        """See `Chooser`."""
        super().learn(choices, rewards)
        self.updates.append(self.learner.update(self._features[None], choices[None], rewards[None]))

    def recommended(self) -> Ints | None:
        """See `Chooser`."""
        return super().recommended() if self._takes_best_seen else self.learner.policy.best(self._features)

    def settings(self) -> Mapping[str, JsonValue]:
        """See `Chooser`."""
        config = self.learner.config
        return {
            "seed": config.seed,
            "group_size": config.group_size,
            "learning_rate": config.learning_rate,
            "entropy_weight": config.entropy_weight,
            "n_updates": self.learner.n_updates,
        }
