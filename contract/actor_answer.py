"""What a testbed that is a Ray actor answers: plain values, so that two versions can read each other."""

from typing import TypedDict


class ActorAnswer(TypedDict):
    """One answer. Exceptions do not cross the network: `error` has the body of one, as JSON."""

    protocol_version: int
    """Of the contract that the testbed speaks."""
    hostname: str
    """Where the actor is now: Ray may have restarted it elsewhere."""
    hardware_sha256: str
    """Of the machine where it is now; see `NodeIdentity`."""
    error: str | None
    """`ErrorBody`; None: it went well."""
    body: bytes
    """The model that the question asks for, as JSON, or a piece of a file."""
