"""Deadline rules: the clock that still finishes the batch in time for its oldest request, and no faster."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from testbed.options import PartOptions, parse_options
from testbed.policies.base import Decision, Observation
from testbed.policies.table_policy import OptionsT, TablePolicy
from testbed.simulation.service_table import ServiceTable


class DeadlineOptions(PartOptions):
    """Options of the deadline rules."""

    max_batch: int | None = Field(default=None, ge=1)
    """Largest batch; None: the table's, so that a batch is the whole queue."""
    switch_s: float = Field(default=0.05, ge=0)
    """What a change of the clock takes; counted against the deadline."""


class DeadlineRule(TablePolicy[OptionsT]):
    """What the rules share: rows that meet the head's deadline, and the fastest where none does.

    Args:
        table: see `TablePolicy`.
        slo_s: see `TablePolicy`.
        options: checked.
        limit: largest batch.
        switch_s: what a change of the clock takes.
        is_cheapest: of the clocks that meet it, the one with the least energy for the batch; else the slowest.
    """

    def __init__(
        self,
        table: ServiceTable | Path | str,
        slo_s: float,
        options: OptionsT,
        *,
        limit: int | None,
        switch_s: float,
        is_cheapest: bool,
        limit_option: str = "max_batch",
    ) -> None:
        super().__init__(table, slo_s, options)
        self._limit = self.batch_limit(limit, limit_option)
        self._switch_s = switch_s
        # By batch size, the rows in the order of liking: the first that is in time is the choice.
        rows = range(len(self._clocks_mhz))
        by_energy = np.argsort(self.table.energy_j, axis=0, kind="stable").T.tolist()
        self._order: list[list[int]] = by_energy if is_cheapest else [list(rows)] * self.table.max_batch

    def decide(self, observation: Observation) -> Decision:
        """See `Policy`."""
        batch = max(1, min(observation.n_queued, self._limit))
        return Decision(self._clocks_mhz[self._row(batch, observation)], self._limit)

    def _row(self, batch: int, observation: Observation) -> int:
        left_s = self.slo_s - observation.head_wait_s
        for row in self._order[batch - 1]:
            if self.finish_s(row, batch, observation.clock_mhz, self._switch_s) <= left_s:
                return row
        return self._fastest[batch - 1]


class Deadline(DeadlineRule[DeadlineOptions]):
    """The slowest clock that meets the head's deadline, all that is queued; the fastest where none meets it.

    Deadline-driven DVFS as real-time systems know it ("just in time": slack is turned into a lower clock).
    Simplified: the head's deadline only, no look ahead at arrivals, and slower is taken for cheaper, which tables need
    not bear out.

    Args:
        table: see `TablePolicy`.
        slo_s: see `TablePolicy`.
        **options: see `DeadlineOptions`.

    Raises:
        InvalidOptionError: an unknown option, or a batch that the table lacks.
    """

    name = "deadline"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, **options: Any) -> None:
        own = parse_options("policy", self.name, DeadlineOptions, options)
        super().__init__(table, slo_s, own, limit=own.max_batch, switch_s=own.switch_s, is_cheapest=False)


class DeadlineEnergy(DeadlineRule[DeadlineOptions]):
    """The clock with the least energy for the batch, of those that meet the head's deadline; else the fastest.

    As `deadline`, without the belief that slower is cheaper: in measured tables a middle clock often needs least.

    Args:
        table: see `TablePolicy`.
        slo_s: see `TablePolicy`.
        **options: see `DeadlineOptions`.

    Raises:
        InvalidOptionError: an unknown option, or a batch that the table lacks.
    """

    name = "deadline_energy"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, **options: Any) -> None:
        own = parse_options("policy", self.name, DeadlineOptions, options)
        super().__init__(table, slo_s, own, limit=own.max_batch, switch_s=own.switch_s, is_cheapest=True)


class FixedBatchOptions(PartOptions):
    """Options of `fixed_batch`."""

    batch: int = Field(ge=1)
    """Largest batch: never more, even with more queued."""
    switch_s: float = Field(default=0.05, ge=0)
    """What a change of the clock takes."""


class FixedBatch(DeadlineRule[FixedBatchOptions]):
    """One limit on the batch, the clock as `deadline_energy` has it: the ablation that takes the batch away.

    Simplified: a batch that is not full is served as it is; no policy but one that waits would fill it.

    Args:
        table: see `TablePolicy`.
        slo_s: see `TablePolicy`.
        **options: see `FixedBatchOptions`.

    Raises:
        InvalidOptionError: an unknown or missing option, or a batch that the table lacks.
    """

    name = "fixed_batch"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, **options: Any) -> None:
        own = parse_options("policy", self.name, FixedBatchOptions, options)
        super().__init__(
            table, slo_s, own, limit=own.batch, switch_s=own.switch_s, is_cheapest=True, limit_option="batch"
        )
