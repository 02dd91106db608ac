"""One orchestrator, many testbeds: what coordination costs, and where it bends.

    python benchmarks/scale.py                          # 1, 10, 100 and 1000 testbeds, 100,000 runs
    python benchmarks/scale.py --testbeds 1000 --done 95000 --window 300
    python benchmarks/scale.py --median 0 --testbeds 100     # trials that take no time: the highest rate
    python benchmarks/scale.py --database postgresql+psycopg://postgres@/scale

A real pool of `orchestrator run` (its controllers, its run table with durable commits, its files, its export) drives
simulated testbeds over real HTTP: see `benchmarks/scale_testbeds.py`, which runs as a process of its own on the same
machine. The plan has its full size; a point looks at a window of the campaign, since 100,000 trials of a minute take
two hours on a thousand testbeds. `--done N` marks the first N runs as done before it begins, by copying a finished
attempt, as at the end of a campaign.

NO TIME IS SCALED: a trial's time is log-normal, median `--median` (60 s), sigma 0.5 of its logarithm, mean 68 s, and
its seconds are real ones, as those of the orchestrator are. Testbeds begin spread over one trial's time. No cooldown:
with one, there were fewer trials per second.

Lost is what a testbed waits between the end of a trial and the submission of the next one, as the testbed sees it,
over that and the trial's time. CPU is the orchestrator process's, all threads.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from sqlalchemy import Connection

from contract.trial_spec import EngineSpec, ModelSpec, WorkloadSpec
from orchestrator.artifacts import ArtifactFolder
from orchestrator.campaign import ControllerSettings
from orchestrator.campaign_view import AttemptEnd, SilentView
from orchestrator.clients.http_client import HttpClient
from orchestrator.config import Cooldown, Factor, RunnerConfig, RunTableModel, Treatment, Trial
from orchestrator.controller import Controller
from orchestrator.cooldown import CooldownWait
from orchestrator.design import expand
from orchestrator.experiment_folder import keep_database
from orchestrator.pool import Pool, PoolParts, require_files
from orchestrator.pool_export import pool_exporter
from orchestrator.pool_file import PoolEntry
from orchestrator.pool_member import gather
from orchestrator.pool_view import PoolScreen
from orchestrator.preflight import outline
from orchestrator.progress_view import Tally
from orchestrator.recorded_campaign import Recorder
from orchestrator.stop_request import StopRequest
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import SqlStore

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.orchestration import mark_middle_done  # noqa: E402

NO_COOLDOWN = Cooldown(floor_s=0.0, max_wait_s=0.0)
N_TREATMENTS = 100
PORT = 18765
MAX_LOST = 0.05
MAX_BYTES = 1e9


class Study(RunnerConfig):
    """100 treatments x repetitions."""

    name = "scale"
    cooldown = NO_COOLDOWN

    def __init__(self, n_runs: int) -> None:
        self._n_runs = n_runs

    def create_run_table_model(self) -> RunTableModel:
        """See `RunnerConfig`."""
        levels = list(range(10))
        return RunTableModel(
            factors=[Factor("model", levels), Factor("task", levels)], repetitions=self._n_runs // N_TREATMENTS
        )

    def trial(self, treatment: Treatment) -> Trial:
        """See `RunnerConfig`."""
        return Trial(
            model=ModelSpec(name="fake", source="fake:small"),
            engine=EngineSpec(name="fake"),
            workload=WorkloadSpec(name="fake", options={"n_items": 4, "prompt_words": 8}),
        )


class CountedStore(SqlStore):
    """Notes how many transactions write, how long they take, and how long threads wait for their turn."""

    n_writes = 0
    write_s = 0.0
    turn_s = 0.0

    @contextmanager
    def _writing(self, *, is_note: bool = False) -> Iterator[Connection]:
        begin_s = time.perf_counter()
        with super()._writing(is_note=is_note) as connection:
            mine_s = time.perf_counter()
            yield connection
        CountedStore.n_writes += 1
        CountedStore.turn_s += mine_s - begin_s
        CountedStore.write_s += time.perf_counter() - mine_s


def address(number: int) -> str:
    """Of the n-th testbed."""
    return f"http://127.{1 + number // 62500}.{1 + number // 250 % 250}.{1 + number % 250}:{PORT}"


def stats() -> dict[str, Any]:
    """Of the testbeds since they were last asked."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/stats") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@contextmanager
