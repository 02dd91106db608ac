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
        self.level = 0
        self._clock = clock
        self._sleep = sleep
        self._canceller: Callable[[], None] | None = None

    def request(self) -> None:
        """Ask once more; the third time ends the process as Ctrl-C does.

        Raises:
            KeyboardInterrupt: it was asked a third time.
        """
        self.level += 1
        if self.level > 2:
            raise KeyboardInterrupt
        if self.level == 2 and self._canceller is not None:
            # The controller is in the middle of a long poll, which the cancellation ends.
            threading.Thread(target=self._canceller, name="cancel", daemon=True).start()

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
