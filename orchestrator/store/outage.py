"""A database server that goes away in mid-campaign: the campaign waits for it, says so, and goes on when it is back.

Every method of the run table is one transaction, and safe to repeat: what a transaction that broke off has written is
either all there, and found again, or not there at all.
"""

import logging
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar

from orchestrator.store.base import RunTableAwayError, RunTableError
from orchestrator.time_words import told_span

_log = logging.getLogger("orchestrator.campaign")

_Answer = TypeVar("_Answer")
_Given = ParamSpec("_Given")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_TELL_AGAIN_S = 600.0
_ADVICE = (
    "Nothing is lost: what was measured meanwhile waits on the testbeds. Start the server again (look with "
    "`pg_isready`), then run the same command again."
)

Stage = Literal["away", "back", "over"]
"""Of an outage: it began, it is over, or it lasted for too long."""


class ServerWait:
    """How long a campaign waits for its database server. Thread-safe: one thread asks whether it is back, for all.

    Args:
        limit_s: in all; 0: not at all, for whoever would rather be told at once.
        tell: shows a line to a person; what it raises ends the wait.
        note: is told each stage of an outage, with a message.
        pause: between two looks; what it raises ends the wait.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        limit_s: float = 0.0,
        *,
        tell: Callable[[str], None] = lambda message: None,
        note: Callable[[Stage, str], None] = lambda stage, message: None,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s = limit_s
        self._tell = tell
        self._note = note
        self._pause = pause
        self._clock = clock
        self._turn = threading.Lock()
        self._n_back = 0
        self._back_s = float("-inf")
        self._over: RunTableError | None = None

    @property
    def since_back_s(self) -> float:
        """How long ago the last outage ended; infinite: there was none."""
        return self._clock() - self._back_s

    def ask(self, question: Callable[[], _Answer], look: Callable[[str], None]) -> _Answer:
        """The answer, as soon as the server gives one.

        Args:
            question: one transaction, which may be repeated.
            look: whether the server is back, which it is when this raises nothing; is told of the outage in words.

        Raises:
            RunTableAwayError: it is away, and nobody waits.
            RunTableError: it stayed away for too long.
        """
        if self._limit_s <= 0:
            return question()
        begin_s, n_failed = self._clock(), 0
        while True:
            if self._over is not None:
                raise self._over
            n_back = self._n_back
            try:
                return question()
            except RunTableAwayError as error:
                begin_s = begin_s if n_failed else self._clock()
                self._wait(error, n_back, begin_s, n_failed, look)
                n_failed += 1

    def _wait(
        self, error: RunTableAwayError, n_back: int, begin_s: float, n_failed: int, look: Callable[[str], None]
    ) -> None:
        with self._turn:
            if self._over is not None:
                raise self._over
            if n_failed == 0 and self._n_back != n_back:
                return  # another thread has seen it back meanwhile
            # A question that fails although the server answers is not to be asked again at full speed.
            pause_s = min(_FIRST_PAUSE_S * 2 ** min(n_failed, 8), _LONGEST_PAUSE_S)
            cause, told_s = "", float("-inf")
            self._note("away", error.message)
            while True:
                away_s = self._clock() - begin_s
                left_s = self._limit_s - away_s
                if left_s <= 0:
                    self._give_up(error)
                if error.message != cause or self._clock() - told_s >= _TELL_AGAIN_S:
                    cause, told_s = error.message, self._clock()
                    _log.warning("waiting for the run table: %s", cause)
                    self._tell(
                        f"Waiting: {cause} The campaign goes on by itself when it is back, and trials that run go on "
                        f"meanwhile. Trying again for {told_span(left_s)}; Ctrl-C twice ends it here."
                    )
                self._pause(min(pause_s, left_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                away = told_span(self._clock() - begin_s)
                try:
                    look(f"the run table did not answer for {away}: {cause}")
                except RunTableAwayError as again:
                    error = again
                    continue
                break
            self._n_back += 1
            self._back_s = self._clock()
            _log.info("the run table answers again after %s", away)
            self._note("back", "")
            self._tell(f"The run table answers again after {away}: the campaign goes on.")

    def _give_up(self, error: RunTableAwayError) -> None:
        message = f"{error.message} That was so for {told_span(self._limit_s)}, and the campaign ends. {_ADVICE}"
        self._over = RunTableError(message)
        _log.error("%s", message)
        self._note("over", message)
        raise self._over from error


class Patient(Protocol):
    """What has questions that may wait."""

    def patiently(self, question: Callable[[], _Answer]) -> _Answer:
        """The answer, as soon as the server gives one."""
        ...


_Asked = TypeVar("_Asked", bound=Patient)


def patient(
    method: Callable[Concatenate[_Asked, _Given], _Answer],
) -> Callable[Concatenate[_Asked, _Given], _Answer]:
    """A method that is one transaction, and is asked again when the server went away under it."""

    @wraps(method)
    def ask(self: Any, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Answer:
        answer: _Answer = self.patiently(lambda: method(self, *args, **kwargs))
        return answer

    return ask
