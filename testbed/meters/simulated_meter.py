"""The power of a simulated device, from what it did: nothing is measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from contract.errors import MeterUnavailableError
from contract.trial_result import EnergyMethod
from energy.trace import Trace
from testbed.clock import Clock
from testbed.meters.base import MeterProbe, MeterReport

_Ints = np.ndarray[tuple[int], np.dtype[np.int64]]

_MOST_SAMPLES = 50
"""Within one sampling period."""


class PoweredMachine(Protocol):
    """A simulated machine that keeps what power was drawn when."""

    @property
    def clock(self) -> Clock:
        """On which it spends time."""
        ...

    @property
    def power_w(self) -> float:
        """Now."""
        ...

    @property
    def idle_power_w(self) -> float:
        """While nothing is served."""
        ...

    @property
    def changes(self) -> Sequence[tuple[int, float]]:
        """(monotonic nanoseconds, watts from then on), in order."""
        ...

    @property
    def source(self) -> str:
        """Where its figures come from, in words."""
        ...

    @property
    def source_sha256(self) -> str:
        """Of these."""
        ...


class SimulatedMeter:
    """See `Meter`. Goes with the engines `simulated` and `simulated_orin`, and with no other.

    Delivers a counter of joules that is exact at every change of power, so that no figure depends on the period.

    Args:
        period_s: of the samples between the changes.
    """

    name = "simulated"
    domain = "gpu:0"

    def __init__(self, *, period_s: float = 0.2) -> None:
        self._period_s = period_s
        self._machine: PoweredMachine | None = None
        self._start_ns: int | None = None
        self._report: MeterReport | None = None

    def connect(self, machine: PoweredMachine) -> None:
        """Whose power it tells."""
        self._machine = machine

    def probe(self) -> MeterProbe:
        """See `Meter`: it is always there, for the engine `simulated`."""
        return MeterProbe(True, "simulated: the power of a simulated engine, not measured", (self.domain,))

    def start(self, out_dir: Path) -> None:
        """See `Meter`."""
        if self._machine is None:
            raise MeterUnavailableError(
                "The meter 'simulated' tells the power of a simulated engine, and this trial has another engine. "
                "Choose another meter, such as auto.",
                meter=self.name,
            )
        self._start_ns = self._machine.clock.monotonic_ns()

    def latest_power_w(self) -> dict[str, float]:
        """See `Meter`."""
        machine = self._machine
        return {} if machine is None or self._start_ns is None else {self.domain: machine.power_w}

    def stop(self) -> MeterReport:
        """See `Meter`."""
        machine, start_ns = self._machine, self._start_ns
        if self._report is not None or machine is None or start_ns is None:
            return self._report or MeterReport((), None)
        end_ns = machine.clock.monotonic_ns()
        note = f"simulated, not measured: powers of the table {machine.source}"
        time_s, energy_j = self._counter(machine, start_ns, end_ns)
        trace = Trace(self.domain, "gpu", "counter", EnergyMethod.ESTIMATE, self.name, time_s, energy_j, note=note)
        self._report = MeterReport(
            traces=(trace,),
            sampler_cpu_s=0.0,  # nothing samples
            settings=self.settings(machine),
            window_s=(end_ns - start_ns) / 1e9,
        )
        return self._report

    def settings(self, machine: PoweredMachine) -> Mapping[str, str | float | int | None]:
        """What the figures rest on."""
        return {
            "period_s": self._period_s,
            "table": machine.source,
            "table_sha256": machine.source_sha256,
            "idle_power_w": machine.idle_power_w,
        }

    def _counter(
        self, machine: PoweredMachine, start_ns: int, end_ns: int
    ) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
        """Times and joules, at every change of power and in the sampling rhythm between."""
        changes_ns = np.array([at_ns for at_ns, _ in machine.changes], dtype=np.int64)
        powers_w = np.array([power_w for _, power_w in machine.changes])
        total_j = np.concatenate([[0.0], np.cumsum(np.diff(changes_ns) / 1e9 * powers_w[:-1])])
        grid_ns = np.arange(start_ns, end_ns, max(round(self._period_s * 1e9), 1), dtype=np.int64)
        inside = changes_ns[(changes_ns > start_ns) & (changes_ns < end_ns)]
        time_ns = np.unique(np.concatenate([grid_ns, inside, np.array([start_ns, end_ns], dtype=np.int64)]))
        time_ns = _filled(time_ns, round(self._period_s * 1e9 / _MOST_SAMPLES))
        index = np.searchsorted(changes_ns, time_ns, side="right") - 1
        energy_j = total_j[index] + (time_ns - changes_ns[index]) / 1e9 * powers_w[index]
        return time_ns / 1e9, energy_j


def _filled(time_ns: _Ints, least_ns: int) -> _Ints:
    """With samples in the longer intervals: between many short batches a pause would look like a gap in the record."""
    spans_ns = np.diff(time_ns)
    if not spans_ns.size:
        return time_ns
    step_ns = max(2 * int(np.median(spans_ns)), least_ns, 1)
    more = [
        np.arange(time_ns[i] + step_ns, time_ns[i + 1], step_ns, dtype=np.int64)
        for i in np.flatnonzero(spans_ns > step_ns)
    ]
    return np.unique(np.concatenate([time_ns, *more]))
