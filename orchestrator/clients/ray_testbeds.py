"""The testbeds of a Ray cluster: one actor per unit of the custom resource, made where there is none yet."""

import os
import secrets
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contract.errors import ConfigError, MissingPackageError, TestbedUnreachableError
from orchestrator.clients.ray_client import RayClient

RESOURCE = "joulebed_testbed"
"""Ray's custom resource; one unit is one testbed. The same name as in `testbed.ray_actor`."""

LOCAL = "local"
"""In place of a cluster's address: one on this machine, for the length of a campaign."""

_NAMESPACE = "joulebed"
_MAX_CALLS = 64
"""Questions that an actor works on at a time: long polls wait there."""
_KNOCK_S = 10.0
_LOCAL_STORE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class ActorPlace:
    """Where one testbed is to be.

    Attributes:
        host: name of the machine.
        name: of the actor; the same whenever the cluster is looked at, so that its attempts are found again.
        node_id: Ray's, of the machine.
        n_cpus: its share of the machine, so that Ray runs nothing else there.
        n_gpus: likewise.
    """

    host: str
    name: str
    node_id: str
    n_cpus: float
    n_gpus: float


def places(nodes: Sequence[Mapping[str, Any]]) -> list[ActorPlace]:
    """One place per unit of the resource.

    Args:
        nodes: as `ray.nodes()` tells them.
    """
    found: list[ActorPlace] = []
    n_of_host: dict[str, int] = {}
    for node in sorted(nodes, key=lambda node: (node["NodeManagerHostname"], node["NodeID"])):
        resources = node.get("Resources", {})
        n_units = int(resources.get(RESOURCE, 0))
        if not node["Alive"] or n_units < 1:
            continue
        host = node["NodeManagerHostname"]
        for _ in range(n_units):
            number = n_of_host[host] = n_of_host.get(host, -1) + 1
            n_cpus, n_gpus = resources.get("CPU", 0.0) / n_units, resources.get("GPU", 0.0) / n_units
            # A fraction of a device would be shared: then it is not asked for, and is the nodes' own affair.
            found.append(ActorPlace(host, f"testbed-{host}-{number}", node["NodeID"], n_cpus // 1, n_gpus // 1))
    return found


class RayTestbeds:
    """A connection to a Ray cluster, and a client for each of its testbeds. A context manager.

    Args:
        address: of the cluster: `HOST:PORT`, `ray://HOST:PORT`, `auto`; or `local`, or `local:N` with N testbeds.
        data_root: folder of the testbeds' data on their machines; None: as they are set up.
        meter: what the meter name `auto` stands for.
        child_env: added to the environment of the trials.

    Raises:
        MissingPackageError: Ray, or the testbed's part of this distribution, is not installed.
        ConfigError: the address is none, or the cluster has no testbed.
        TestbedUnreachableError: no cluster answers.
    """

    def __init__(
        self,
        address: str,
        *,
        data_root: Path | None = None,
        meter: str = "auto",
        child_env: Mapping[str, str] | None = None,
    ) -> None:
        self._address = address
        self._data_root = data_root
        self._meter = meter
        self._child_env = dict(child_env or {})
        self._stack = ExitStack()
        self.clients: list[RayClient] = []
        self.crowded: list[str] = []
        """Machines that have several testbeds."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._connect(stack)
            import ray

            found = places(ray.nodes())
            if not found:
                raise ConfigError(
                    f"No machine of the Ray cluster at {self._address} offers a testbed. Start Ray there with "
                    f"--resources='{{\"{RESOURCE}\": 1}}' (docs/ray.md)."
                )
            machines = Counter(place.node_id for place in found)
            self.crowded = [place.host for place in found if machines.pop(place.node_id, 0) > 1]
            for place in found:
                client = RayClient(place.name, partial(self._actor, place))
                stack.callback(client.close)
                self.clients.append(client)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self.clients = []

    def _connect(self, stack: ExitStack) -> None:
        options: dict[str, Any] = {"address": self._address}
        if is_local(self._address):
            # Ray tells its makers of every cluster by default: not from here.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # Its 30 s are too few on a small machine that is busy.
            os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")
            # Read when Ray is first loaded. Without a token of its own, it would write one into the home folder.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            options = {
                "address": LOCAL,
                "resources": {RESOURCE: _n_local(self._address)},
                "include_dashboard": False,
                "object_store_memory": _LOCAL_STORE_BYTES,
            }
        else:
            _knock(self._address)
        try:
            import ray
        except ImportError as error:
            raise MissingPackageError(f"Ray is not installed: pip install 'joulebed[ray]'. ({error})") from error
        try:
            ray.init(**options, namespace=_NAMESPACE, log_to_driver=False, logging_level="ERROR")
        except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
            raise _no_cluster(self._address, error) from error
        stack.callback(ray.shutdown)

    def _actor(self, place: ActorPlace) -> Any:
        """The actor of a place, or a new one. Ray restarts it wherever its resources are free."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        try:
            # The other place where the orchestrator's room opens on the testbed's: Ray sends the class by its name.
            from testbed.ray_actor import TestbedActor
        except ImportError as error:
            raise MissingPackageError(
                f"The testbed's part of joulebed is not installed here: pip install 'joulebed[testbed,ray]'. ({error})"
            ) from error
        options: dict[str, Any] = {
            "name": place.name,
            "namespace": _NAMESPACE,
            "get_if_exists": True,
            # It outlives an orchestrator that is killed: the next one finds the trial that runs.
            "lifetime": "detached",
            "max_restarts": -1,
            "max_concurrency": _MAX_CALLS,
            "num_cpus": place.n_cpus,
            "num_gpus": place.n_gpus,
            "resources": {RESOURCE: 1},
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node_id, soft=True),
        }
        root = None if self._data_root is None else str(self._data_root.resolve())
        # Who writes the experiment owns this machine: there is nobody to protect a file from.
        models = ("*",) if is_local(self._address) else None
        actor = ray.remote(TestbedActor).options(**options)
        return actor.remote(place.name, root, self._meter, self._child_env or None, models)


def is_local(address: str) -> bool:
    """Whether an address asks for a cluster on this machine, which lasts as long as the campaign."""
    return address.partition(":")[0] == LOCAL


def _knock(address: str) -> None:
    """See that somebody listens there: Ray itself asks for two minutes before it says that nobody does."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon:
        return  # such as `auto`
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> TestbedUnreachableError:
    why = " ".join(str(error).split())[:300]
    return TestbedUnreachableError(
        f"No Ray cluster answers at {address} ({why}). Check `ray status` there, that Ray and Python have the same "
        "versions on all machines, and that RAY_AUTH_TOKEN holds the cluster's token where it asks for one.",
        url=address,
    )


def _n_local(address: str) -> int:
    number = address.partition(":")[2] or "1"
    if not number.isdecimal() or not 1 <= int(number) <= 64:
        raise ConfigError(f"{address!r} is not the address of a Ray cluster. Give local, or local:2 for two testbeds.")
    return int(number)
