"""A server that is a table: it takes and draws what the table says at its present clock."""

from collections.abc import Callable

from testbed.clock import Clock
from testbed.simulation.service_table import ServiceTable


class SimulatedMachine:
    """Spends simulated time, and keeps what power was drawn when.

    Args:
        table: latency and power of each batch at each clock.
        clock: on which time is spent.
        read_clock_mhz: what the simulated device is set to now; the nearest clock of the table is taken.
        idle_power_w: while nothing is served.
        switch_s: without service, for each change of the clock.
        switch_energy_j: of it; None: idle power x time.
    """

    def __init__(
        self,
        table: ServiceTable,
        clock: Clock,
        read_clock_mhz: Callable[[], float],
        *,
        idle_power_w: float = 0.0,
        switch_s: float = 0.05,
        switch_energy_j: float | None = None,
    ) -> None:
        self.table = table
        self.clock = clock
        self.idle_power_w = idle_power_w
        self.switch_s = switch_s
        self._read_clock_mhz = read_clock_mhz
        is_free = switch_energy_j is None or switch_s <= 0
        self._switch_power_w = idle_power_w if is_free else float(switch_energy_j or 0.0) / switch_s
        self.power_w = idle_power_w
        self.changes: list[tuple[int, float]] = [(clock.monotonic_ns(), idle_power_w)]
        """(monotonic nanoseconds, watts from then on), in order."""

    @property
    def source(self) -> str:
        """Where its figures come from, in words."""
        return self.table.source

    @property
    def source_sha256(self) -> str:
        """Of the table."""
        return self.table.sha256

    def serve(self, n_requests: int) -> None:
        """Serve one batch, to its end."""
        clock_mhz = self._read_clock_mhz()
        row = min(range(self.table.n_clocks), key=lambda i: abs(float(self.table.clock_mhz[i]) - clock_mhz))
        column = self.table.column(n_requests)
        self._spend(float(self.table.latency_s[row, column]), float(self.table.power_w[row, column]))

    def switch(self) -> None:
        """Pay for a change of the clock."""
        self._spend(self.switch_s, self._switch_power_w)

    def _spend(self, duration_s: float, power_w: float) -> None:
        self._draw(power_w)
        self.clock.sleep(duration_s)
        self._draw(self.idle_power_w)

    def _draw(self, power_w: float) -> None:
        self.power_w = power_w
        self.changes.append((self.clock.monotonic_ns(), power_w))
