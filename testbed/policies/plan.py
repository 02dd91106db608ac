"""What a planner found: an action for every state, and what it needs to weigh a state by its true waits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError
from testbed.policies.actions import ActionSet
from testbed.policies.base import Observation
from testbed.policies.look_ahead import LookAhead
from testbed.simulation.service_table import ServiceTable

FORMAT = "joulebed-plan"
FORMAT_VERSION = 1

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NUMBERS = ("slo_s", "rate_per_s", "switch_s", "idle_power_w", "price_j", "gain_w", "step_s")
_ARRAYS = ("grid_actions", "serve_value_j", "latency_s", "longer_value_j")


@dataclass(frozen=True, eq=False)
class Plan:
    """A policy over (queue length, head wait, clock), and the values that its look-ahead starts from.

    Attributes:
        action_set: what the action numbers stand for; its last batch is the largest that is served.
        table_sha256: of the service table that it was planned on.
        slo_s: the objective.
        rate_per_s: of the Poisson arrivals that it expects.
        switch_s: of a change of the clock.
        idle_power_w: while waiting.
        price_j: joules that one miss is worth.
        gain_w: least cost per second in the long run, energy and priced misses.
        step_s: grid of the head's wait.
        grid_actions: (C, N, W) int16; action with clock c set, n + 1 queued, and a head that has waited w * step_s.
        serve_value_j: (2, M, C); relative value of serving all n + 1 queued at clock c, misses apart; first where c
            is set already, then where it is switched to.
        latency_s: (M, C) of these batches.
        longer_value_j: (C, N - M, W) float32; relative value of a queue too long for one batch, by the grid.
        looks_ahead: decide with the true waits of all queued and not by the grid; it is better, and takes longer.
        about: how it was planned; JSON.
    """

    action_set: ActionSet
    table_sha256: str
    slo_s: float
    rate_per_s: float
    switch_s: float
    idle_power_w: float
    price_j: float
    gain_w: float
    step_s: float
    grid_actions: npt.NDArray[np.int16]
    serve_value_j: Floats
    latency_s: Floats
    longer_value_j: npt.NDArray[np.float32]
    looks_ahead: bool = True
    about: Mapping[str, Any] = field(default_factory=dict)

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

    def make_ready(self) -> None:
        """Do now what the first decision would be late for."""
        if self.looks_ahead:
            self.action_of_waits((0.0,), 0)

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
        n_queued = len(waits_s)
        if not self.looks_ahead or n_queued > self.latency_s.shape[0]:
            n_row = min(n_queued, self.grid_actions.shape[1]) - 1
            column = min(int(waits_s[0] / self.step_s + _ROUND_UP), self.grid_actions.shape[2] - 1)
            return int(self.grid_actions[clock_index, n_row, column])
        row = self._look_ahead.clock(waits_s, clock_index)
        if row is None:
            return len(self.action_set) - 1
        return (row + 1) * len(self.action_set.batches) - 1

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

        stored = {
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
                arrays = {name: file.get_tensor(name) for name in _ARRAYS}
            plan = cls(
                action_set=ActionSet(tuple(stored["clocks_mhz"]), tuple(stored["batches"]), stored["wait_s"]),
                table_sha256=str(stored["table_sha256"]),
                grid_actions=arrays["grid_actions"],
                serve_value_j=arrays["serve_value_j"],
                latency_s=arrays["latency_s"],
                longer_value_j=arrays["longer_value_j"],
                looks_ahead=bool(stored["looks_ahead"]),
                about=stored["about"],
                **{name: float(stored[name]) for name in _NUMBERS},
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InvalidOptionError(f"plan: {path} cannot be read ({error!r}). Give a file of the planner.") from error
        plan._check_arrays(path)
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
            and self.longer_value_j.shape == (n_clocks, grid.shape[1] - n_batches, grid.shape[2])
            and all(bool(np.isfinite(getattr(self, name)).all()) for name in _ARRAYS)
            and all(np.isfinite(getattr(self, name)) for name in _NUMBERS)
            and self.step_s > 0
            and self.rate_per_s > 0
            and int(grid.min()) >= 0
            and int(grid.max()) < len(self.action_set)
        )
        if not fits:
            raise InvalidOptionError(
                f"plan: {path} has arrays that do not fit its {len(self.action_set)} actions; it was made for others, "
                "or is damaged. Plan again."
            )


_ROUND_UP = 1 - 1e-6
"""A wait between two grid points is taken for the longer: the other way a deadline could be missed by a hair."""
