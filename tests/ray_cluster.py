"""A Ray cluster of the tests' own on this machine, in processes of its own: `python -m tests.ray_cluster FOLDER`."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

N_TESTBEDS = 2
START_S = 180.0
_N_TRIES = 4
"""Its daemons give each other 15 s to start, which a machine that is busy with other things may not hold."""


def why_not() -> str:
    """Why no cluster can be started here; empty: one can."""
    return "" if find_spec("ray") is not None else "Ray is not installed: pip install 'joulebed[ray]'"


@dataclass(frozen=True)
class RayCluster:
    """One that runs.

    Attributes:
        address: for `--ray`.
        data: folder where its testbeds keep their attempts.
        pid: of the process that everything of it descends from.
    """

    address: str
    data: Path
    pid: int

    def actors(self) -> list[psutil.Process]:
        """Processes of its testbeds."""
        found = []
        for process in psutil.Process(self.pid).children(recursive=True):
            try:
                if "TestbedActor" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found


def ray_environment() -> dict[str, str]:
    """Of a cluster; what its clients need of it is in this process's own afterwards."""
    # Read by Ray when it is first loaded, here as in the cluster; without it, it would write one into the home folder.
    if os.environ.get("RAY_AUTH_MODE") != "token":
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    return {**os.environ, "RAY_raylet_start_wait_time_s": f"{START_S:.0f}"}


@contextmanager
def running_cluster(folder: Path) -> Iterator[RayCluster]:
    """A cluster of two CPUs and two testbeds, that ends with the block."""
    root = Path(__file__).parents[1]
    env = {**os.environ, **ray_environment(), "PYTHONPATH": str(root), "JOULEBED_RAY_DATA": str(folder)}
    with (folder / "cluster.log").open("w") as log:
        for _ in range(_N_TRIES):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.ray_cluster"],
                env=env,
                cwd=root,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            if address:
                break
            process.communicate()
        try:
            assert address, (folder / "cluster.log").read_text()[-2000:]
            yield RayCluster(address, folder, process.pid)
        finally:
            process.communicate(timeout=START_S)  # its input ends


def wait_for(condition: Callable[[], object], limit_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.1)


def main() -> None:
    import ray

    started = ray.init(
        num_cpus=2,
        resources={"joulebed_testbed": N_TESTBEDS},
        include_dashboard=False,
        object_store_memory=100 * 1024 * 1024,
        logging_level="ERROR",
    )
    print(started.address_info["gcs_address"], flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
