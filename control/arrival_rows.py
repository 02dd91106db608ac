"""The arrivals of many simulated servers, searched for all of them at once.

They lie in one array, a row for each server, each row ended by infinite times. One binary search serves all rows: it
runs over keys, which are arrivals plus an offset for each row, so that they rise over all rows. A key is rounded
where an arrival is not, therefore what the search finds is compared once more with the arrivals: results are exact.
Positions are indices into the whole array.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class ArrivalRows:
    """Arrivals of N servers.

    Args:
        n_rows: N.
        duration_s: every arrival is before this.
        capacity: arrivals that a row can hold; grows where it must.
        padding: infinite times after each row; as many as the largest batch, at least.
    """

    def __init__(self, n_rows: int, duration_s: float, capacity: int, padding: int) -> None:
        self._n_rows = n_rows
        self._duration_s = duration_s
        self._padding = padding
        self._offset_s = np.arange(n_rows) * (2.0 * duration_s)
        self._end_key_s = self._offset_s + 1.5 * duration_s
        self._width = capacity + padding
        self._has_ties = False
        self._keys: Floats = np.repeat(self._end_key_s, self._width)
        self.time_s: Floats = np.full(n_rows * self._width, np.inf)

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """All that changes, as copies; see `restore`."""
        return {"time_s": self.time_s.copy(), "keys": self._keys.copy(), "has_ties": np.array([self._has_ties])}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from the `state` of as many rows of the same duration and padding."""
        self.time_s, self._keys = np.copy(state["time_s"]), np.copy(state["keys"])
        self._width = self.time_s.size // self._n_rows
        self._has_ties = bool(state["has_ties"][0])

    def put(self, row: int, arrivals_s: Floats) -> tuple[int, Ints]:
        """Fill a row anew.

        Returns:
            Position of its first arrival, and (N,) how far the positions of each row moved to make room.
        """
        moved = np.zeros(self._n_rows, np.int64)
        if arrivals_s.size > self._width - self._padding:
            moved = self._grow(arrivals_s.size + arrivals_s.size // 8)
        start, n = row * self._width, arrivals_s.size
        self.time_s[start : start + self._width] = np.inf
        self._keys[start : start + self._width] = self._end_key_s[row]
        self.time_s[start : start + n] = arrivals_s
        self._keys[start : start + n] = arrivals_s + self._offset_s[row]
        self._has_ties |= bool(np.any(arrivals_s[1:] == arrivals_s[:-1]))
        return start, moved

    def _grow(self, capacity: int) -> Ints:
        old, width = self._width, capacity + self._padding
        time_s = np.full((self._n_rows, width), np.inf)
        keys = np.repeat(self._end_key_s, width).reshape(self._n_rows, width)
        time_s[:, :old] = self.time_s.reshape(self._n_rows, old)
        keys[:, :old] = self._keys.reshape(self._n_rows, old)
        self.time_s, self._keys, self._width = time_s.ravel(), keys.ravel(), width
        return np.arange(self._n_rows) * (width - old)

    def arrived(self, now_s: Floats) -> Ints:
        """(N,): position after the last arrival of each row until now (N,), which is not before the first one."""
        found: Ints = self._keys.searchsorted(np.minimum(now_s, self._duration_s) + self._offset_s, side="right")
        # Rounding keeps order, so a key is never above one of a later time: too many may be found, never too few.
        while (early := self.time_s[found - 1] > now_s).any():
            found -= early
        return found

    def skip_empty(self, now_s: Floats, head: Ints, arrived: Ints) -> Floats:
        """Where the queue is empty, go on to the next arrival, or to the end. Moves `arrived` past who comes then.

        Args:
            now_s: (N,).
            head: (N,), position of the next request to be served.
            arrived: (N,), of `arrived(now_s)`; changed in place.

        Returns:
            (N,): now, or the later time.
        """
        empty = (arrived == head).nonzero()[0]
        if not empty.size:
            return now_s
        coming_s = self.time_s[arrived[empty]]
        comes = coming_s < np.inf
        later_s = now_s.copy()
        later_s[empty] = np.where(comes, coming_s, np.maximum(now_s[empty], self._duration_s))
        arrived[empty] += comes
        if self._has_ties:
            while (more := self.time_s[arrived] <= later_s).any():
                arrived += more
        return later_s

    def n_late(self, end_s: Floats, head: Ints, batch: Ints, slo_s: float) -> Ints:
        """(N,): how many of the batch (N,) at the head (N,) end more than the SLO after their arrival."""
        n_late = np.zeros(self._n_rows, np.int64)
        which = ((end_s - self.time_s[head] > slo_s) & (batch > 0)).nonzero()[0]
        if which.size:
            sizes = batch[which, None]
            place = np.arange(sizes.max())
            latencies_s = end_s[which, None] - self.time_s[head[which, None] + place]
            n_late[which] = ((latencies_s > slo_s) & (place < sizes)).sum(axis=1)
        return n_late

    def drop_newest(self, head: Ints, n_lost: Ints, n_kept: int) -> None:
        """Where any are lost, the `n_kept` at the head move up, over them, to the arrivals to come.

        Args:
            head: (N,), position of the next request to be served; moves along.
            n_lost: (N,), of the newest.
            n_kept: the full queue.
        """
        which = n_lost.nonzero()[0]
        old = head[which, None] + np.arange(n_kept)
        # The keys stay as they are: those of all who have arrived are found, whoever they are.
        self.time_s[old + n_lost[which, None]] = self.time_s[old]
        head += n_lost
