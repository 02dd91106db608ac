"""Reads a stream of server-sent events."""

from collections.abc import Iterable, Iterator

MAX_EVENT_BYTES = 8 * 2**20
"""A longer event is none of a testbed's."""


def event_data(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The data of each complete event; other fields are left out, since a testbed's data hold all they say.

    Args:
        chunks: of the answer's body, cut anywhere.

    Raises:
        ValueError: an event is longer than `MAX_EVENT_BYTES`.
    """
    part = b""
    data: list[bytes] = []
    n_bytes = 0
    for chunk in chunks:
        *lines, part = (part + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
                n_bytes += len(line)
            elif not line and data:
                yield b"\n".join(data)
                data, n_bytes = [], 0
        if n_bytes + len(part) > MAX_EVENT_BYTES:
            raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")
