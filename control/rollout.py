"""Many episodes of a case at once, by whatever chooses the actions."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from control.outcome import ServingOutcome
from control.vector_env import VectorEnv

Chooser = Callable[[npt.NDArray[np.float32], npt.NDArray[np.bool_]], npt.NDArray[np.int64]]
"""Observations (N, features) and masks (N, actions) to actions (N,)."""


def episodes(env: VectorEnv, choose: Chooser, seeds: Sequence[int]) -> list[ServingOutcome]:
    """One episode for each seed.

    Args:
        env: of as many copies as there are seeds.
        choose: asked once a step, for all copies.
        seeds: of the arrivals.

    Returns:
        In the order of the seeds; without latencies.
    """
    observations = env.reset(seeds)
    found: dict[int, ServingOutcome] = {}
    while len(found) < env.n_copies:
        result = env.step(choose(observations, env.action_masks()))
        observations = result.observations
        for copy, outcome in result.episodes:
            found.setdefault(copy, outcome)  # a copy that ended goes on with another episode
    return [found[copy] for copy in range(env.n_copies)]


def energy_and_share(outcomes: Sequence[ServingOutcome]) -> tuple[float, float]:
    """Joules per served request, and the share of judged requests that met the objective, over all episodes."""
    n_served = sum(each.n_served for each in outcomes)
    n_judged = sum(each.n_judged for each in outcomes)
    energy_j = sum(each.energy_j for each in outcomes)
    n_met = sum(each.n_met for each in outcomes)
    return energy_j / n_served if n_served else float("nan"), n_met / n_judged if n_judged else float("nan")
