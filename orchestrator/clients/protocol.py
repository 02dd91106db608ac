"""Both nodes must speak the same version of the contract; says so in words when they do not."""

from contract.errors import ProtocolMismatchError
from contract.units import PROTOCOL_VERSION


def check_version(theirs: str, where: str) -> None:
    """Compare a testbed's version with ours.

    Args:
        theirs: what it named.
        where: the testbed, for the message.

    Raises:
        ProtocolMismatchError: they differ.
    """
    if theirs == str(PROTOCOL_VERSION):
        return
    is_newer = theirs.isdecimal() and int(theirs[:9]) > PROTOCOL_VERSION
    older = "this machine" if is_newer else "the testbed"
    raise ProtocolMismatchError(
        f"The testbed at {where} speaks protocol version {theirs[:20]}, this orchestrator speaks version "
        f"{PROTOCOL_VERSION}. Upgrade joulebed on {older}: both need the same version.",
        testbed_version=theirs[:20],
        orchestrator_version=PROTOCOL_VERSION,
    )
