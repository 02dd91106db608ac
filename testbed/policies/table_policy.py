"""What policies over a service table share: the table as plain lists, the objective, and the checks of both."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from contract.errors import InvalidOptionError
from testbed.options import PartOptions
from testbed.policies.base import Setting
from testbed.simulation.service_table import ServiceTable, read_service_table

OptionsT = TypeVar("OptionsT", bound=PartOptions)


def as_table(table: ServiceTable | Path | str) -> ServiceTable:
    """A table, or the one in the file of this path.

    Raises:
        ServiceTableError: the file is no table.
    """
    return table if isinstance(table, ServiceTable) else read_service_table(Path(table))


class TablePolicy(Generic[OptionsT]):
    """Base of the policies that choose from a table. Python lists: faster than arrays where one cell is read.

    Args:
        table: of the device, or the path of its file.
        slo_s: objective, completion minus arrival, seconds.
        options: the policy's own, checked.

    Raises:
        InvalidOptionError: an objective that is not a number above 0.
        ServiceTableError: the file is no table.
    """

    name = "table"

    def __init__(self, table: ServiceTable | Path | str, slo_s: float, options: OptionsT) -> None:
        if not (math.isfinite(slo_s) and slo_s > 0):
            raise InvalidOptionError(f"Policy {self.name!r}: slo_s is {slo_s}; give seconds above 0.", name=self.name)
        self.table = as_table(table)
        self.slo_s = float(slo_s)
        self._options = options
        self._clocks_mhz: list[float] = self.table.clock_mhz.tolist()
        self._latency_s: list[list[float]] = self.table.latency_s.tolist()
        self._energy_j: list[list[float]] = self.table.energy_j.tolist()
        # By batch size: the row that ends it soonest. In measured tables that need not be the highest clock.
        self._fastest: list[int] = np.argmin(self.table.latency_s, axis=0).tolist()

    def reset(self) -> None:
        """See `Policy`. Nothing is kept between decisions."""

    def settings(self) -> Mapping[str, Setting]:
        """See `Policy`."""
        own: dict[str, Setting] = self._options.model_dump(mode="json")
        return {"table": self.table.source, "table_sha256": self.table.sha256, "slo_s": self.slo_s, **own}

    def row_of(self, clock_mhz: float, option: str = "clock_mhz") -> int:
        """Row of a clock that an option names.

        Raises:
            InvalidOptionError: the table has no such clock; the message lists those it has.
        """
        if clock_mhz not in self._clocks_mhz:
            known = ", ".join(f"{each:g}" for each in self._clocks_mhz)
            raise InvalidOptionError(
                f"Policy {self.name!r}: {option} {clock_mhz:g} MHz is not in {self.table.source}. Choose one of "
                f"{known}.",
                name=self.name,
            )
        return self._clocks_mhz.index(clock_mhz)

    def batch_limit(self, max_batch: int | None, option: str = "max_batch") -> int:
        """The largest batch that an option allows; None: the table's.

        Raises:
            InvalidOptionError: below 1, or above the table's.
        """
        if max_batch is None:
            return self.table.max_batch
        if not 1 <= max_batch <= self.table.max_batch:
            raise InvalidOptionError(
                f"Policy {self.name!r}: {option} {max_batch} is not in {self.table.source}, which has batches of 1 to "
                f"{self.table.max_batch}.",
                name=self.name,
            )
        return max_batch

    def finish_s(self, row: int, batch: int, clock_mhz: float, switch_s: float) -> float:
        """From now to the end of a batch, a change of the clock included."""
        return self._latency_s[row][batch - 1] + (switch_s if self._clocks_mhz[row] != clock_mhz else 0.0)
