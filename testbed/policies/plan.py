"""What a planner found: an action for every state, and what it needs to weigh a state by its true waits."""

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError
from testbed.policies.actions import ActionSet
from testbed.policies.base import Observation
from testbed.policies.look_ahead import LookAhead
from testbed.policies.part_batch import PartBatch
from testbed.simulation.service_table import ServiceTable

FORMAT = "joulebed-plan"
FORMAT_VERSION = 2

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NUMBERS = ("slo_s", "rate_per_s", "switch_s", "switch_energy_j", "idle_power_w", "price_j", "gain_w", "step_s")
_ARRAYS = ("grid_actions", "serve_value_j", "latency_s", "longer_value_j", "part_energy_j")


@dataclass(frozen=True, eq=False)
class Plan:
    """A policy over (queue length, head wait, clock), and the values that its look-ahead starts from.

    Attributes:
        action_set: what the action numbers stand for; its last batch is the largest that is served, and those below
            are what may be cut off a longer queue.
        table_sha256: of the service table that it was planned on.
        slo_s: the objective.
        rate_per_s: of the Poisson arrivals that it expects.
        switch_s: of a change of the clock.
        switch_energy_j: of one.
        idle_power_w: while waiting.
        price_j: joules that one miss is worth.
        gain_w: least cost per second in the long run, energy and priced misses.
        step_s: grid of the head's wait.
        grid_actions: (C, N, W) int16; action with clock c set, n + 1 queued, and a head that has waited w * step_s.
        serve_value_j: (2, M, C); relative value of serving all n + 1 queued at clock c, misses apart; first where c
            is set already, then where it is switched to.
        latency_s: (M, C) of these batches.
        longer_value_j: (C, N - M, W) float32; relative value of a queue too long for one batch, by the grid.
        part_energy_j: (number of batch choices below the largest, C); energy of a batch of that size.
        looks_ahead: decide with the true waits of all queued and not by the grid; it is better, and takes longer.
        about: how it was planned; JSON.
        other: a plan of the same case and another price of a miss; in `other_part` of the decisions its action is
            taken. Prices go by steps of energy and share, and what lies between two of them only a mixture reaches.
        other_part: 0 to 1.
    """

    action_set: ActionSet
    table_sha256: str
    slo_s: float
    rate_per_s: float
    switch_s: float
    switch_energy_j: float
    idle_power_w: float
    price_j: float
    gain_w: float
    step_s: float
    grid_actions: npt.NDArray[np.int16]
    serve_value_j: Floats
    latency_s: Floats
    longer_value_j: npt.NDArray[np.float32]
    part_energy_j: Floats
    looks_ahead: bool = True
    about: Mapping[str, Any] = field(default_factory=dict)
    other: "Plan | None" = None
    other_part: float = 0.0

    @cached_property
    def _look_ahead(self) -> LookAhead:
        return LookAhead(
            serve_value_j=self.serve_value_j,
            latency_s=self.latency_s,
            longer_value_j=self.longer_value_j,
            step_s=self.step_s,
            slo_s=self.slo_s,
            switch_s=self.switch_s,
            wait_s=self.action_set.wait_s,
            rate_per_s=self.rate_per_s,
            price_j=self.price_j,
            wait_cost_w=self.idle_power_w - self.gain_w,
        )

    @cached_property
    def _parts(self) -> PartBatch:
        return PartBatch(
            self.action_set.batches[:-1],
            energy_j=self.part_energy_j,
            serve_value_j=self.serve_value_j,
            latency_s=self.latency_s,
            slo_s=self.slo_s,
            switch_s=self.switch_s,
            switch_energy_j=self.switch_energy_j,
            rate_per_s=self.rate_per_s,
            price_j=self.price_j,
            gain_w=self.gain_w,
        )

    @cached_property
    def _column(self) -> list[int]:
        """By queue length: the smallest batch choice that serves all; the largest where none does."""
        batches = self.action_set.batches
        return [min(bisect_left(batches, n), len(batches) - 1) for n in range(batches[-1] + 1)]

    def make_ready(self) -> None:
        """Do now what the first decision would be late for."""
        if self.looks_ahead:
            for clock_index in range(len(self.action_set.clocks_mhz)):
                self.action_of_waits((0.0,) * self.latency_s.shape[0], clock_index)
        if self.other is not None:
            self.other.make_ready()

    @cached_property
    def _row_of_mhz(self) -> dict[float, int]:
        return {clock: row for row, clock in enumerate(self.action_set.clocks_mhz)}

    def clock_index(self, clock_mhz: float) -> int:
        """The clock's row; of one that the plan lacks, that of the nearest."""
        row = self._row_of_mhz.get(clock_mhz)
        if row is not None:
            return row
        clocks = self.action_set.clocks_mhz
        return min(range(len(clocks)), key=lambda each: abs(clocks[each] - clock_mhz))

    def action(self, observation: Observation) -> int:
        """Number of the action for an observation, a queue that is not empty."""
        return self.action_of_waits(observation.waits_s, self.clock_index(observation.clock_mhz))

    def action_of_waits(self, waits_s: Sequence[float] | Floats, clock_index: int) -> int:
        """Number of the action.

        Args:
            waits_s: (n,), head first, n at least 1.
            clock_index: of the clock that is set.
        """
        if self.other is not None and _lot(waits_s) < self.other_part:
            return self.other.action_of_waits(waits_s, clock_index)
        n_queued = len(waits_s)
        if not self.looks_ahead or n_queued > self.latency_s.shape[0]:
            n_row = min(n_queued, self.grid_actions.shape[1]) - 1
            column = min(int(waits_s[0] / self.step_s + _ROUND_UP), self.grid_actions.shape[2] - 1)
            return int(self.grid_actions[clock_index, n_row, column])
        row, value_j = self._look_ahead.weigh(waits_s, clock_index)
        n_batches = len(self.action_set.batches)
        if n_batches > 1 and n_queued > self.action_set.batches[0]:
            part = self._parts.best(np.negative(waits_s), clock_index)
            if part is not None and part.value_j < value_j - _TIE_J:
                return part.row * n_batches + part.column
        return len(self.action_set) - 1 if row is None else row * n_batches + self._column[n_queued]

    def actions_of_waits(self, waits_s: Sequence[Sequence[float] | Floats], clock_index: Ints) -> Ints:
        """Numbers of the actions for many queues, (N,): a teacher for imitation.

        Args:
            waits_s: of each queue, head first; lengths may differ.
            clock_index: (N,).
        """
        pairs = zip(waits_s, clock_index.tolist(), strict=True)
        return np.array([self.action_of_waits(waits, row) for waits, row in pairs], dtype=np.int64)

    def actions(self, n_queued: Ints, head_wait_s: Floats, clock_index: Ints) -> Ints:
        """Numbers of the actions by queue length and head wait alone, (N,): coarser than `actions_of_waits`.

        Args:
            n_queued: (N,), at least 1.
            head_wait_s: (N,).
            clock_index: (N,).
        """
        _, n_rows, n_columns = self.grid_actions.shape
        columns = np.minimum((np.asarray(head_wait_s) / self.step_s + _ROUND_UP).astype(np.int64), n_columns - 1)
        rows = np.clip(np.asarray(n_queued) - 1, 0, n_rows - 1)
        return np.asarray(self.grid_actions[clock_index, rows, columns], dtype=np.int64)

    def check_table(self, table: ServiceTable) -> None:
        """Refuse another table than the plan's.

        Raises:
            InvalidOptionError: another table.
        """
        if table.sha256 != self.table_sha256:
            raise InvalidOptionError(
                f"plan: it was made for the table {self.about.get('table', '?')} ({self.table_sha256[:12]}), not for "
                f"{table.source} ({table.sha256[:12]}). Plan again with this table."
            )

    def save(self, path: Path) -> None:
        """Write the file: arrays, and everything else as JSON in its header."""
        from safetensors.numpy import save_file

        stored: dict[str, Any] = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "clocks_mhz": list(self.action_set.clocks_mhz),
            "batches": list(self.action_set.batches),
            "wait_s": self.action_set.wait_s,
            "table_sha256": self.table_sha256,
            "looks_ahead": self.looks_ahead,
            "about": dict(self.about),
            **{name: getattr(self, name) for name in _NUMBERS},
        }
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        if self.other is not None:
            numbers = {name: getattr(self.other, name) for name in _NUMBERS}
            stored |= {"other": {**numbers, "part": self.other_part, "looks_ahead": self.other.looks_ahead}}
            arrays |= {f"{_OTHER}{name}": np.ascontiguousarray(getattr(self.other, name)) for name in _ARRAYS}
        save_file(arrays, path, metadata={"joulebed": json.dumps(stored, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read the file; nothing in it is run.

        Raises:
            InvalidOptionError: it cannot be read, is no plan, or its arrays do not fit its actions.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                stored = json.loads((file.metadata() or {})["joulebed"])
                if (stored["format"], stored["version"]) != (FORMAT, FORMAT_VERSION):
                    raise InvalidOptionError(
                        f"plan: {path.name} is a {stored['format']} of version {stored['version']}; needed is a "
                        f"{FORMAT} of version {FORMAT_VERSION}. Plan again."
                    )
                arrays: dict[str, Any] = {name: file.get_tensor(name) for name in _ARRAYS}
                arrays |= {name: float(stored[name]) for name in _NUMBERS}
                mixed = stored.get("other")
                others: dict[str, Any] = (
                    {} if mixed is None else {name: file.get_tensor(f"{_OTHER}{name}") for name in _ARRAYS}
                )
            plan = cls(
                action_set=ActionSet(tuple(stored["clocks_mhz"]), tuple(stored["batches"]), stored["wait_s"]),
                table_sha256=str(stored["table_sha256"]),
                looks_ahead=bool(stored["looks_ahead"]),
                about=stored["about"],
                **arrays,
            )
            if mixed is not None:
                others |= {name: float(mixed[name]) for name in _NUMBERS}
                other = replace(plan, **others, looks_ahead=bool(mixed["looks_ahead"]), about={})
                plan = replace(plan, other=other, other_part=float(mixed["part"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InvalidOptionError(f"plan: {path} cannot be read ({error!r}). Give a file of the planner.") from error
        for each in (plan, plan.other):
            if each is not None:
                each._check_arrays(path)
        return plan

    def _check_arrays(self, path: Path) -> None:
        n_clocks, grid, value = len(self.action_set.clocks_mhz), self.grid_actions, self.serve_value_j
        n_batches = value.shape[1] if value.ndim == 3 else 0
        fits = (
            grid.ndim == 3
            and grid.shape[0] == n_clocks
            and min(grid.shape) > 0
            and value.shape == (2, n_batches, n_clocks)
            and self.latency_s.shape == (n_batches, n_clocks)
            and self.part_energy_j.shape == (len(self.action_set.batches) - 1, n_clocks)
            and self.longer_value_j.shape == (n_clocks, grid.shape[1] - n_batches, grid.shape[2])
            and all(bool(np.isfinite(getattr(self, name)).all()) for name in _ARRAYS)
            and all(np.isfinite(getattr(self, name)) for name in _NUMBERS)
            and self.step_s > 0
            and self.rate_per_s > 0
            and int(grid.min()) >= 0
            and int(grid.max()) < len(self.action_set)
            and 0 <= self.other_part <= 1
        )
        if not fits:
            raise InvalidOptionError(
                f"plan: {path} has arrays that do not fit its {len(self.action_set)} actions; it was made for others, "
                "or is damaged. Plan again."
            )


_ROUND_UP = 1 - 1e-6
"""A wait between two grid points is taken for the longer: the other way a deadline could be missed by a hair."""

_TIE_J = 1e-9
_OTHER = "other."
_LOTS_PER_S = 1000 * (math.sqrt(5) - 1) / 2
"""Irrational, so that round waits fall anywhere."""


def _lot(waits_s: Sequence[float] | Floats) -> float:
    """A number from 0 to below 1, as good as drawn: the fraction of the newest wait in a unit below a millisecond.

    The same queue draws the same lot, so that a policy that mixes two plans stays a function of what it sees.
    """
    return float(waits_s[-1]) * _LOTS_PER_S % 1.0
