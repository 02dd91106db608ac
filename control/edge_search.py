"""Seeking a setting on the simulated board with a number of measurements, whoever seeks.

A measurement is the noisy reward of one setting. What is recommended is judged by its reward without noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.edge_control.choosers import Chooser
from testbed.edge_control.grpo import GrpoUpdate
from testbed.edge_control.seekers import GrpoSeeker

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
        rewards: that were measured, in order.
        updates: of GRPO; empty otherwise.
    """

    choice: Ints | None
    n_measurements: int
    rewards: tuple[float, ...] = ()
    updates: tuple[GrpoUpdate, ...] = ()


def seek(chooser: Chooser, measure: Measure, n_measurements: int) -> Found:
    """Let a chooser seek.

    Args:
        chooser: seeks.
        measure: a setting.
        n_measurements: at most; GRPO takes as many groups as fit.
    """
    rewards: list[float] = []
    while len(rewards) < n_measurements:
        choices = chooser.propose(n_measurements - len(rewards))
        if not len(choices):
            break
        found = measure(choices)
        chooser.learn(choices, found)
        rewards += found.tolist()
    updates = tuple(chooser.updates) if isinstance(chooser, GrpoSeeker) else ()
    return Found(chooser.recommended(), len(rewards), tuple(rewards), updates)
