"""Policies that never look at the queue: one clock, one limit on the batch."""

from pathlib import Path
from typing import Any

from pydantic import Field

from testbed.options import PartOptions, parse_options
from testbed.policies.base import Decision, Observation
from testbed.policies.table_policy import TablePolicy
from testbed.simulation.service_table import ServiceTable


class StaticHighOptions(PartOptions):
    """Options of `static_high`."""

    max_batch: int | None = Field(default=None, ge=1)
    """Largest batch; None: 8, as in the study, or the table's where that is smaller."""


class StaticHigh(TablePolicy[StaticHighOptions]):
    """The highest clock always, and batches of up to 8: what a server does that nobody has tuned for energy.

    The literature compares savings with this one ("static-high", "max frequency", "performance governor").

    Args:
        table: see `TablePolicy`.
        slo_s: see `TablePolicy`; told in the record, not used.
        **options: see `StaticHighOptions`.

    Raises:
        InvalidOptionError: an unknown option, or a batch that the table lacks.
    """

    name = "static_high"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, **options: Any) -> None:
        super().__init__(table, slo_s, parse_options("policy", self.name, StaticHighOptions, options))
        wanted = self._options.max_batch
        limit = min(8, self.table.max_batch) if wanted is None else self.batch_limit(wanted)
        self._decision = Decision(self._clocks_mhz[-1], limit)

    def decide(self, observation: Observation) -> Decision:
        """See `Policy`."""
        return self._decision


class FixedClockOptions(PartOptions):
    """Options of `fixed_clock`."""

    clock_mhz: float = Field(gt=0)
    """One of the table's clocks."""
    max_batch: int | None = Field(default=None, ge=1)
    """Largest batch; None: the table's, so that a batch is the whole queue."""


class FixedClock(TablePolicy[FixedClockOptions]):
    """One clock, all that is queued: the constant that the published learned policies are seldom compared with.

    Args:
        table: see `TablePolicy`.
        slo_s: see `TablePolicy`; told in the record, not used.
        **options: see `FixedClockOptions`.

    Raises:
        InvalidOptionError: an unknown option, or a clock or batch that the table lacks.
    """

    name = "fixed_clock"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, **options: Any) -> None:
        super().__init__(table, slo_s, parse_options("policy", self.name, FixedClockOptions, options))
        clock = self._clocks_mhz[self.row_of(self._options.clock_mhz)]
        self._decision = Decision(clock, self.batch_limit(self._options.max_batch))

    def decide(self, observation: Observation) -> Decision:
        """See `Policy`."""
        return self._decision
