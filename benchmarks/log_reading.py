"""How fast are EnergiBridge logs read and integrated, beside a loop with pandas?

Copies the logs below a folder until there are 900 of them and 240 MB, then reads all, each contestant in a fresh
process (its peak memory is its own) and all in turn, several rounds. Timed is the loop over the files, which are in
the page cache, not the imports.

    pip install pandas
    python benchmarks/log_reading.py [--runs FOLDER] [--rounds N] [--json]

- joulebed: `read_energibridge_logs`, and `CumulativeEnergy.window` over the whole of each trace (joules, bound of the
  error, gaps, wraps). Once without gauges, and once log by log with `read_energibridge_log`.
- pandas: what a notebook does: `read_csv`, the shared first Time dropped, counters unwrapped and summed, GPU power
  integrated with `trapezoid`. Once more with `usecols`, for an author who knows which columns there are.

All must agree on the joules.
"""

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT.parent / "shared" / "data" / "greenlab" / "runs"
N_LOGS = 900
N_BYTES = 240_000_000
LIMIT_S, LIMIT_MB, LIMIT_RATIO = 1.5, 400.0, 4.0
COUNTERS = ["DRAM_ENERGY (J)", "PACKAGE_ENERGY (J)", "PP0_ENERGY (J)", "PP1_ENERGY (J)"]
GPU = "GPU0_POWER (mWatts)"


def joulebed(with_gauges: bool) -> Callable[[list[Path]], float]:
    # The reader loads it on demand; no contestant's imports are timed.
    import polars  # noqa: F401

    from contract.errors import LogFormatError
    from energy.energibridge_log import read_energibridge_logs
    from energy.integrate import CumulativeEnergy

    def run(paths: list[Path]) -> float:
        total_j = 0.0
        for _, log in read_energibridge_logs(paths, with_gauges=with_gauges):
            if isinstance(log, LogFormatError):
                raise log
            for trace in log.traces:
                total_j += CumulativeEnergy(trace).window(trace.time_s[0], trace.time_s[-1]).energy_j or 0.0
        return total_j

    return run


def joulebed_one_by_one() -> Callable[[list[Path]], float]:
    import polars  # noqa: F401

    from energy.energibridge_log import read_energibridge_log
    from energy.integrate import CumulativeEnergy

    def run(paths: list[Path]) -> float:
        total_j = 0.0
        for path in paths:
            for trace in read_energibridge_log(path).traces:
                total_j += CumulativeEnergy(trace).window(trace.time_s[0], trace.time_s[-1]).energy_j or 0.0
        return total_j

    return run


def with_pandas(columns: list[str] | None) -> Callable[[list[Path]], float]:
    import numpy as np
    import pandas as pd

    def run(paths: list[Path]) -> float:
        total_j = 0.0
        for path in paths:
            frame = pd.read_csv(path, usecols=columns).drop_duplicates("Time", keep="last")
            for name in COUNTERS:
                steps_j = np.diff(frame[name].to_numpy(dtype=float))
                steps_j[steps_j < 0] += 262144.0
                total_j += steps_j.sum()
            total_j += np.trapezoid(frame[GPU].to_numpy() / 1e3, frame["Time"].to_numpy() / 1e3)
        return total_j

    return run


CONTESTANTS: dict[str, Callable[[], Callable[[list[Path]], float]]] = {
    "joulebed": lambda: joulebed(True),
    "joulebed, no gauges": lambda: joulebed(False),
    "joulebed, log by log": joulebed_one_by_one,
    "pandas": lambda: with_pandas(None),
    "pandas, usecols": lambda: with_pandas(["Time", GPU, *COUNTERS]),
}


def contend(name: str, folder: Path) -> None:
    """Read all logs once, and print what it took; the body of a child process."""
    run = CONTESTANTS[name]()
    paths = sorted(folder.glob("*.csv"))
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    total_j = run(paths)
    seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    # Linux counts in KiB.
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "peak_mb": peak_mb, "joules": total_j}))


