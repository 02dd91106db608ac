"""What was measured of settings, and which of the best are worth measuring again."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Setting = tuple[int, ...]
"""A choice for each head."""

N_CONTENDERS = 20
"""Measured again; about as many as a group or two has of good settings."""

_LEAST_VARIANCE = 1e-12


@dataclass
class Tally:
    """Rewards of each setting, as many as there are."""

    rewards: dict[Setting, list[float]] = field(default_factory=dict)

    def add(self, choices: Ints, rewards: Floats) -> None:
        """Take measurements.

        Args:
            choices: (n, heads).
            rewards: (n,), all finite.
        """
        for choice, reward in zip(choices.tolist(), rewards.tolist(), strict=True):
            self.rewards.setdefault(tuple(choice), []).append(reward)

    def means(self, choices: Ints) -> Floats:
        """(n,): mean reward of settings that were measured.

        Args:
            choices: (n, heads).
        """
        return np.array([np.mean(self.rewards[tuple(each)]) for each in choices.tolist()])

    def best(self, n_most: int) -> list[Setting]:
        """The best by their mean, best first.

        Args:
            n_most: of them.
        """
        return sorted(self.rewards, key=lambda each: -float(np.mean(self.rewards[each])))[:n_most]

    def posterior(self, settings: Sequence[Setting]) -> tuple[Floats, Floats]:
        """Mean and variance of each setting's true reward, all of them normal.

        The best of many noisy measurements looks better than it is, so each mean is drawn to that of all (empirical
        Bayes; Efron and Morris, Data Analysis Using Stein's Estimator and Its Generalizations, 1975). The noise is
        taken to be alike for all, and is known from those that were measured more than once.

        Args:
            settings: that were measured.
        """
        n = np.array([len(self.rewards[each]) for each in settings], dtype=float)
        mean = np.array([np.mean(self.rewards[each]) for each in settings])
        scatter = sum(float(np.var(self.rewards[each])) * len(self.rewards[each]) for each in settings)
        noise = max(scatter / max(float((n - 1).sum()), 1.0), _LEAST_VARIANCE)
        spread = max(float(np.var(mean) - noise * np.mean(1 / n)), 0.1 * noise)
        variance = 1 / (1 / spread + n / noise)
        centre = float((n * mean).sum() / n.sum())
        return variance * (centre / spread + n * mean / noise), variance


class Confirmation:
    """Measures the best settings again, the likeliest of them most often.

    All once more, which tells the noise; from then on whichever is best in a draw from the posterior (Thompson,
    Biometrika 25, 1933), as many draws as there are measurements at a time.

    Args:
        tally: of the search before; is not changed here.
        seed: of the draws.
        n_at_once: measurements at a time.
    """

    def __init__(self, tally: Tally, seed: int, n_at_once: int = 10) -> None:
        self._tally, self._rng, self._n_at_once = tally, np.random.default_rng(seed), n_at_once
        self._settings = tally.best(N_CONTENDERS)
        self._is_first = True

    def propose(self, n_most: int) -> Ints:
        """(n, heads): to measure next; none only where nothing is left, or nothing was measured before.

        Args:
            n_most: measurements that are left.
        """
        if not self._settings or n_most < 1:
            return np.empty((0, 0), dtype=np.int64)
        settings = np.array(self._settings, dtype=np.int64)
        if self._is_first:
            self._is_first = False
            return settings[:n_most]
        mean, variance = self._tally.posterior(self._settings)
        drawn = self._rng.standard_normal((min(n_most, self._n_at_once), len(mean)))
        return np.asarray(settings[(mean + np.sqrt(variance) * drawn).argmax(axis=1)])

    def best(self) -> Ints | None:
        """(heads,): of the highest posterior mean; None: nothing was measured."""
        if not self._settings:
            return None
        return np.array(self._settings[int(self._tally.posterior(self._settings)[0].argmax())], dtype=np.int64)
