"""How long does each policy take to decide?

Queues of 1 to `--queue` requests with waits up to twice the SLO, over a made-up table of the A100 tables' size (15
clocks, batches of 1 to 64); the plans are solved for that table, the network has weights that mean nothing. Every
policy is shown the same observations, and each decision is timed by itself: CPU time of the thread, so that other work
on the machine is left out. The ratio is to the constant policy, which tells what a call costs at least.

    python benchmarks/policy_decision.py [--decisions N] [--queue N] [--json]
"""

import argparse
import json
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from control.planner import PlannedPolicy, plan_for_price  # noqa: E402
from control.serving_case import ServingCase  # noqa: E402
from testbed.policies.actions import ActionSet  # noqa: E402
from testbed.policies.base import Observation, Policy  # noqa: E402
from testbed.policies.features import N_FEATURES, FeatureSpec  # noqa: E402
from testbed.policies.learned_policy import LearnedPolicy, PolicyNetwork  # noqa: E402
from testbed.policies.registry import POLICIES  # noqa: E402
from testbed.simulation.arrivals import ArrivalSpec  # noqa: E402
from testbed.simulation.service_table import ServiceTable  # noqa: E402

SLO_S, QUEUE_LIMIT, WIDTH = 11.0, 100, 128
LIMIT_MS = 1.0
OPTIONS = {"fixed_clock": {"clock_mhz": 1010.0}, "fixed_batch": {"batch": 8}, "capped_batch": {"max_batch": 8}}


def made_up_table() -> ServiceTable:
    """Faster and hungrier with the clock, slower with the batch."""
    clocks, batches = np.linspace(710.0, 1410.0, 15), np.arange(1, 65)
    return ServiceTable(
        clock_mhz=clocks,
        batch_sizes=batches,
        latency_s=5.0 * (1410 / clocks)[:, None] ** 0.3 * (1 + 0.1 * np.log(batches))[None, :],
        power_w=(50 + 50 * (clocks / 1000) ** 3)[:, None] + 0.2 * batches[None, :],
        source="made up",
    )


def policies(table: ServiceTable) -> dict[str, Policy]:
    """One of each."""
    found: dict[str, Policy] = {
        name: POLICIES.create(name, table=table, slo_s=SLO_S, **OPTIONS.get(name, {}))
        for name in POLICIES.names
        if name not in ("planned", "learned")
    }
    for name, wait_s, looks_ahead in (
        ("planned, by the grid", 1.0, False),
        ("planned, no waiting", None, True),
        ("planned", 1.0, True),
        ("planned, waits of 0.1 s", 0.1, True),
    ):
        case = ServingCase(table, SLO_S, ArrivalSpec(rate_per_s=1.5), wait_s=wait_s)
        found[name] = PlannedPolicy(plan_for_price(case, 300.0, looks_ahead=looks_ahead), table)
    actions = ActionSet(tuple(table.clock_mhz.tolist()), (1, 2, 4, 8, 16, 32, 64), 1.0)
    source = np.random.default_rng(0)
    sizes = (N_FEATURES, WIDTH, WIDTH, len(actions))
    layers = tuple(
        (source.normal(size=(wide, narrow)).astype(np.float32), np.zeros(wide, np.float32))
        for narrow, wide in pairwise(sizes)
    )
    spec = FeatureSpec.of(table, SLO_S, QUEUE_LIMIT)
    found["learned"] = LearnedPolicy(PolicyNetwork(layers, actions, spec, table.sha256), table)
    return found


def observations(table: ServiceTable, n: int, longest: int) -> list[Observation]:
    """The same for every policy."""
    source = np.random.default_rng(1)
    made = []
    for _ in range(n):
        n_queued = int(source.integers(1, longest + 1))
        waits = np.sort(source.uniform(0, 2 * SLO_S * source.uniform(), n_queued))[::-1]
        clock = float(source.choice(table.clock_mhz))
        lengths = tuple(source.integers(1, 1500, n_queued).tolist())
        made.append(Observation(tuple(waits.tolist()), clock, lengths, lengths, arrival_rate_per_s=1.5))
    return made


def measure(policy: Policy, seen: list[Observation]) -> dict[str, float]:
    """Milliseconds of a decision."""
    for each in seen[:50]:
        policy.decide(each)
    spent_ms = []
    for each in seen:
        begin_ns = time.thread_time_ns()
        policy.decide(each)
        spent_ms.append((time.thread_time_ns() - begin_ns) / 1e6)
    p99_ms = statistics.quantiles(spent_ms, n=100)[98]
    return {"median_ms": statistics.median(spent_ms), "p99_ms": p99_ms, "max_ms": max(spent_ms)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=2000)
    parser.add_argument("--queue", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    table = made_up_table()
    seen = observations(table, args.decisions, args.queue)
    found = {name: measure(policy, seen) for name, policy in policies(table).items()}
    base_ms = found["fixed_clock"]["median_ms"]
    for figures in found.values():
        figures["ratio"] = figures["median_ms"] / base_ms
    if args.json:
        print(json.dumps(found))
        return
    print(f"{'policy':<26}{'median ms':>10}{'p99 ms':>10}{'max ms':>10}{'x constant':>12}")
    for name, each in found.items():
        line = (
            f"{name:<26}{each['median_ms']:>10.4f}{each['p99_ms']:>10.4f}{each['max_ms']:>10.4f}{each['ratio']:>12.0f}"
        )
        print(line + ("" if each["p99_ms"] < LIMIT_MS else f"  above {LIMIT_MS:g} ms"))


if __name__ == "__main__":
    main()