def replicate(runs: Path, folder: Path) -> tuple[int, int]:
    """Copy the logs until there are enough; how many, and their bytes."""
    logs = sorted(runs.rglob("energibridge*.csv"))
    if not logs:
        raise SystemExit(f"There is no energibridge.csv below {runs}. Give a folder of runs with --runs.")
    n_logs = n_bytes = 0
    while n_logs < N_LOGS or n_bytes < N_BYTES:
        copy = folder / f"{n_logs:06}.csv"
        shutil.copyfile(logs[n_logs % len(logs)], copy)
        n_logs, n_bytes = n_logs + 1, n_bytes + copy.stat().st_size
    return n_logs, n_bytes


def measure(folder: Path, n_rounds: int) -> dict[str, list[dict[str, float]]]:
    """What each round of each contestant took, the contestants in turn."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(n_rounds):
        for name, rounds in found.items():
            command = [sys.executable, __file__, "--contend", name, "--runs", str(folder)]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )
            rounds.append(json.loads(done.stdout))
    return found


def report(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Best, median and peak of each contestant, and the targets."""
    rows: dict[str, dict[str, float]] = {}
    for name, rounds in found.items():
        seconds = [each["seconds"] for each in rounds]
        rows[name] = {
            "best_s": min(seconds),
            "median_s": statistics.median(seconds),
            "median_cpu_s": statistics.median(each["cpu_s"] for each in rounds),
            "peak_mb": max(each["peak_mb"] for each in rounds),
            "joules": rounds[0]["joules"],
        }
    ours = rows["joulebed"]
    for row in rows.values():
        row["ratio"] = row["median_s"] / ours["median_s"]
        row["ratio_of_best"] = row["best_s"] / ours["best_s"]
    is_met = {
        f"at most {LIMIT_S} s": ours["median_s"] <= LIMIT_S,
        f"at most {LIMIT_MB:.0f} MB": ours["peak_mb"] <= LIMIT_MB,
        f"at least {LIMIT_RATIO:.0f} x faster than pandas": rows["pandas"]["ratio"] >= LIMIT_RATIO,
        "all agree on the joules": all(abs(row["joules"] / ours["joules"] - 1) < 1e-9 for row in rows.values()),
    }
    return {"contestants": rows, "is_met": is_met}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder with an energibridge.csv in each sub-folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--contend", choices=CONTESTANTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contend:
        contend(given.contend, given.runs)
        return
    if importlib.util.find_spec("pandas") is None:
        raise SystemExit("pandas is missing, and the comparison is with it: pip install pandas")
    if not given.runs.is_dir():
        raise SystemExit(f"There is no folder {given.runs}. Give one that holds runs with --runs.")
    with tempfile.TemporaryDirectory(prefix="joulebed-logs-") as name:
        n_logs, n_bytes = replicate(given.runs, Path(name))
        load_before = os.getloadavg()[0]
        found = report(measure(Path(name), given.rounds))
    found |= {"n_logs": n_logs, "n_bytes": n_bytes, "n_rounds": given.rounds, "cpus": os.cpu_count()}
    found["load"] = [load_before, os.getloadavg()[0]]
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{n_logs} logs, {n_bytes / 1e6:.0f} MB, {given.rounds} rounds, {os.cpu_count()} CPUs, load {load_before:.1f}"
    )
    print(f"{'':22}{'best':>9}{'median':>9}{'CPU':>9}{'peak':>10}{'ratio':>8}")
    for label, row in found["contestants"].items():
        seconds = f"{row['best_s']:7.2f} s{row['median_s']:7.2f} s{row['median_cpu_s']:7.2f} s"
        print(f"{label:22}{seconds}{row['peak_mb']:7.0f} MB{row['ratio']:7.1f}x")
    for target, is_met in found["is_met"].items():
        print(f"{'met   ' if is_met else 'MISSED'} {target}")


if __name__ == "__main__":
    main()