def simulated(median_s: float) -> Iterator[None]:
    """The testbeds' process."""
    arguments = [sys.executable, "-m", "benchmarks.scale_testbeds", "--port", str(PORT), "--median-s", str(median_s)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.terminate()
        process.wait()


class Once(SilentView):
    """Stops a campaign after its first trial."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def attempt_ended(self, end: AttemptEnd) -> None:
        """See `CampaignView`."""
        self._stop.level = 1


def mark_done(folder: Path, store: SqlStore, n_done: int) -> None:
    """One trial that takes no time, and copies of it."""
    with simulated(0.0):
        stop, client = StopRequest(), HttpClient(address(0), "token")
        Controller(
            store,
            client,
            testbed="copied",
            cooldown=CooldownWait(NO_COOLDOWN, list),
            artifacts=ArtifactFolder(folder),
            view=Once(stop),
            stop=stop,
        ).run()
        client.close()
    mark_middle_done(folder / RUN_TABLE, sum(store.counts().values()) - n_done)


def point(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one number of testbeds; ends this process's campaign in the middle."""
    n_testbeds = arguments.testbeds[0]
    begin_s = time.monotonic()
    plan = expand(Study(arguments.runs))
    expand_s = time.monotonic() - begin_s
    store = CountedStore.open(arguments.database or folder / RUN_TABLE, create=True)
    begin_s = time.monotonic()
    store.create_experiment(plan)
    create_s = time.monotonic() - begin_s
    plan = outline(plan)
    if arguments.done:
        mark_done(folder, store, arguments.done)
    require_files(n_testbeds)
    exports_s: list[float] = []
    if arguments.database:
        keep_database(folder, arguments.database)
    write_table = pool_exporter(store, folder)

    def export() -> None:
        began_s = time.monotonic()
        write_table()
        exports_s.append(time.monotonic() - began_s)

    with simulated(arguments.median):
        entries = [PoolEntry(address(number)) for number in range(n_testbeds)]
        begin_s = time.monotonic()
        members = gather(entries, plan, lambda entry: HttpClient(entry.url, "token"))
        gather_s = time.monotonic() - begin_s
        console = Console(file=(folder / "screen.txt").open("w"))
        stop = StopRequest()
        parts = PoolParts(
            store=store,
            plan=plan,
            cooldown=NO_COOLDOWN,
            folder=folder,
            screen=PoolScreen(console, Tally(store.counts(), Counter()), n_testbeds, wants_bars=False),
            recorder=Recorder("", NO_COOLDOWN, arguments=[]),
            stop=stop,
            export=export,
            settings=ControllerSettings(),
        )
        pool = Pool(parts, members)
        threading.Thread(target=pool.run, daemon=True).start()
        # All begin at once, which no later moment is like: the first trials spread them over a trial's time.
        time.sleep(arguments.settle if arguments.settle is not None else 1.5 * arguments.median + 5)
        process = psutil.Process()
        stats()
        CountedStore.n_writes, CountedStore.write_s, CountedStore.turn_s = 0, 0.0, 0.0
        cpu_before, written_before = process.cpu_times(), process.io_counters().write_bytes
        begin_s, peak_bytes = time.monotonic(), 0
        load_before = os.getloadavg()[0]
        while time.monotonic() - begin_s < arguments.window:
            time.sleep(1)
            peak_bytes = max(peak_bytes, process.memory_info().rss)
        window_s = time.monotonic() - begin_s
        cpu, found = process.cpu_times(), stats()
        counted = (CountedStore.n_writes, CountedStore.write_s, CountedStore.turn_s)
    n = max(len(found["gaps_s"]), 1)
    cpu_s = cpu.user + cpu.system - cpu_before.user - cpu_before.system
    gaps_s = found["gaps_s"] or [0.0]
    return {
        "testbeds": n_testbeds,
        "runs": arguments.runs,
        "done_before": arguments.done,
        "database": "postgresql" if arguments.database else "sqlite",
        "median_trial_s": arguments.median,
        "window_s": window_s,
        "trials": len(found["gaps_s"]),
        "trials_per_s": len(found["gaps_s"]) / window_s,
        "gap_mean_s": statistics.fmean(gaps_s),
        "gap_median_s": statistics.median(gaps_s),
        "gap_p99_s": sorted(gaps_s)[int(0.99 * (len(gaps_s) - 1))],
        "gap_max_s": max(gaps_s),
        "lost": sum(gaps_s) / max(sum(gaps_s) + sum(found["trial_s"]), 1e-9),
        "cpu_ms_per_trial": 1000 * cpu_s / n,
        "cpu_cores": cpu_s / window_s,
        "requests_per_trial": found["n_requests"] / n,
        "writes_per_trial": counted[0] / n,
        "write_ms": 1000 * counted[1] / max(counted[0], 1),
        "turn_ms": 1000 * counted[2] / max(counted[0], 1),
        "database_busy": counted[1] / window_s,
        "written_kb_per_trial": (process.io_counters().write_bytes - written_before) / 1000 / n,
        "rss_mb": peak_bytes / 1e6,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "exports_s": exports_s,
        "expand_s": expand_s,
        "create_s": create_s,
        "gather_s": gather_s,
        "load_before": load_before,
        "n_cores": os.cpu_count(),
    }


def main() -> int:
    """Measure, print, and say whether the goal is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--testbeds", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--runs", type=int, default=100_000, help="of the plan; a multiple of 100")
    parser.add_argument("--done", type=int, default=0, help="runs that are done before it begins (SQLite only)")
    parser.add_argument("--median", type=float, default=60.0, help="seconds of a trial; 0: none")
    parser.add_argument("--window", type=float, default=180.0, help="seconds that are looked at")
    parser.add_argument("--settle", type=float, help="seconds before; 1.5 trials by default")
    parser.add_argument("--database", help="address of an empty PostgreSQL database; one point only")
    parser.add_argument("--json", type=Path, help="append the figures there, a line per point")
    parser.add_argument("--point", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(point(Path(folder), arguments)), flush=True)
            os._exit(0)  # its threads wait for testbeds that are gone
    passed = sys.argv[1:]
    is_good = True
    for n_testbeds in arguments.testbeds:
        command = [sys.executable, "-m", "benchmarks.scale", *passed, "--testbeds", str(n_testbeds), "--point"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(done.stderr[-3000:], file=sys.stderr)
            return 1
        figures = json.loads(done.stdout.splitlines()[-1])
        for name, value in figures.items():
            print(f"{name:>22} {value:.4g}" if isinstance(value, float) else f"{name:>22} {value}")
        print(flush=True)
        if arguments.json is not None:
            with arguments.json.open("a") as file:
                file.write(json.dumps(figures) + "\n")
        # A window without a trial tells nothing.
        is_good = is_good and figures["trials"] > 0 and figures["peak_rss_mb"] * 1e6 < MAX_BYTES
        is_good = is_good and (arguments.median == 0 or figures["lost"] < MAX_LOST)
    print(f"under {100 * MAX_LOST:.0f} % lost and under {MAX_BYTES / 1e9:g} GB: {'yes' if is_good else 'NO'}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
