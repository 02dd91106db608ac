"""How long does it take, and how much memory, to load 900 runs and make their energy table?

Copies the public runs, each with its log and its sheet of prompts, until each of the 30 treatments has 30 repetitions,
with a run table beside them; then, each round in a fresh process (its peak memory is its own):

- `load_runs`: all logs and sheets read and integrated;
- the energy table: metrics of each run, joules by phase and domain, and the summary by treatment.

The files are in the page cache. Timed is the work, and apart from it the imports.

    python benchmarks/analysis.py [--study FOLDER] [--rounds N] [--json]
"""

import argparse
import csv
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT.parent / "shared" / "data" / "greenlab"
N_REPETITIONS = 30
LIMIT_S, LIMIT_MB = 3.0, 500.0


def measure_once(folder: Path) -> None:
    """Load and tabulate once, and print what it took; the body of a child process."""
    begin_s = time.perf_counter()
    import polars  # noqa: F401

    from analysis.load import load_runs
    from analysis.metrics import with_metrics
    from analysis.phases import energy_by_phase
    from analysis.summary import summarise

    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    experiment = load_runs(folder)
    loaded_s = time.perf_counter()
    runs = with_metrics(experiment.counted())
    phases = energy_by_phase(experiment)
    treatments = summarise(experiment).treatments
    end_s, cpu_s = time.perf_counter(), time.process_time() - start_cpu_s
    found = {
        "imports_s": start_s - begin_s,
        "load_s": loaded_s - start_s,
        "table_s": end_s - loaded_s,
        "seconds": end_s - start_s,
        "cpu_s": cpu_s,
        # Linux counts in KiB.
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "n_runs": runs.height,
        "n_treatments": len(treatments),
        "n_phase_rows": phases.height,
        "energy_j": runs["energy_j"].sum(),
    }
    print(json.dumps(found))


def replicate(study: Path, folder: Path) -> int:
    """Write a campaign of 900 runs into a folder; the bytes of its logs."""
    with (study / "run_table.csv").open(newline="") as file:
        rows = {row["__run_id"]: row for row in csv.DictReader(file)}
    sources: dict[int, list[Path]] = {}
    for path in sorted((study / "runs").iterdir()):
        match = re.fullmatch(r"run_(\d+)_repetition_\d+", path.name)
        if match and path.name in rows:
            sources.setdefault(int(match.group(1)), []).append(path)
    if not sources:
        raise SystemExit(f"There are no run folders of {study / 'run_table.csv'} in {study / 'runs'}.")
    n_bytes = 0
    with (folder / "run_table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=next(iter(rows.values())), lineterminator="\r\n")
        writer.writeheader()
        for repetition in range(N_REPETITIONS):
            for number, copies in sources.items():
                source = copies[repetition % len(copies)]
                run_id = f"run_{number}_repetition_{repetition}"
                shutil.copytree(source, folder / "runs" / run_id)
                writer.writerow({**rows[source.name], "__run_id": run_id})
                n_bytes += (source / "energibridge.csv").stat().st_size
    return n_bytes


def report(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, peak, and the targets."""
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    peak_mb = max(each["peak_mb"] for each in rounds)
    is_met = {
        f"at most {LIMIT_S:.0f} s": medians["seconds"] <= LIMIT_S,
        f"at most {LIMIT_MB:.0f} MB": peak_mb <= LIMIT_MB,
    }
    best_s = min(each["seconds"] for each in rounds)
    return {**medians, "peak_mb": peak_mb, "best_s": best_s, "is_met": is_met}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, default=STUDY, help="folder with run_table.csv and runs/")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        measure_once(given.once)
        return
    if not (given.study / "run_table.csv").is_file():
        raise SystemExit(f"There is no {given.study / 'run_table.csv'}. Give the study's folder with --study.")
    with tempfile.TemporaryDirectory(prefix="joulebed-analysis-") as name:
        n_bytes = replicate(given.study, Path(name))
        load_before = os.getloadavg()[0]
        rounds = []
        for _ in range(given.rounds):
            # -P: else `import analysis` would find this file.
            command = [sys.executable, "-P", __file__, "--once", name]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )
            rounds.append(json.loads(done.stdout))
    found = report(rounds) | {"n_bytes": n_bytes, "n_rounds": given.rounds, "cpus": os.cpu_count()}
    found["load"] = [load_before, os.getloadavg()[0]]
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{found['n_runs']:.0f} runs, {n_bytes / 1e6:.0f} MB of logs, {given.rounds} rounds, {os.cpu_count()} CPUs,",
        end=" ",
    )
    print(f"load {load_before:.1f}")
    print(
        f"load_runs {found['load_s']:.2f} s + energy table {found['table_s']:.2f} s = {found['seconds']:.2f} s", end=" "
    )
    print(
        f"(median; best {found['best_s']:.2f} s, CPU {found['cpu_s']:.2f} s; imports {found['imports_s']:.2f} s more)"
    )
    print(f"peak memory {found['peak_mb']:.0f} MB")
    for target, is_met in found["is_met"].items():
        print(f"{'met   ' if is_met else 'MISSED'} {target}")


if __name__ == "__main__":
    main()
