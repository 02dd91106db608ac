"""What orchestration costs per trial, in a small and in a large run table.

    python benchmarks/orchestration.py            # 300 trials at the start and 300 at the end of 10,000 rows
    python benchmarks/orchestration.py --full     # all rows

A real controller drives a real testbed process over HTTP on loopback, with the fake engine at infinite speed, kept
warm (`lifetime: block`), no cooldown, the fake meter, durable commits, all artifacts fetched and verified.

The overhead of a trial is the wall time from the end of the previous attempt to the end of its own (both as the
controller reports them, after the commit), less the time of the trial itself: from the child's start of it
(`origin_s` in record.json) to when the testbed saw its end (`finished_at` in the result). What is left is everything
else: claim, submission with its files, long poll, energy and checksums on the testbed, result, artifacts, commits,
acknowledgement. The first trial of each part is left out: it starts the engine.

With --rows N and without --full, the rows between the first and the last trials are marked as done in the database
by copying a finished attempt: the table has its full size, its indexes too, without hours of waiting.
"""

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

from contract.attempt_state import RunState
from contract.trial_result import TrialResult
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.artifacts import ArtifactFolder
from orchestrator.campaign_view import AttemptEnd, SilentView
from orchestrator.clients.http_client import HttpClient
from orchestrator.config import Cooldown, Factor, RunnerConfig, RunTableModel, Treatment, Trial
from orchestrator.controller import Controller
from orchestrator.cooldown import CooldownWait
from orchestrator.design import expand
from orchestrator.export import export_run_table
from orchestrator.local_testbed import LocalOptions, LocalTestbed
from orchestrator.stop_request import StopRequest
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import SqlStore

SMALL_ROWS = 100
LIMIT_MS = 15.0


class FakeConfig(RunnerConfig):
    """Rows of a fake trial."""

    cooldown = Cooldown(floor_s=0.0, max_wait_s=0.0)

    def __init__(self, name: str, n_rows: int) -> None:
        self.name = name
        self.n_rows = n_rows

    def create_run_table_model(self) -> RunTableModel:
        return RunTableModel(
            factors=[Factor("words", [8, 16]), Factor("concurrency", [1, 4])], repetitions=self.n_rows // 4
        )

    def trial(self, treatment: Treatment) -> Trial:
        return Trial(
            model=ModelSpec(name="fake", source="fake:small"),
            engine=EngineSpec(name="fake", lifetime="block", max_concurrency=4),
            workload=WorkloadSpec(
                name="fake",
                concurrency=int(treatment["concurrency"]),
                options={"n_items": 4, "prompt_words": treatment["words"]},
            ),
            sampling=SamplingSpec(max_tokens=8),
            meter=MeterSpec(name="fake"),
            warmup_requests=1,
        )


class Stopwatch(SilentView):
    """Notes the overhead of each trial, and stops the campaign after enough of them."""

    def __init__(self, stop: StopRequest, artifacts: ArtifactFolder, n_trials: int) -> None:
        self._artifacts = artifacts
        self.overheads_ms: list[float] = []
        self._stop = stop
        self._n_left = n_trials + 1
        self._previous_s: float | None = None

    def attempt_ended(self, end: AttemptEnd) -> None:
        now_s = time.monotonic()
        if end.result is None:
            raise RuntimeError(f"a trial failed: {end.error}")
        if self._previous_s is not None:
            folder = self._artifacts.folder(end.result.run_id, end.result.attempt_id)
            self.overheads_ms.append(1000 * (now_s - self._previous_s - trial_s(folder, end.result)))
        self._previous_s = now_s
        self._n_left -= 1
        if self._n_left == 0:
            self._stop.request()


def trial_s(folder: Path, result: TrialResult) -> float:
    """How long the child worked on the trial: load, phases, scoring, its files."""
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return result.finished_at.timestamp() - (record["origin_s"] + record["unix_minus_monotonic_s"])


def drive(folder: Path, store: SqlStore, client: HttpClient, n_trials: int) -> list[float]:
    stop = StopRequest()
    artifacts = ArtifactFolder(folder)
    view = Stopwatch(stop, artifacts, n_trials)
    outcome = Controller(
        store,
        client,
        testbed="benchmark",
        cooldown=CooldownWait(FakeConfig.cooldown, lambda: client.node().temperatures),
        artifacts=artifacts,
        view=view,
        stop=stop,
        export=lambda: _export(store, folder),
    ).run()
    if outcome.message:
        raise RuntimeError(outcome.message)
    return view.overheads_ms


def _export(store: SqlStore, folder: Path) -> None:
    export_run_table(store, folder, "csv")


