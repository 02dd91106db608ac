"""Choosers that seek one setting with a number of evaluations: what they share, at random, and Bayesian."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from contract.errors import InvalidOptionError, MissingPackageError
from testbed.edge_control.choosers import Sensed
from testbed.edge_control.contenders import Confirmation, Tally
from testbed.edge_control.reward import EdgeRewardError
from testbed.policies.factored_policy import FactoredSpace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONFIRMED = 0.2
"""Share of a search's evaluations to measure its best settings again with."""

LEAST_CONFIRMED = 10
"""With fewer than these to measure the best again, a search explores with all it has."""


class Seeker:
    """Remembers what was measured, may measure the best again, and serves with what it recommends.

    Args:
        space: of settings.
        seed: of what is drawn.
        confirm_share: of the evaluations, for measuring the best settings again; 0: the best that was seen is
            recommended, however lucky its measurement was.

    Raises:
        InvalidOptionError: a share that is not 0 or more and below 1.
    """

    def __init__(self, space: FactoredSpace, seed: int, confirm_share: float = 0.0) -> None:
        if not 0 <= confirm_share < 1:
            raise InvalidOptionError(f"search: {confirm_share} of the evaluations to confirm; give 0 or more, below 1.")
        self._space, self._seed, self._confirm_share = space, seed, confirm_share
        self._tally = Tally()
        self._n_all: int | None = None
        self._confirmation: Confirmation | None = None
        self._recommended: Ints | None = None

    def propose(self, n_most: int) -> Ints:
        """See `Chooser`; its first call is told the whole of the budget."""
        if self._n_all is None:
            self._n_all = n_most
        none = np.empty((0, len(self._space.names)), dtype=np.int64)
        if self._confirmation is None:
            n_confirm = round(self._confirm_share * self._n_all)
            if n_confirm < LEAST_CONFIRMED:
                n_confirm = 0
            n_left = n_most - n_confirm
            choices = self._explore(n_left) if n_left > 0 else none
            if len(choices) or not n_confirm:
                return choices
            self._confirmation = Confirmation(self._tally, self._seed)
        return self._confirmation.propose(n_most).reshape(-1, len(self._space.names))

    def _explore(self, n_most: int) -> Ints:
        """(n, heads): what to measure next; none: it has explored enough."""
        raise NotImplementedError

    def _explored(self, choices: Ints, rewards: Floats) -> None:
        """Learn from what `_explore` said last."""

    def learn(self, choices: Ints, rewards: Floats) -> None:
        """See `Chooser`."""
        if not np.isfinite(rewards).all():
            raise EdgeRewardError("A reward is not a number; nothing was learned. Measure these settings again.")
        self._recommended = None
        self._tally.add(np.asarray(choices), np.asarray(rewards, dtype=float))
        if self._confirmation is None:
            self._explored(choices, rewards)

    def recommended(self) -> Ints | None:
        """See `Chooser`."""
        # Asked before each batch, and the same until something is learned.
        if self._recommended is None:
            if self._confirmation is not None:
                self._recommended = self._confirmation.best()
            elif best := self._tally.best(1):
                self._recommended = np.array(best[0], dtype=np.int64)
        return self._recommended

    def choose(self, sensed: Sensed) -> Ints:
        """See `Chooser`: what was found, or the middle of the space where nothing was sought."""
        found = self.recommended()
        return np.array(self._space.sizes, dtype=np.int64) // 2 if found is None else found

    def settings(self) -> Mapping[str, JsonValue]:
        """See `Chooser`."""
        return {"seed": self._seed, "confirm_share": self._confirm_share}


class RandomSeeker(Seeker):
    """Different settings at random; the best that was seen.

    Args:
        space: of settings.
        seed: of what is drawn.
        group_size: proposed at a time.
        confirm_share: see `Seeker`.
    """

    name = "random"

    def __init__(self, space: FactoredSpace, seed: int, group_size: int = 10, confirm_share: float = 0.0) -> None:
        super().__init__(space, seed, confirm_share)
        self._choices = np.random.default_rng(seed).permutation(space.all_choices())
        self._n_proposed, self._group_size = 0, group_size

    def _explore(self, n_most: int) -> Ints:
        first = self._n_proposed
        self._n_proposed += min(n_most, self._group_size)
        return np.asarray(self._choices[first : self._n_proposed])


class TpeSeeker(Seeker):
    """Optuna's tree-structured Parzen estimator, as it comes, with every head ordered; the best that was seen.

    Args:
        space: of settings.
        seed: of the sampler.
        confirm_share: see `Seeker`.

    Raises:
        MissingPackageError: Optuna is not installed.
    """

    name = "tpe"

    def __init__(self, space: FactoredSpace, seed: int, confirm_share: float = 0.0) -> None:
        super().__init__(space, seed, confirm_share)
        try:
            import optuna  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise MissingPackageError("The Bayesian optimiser needs Optuna: pip install optuna.") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        self._trial: optuna.trial.Trial | None = None

    def _explore(self, n_most: int) -> Ints:
        # One at a time, as each depends on all before it.
        self._trial = trial = self._study.ask()
        heads = zip(self._space.names, self._space.sizes, strict=True)
        return np.array([[trial.suggest_int(name, 0, size - 1) for name, size in heads]], dtype=np.int64)

    def _explored(self, choices: Ints, rewards: Floats) -> None:
        assert self._trial is not None  # it was proposed
        self._study.tell(self._trial, float(rewards[0]))
