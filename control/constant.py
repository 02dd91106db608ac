"""The best constant setting of a case: the baseline that no learned policy is shown without."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from control.outcome import ServingOutcome
from control.rollout import energy_and_share, episodes
from control.serving_case import ServingCase
from control.vector_env import VectorEnv
from testbed.policies.base import Decision


@dataclass(frozen=True)
class Constant:
    """One setting for all batches, and what came of it.

    Attributes:
        decision: clock and largest batch.
        energy_per_request_j: over the seeds that it was chosen on, J.
        slo_share: over the same, 0 to 1.
        meets: whether that is the wanted share.
    """

    decision: Decision
    energy_per_request_j: float
    slo_share: float
    meets: bool


def constants(case: ServingCase, slo_share: float, seeds: Sequence[int]) -> list[Constant]:
    """Try every clock with every batch choice, never waiting.

    Args:
        case: the problem.
        slo_share: share of requests that shall be within the SLO.
        seeds: of the arrivals; not those of the evaluation.

    Returns:
        Best first: those that meet the share by their energy, then the others by their share.
    """
    one = VectorEnv(case, 1)
    n = len(one.actions) - (case.wait_s is not None)
    env = VectorEnv(case, n * len(seeds))
    acts = np.repeat(np.arange(n), len(seeds))
    found = episodes(env, lambda seen, allowed: acts, [*seeds] * n)
    tried = []
    for action in range(n):
        mine: list[ServingOutcome] = found[action * len(seeds) : (action + 1) * len(seeds)]
        energy_j, share = energy_and_share(mine)
        choice = env.actions.choice(action)
        assert isinstance(choice, Decision)  # waiting is the last action, left out
        tried.append(Constant(choice, energy_j, share, share >= slo_share))
    return sorted(tried, key=lambda each: (-min(each.slo_share, slo_share), each.energy_per_request_j))
