"""How a person stops a campaign: once after the current trial, twice by cancelling it."""

import threading
import time
from collections.abc import Callable
from types import FrameType

from contract.errors import JouleBedError

_SLICE_S = 0.2


class StoppedError(JouleBedError):
    """Somebody asked to stop while the controller was waiting. Never leaves the orchestrator."""

    code = "stopped"


class StopRequest:
    """What was asked for so far.

    Args:
        clock: monotonic seconds.
        sleep: the pauses between two looks.

    Attributes:
        level: 0 go on, 1 stop after the current trial, 2 cancel it.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        # A plain number and no threading.Event: a signal handler may interrupt the holder of an event's lock.
        self.level = 0  # a part has none of its own
        self._clock = clock
        self._sleep = sleep
        self._canceller: Callable[[], None] | None = None
        self._parts: list[StopRequest] = []
        # Set by whoever waits for the threads, and never in a signal handler, which might interrupt a holder of its
        # lock: see `tell_parts`.
        self._told = threading.Event()

    def part(self) -> "StopRequest":
        """The same request for one of several testbeds: with a trial of its own to cancel, for a thread of its own."""
        part = _Part(self, self._clock)
        self._parts.append(part)
        return part

    def tell_parts(self) -> None:
        """Wake parts that sleep if a person asked to stop. To be called every now and then while they work."""
        if self.level > 0:
            self._told.set()

    def request(self) -> None:
        """Ask once more; the third time ends the process as Ctrl-C does.

        Raises:
            KeyboardInterrupt: it was asked a third time.
        """
        self.level += 1
        if self.level > 2:
            raise KeyboardInterrupt
        if self.level == 2:
            # Controllers are in the middle of a long poll, which the cancellation ends; a dead testbed delays no other.
            for each in (self, *self._parts):
                if each._canceller is not None:
                    threading.Thread(target=each._canceller, name="cancel", daemon=True).start()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """A handler for SIGINT and SIGTERM."""
        self.request()

    def cancel_with(self, canceller: Callable[[], None] | None) -> None:
        """Set what cancels the current trial; it is called in a thread of its own, and must not raise."""
        self._canceller = canceller

    def sleep(self, duration_s: float) -> None:
        """Pause before a trial.

        Raises:
            StoppedError: somebody asked to stop, now or before.
        """
        self._pause(duration_s, 1)

    def sleep_unless_cancelled(self, duration_s: float) -> None:
        """Pause while a trial is under way.

        Raises:
            StoppedError: somebody asked twice.
        """
        self._pause(duration_s, 2)

    def _pause(self, duration_s: float, level: int) -> None:
        end_s = self._clock() + duration_s
        while True:
            if self.level >= level:
                raise StoppedError("The campaign was stopped. Run the same command again to continue.")
            left_s = end_s - self._clock()
            if left_s <= 0:
                return
            self._sleep(min(left_s, _SLICE_S))


class _Part(StopRequest):
    """Sleeps without waking up in between: a thousand threads that look five times a second are a load."""

    def __init__(self, whole: StopRequest, clock: Callable[[], float]) -> None:
        self._whole = whole
        super().__init__(clock=clock, sleep=self._doze)

    @property
    def level(self) -> int:
        return self._whole.level

    @level.setter
    def level(self, level: int) -> None:
        pass

    def _pause(self, duration_s: float, level: int) -> None:
        end_s = self._clock() + duration_s
        while self.level < level and (left_s := end_s - self._clock()) > 0:
            self._doze(left_s)
        super()._pause(0.0, level)

    def _doze(self, duration_s: float) -> None:
        if self._whole._told.is_set():
            time.sleep(min(duration_s, _SLICE_S))
        else:
            self._whole._told.wait(duration_s)
