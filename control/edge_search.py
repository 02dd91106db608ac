"""Seeking a setting on the simulated board with a number of measurements, whoever seeks.

A measurement is the noisy reward of one setting. What is recommended is judged by its reward without noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.edge_control.choosers import Chooser
from testbed.edge_control.grpo import GrpoUpdate
from testbed.edge_control.grpo_seeker import GrpoSeeker

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

Measure = Callable[[Ints], Floats]
"""Choices (n, heads) to rewards (n,); each row is one measurement."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a search recommends.

    Attributes:
        choice: (heads,); None: nothing was sought.
        n_measurements: used.
        tried: (n_measurements, heads), in order.
        rewards: that were measured of these, with their noise.
        updates: of GRPO; empty otherwise.
    """

    choice: Ints | None
    n_measurements: int
    tried: Ints
    rewards: Floats
    updates: tuple[GrpoUpdate, ...] = ()


def seek(chooser: Chooser, measure: Measure, n_measurements: int) -> Found:
    """Let a chooser seek.

    Args:
        chooser: seeks.
        measure: a setting.
        n_measurements: at most; GRPO takes as many groups as fit.
    """
    tried: list[Ints] = []
    rewards: list[Floats] = []
    n_left = n_measurements
    while n_left > 0:
        choices = chooser.propose(n_left)
        if not len(choices):
            break
        found = measure(choices)
        chooser.learn(choices, found)
        tried.append(choices)
        rewards.append(found)
        n_left -= len(choices)
    updates = tuple(chooser.updates) if isinstance(chooser, GrpoSeeker) else ()
    return Found(
        chooser.recommended(),
        n_measurements - n_left,
        np.concatenate(tried) if tried else np.empty((0, 4), dtype=np.int64),
        np.concatenate(rewards) if rewards else np.empty(0),
        updates,
    )
