"""The policy seam: at a boundary between batches, choose a GPU clock and a batch, or wait."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

Setting = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Observation:
    """What a policy may know at a boundary; all of it is known on a real machine too.

    Attributes:
        waits_s: how long each queued request has waited, head first, so never rising; seconds.
        clock_mhz: the clock that is set now.
        n_input_tokens: prompt tokens of each queued request, in the order of `waits_s`; None: not known.
        n_output_tokens: tokens that each queued request will get or is expected to get; None: not known.
        arrival_rate_per_s: recent estimate; None where there was nothing to estimate from.
        n_in_service: requests that are being served already; above 0 with continuous batching only.
    """

    waits_s: tuple[float, ...]
    clock_mhz: float
    n_input_tokens: tuple[int, ...] | None = None
    n_output_tokens: tuple[int, ...] | None = None
    arrival_rate_per_s: float | None = None
    n_in_service: int = 0

    @property
    def n_queued(self) -> int:
        """Requests in the queue."""
        return len(self.waits_s)

    @property
    def head_wait_s(self) -> float:
        """How long the head of the queue has waited; 0 where the queue is empty."""
        return self.waits_s[0] if self.waits_s else 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """Serve now: at most `max_batch` requests from the head of the queue, at this clock.

    Attributes:
        clock_mhz: of the device.
        max_batch: the largest batch, or the most in flight.
        exit_layer: after how many layers these requests leave the model; None: as the trial says. Whole batches only,
            of an engine that knows early exit.
    """

    clock_mhz: float
    max_batch: int
    exit_layer: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Serve nothing for so long, then be asked again."""

    seconds: float


class Policy(Protocol):
    """Built by the registry; a wrong option is refused when it is built, not when it decides."""

    name: str

    def decide(self, observation: Observation) -> Decision | Wait:
        """Choose for a queue that is not empty. Bounded: under 1 ms, no I/O, no waiting.

        The same calls after `reset` give the same answers.
        """
        ...

    def reset(self) -> None:
        """Forget what earlier decisions left behind, as before the first request of a run."""
        ...

    def settings(self) -> Mapping[str, Setting]:
        """What the record of a run needs to build this policy again."""
        ...
