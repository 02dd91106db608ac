"""Policies with one knob or one signal: clock by queue, batch by deadline, clock by slack."""

from pathlib import Path
from typing import Any

from pydantic import Field

from contract.errors import InvalidOptionError
from testbed.options import PartOptions, parse_options
from testbed.policies.base import Decision, Observation
from testbed.policies.table_policy import TablePolicy
from testbed.simulation.service_table import ServiceTable


class DvfsOnlyOptions(PartOptions):
    """Options of `dvfs_only`."""

    batch: int | None = Field(default=None, ge=1)
    """The fixed limit on the batch; None: 8, or the table's where that is smaller."""
    full_queue: int | None = Field(default=None, ge=1)
    """Requests in the queue from which on the clock is the highest; None: twice the batch."""


class DvfsOnly(TablePolicy[DvfsOnlyOptions]):
    """A fixed batch limit, and a clock in proportion to the queue: a frequency governor that knows load, not deadlines.

    In the literature "DVFS-only" is the half of the joint problem that leaves batches alone. Simplified: the governor
    is the proportional one of operating systems (`schedutil`), with the queue's length for utilisation.

    Args:
        table: see `TablePolicy`.
        slo_s: see `TablePolicy`; told in the record, not used.
        **options: see `DvfsOnlyOptions`.

    Raises:
        InvalidOptionError: an unknown option, or a batch that the table lacks.
    """

    name = "dvfs_only"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, **options: Any) -> None:
        super().__init__(table, slo_s, parse_options("policy", self.name, DvfsOnlyOptions, options))
        wanted = self._options.batch
        self._limit = min(8, self.table.max_batch) if wanted is None else self.batch_limit(wanted, "batch")
        self._full = self._options.full_queue or 2 * self._limit

    def decide(self, observation: Observation) -> Decision:
        """See `Policy`."""
        top = len(self._clocks_mhz) - 1
        # Rounded up: a queue that is not empty never counts as no load at all.
        row = min(top, -(-observation.n_queued * top // self._full))
        return Decision(self._clocks_mhz[row], self._limit)


class BatchOnlyOptions(PartOptions):
    """Options of `batch_only`."""

    clock_mhz: float | None = Field(default=None, gt=0)
    """The fixed clock; None: the highest."""
    max_batch: int | None = Field(default=None, ge=1)
    """Largest batch; None: the table's."""


class BatchOnly(TablePolicy[BatchOnlyOptions]):
    """A fixed clock, and the largest batch that still meets the head's deadline: adaptive batching, no DVFS.

    What Clipper and its like do with batch sizes under a latency objective. Simplified: the latency is read from the
    table, where Clipper feels its way up and down; with no batch in time all that is queued is served.

    Args:
        table: see `TablePolicy`.
        slo_s: see `TablePolicy`.
        **options: see `BatchOnlyOptions`.

    Raises:
        InvalidOptionError: an unknown option, or a clock or batch that the table lacks.
    """

    name = "batch_only"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, **options: Any) -> None:
        super().__init__(table, slo_s, parse_options("policy", self.name, BatchOnlyOptions, options))
        clock = self._options.clock_mhz
        self._row = len(self._clocks_mhz) - 1 if clock is None else self.row_of(clock)
        self._limit = self.batch_limit(self._options.max_batch)

    def decide(self, observation: Observation) -> Decision:
        """See `Policy`."""
        left_s, latency_s = self.slo_s - observation.head_wait_s, self._latency_s[self._row]
        most = max(1, min(observation.n_queued, self._limit))
        in_time = (batch for batch in range(most, 0, -1) if latency_s[batch - 1] <= left_s)
        return Decision(self._clocks_mhz[self._row], next(in_time, most))


class ReactiveOptions(PartOptions):
    """Options of `reactive`."""

    up_share: float = Field(default=0.5, gt=0, le=2)
    """The clock steps up where the head has waited for more than this share of the SLO."""
    down_share: float = Field(default=0.25, ge=0, le=2)
    """It steps down where the head has waited for less than this share."""
    step: int = Field(default=1, ge=1)
    """Clocks of the table in one step."""
    max_batch: int | None = Field(default=None, ge=1)
    """Largest batch; None: the table's, so that a batch is the whole queue."""


class Reactive(TablePolicy[ReactiveOptions]):
    """A feedback loop: a step up when waits are long, a step down when they are short, no model of the device.

    The threshold controllers of auto-scalers and of SLO-feedback DVFS. Simplified: the head's wait is the signal, since
    the latency of what is served is known only afterwards; the clock that is set is all its memory.

    Args:
        table: see `TablePolicy`; its clocks only are used.
        slo_s: see `TablePolicy`.
        **options: see `ReactiveOptions`.

    Raises:
        InvalidOptionError: an unknown option, thresholds that cross, or a batch that the table lacks.
    """

    name = "reactive"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, **options: Any) -> None:
        super().__init__(table, slo_s, parse_options("policy", self.name, ReactiveOptions, options))
        if self._options.down_share > self._options.up_share:
            raise InvalidOptionError(
                f"Policy 'reactive': down_share {self._options.down_share:g} is above up_share "
                f"{self._options.up_share:g}; it would step both ways at once.",
                name=self.name,
            )
        self._limit = self.batch_limit(self._options.max_batch)

    def decide(self, observation: Observation) -> Decision:
        """See `Policy`."""
        top = len(self._clocks_mhz) - 1
        # The nearest row: a device that was just taken over may be at a clock that the table lacks.
        row = min(range(top + 1), key=lambda each: abs(self._clocks_mhz[each] - observation.clock_mhz))
        share = observation.head_wait_s / self.slo_s
        if share > self._options.up_share:
            row = min(top, row + self._options.step)
        elif share < self._options.down_share:
            row = max(0, row - self._options.step)
        return Decision(self._clocks_mhz[row], self._limit)
