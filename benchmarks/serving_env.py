"""How many decisions a second the serving environment makes on one core, beside its own reference implementation.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/serving_env.py
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/serving_env.py --table PROFILE.csv --rounds 9

The reference is the slow, readable event loop that the vectorised core is tested against step by step. Both serve the
same case in turns; `wall` is what a watch says, `CPU` leaves out the time that other programs had the core. A step of N
copies counts as N. Without `--table`, a table of 15 clocks and 64 batches of our own making is served: how fast it
goes does not depend on the figures in it.

    constant   one setting, always: queues stay short
    random     any action, waiting included: clocks change, queues of all lengths
    overload   four times the rate with batches of 8: full queues, requests lost at every step
    adapter    as constant, through the VecEnv of stable-baselines3

The limit: 64 copies make 200,000 steps a second at least (constant, median of the rounds). It is held to the CPU time,
which is the time of one core: on a machine with nothing else to do, the watch says the same.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from control.reference_simulation import simulate  # noqa: E402
from control.serving_case import ServingCase  # noqa: E402
from control.serving_env import ServingVecEnv  # noqa: E402
from control.vector_env import VectorEnv  # noqa: E402
from testbed.policies.actions import ActionSet  # noqa: E402
from testbed.policies.base import Decision, Observation, Setting, Wait  # noqa: E402
from testbed.simulation.arrivals import ArrivalSpec  # noqa: E402
from testbed.simulation.service_table import ServiceTable, read_service_table  # noqa: E402

LIMIT_PER_S = 200_000
WARM_UP_STEPS = 50

Ints = npt.NDArray[np.int64]


def made_table() -> ServiceTable:
    """Shaped like an A100's: faster and hungrier with the clock, slower with the batch."""
    clocks, batches = np.linspace(705.0, 1410.0, 15), np.arange(1, 65)
    return ServiceTable(
        clock_mhz=clocks,
        batch_sizes=batches,
        latency_s=5.0 * (1410 / clocks)[:, None] ** 0.3 * (1 + 0.005 * batches)[None, :],
        power_w=(60 + 100 * (clocks / 1410) ** 3)[:, None] + 0.1 * batches[None, :],
        source="made",
    )


class Listed:
    """A policy that takes the actions of a list, over and over."""

    name = "listed"

    def __init__(self, actions: ActionSet, indices: Ints) -> None:
        self._choices = [actions.choice(int(each)) for each in indices]
        self._next = 0

    def decide(self, observation: Observation) -> Decision | Wait:
        self._next += 1
        return self._choices[self._next % len(self._choices)]

    def reset(self) -> None:
        self._next = 0

    def settings(self) -> Mapping[str, Setting]:
        return {}


@dataclass
class Speed:
    """Decisions a second.

    Attributes:
        wall_per_s: by the watch.
        cpu_per_s: of this process's own time.
    """

    wall_per_s: float
    cpu_per_s: float


def timed(work: Callable[[], int]) -> Speed:
    """Do it; it says how many decisions it made."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    n = work()
    return Speed(n / (time.perf_counter() - wall_s), n / (time.process_time() - cpu_s))


@dataclass
class Scene:
    """A case and a list of actions, for each copy."""

    name: str
    case: ServingCase
    indices: Ints
    is_adapter: bool = False

    def vectorised(self, n_copies: int, n_steps: int) -> Speed:
        """The core, or the adapter on it."""
        env = ServingVecEnv(self.case, n_copies) if self.is_adapter else None
        core = VectorEnv(self.case, n_copies) if env is None else env.core
        step = core.step if env is None else env.step
        _ = core.reset(0) if env is None else env.reset()
        # Each copy is elsewhere in the list.
        actions = [np.roll(self.indices, each)[:n_copies] for each in range(len(self.indices))]
        for each in range(WARM_UP_STEPS):
            step(actions[each % len(actions)])

        def work() -> int:
            for each in range(n_steps):
                step(actions[each % len(actions)])
            return n_steps * n_copies

        return timed(work)

    def reference(self) -> Speed:
        """One episode of the event loop."""
        policy = Listed(VectorEnv(self.case, 1).actions, self.indices)
        return timed(lambda: simulate(self.case, policy, 0).n_decisions)


def scenes(table: ServiceTable, slo_s: float) -> list[Scene]:
    """See the module's docstring."""
    case = ServingCase(table, slo_s, ArrivalSpec(rate_per_s=0.8))
    actions = VectorEnv(case, 1).actions
    middle = float(table.clock_mhz[table.n_clocks // 2])
    constant = np.full(256, actions.index(Decision(middle, table.max_batch), table.max_batch))
    eight = np.full(256, actions.index(Decision(middle, min(8, table.max_batch)), table.max_batch))
    random = np.random.default_rng(0).integers(0, len(actions), 256)
    return [
        Scene("constant", case, constant),
        Scene("random", case, random),
        Scene("overload", replace(case, arrivals=ArrivalSpec(rate_per_s=3.2)), eight),
        Scene("adapter", case, constant, is_adapter=True),
    ]


def row(name: str, vectorised: list[Speed], reference: list[Speed]) -> None:
    """Print medians, the slowest and the fastest round, and ratios."""
    walls = sorted(each.wall_per_s for each in vectorised)
    cpus, slow = [statistics.median(e.cpu_per_s for e in each) for each in (vectorised, reference)]
    slow_wall = statistics.median(each.wall_per_s for each in reference)
    wall = statistics.median(walls)
    print(
        f"{name:<10} {wall:10,.0f} {walls[0]:10,.0f} {walls[-1]:10,.0f} {cpus:10,.0f} "
        f"{slow_wall:10,.0f} {slow:10,.0f} {wall / slow_wall:8.1f} {cpus / slow:8.1f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=64, help="of the case, in the vectorised core")
    parser.add_argument("--steps", type=int, default=2000, help="of all copies, in each round")
    parser.add_argument("--rounds", type=int, default=5, help="of both, in turns")
    parser.add_argument("--table", type=Path, help="a service table; otherwise one of our own making")
    parser.add_argument("--slo", type=float, default=11.0, help="seconds")
    arguments = parser.parse_args()
    table = read_service_table(arguments.table) if arguments.table else made_table()
    print(f"{arguments.copies} copies, {table.source}; decisions a second")
    print(
        f"{'':<10} {'vectorised: wall':>10} {'':>15} {'CPU':>10} {'reference: wall, CPU':>21} {'ratio: wall, CPU':>17}"
    )
    print(f"{'':<10} {'median':>10} {'slowest':>10} {'fastest':>10}")
    measured = 0.0
    for scene in scenes(table, arguments.slo):
        fast, slow = [], []
        for _ in range(arguments.rounds):
            fast.append(scene.vectorised(arguments.copies, arguments.steps))
            slow.append(scene.reference())
        row(scene.name, fast, slow)
        if scene.name == "constant":
            measured = statistics.median(each.cpu_per_s for each in fast)
    print(f"constant: {measured:,.0f} steps a second of CPU (limit {LIMIT_PER_S:,})")
    return 0 if measured >= LIMIT_PER_S else 1


if __name__ == "__main__":
    sys.exit(main())
