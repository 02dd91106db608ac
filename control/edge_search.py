"""Other ways to a setting, each with the same number of measurements: random, Bayesian, none at all, and everything.

A measurement is the noisy reward of one setting. What a way recommends is judged by its reward without noise.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from contract.errors import UsageError
from testbed.edge_control.case import N_FEATURES, EdgeCase
from testbed.edge_control.grpo import GrpoLearner, GrpoUpdate
from testbed.edge_control.grpo_checkpoint import GrpoConfig
from testbed.simulation.orin import BoardState
from testbed.simulation.orin_grid import CLOCKS_MHZ

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

Measure = Callable[[Ints], Floats]
"""Choices (n, heads) to rewards (n,); each row is one measurement."""

NOMINAL_C = 65.0
"""The state in which settings are sought: about what the fan-on grid was measured at."""

STATIC_GRPO = GrpoConfig(group_size=10, learning_rate=0.015, entropy_weight=0.05)
"""For a few hundred measurements of one state."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a search recommends.

    Attributes:
        choice: (heads,).
        n_measurements: used.
        updates: of GRPO; empty otherwise.
    """

    choice: Ints
    n_measurements: int
    updates: tuple[GrpoUpdate, ...] = ()


def best_fixed(case: EdgeCase, is_fan_on: bool = True, within_limit: bool = False) -> Ints:
    """The best setting of all, tried without noise: what others are judged by.

    Args:
        case: the problem.
        is_fan_on: or not.
        within_limit: the most tokens per second among those that stay within the temperature limit for good, instead
            of the most reward.

    Raises:
        UsageError: no setting stays within the limit.
    """
    choices = case.space.all_choices()
    if not within_limit:
        return np.asarray(choices[int(case.steady_reward(choices, is_fan_on).argmax())])
    stays = case.steady_temp_c(choices, is_fan_on) <= case.reward.limits.temp_c
    if not stays.any():
        raise UsageError("no setting stays within the temperature limit; raise limits.temp_c, or let the fan run.")
    return np.asarray(choices[int(np.where(stays, case.service(choices).throughput_per_s, -np.inf).argmax())])


def random_search(case: EdgeCase, measure: Measure, n_measurements: int, seed: int) -> Found:
    """Different settings at random; the best that was seen."""
    choices = case.space.all_choices()
    drawn = np.random.default_rng(seed).choice(len(choices), min(n_measurements, len(choices)), replace=False)
    tried = choices[drawn]
    return Found(tried[int(measure(tried).argmax())], len(tried))


def tpe_search(case: EdgeCase, measure: Measure, n_measurements: int, seed: int) -> Found:
    """Optuna's tree-structured Parzen estimator, as it comes, with every head ordered; the best that was seen.

    Raises:
        UsageError: Optuna is not installed.
    """
    try:
        import optuna  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UsageError("The Bayesian optimiser needs Optuna: pip install optuna.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    heads = list(zip(case.space.names, case.space.sizes, strict=True))
    for _ in range(n_measurements):
        trial = study.ask()
        choice = np.array([trial.suggest_int(name, 0, size - 1) for name, size in heads], dtype=np.int64)
        study.tell(trial, float(measure(choice[None])[0]))
    best = study.best_params
    return Found(np.array([best[name] for name, _ in heads], dtype=np.int64), n_measurements)


def grpo_search(
    case: EdgeCase, measure: Measure, n_measurements: int, seed: int, learner: GrpoLearner | None = None
) -> Found:
    """GRPO in one state; the likeliest setting in the end, whether it was measured or not.

    Args:
        case: the problem.
        measure: a setting.
        n_measurements: at most; as many groups as fit.
        seed: of a new learner.
        learner: goes on from there instead.
    """
    learner = learner or GrpoLearner(case.space, N_FEATURES, replace(STATIC_GRPO, seed=seed))
    features = case.features(NOMINAL_C, True)
    updates = []
    for _ in range(n_measurements // learner.config.group_size):
        group = learner.propose(features)
        updates.append(learner.update(features[None], group[None], measure(group)[None]))
    return Found(learner.policy.best(features), len(updates) * learner.config.group_size, tuple(updates))


def grpo_then_best_seen(case: EdgeCase, measure: Measure, n_measurements: int, seed: int) -> Found:
    """`grpo_search`, but the best that was seen is recommended, as the others do."""
    seen: list[tuple[float, Ints]] = []

    def remember(choices: Ints) -> Floats:
        rewards = measure(choices)
        best = int(rewards.argmax())
        seen.append((float(rewards[best]), choices[best]))
        return rewards

    found = grpo_search(case, remember, n_measurements, seed)
    return Found(max(seen, key=lambda each: each[0])[1], found.n_measurements, found.updates)


class GovernorRule:
    """Like a default governor: highest clocks and largest batch, all layers; near the limit, clocks step down.

    A bin lower after each batch that ends within `margin_c` of the limit, a bin higher after one that ends below twice
    that. It measures nothing and optimises nothing.

    Args:
        case: the problem.
        margin_c: below the limit.
    """

    def __init__(self, case: EdgeCase, margin_c: float = 2.0) -> None:
        self._case, self._margin_c = case, margin_c
        self._bin = len(CLOCKS_MHZ) - 1

    def choose(self, state: BoardState) -> Ints:
        """See `control.edge_drive.Chooser`."""
        left_c = self._case.reward.limits.temp_c - state.temp_c
        if left_c < self._margin_c:
            self._bin = max(self._bin - 1, 0)
        elif left_c > 2 * self._margin_c:
            self._bin = min(self._bin + 1, len(CLOCKS_MHZ) - 1)
        sizes = self._case.space.sizes
        return np.array([self._bin, self._bin, sizes[2] - 1, sizes[3] - 1], dtype=np.int64)
