"""A policy that needs no table: for devices whose clock nobody may set, and that nobody has profiled."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from contract.errors import InvalidOptionError
from testbed.options import PartOptions, parse_options
from testbed.policies.base import Decision, Observation, Setting, Wait
from testbed.simulation.service_table import ServiceTable

_POLL_S = 0.05


class CappedBatchOptions(PartOptions):
    """Options of `capped_batch`."""

    max_batch: int = Field(ge=1)
    """Largest batch, or the most in flight."""
    fill: int = Field(default=1, ge=1)
    """Serve when so many are queued; 1: at once."""
    max_wait_s: float | None = Field(default=None, gt=0)
    """With `fill` above 1: serve whatever is there when the head has waited so long."""


class CappedBatch:
    """Up to `max_batch` from the head, at the clock that is set; may wait for a fuller batch, as servers' batchers do.

    Args:
        table: not used.
        slo_s: told in the record, not used.
        **options: see `CappedBatchOptions`.

    Raises:
        InvalidOptionError: an unknown option, or a wait for more than a batch holds, or without an end.
    """

    name = "capped_batch"

    def __init__(self, slo_s: float, table: ServiceTable | None = None, **options: Any) -> None:
        self._options = parse_options("policy", self.name, CappedBatchOptions, options)
        self._slo_s = slo_s
        if self._options.fill > 1 and self._options.max_wait_s is None:
            raise InvalidOptionError(f"Policy {self.name!r}: fill above 1 needs max_wait_s, or the last would wait on.")
        if self._options.fill > self._options.max_batch:
            raise InvalidOptionError(f"Policy {self.name!r}: fill is above max_batch; no batch is ever so full.")

    def decide(self, observation: Observation) -> Decision | Wait:
        """See `Policy`."""
        limit_s = self._options.max_wait_s
        if observation.n_queued < self._options.fill and limit_s is not None:
            left_s = limit_s - observation.head_wait_s
            if left_s > 1e-3:
                return Wait(min(left_s, _POLL_S))
        return Decision(observation.clock_mhz, self._options.max_batch)

    def reset(self) -> None:
        """See `Policy`. Nothing is kept between decisions."""

    def settings(self) -> Mapping[str, Setting]:
        """See `Policy`."""
        return {"slo_s": self._slo_s, **self._options.model_dump(mode="json")}
