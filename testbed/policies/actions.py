"""The actions of a learned or planned policy, by number: each clock with each batch choice, and waiting as the last."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError
from testbed.policies.base import Decision, Wait


@dataclass(frozen=True)
class ActionSet:
    """Action `i` is clock `i // len(batches)` with batch choice `i % len(batches)`; then waiting, where there is any.

    Attributes:
        clocks_mhz: rising.
        batches: largest batch to serve, rising; more than are queued means all that are queued.
        wait_s: what waiting lets pass; None: no such action.

    Raises:
        InvalidOptionError: nothing to choose from, or not rising.
    """

    clocks_mhz: tuple[float, ...]
    batches: tuple[int, ...]
    wait_s: float | None = None

    def __post_init__(self) -> None:
        for name, values in (("clocks", self.clocks_mhz), ("batch choices", self.batches)):
            if not values or list(values) != sorted(set(values)) or values[0] <= 0:
                raise InvalidOptionError(f"actions: the {name} are {values}; give numbers above 0 that rise.")

    def __len__(self) -> int:
        return len(self.clocks_mhz) * len(self.batches) + (self.wait_s is not None)

    @property
    def wait_index(self) -> int | None:
        """The number of waiting."""
        return None if self.wait_s is None else len(self) - 1

    def choice(self, index: int) -> Decision | Wait:
        """What an action stands for."""
        if self.wait_s is not None and index == len(self) - 1:
            return Wait(self.wait_s)
        clock, batch = divmod(index, len(self.batches))
        return Decision(self.clocks_mhz[clock], self.batches[batch])

    def index(self, choice: Decision | Wait, n_queued: int) -> int:
        """The allowed action that does the same with so many queued.

        Raises:
            InvalidOptionError: no action does the same.
        """
        if isinstance(choice, Wait):
            if self.wait_s is None or choice.seconds != self.wait_s:
                raise InvalidOptionError(
                    f"actions: waiting {choice.seconds} s is none of them; wait_s is {self.wait_s}."
                )
            return len(self) - 1
        for column, batch in enumerate(self.batches):
            if min(batch, n_queued) == min(choice.max_batch, n_queued) and choice.clock_mhz in self.clocks_mhz:
                return self.clocks_mhz.index(choice.clock_mhz) * len(self.batches) + column
        raise InvalidOptionError(f"actions: none is {choice} with {n_queued} queued; train with its clock and batch.")

    def masks(self, queue_limit: int) -> npt.NDArray[np.bool_]:
        """Which actions are worth a thought, by queue length.

        A batch choice above one that serves the whole queue already is the same action again. Waiting cannot help
        where the queue fills the largest batch, or where the next arrival would be lost.

        Returns:
            (queue_limit + 1, number of actions). With an empty queue everything is allowed: there is no decision.
        """
        lengths = np.arange(queue_limit + 1)[:, None]
        below = np.array((0, *self.batches[:-1]))
        allowed = np.tile(below[None, :] < lengths, (1, len(self.clocks_mhz)))
        if self.wait_s is not None:
            allowed = np.hstack([allowed, lengths < min(queue_limit, self.batches[-1])])
        allowed[0] = True
        return allowed
