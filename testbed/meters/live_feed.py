"""Tells whoever listens what a meter has sampled: the samples that it keeps anyway, none more.

Called in the sampler's thread after a sample, so what it costs is in the sampler's own CPU seconds. While nobody
listens that is one look per second whether the testbed has opened a socket.
"""

import json
import socket
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from testbed.live_socket import open_sender
from testbed.meters.sampler import Samples

LOOK_S = 1.0
"""Between two looks whether somebody listens."""

PAST_S = 120.0
"""A new listener is told this much of the past."""

STEP_S = 0.09
"""Points of a series are this far apart, or as far as the samples: eyes see no more, and a counter loses nothing."""

SEND_S = 0.4
"""Between two messages: each costs as much as many points do. None of the past is held back."""

_CHUNK = 250
_MESSAGE_POINTS = 1000
_FORMAT = 1


@dataclass(frozen=True)
class LiveSeries:
    """What a meter samples of one quantity, as it is so far.

    Attributes:
        domain: as in `Trace.domain`.
        quantity: `power_w`, or as in `Gauge.quantity`.
        samples: grows while the meter runs.
        is_counter: joules since some time, told as watts; else the values are told as they are.
        wrap_j: modulus of the counter; None where it does not wrap, or that is not known.
    """

    domain: str
    quantity: str
    samples: Samples
    is_counter: bool = False
    wrap_j: float | None = None

    def points(self, base: int, limit: int) -> tuple[int, list[float], list[float]]:
        """What follows a sample, thinned.

        Args:
            base: index of the last sample that was told, or that a counter's first interval begins with.
            limit: most points.

        Returns:
            The new base, times and values.
        """
        times, values = self.samples.time_s, self.samples.values
        # The reader of another thread's list may find a time without its value yet.
        end = min(len(times), len(values))
        time_s: list[float] = []
        told: list[float] = []
        while len(time_s) < limit:
            index = bisect_left(times, times[base] + STEP_S, base + 1, end) if base + 1 < end else end
            if index >= end:
                break
            value = values[index]
            if self.is_counter:
                step_j = value - values[base]
                if step_j < 0 and self.wrap_j is not None:
                    step_j += self.wrap_j
                value = step_j / (times[index] - times[base])
            if not self.is_counter or value >= 0:  # a step back that no wrap explains is no power
                time_s.append(round(times[index], 4))
                told.append(round(value, 4))
            base = index
        return base, time_s, told


class LiveFeed:
    """Sends new samples to the listener, if there is one. Never raises, never waits.

    Args:
        folder: the attempt's.
        source: the meter's name.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._folder = folder
        self._source = source
        self._socket: socket.socket | None = None
        self._look_again_s = float("-inf")
        self._send_again_s = float("-inf")
        self._bases: dict[tuple[str, str], int] = {}

    def tell(self, now_s: float, series: Callable[[], Iterable[LiveSeries]]) -> None:
        """Send what is new.

        Args:
            now_s: of the samples' clock.
            series: asked only while somebody listens.
        """
        if self._socket is None:
            if now_s < self._look_again_s:
                return
            self._look_again_s = now_s + LOOK_S
            self._socket = open_sender(self._folder)
            self._bases = {}
            if self._socket is None:
                return
        elif now_s < self._send_again_s:
            return
        told: list[tuple[str, str, list[float], list[float]]] = []
        bases = dict(self._bases)
        room, is_behind = _MESSAGE_POINTS, False
        for each in series():
            key = (each.domain, each.quantity)
            if not each.samples.values:
                continue
            if room <= 0:
                is_behind = True
                break
            base = bases.get(key)
            if base is None:
                # One before the first that is told.
                base = max(bisect_left(each.samples.time_s, now_s - PAST_S) - 1, 0)
            limit = min(_CHUNK, room)
            bases[key], time_s, values = each.points(base, limit)
            room -= len(time_s)
            is_behind = is_behind or len(time_s) == limit
            if time_s:
                told.append((each.domain, each.quantity, time_s, values))
        if told and not self._send(self._socket, told):
            return
        self._bases = bases
        self._send_again_s = now_s if is_behind else now_s + SEND_S

    def finish(self, now_s: float, series: Callable[[], Iterable[LiveSeries]]) -> None:
        """Send what is left, and nothing further. Idempotent.

        Args:
            now_s: as in `tell`.
            series: as in `tell`.
        """
        if self._socket is not None:
            self._send_again_s = now_s
            self.tell(now_s, series)
        self.close()

    def close(self) -> None:
        """Send nothing further. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._look_again_s = float("inf")

    def _send(self, to: socket.socket, told: list[tuple[str, str, list[float], list[float]]]) -> bool:
        message = json.dumps({"v": _FORMAT, "source": self._source, "series": told}, separators=(",", ":"))
        try:
            to.send(message.encode())
        except BlockingIOError:
            return False  # its queue is full: the same again with the next sample
        except OSError:
            to.close()  # it is gone
            self._socket = None
            return False
        return True
