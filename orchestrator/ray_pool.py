"""The testbeds of a Ray cluster as a pool."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.clients.ray_client import RayClient
from orchestrator.clients.ray_testbeds import RayTestbeds, is_local
from orchestrator.local_testbed import DATA, OWN_SECRETS, LocalOptions
from orchestrator.pool_file import PoolEntry

_SUPERGLUE_VARIABLE = "JOULEBED_SUPERGLUE_DIR"
"""The same name as in `testbed.cli`."""


@dataclass(frozen=True)
class RayPool:
    """The testbeds of a cluster.

    Attributes:
        clients: one per testbed.
    """

    clients: list[RayClient]

    @property
    def entries(self) -> list[PoolEntry]:
        """What the pool knows of them."""
        return [PoolEntry(client.url, name=client.name) for client in self.clients]

    def dial(self, entry: PoolEntry) -> RayClient:
        """The client of a testbed; not the caller's to close."""
        return next(client for client in self.clients if client.url == entry.url)


@contextmanager
def ray_testbeds(
    address: str, folder: Path, local: LocalOptions | None, tell: Callable[[str], None]
) -> Iterator[RayPool]:
    """Connect to a cluster for the length of a campaign.

    Args:
        address: see `RayTestbeds`.
        folder: the experiment's; testbeds of a cluster that lasts as long as the campaign keep their attempts there.
        local: passed through to such testbeds.
        tell: shows a line to the person at the terminal.

    Raises:
        JouleBedError: see `RayTestbeds`.
    """
    options = local or LocalOptions()
    env = {_SUPERGLUE_VARIABLE: str(options.superglue_dir.resolve())} if options.superglue_dir else {}
    if is_local(address):
        # Its testbeds inherit this process's environment; those of a cluster have their machines' own.
        env |= dict.fromkeys(OWN_SECRETS, "")
    root = folder / DATA if is_local(address) else None
    with RayTestbeds(address, data_root=root, meter=options.meter or "auto", child_env=env) as testbeds:
        if testbeds.crowded:
            tell(
                f"Note: {', '.join(testbeds.crowded)} has several testbeds, and each measures what the others draw "
                "too. For results that count, offer one per machine."
            )
        yield RayPool(testbeds.clients)
