"""A simulated AGX Orin in a trial: spends simulated time on batches, and keeps what power was drawn when."""

from collections.abc import Callable

import numpy as np

from contract.errors import UsageError
from testbed.clock import Clock
from testbed.simulation.orin import BatchRun, BoardState, OrinSetting, SimulatedOrin
from testbed.simulation.orin_grid import CLOCKS_MHZ

_TOLERANCE_MHZ = 0.5


class OrinMachine:
    """The board with its state, on a clock.

    Args:
        board: times, powers and temperatures.
        clock: on which time is spent.
        read_clock_mhz: what the simulated device is set to now.
        read_fan_on: whether the simulated fan runs.
        seed: of the noise.
        start_c: temperature at the start.
        idle_power_w: while nothing is served.
        source: where the board's figures come from, in words.
        source_sha256: of these.
    """

    def __init__(
        self,
        board: SimulatedOrin,
        clock: Clock,
        read_clock_mhz: Callable[[], float],
        read_fan_on: Callable[[], bool],
        *,
        seed: int,
        start_c: float = 60.0,
        idle_power_w: float = 0.0,
        source: str = "",
        source_sha256: str = "",
    ) -> None:
        self.board, self.clock = board, clock
        self.idle_power_w, self.source, self.source_sha256 = idle_power_w, source, source_sha256
        self._read_clock_mhz, self._read_fan_on = read_clock_mhz, read_fan_on
        self._rng = np.random.default_rng(seed)
        self.state = BoardState(start_c)
        self.power_w = idle_power_w
        self.changes: list[tuple[int, float]] = [(clock.monotonic_ns(), idle_power_w)]
        """(monotonic nanoseconds, watts from then on), in order."""

    @property
    def temp_c(self) -> float:
        """Of the board, now."""
        return self.state.temp_c

    @property
    def clock_mhz(self) -> float:
        """As the simulated device is set now."""
        return self._read_clock_mhz()

    @property
    def is_fan_on(self) -> bool:
        """As the simulated fan is set now."""
        return self._read_fan_on()

    def serve(
        self, n_requests: int, exit_layer: int, decode_mhz: float, on_decode: Callable[[], None]
    ) -> tuple[BatchRun, int]:
        """Serve one batch to its end, and the gap after it.

        The table has times of pairs of clocks, so that of the decode has to be known before; it is checked when the
        decode begins.

        Args:
            n_requests: in the batch.
            exit_layer: layers that are run.
            decode_mhz: what the clock will be set to by `on_decode`.
            on_decode: called between the phases.

        Returns:
            What was run, and the monotonic nanoseconds at which the decode ended: after it comes the gap.

        Raises:
            UsageError: a clock that the board does not have, or the decode's is another than was said.
        """
        wanted = OrinSetting(clock_bin(self._read_clock_mhz()), clock_bin(decode_mhz), n_requests, exit_layer)
        self.state.is_fan_on = self._read_fan_on()
        run = self.board.run(wanted, self.state, self._rng)
        service = run.service
        self._spend(float(service.prefill_s), float(service.prefill_power_w))
        on_decode()
        if clock_bin(self._read_clock_mhz()) != wanted.decode_bin:
            raise UsageError(
                f"The simulated Orin is at {self._read_clock_mhz():g} MHz, and {decode_mhz:g} MHz was said for the "
                "decode. Set the clock between the phases."
            )
        self._spend(float(service.decode_s), float(service.decode_power_w))
        end_ns = self.clock.monotonic_ns()
        self._spend(self.board.gap_s, float(service.mean_power_w))
        self._draw(self.idle_power_w)
        return run, end_ns

    def _spend(self, duration_s: float, power_w: float) -> None:
        self._draw(power_w)
        self.clock.sleep(duration_s)

    def _draw(self, power_w: float) -> None:
        self.power_w = power_w
        self.changes.append((self.clock.monotonic_ns(), power_w))


def clock_bin(clock_mhz: float) -> int:
    """The bin of a clock.

    Args:
        clock_mhz: one of `CLOCKS_MHZ`.

    Raises:
        UsageError: the board has no such clock.
    """
    found = min(range(len(CLOCKS_MHZ)), key=lambda i: abs(CLOCKS_MHZ[i] - clock_mhz))
    if abs(CLOCKS_MHZ[found] - clock_mhz) > _TOLERANCE_MHZ:
        known = ", ".join(f"{each:g}" for each in CLOCKS_MHZ)
        raise UsageError(f"An AGX Orin has no clock of {clock_mhz:g} MHz; there are {known}. Choose one of these.")
    return found
