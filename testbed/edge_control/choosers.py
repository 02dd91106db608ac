"""Who chooses a setting: the seam, and those that seek nothing."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from contract.errors import UsageError
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.task import EdgeTask
from testbed.policies.factored_policy import FactoredPolicy

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Sensed(Protocol):
    """What sensors tell of a board."""

    @property
    def temp_c(self) -> float:
        """Its temperature."""
        ...

    @property
    def is_fan_on(self) -> bool:
        """As read back from the fan."""
        ...


class Chooser(Protocol):
    """Seeks a setting with evaluations, then chooses the setting of each batch. Bounded time, no I/O.

    Attributes:
        name: in the registry.
    """

    name: str

    def propose(self, n_most: int) -> Ints:
        """(n, heads): what it wants to know the reward of next, `n_most` at most; none: it seeks nothing more.

        Args:
            n_most: evaluations that are left.
        """
        ...

    def learn(self, choices: Ints, rewards: Floats) -> None:
        """What came of all that it proposed last.

        Args:
            choices: (n, heads).
            rewards: (n,).

        Raises:
            EdgeRewardError: a reward is not a number; nothing was learned.
        """
        ...

    def recommended(self) -> Ints | None:
        """(heads,): what it found; None: it sought nothing."""
        ...

    def choose(self, sensed: Sensed) -> Ints:
        """(heads,): the next batch's setting.

        Args:
            sensed: of the board.
        """
        ...

    def settings(self) -> Mapping[str, JsonValue]:
        """What the record needs to build it again."""
        ...


class SeeksNothing:
    """The part of a chooser that needs no evaluations."""

    def propose(self, n_most: int) -> Ints:
        """See `Chooser`."""
        return np.empty((0, 4), dtype=np.int64)

    def learn(self, choices: Ints, rewards: Floats) -> None:
        """See `Chooser`."""

    def recommended(self) -> Ints | None:
        """See `Chooser`."""
        return None

    def settings(self) -> Mapping[str, JsonValue]:
        """See `Chooser`."""
        return {}


class Fixed(SeeksNothing):
    """Always the same.

    Args:
        choice: (heads,).
        task: for what it means, in the record.
        name: in the registry.
    """

    def __init__(self, choice: Ints, task: EdgeTask | None = None, name: str = "fixed") -> None:
        self.name = name
        self.choice = choice
        self._task = task

    def recommended(self) -> Ints | None:
        """See `Chooser`."""
        return self.choice

    def choose(self, sensed: Sensed) -> Ints:
        """See `Chooser`."""
        return self.choice

    def settings(self) -> Mapping[str, JsonValue]:
        """See `Chooser`."""
        if self._task is None:
            return {}
        space = self._task.space
        return dict(zip(space.names, (int(each) for each in space.meaning(self.choice)), strict=True))


class GovernorRule(SeeksNothing):
    """Like a default governor: highest clocks and largest batch, all layers; near the limit, clocks step down.

    A bin lower after each batch that ends within `margin_c` of the limit, a bin higher after one that ends below twice
    that. It measures nothing and optimises nothing.

    Args:
        task: the problem.
        margin_c: below the limit.
    """

    name = "governor"

    def __init__(self, task: EdgeTask, margin_c: float = 2.0) -> None:
        self._task, self._margin_c = task, margin_c
        self._lowered = 0

    def choose(self, sensed: Sensed) -> Ints:
        """See `Chooser`."""
        sizes = self._task.space.sizes
        left_c = self._task.reward.limits.temp_c - sensed.temp_c
        if left_c < self._margin_c:
            self._lowered = min(self._lowered + 1, max(sizes[:2]) - 1)
        elif left_c > 2 * self._margin_c:
            self._lowered = max(self._lowered - 1, 0)
        bins = [max(size - 1 - self._lowered, 0) for size in sizes[:2]]
        return np.array([*bins, sizes[2] - 1, sizes[3] - 1], dtype=np.int64)

    def settings(self) -> Mapping[str, JsonValue]:
        """See `Chooser`."""
        return {"margin_c": self._margin_c}


class Likeliest(SeeksNothing):
    """A learned policy's likeliest setting.

    A policy is only as safe as it was trained to be, and some hold the board a few tenths of a degree above the limit.
    `guard_c` is told beside each temperature, so that the board is held so much cooler: `control.edge_calibration`
    finds the least that keeps a policy within the limit on the simulated board.

    Args:
        policy: learned.
        task: for what it sees.
        about: for the record.
        guard_c: 0: it is told what is.
    """

    name = "learned"

    def __init__(
        self,
        policy: FactoredPolicy,
        task: EdgeTask,
        about: Mapping[str, JsonValue] | None = None,
        guard_c: float = 0.0,
    ) -> None:
        self._policy, self._task, self._about, self._guard_c = policy, task, dict(about or {}), guard_c

    def choose(self, sensed: Sensed) -> Ints:
        """See `Chooser`."""
        return self._policy.best(self._task.features(sensed.temp_c + self._guard_c, sensed.is_fan_on))

    def settings(self) -> Mapping[str, JsonValue]:
        """See `Chooser`."""
        return {**self._about, "guard_c": self._guard_c}


class Greedy(SeeksNothing):
    """The best next reward of all settings, by the simulation's own model: what a policy could reach at best.

    It knows what the others do not: every setting's time and power, and the thermal model.

    Args:
        case: the problem.
    """

    name = "greedy"

    def __init__(self, case: EdgeCase) -> None:
        self._case, self._choices = case, case.space.all_choices()

    def choose(self, sensed: Sensed) -> Ints:
        """See `Chooser`."""
        rewards = self._case.next_reward(self._choices, sensed.temp_c, sensed.is_fan_on)
        return np.asarray(self._choices[int(rewards.argmax())])


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
