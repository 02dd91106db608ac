"""Where the points of a running trial come from: the socket that its meters send to, or EnergiBridge's log."""

import json
import logging
import math
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.live_socket import LIVE_SOCKET, MAX_MESSAGE_BYTES, open_receiver

_log = logging.getLogger(__name__)

_FORMAT = 1
_MOST_MESSAGES = 512
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Points:
    """New points of one series.

    Attributes:
        domain: as in `TelemetrySeries`, like the others.
        quantity: names the unit.
        source: the meter.
        points: monotonic seconds and value, in order.
    """

    domain: str
    quantity: str
    source: str
    points: tuple[tuple[float, float], ...]


class LiveReceiver:
    """Takes what the meters of a trial's own process send, for as long as it is open.

    Args:
        folder: the attempt's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket: socket.socket | None = None
        try:
            self._socket = open_receiver(folder)
        except OSError as error:
            _log.warning("No live power of this trial: %s takes no socket (%s)", folder, error)

    def new(self) -> Iterator[Points]:
        """What was sent since the last call; never waits."""
        if self._socket is None:
            return
        for _ in range(_MOST_MESSAGES):
            try:
                message = self._socket.recv(MAX_MESSAGE_BYTES)
            except (BlockingIOError, OSError):
                return
            yield from _parse(message)

    def close(self) -> None:
        """Listen no more; the meters notice with their next sample. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            try:
                (self._folder / LIVE_SOCKET).unlink(missing_ok=True)
            except OSError as error:
                _log.debug("%s stays: %s", self._folder / LIVE_SOCKET, error)


def _parse(message: bytes) -> Iterator[Points]:
    """The points of a message; of one that is none of ours, nothing."""
    try:
        document = json.loads(message)
        if document["v"] != _FORMAT:
            return
        source = _name(document["source"])
        series = [
            (_name(domain), _name(quantity), list(zip(time_s, values, strict=True)))
            for domain, quantity, time_s, values in document["series"]
        ]
    except (ValueError, KeyError, TypeError):
        _log.debug("A message that is no telemetry: %r", message[:100])
        return
    for domain, quantity, points in series:
        if quantity.isidentifier():
            yield Points(domain, quantity, source, tuple(point for point in points if all(map(_is_number, point))))


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > _LONGEST_NAME:
        raise ValueError("no name")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
