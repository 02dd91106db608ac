"""Slows down the guessing of a token: addresses that keep failing are refused unseen for a while."""

from collections import OrderedDict, deque
from collections.abc import Callable

MAX_FAILURES = 20
WINDOW_S = 60.0
_MAX_ADDRESSES = 10_000
_KNOWN_S = 3600.0


class FailedLogins:
    """Counts failures by address, in bounded memory. For one thread (the event loop's).

    An address that has shown the right token within the last hour is not refused: whoever shares the orchestrator's
    address, through a tunnel or behind one router, could lock it out otherwise.

    Args:
        now_s: monotonic seconds.

    Attributes:
        n_failures: wrong or missing tokens so far, from all addresses.
        n_unseen: requests that were refused unseen.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.n_failures = 0
        self.n_unseen = 0
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._known: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long an address has to wait; 0 if it may try."""
        now_s = self._now_s()
        failures = self._failures.get(address)
        if failures is None or now_s - self._known.get(address, -_KNOWN_S) < _KNOWN_S:
            return 0.0
        _forget_old(failures, now_s)
        if len(failures) < MAX_FAILURES:
            return 0.0
        self.n_unseen += 1
        return WINDOW_S - (now_s - failures[0])

    def note_failure(self, address: str) -> bool:
        """A wrong token came from there.

        Returns:
            Whether it is worth a line in the log: the address's first within the window, and the one that fills it.
        """
        self.n_failures += 1
        now_s = self._now_s()
        failures = self._failures.setdefault(address, deque(maxlen=MAX_FAILURES))
        _forget_old(failures, now_s)
        n_before = len(failures)
        failures.append(now_s)
        self._failures.move_to_end(address)
        if len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)
        return n_before in (0, MAX_FAILURES - 1)

    def note_success(self, address: str) -> None:
        """The right token came from there."""
        self._known[address] = self._now_s()
        self._known.move_to_end(address)
        if len(self._known) > _MAX_ADDRESSES:
            self._known.popitem(last=False)


def _forget_old(failures: deque[float], now_s: float) -> None:
    while failures and now_s - failures[0] >= WINDOW_S:
        failures.popleft()
