"""A Ray cluster whose machines come and go, on this machine: `python -m tests.ray_machines FOLDER`.

Prints its address, with one machine that has a testbed. Then it takes a line each: `add` gives it another machine,
`remove` takes the oldest away as a power cut would, and it answers with a line when that is done.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ray_cluster import START_S, ray_environment


class RayMachines:
    """One that runs.

    Attributes:
        address: for `--ray`.
        folder: each machine's attempts are in a folder of its own there, `machine-0` and so on.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self.folder = folder
        self.address = self._answer()

    def add(self) -> None:
        """A machine with a testbed more."""
        self._ask("add")

    def remove(self) -> None:
        """The oldest of them is gone."""
        self._ask("remove")

    def _ask(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        assert self._answer() == what

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def running_machines(folder: Path) -> Iterator[RayMachines]:
    """A cluster of one machine with a testbed, beside the one that holds it together; it ends with the block."""
    root = Path(__file__).parents[1]
    with (folder / "cluster.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray_machines", str(folder)],
            env={**os.environ, **ray_environment(), "PYTHONPATH": str(root)},
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            machines = RayMachines(process, folder)
            assert machines.address, (folder / "cluster.log").read_text()[-2000:]
            yield machines
        finally:
            process.communicate(timeout=START_S)  # its input ends


def main(folder: Path) -> None:
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 1024 * 1024}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    machines = []

    def add() -> None:
        data = folder / f"machine-{len(machines)}"
        environment = {"JOULEBED_RAY_DATA": str(data)}
        machines.append(cluster.add_node(num_cpus=1, resources={"joulebed_testbed": 1}, env_vars=environment, **small))

    add()
    print(cluster.address, flush=True)
    oldest = 0
    for line in sys.stdin:
        if line.strip() == "add":
            add()
        else:
            cluster.remove_node(machines[oldest], allow_graceful=False)
            oldest += 1
        print(line.strip(), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
