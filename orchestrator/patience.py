"""Keeps asking a testbed that does not answer, for as long as a campaign can wait for it."""

import time
from collections.abc import Callable
from typing import TypeVar

from contract.errors import TestbedUnreachableError

_Answer = TypeVar("_Answer")

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0


class Patience:
    """Repeats what may be repeated. The client has its own short retries; these are the long ones.

    Args:
        limit_s: how long the testbed may stay away.
        clock: monotonic seconds.
        sleep: pauses; what it raises ends the wait.
        on_wait: told why, before each pause.
        on_away: told for how long, before that; what it raises ends the wait.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        on_wait: Callable[[str], None] = lambda message: None,
        on_away: Callable[[float], None] = lambda away_s: None,
    ) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._sleep = sleep
        self._on_wait = on_wait
        self._on_away = on_away

    def ask(self, question: Callable[[], _Answer]) -> _Answer:
        """The answer, as soon as there is one.

        Raises:
            TestbedUnreachableError: none came for too long.
        """
        begin_s = self._clock()
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return question()
            except TestbedUnreachableError as error:
                away_s = self._clock() - begin_s
                if away_s >= self._limit_s:
                    raise
                self._on_away(away_s)
                self._on_wait(f"{error.message} Trying again for {self._limit_s - away_s:.0f} s.")
                self._sleep(min(pause_s, max(self._limit_s - away_s, 0.001)))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
