"""One clock for the prefill, another for the decode: set at each boundary, and only where it changes."""

from collections.abc import Sequence
from typing import Protocol

from contract.errors import InvalidOptionError
from testbed.clock import Clock


class Dial(Protocol):
    """Sets the clock of a device: `testbed.device_settings.ClockDial`."""

    @property
    def clock_mhz(self) -> float:
        """What it was told last."""
        ...

    def turn(self, clock_mhz: float) -> None:
        """Set it, and read it back; blocking.

        Raises:
            InvalidOptionError: the device has no such clock.
            ActuatorError: it refused.
        """
        ...


class PhaseDial:
    """Sets a device's clock for each phase of a batch, by bins.

    The device is held by the dial's settings, which read it back at the end of the phase and put it back whatever
    happens.

    Args:
        dial: of the device.
        clocks_mhz: of each bin.
        clock: times the switches.
    """

    def __init__(self, dial: Dial, clocks_mhz: Sequence[float], clock: Clock) -> None:
        self._dial, self._clocks_mhz, self._clock = dial, tuple(clocks_mhz), clock
        self.n_switches = 0
        self.switch_s = 0.0
        """All together, read-back included."""

    def mhz(self, bin_: int) -> float:
        """The clock of a bin.

        Raises:
            InvalidOptionError: there is no such bin.
        """
        if not 0 <= bin_ < len(self._clocks_mhz):
            raise InvalidOptionError(
                f"There is no bin {bin_}: the device has 0 to {len(self._clocks_mhz) - 1}, "
                f"{self._clocks_mhz[0]:g} to {self._clocks_mhz[-1]:g} MHz. Choose one of these."
            )
        return self._clocks_mhz[bin_]

    def turn(self, bin_: int) -> None:
        """Set the clock of a phase that begins now; blocking, until it is read back.

        Args:
            bin_: of the phase.

        Raises:
            InvalidOptionError: no such bin, or the device has not its clock.
            ActuatorError: the device refused.
        """
        clock_mhz = self.mhz(bin_)
        if clock_mhz == self._dial.clock_mhz:
            return
        start_ns = self._clock.monotonic_ns()
        self._dial.turn(clock_mhz)
        self.n_switches += 1
        self.switch_s += (self._clock.monotonic_ns() - start_ns) / 1e9
