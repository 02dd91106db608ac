"""Orchestrator and testbed as two machines: network namespaces with a cable between them that can be pulled."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Machines:
    """How to run a command on each, and the testbed's address."""

    vps: tuple[str, ...] = ()
    box: tuple[str, ...] = ()
    box_host: str = "127.0.0.1"
    cable: tuple[str, str] | None = None
    """Namespace and device of the testbed's end; None without namespaces."""

    def pull(self) -> None:
        """Cut the nodes off from each other: packets vanish, and nobody is told."""
        assert self.cable is not None
        _require("-n", self.cable[0], "link", "set", self.cable[1], "down")

    def plug(self) -> None:
        """Mend it."""
        assert self.cable is not None
        _require("-n", self.cable[0], "link", "set", self.cable[1], "up")


ONE_MACHINE = Machines()


@contextmanager
def two_machines() -> Iterator[Machines | None]:
    """Two network namespaces; None where this system or this user cannot make them."""
    vps, box, number = f"jbf-vps-{os.getpid()}", f"jbf-box-{os.getpid()}", os.getpid() % 250
    if shutil.which("ip") is None or not _ip("netns", "add", vps):
        yield None
        return
    try:
        _require("netns", "add", box)
        _require("link", "add", "jbv", "netns", vps, "type", "veth", "peer", "name", "jbb", "netns", box)
        for namespace, device, last in ((vps, "jbv", 1), (box, "jbb", 2)):
            _require("-n", namespace, "addr", "add", f"10.98.{number}.{last}/24", "dev", device)
            _require("-n", namespace, "link", "set", device, "up")
            _require("-n", namespace, "link", "set", "lo", "up")
        prefix = ("ip", "netns", "exec")
        yield Machines((*prefix, vps), (*prefix, box), f"10.98.{number}.2", (box, "jbb"))
    finally:
        _ip("netns", "del", vps)
        _ip("netns", "del", box)


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0


def _require(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)