def mark_middle_done(table: Path, n_left: int) -> None:
    """Mark all rows but the last `n_left` as done, as copies of a finished attempt."""
    with sqlite3.connect(table) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(attempt)")]
        copied = [name for name in columns if name not in ("attempt_id", "run_id", "number")]
        n_rows = database.execute("SELECT COUNT(*) FROM run").fetchone()[0]
        database.execute(
            f"INSERT INTO attempt (attempt_id, run_id, number, {', '.join(copied)}) "
            f"SELECT run.run_id || '-a1-copy', run.run_id, 1, {', '.join('done.' + name for name in copied)} "
            "FROM run, (SELECT * FROM attempt WHERE accepted LIMIT 1) AS done WHERE run.state = ? AND run.position < ?",
            (RunState.TODO, n_rows - n_left),
        )
        database.execute(
            "UPDATE run SET state = ? WHERE state = ? AND position < ?", (RunState.DONE, RunState.TODO, n_rows - n_left)
        )
    database.close()


def measure(root: Path, n_rows: int, n_trials: int, full: bool) -> dict[str, list[float]]:
    config = FakeConfig(f"rows_{n_rows}", n_rows)
    folder = root / config.name
    folder.mkdir(parents=True)
    store = SqlStore.open(folder / RUN_TABLE, create=True)
    parts: dict[str, list[float]] = {}
    with LocalTestbed(folder, LocalOptions(meter="fake")) as testbed:
        store.create_experiment(expand(config, ""))
        client = HttpClient(testbed.url, testbed.token)
        if full:
            overheads = drive(folder, store, client, n_rows)
            parts["first"], parts["last"] = overheads[:n_trials], overheads[-n_trials:]
        elif n_rows > 2 * (n_trials + 1):
            parts["first"] = drive(folder, store, client, n_trials)
            mark_middle_done(folder / RUN_TABLE, n_trials + 1)
            parts["last"] = drive(folder, store, client, n_trials)
        else:
            parts["all"] = drive(folder, store, client, n_rows)
        client.close()
    store.close()
    return parts


def machine_speed(folder: Path, n: int = 20) -> tuple[float, float]:
    """How quick the machine is at this moment, for figures of different days to be set against each other.

    Returns:
        Milliseconds for a million additions in this interpreter, and for a new file of 2 KiB that is synced; medians.
    """
    additions_ms, files_ms = [], []
    for number in range(n):
        begin_s = time.perf_counter()
        sum(range(1_000_000))
        additions_ms.append(1000 * (time.perf_counter() - begin_s))
        begin_s = time.perf_counter()
        with (folder / f"speed-{number}").open("wb") as file:
            file.write(bytes(2048))
            file.flush()
            os.fsync(file.fileno())
        files_ms.append(1000 * (time.perf_counter() - begin_s))
    return statistics.median(additions_ms), statistics.median(files_ms)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="of the large table; a multiple of 4")
    parser.add_argument("--trials", type=int, default=300, help="timed at each end of the large table")
    parser.add_argument("--full", action="store_true", help="run all rows of the large table")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()

    os.environ.pop("JOULEBED_TOKEN", None)
    medians: dict[str, float] = {}
    figures = []
    print(f"{'rows':>7} {'part':>6} {'trials':>7} {'median ms':>10} {'p95 ms':>8} {'worst ms':>9}")
    with tempfile.TemporaryDirectory() as root:
        before = machine_speed(Path(root))
        for n_rows, full in ((SMALL_ROWS, True), (arguments.rows, arguments.full)):
            n_trials = SMALL_ROWS if n_rows == SMALL_ROWS else arguments.trials
            for part, overheads_ms in measure(Path(root), n_rows, n_trials, full and n_rows > SMALL_ROWS).items():
                median_ms = statistics.median(overheads_ms)
                p95_ms = statistics.quantiles(overheads_ms, n=20)[-1]
                medians[f"{n_rows} {part}"] = median_ms
                figures.append(
                    {"rows": n_rows, "part": part, "n": len(overheads_ms), "median_ms": median_ms, "p95_ms": p95_ms}
                )
                print(
                    f"{n_rows:>7} {part:>6} {len(overheads_ms):>7} {median_ms:>10.1f} {p95_ms:>8.1f} "
                    f"{max(overheads_ms):>9.1f}"
                )
        after = machine_speed(Path(root))
    print(
        f"the machine, before and after: {before[0]:.1f} and {after[0]:.1f} ms for a million additions, "
        f"{before[1]:.2f} and {after[1]:.2f} ms for a new synced file"
    )
    small, *_, large = medians.values()
    print(f"end of {arguments.rows} rows against {SMALL_ROWS} rows: x {large / small:.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    worst_ms = max(medians.values())
    print(f"largest median: {worst_ms:.1f} ms, wanted: at most {LIMIT_MS:.0f} ms")
    return 0 if worst_ms <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
