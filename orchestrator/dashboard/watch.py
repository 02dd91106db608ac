"""Looks at the campaign in the background: what every open page shows is found out once, not once per page."""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, select

from contract.errors import JouleBedError
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.glance import Glance, glance
from orchestrator.dashboard.run_index import RunIndex
from orchestrator.dashboard.settled import settle
from orchestrator.dashboard.standing_store import require_store
from orchestrator.store.schema import EVENT

_log = logging.getLogger(__name__)

WATCHED_S = 1.5
"""Between two looks while a page is open."""

REST_S = 10.0
"""Between two full looks while nothing happens: estimates and disks change by themselves."""

COOLING_S = 4.0
"""Between two looks during a cooldown that nobody watches."""

UNWATCHED_S = 20.0
"""Between two looks while none is."""

_CURVE_POINTS = 1500

_SETTLED_ROWS = 2000
"""Rows read since memory was settled last: those of a large experiment at the start, of a small one never."""


@dataclass
class GateCurve:
    """Temperatures of one testbed around its cooldowns, as far as this process has seen them.

    Attributes:
        points: (when, degrees Celsius of the hottest sensor), bounded.
    """

    points: deque[tuple[datetime, float]] = field(default_factory=lambda: deque(maxlen=_CURVE_POINTS))

    def note(self, at: datetime, temp_c: float) -> None:
        """Take a reading; one that is no newer than the last is left out."""
        if not self.points or at > self.points[-1][0]:
            self.points.append((at, temp_c))

    def since(self, at: datetime) -> list[tuple[datetime, float]]:
        """The readings from then on."""
        return [point for point in self.points if point[0] >= at]


class CampaignWatch:
    """Looks every now and then, in a thread of its own, and keeps what it saw.

    Args:
        board: what is looked at.
        clock: monotonic seconds.
    """

    def __init__(self, board: Dashboard, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._clock = clock
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._glance: Glance | None = None
        self._looked_s = float("-inf")
        self._inode = self._file_now()
        self._mark: object = None
        self._n_settled = 0
        self.index = RunIndex(board.store)
        self.curves: dict[str, GateCurve] = {}
        self.n_watching = 0
        self.version = secrets.randbits(40)
        """Changes with what is seen. It begins anywhere: a page of an earlier process is not to be taken for new."""
        self.trouble = ""

    def start(self) -> None:
        """Look from now on."""
        self._thread = threading.Thread(target=self._loop, name="campaign-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Idempotent."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def look(self, *, at_most_s: float = 1.0) -> Glance:
        """How the campaign stands, as of at most so many seconds ago.

        Raises:
            JouleBedError: the run table is gone, or cannot be read.
        """
        with self._lock:
            require_store(self._board.store)
            if self._glance is None or self._clock() - self._looked_s > at_most_s:
                self._look()
            assert self._glance is not None  # or it were an error
            return self._glance

    def changed(self) -> None:
        """Something was decided on a page: the others are to see it at once."""
        self._looked_s = float("-inf")
        self._wake.set()

    def watched(self, change: int) -> None:
        """A page was opened (1), or closed (-1)."""
        self.n_watching += change
        if change > 0:
            self._wake.set()

    def note_temp(self, testbed: str, at: datetime, temp_c: float) -> None:
        """A testbed told its hottest sensor."""
        self.curves.setdefault(testbed, GateCurve()).note(at, temp_c)

    def curve(self, testbed: str, since: datetime) -> list[tuple[float, float]]:
        """Seconds since then, degrees Celsius; from two minutes before it on."""
        curve = self.curves.get(testbed)
        points = curve.since(since - timedelta(minutes=2)) if curve else []
        return [((at - since).total_seconds(), temp_c) for at, temp_c in points]

    def _loop(self) -> None:
        while not self._stopped:
            try:
                if self._is_old():
                    self.look(at_most_s=0.0)
                told = ""
            except JouleBedError as error:
                told = error.message
            if told != self.trouble:
                if told:
                    _log.warning("%s", told)
                self.trouble = told
                self.version += 1
            self._wake.wait(self._pause_s())
            self._wake.clear()

    def _pause_s(self) -> float:
        if self.n_watching:
            return WATCHED_S
        # The curve of a cooldown is only there where somebody took it down.
        return COOLING_S if self._glance is not None and self._glance.cooldowns else UNWATCHED_S

    def _is_old(self) -> bool:
        """Whether something happened since the last look, or it was long ago; two cheap questions."""
        require_store(self._board.store)
        with self._board.store.reading() as connection:
            mark = connection.execute(select(func.max(EVENT.c.id))).scalar(), self._board.store.facts("driver/")
        is_old = mark != self._mark or self._clock() - self._looked_s > REST_S or bool(self.trouble)
        self._mark = mark
        return is_old

    def _look(self) -> None:
        file = self._file_now()
        if file != self._inode:
            # Repaired, or copied anew: open connections still read the old file.
            self._inode = file
            self._board.store.close()
            self.index.forget()
        before, self._glance = self._glance, glance(self._board, self.index)
        self._looked_s = self._clock()
        if self.index.n_read - self._n_settled >= _SETTLED_ROWS:
            self._n_settled = self.index.n_read
            settle()
        for cooldown in self._glance.cooldowns:
            if cooldown.temp_c is not None:
                # The driver's reading is of its last write; it is at most some seconds old.
                self.note_temp(cooldown.testbed, self._glance.at, cooldown.temp_c)
        if before is None or _shown(before) != _shown(self._glance):
            self.version += 1

    def _file_now(self) -> tuple[int, int] | None:
        path = self._board.store.file
        try:
            found = path.stat() if path is not None else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found else None


def _shown(glance: Glance) -> tuple[object, ...]:
    """What makes a page out of date when it changes: not the mere passing of time."""
    return (
        glance.counts,
        glance.n_excluded,
        glance.pause,
        glance.is_driven,
        [(each.attempt_id, each.state) for each in glance.current],
        glance.cooldowns,
        [(each.name, each.word) for each in glance.testbeds],
        [(remark.code, remark.weight) for remark in glance.remarks],
        glance.events[:1],
    )
