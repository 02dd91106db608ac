"""Does anything grow over a long campaign: memory, open files, the data folder, the time of an operation?

    python benchmarks/soak.py                    # 10,000 trials
    python benchmarks/soak.py --trials 300       # in a minute or two
    python benchmarks/soak.py --json soak.json   # the figures for a program, too

A real `orchestrator run` drives a real `testbed serve`, each a process of its own, over HTTP on loopback: the fake
engine at infinite speed, kept warm, the fake meter, no cooldown, durable commits, all artifacts fetched and verified.
A third process, this one, looks at them from outside.

- Memory: the resident size of the orchestrator, the testbed and its warm child, looked at four times a second. The
  first half of the trials is the warm-up and left out: caches fill, allocators find their size, the run table is
  exported for the first time after a minute, and Python's table of interned strings is made anew, 2 to 4 MiB of memory,
  when pathlib has interned thousands of names of new files: after some 4,000 trials, and once more after some 15,000,
  and then in the room that it has. Of the rest, the medians of 50 equal spans of trials get a line of least squares,
  with a 95 % interval after Newey and West (5 spans back), since a process that grows does so in steps. The limit is
  broken when the whole interval lies above it; that a process is flat is shown when the whole interval lies below.
  Fewer than 2,000 trials have no slope.
- Overhead of a trial: as in orchestration.py, told from the files that a campaign leaves: from the previous attempt's
  line in attempts.jsonl, written after the commit, to its own, less the trial itself (`origin_s` in record.json to
  `finished_at` in the result).
- Run table: two copies of it, taken near the start and near the end of the campaign, are worked on in turn, operation
  by operation, when the campaign is over: so both meet the same load of the machine.

Exits with 1 when a limit is broken, with 2 when the campaign did not end well.
"""

import argparse
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from statsmodels.api import OLS, add_constant

from contract.attempt_state import AttemptState, RunState
from contract.trial_result import TrialResult
from orchestrator.artifacts import RESULT, RUNS
from orchestrator.attempt_journal import JOURNAL
from orchestrator.clients.http_client import TOKEN_VARIABLE
from orchestrator.local_testbed import DATA, LocalOptions, LocalTestbed
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import SqlStore

SLOPE_LIMIT_KIB = 100.0
"""Per 1,000 trials and process: 1 MiB in a campaign of 10,000."""
MIN_SLOPE_TRIALS = 2000
"""In fewer, one step of an allocator, 1 MiB, is steeper than the limit: there is no slope."""
OPERATION_RATIO_LIMIT = 1.2
OVERHEAD_LIMIT_MS = 15.0

WARM_UP = 0.5
"""Part of the trials that the line through memory leaves out."""
N_SPANS = 50
N_LAGS = 5
FIRST_ROWS = 100
WINDOW_ROWS = 1000
PERIOD_S = 0.25
MAX_OPERATIONS = 200
"""Of each kind, on each copy of the run table."""
EXPERIMENT = "soak"
OPERATIONS = ("claim_next", "record_state", "finish", "counts")

CONFIG = '''
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, RunTableModel, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    """Fake trials, as short as they can be."""

    name = "{name}"
    cooldown = Cooldown(floor_s=0.0, max_wait_s=0.0)

    def create_run_table_model(self):
        return RunTableModel(
            factors=[Factor("words", [8, 16]), Factor("concurrency", [1, 4])], repetitions={repetitions}
        )

    def trial(self, treatment):
        return Trial(
            model=ModelSpec(name="fake", source="fake:small"),
            engine=EngineSpec(name="fake", lifetime="block", max_concurrency=4),
            workload=WorkloadSpec(
                name="fake",
                concurrency=treatment["concurrency"],
                options={{"n_items": 4, "prompt_words": treatment["words"]}},
            ),
            sampling=SamplingSpec(max_tokens=8),
            # Long, so that a busy machine makes no gaps, which would doubt the runs.
            meter=MeterSpec(name="fake", period_s=1.0),
            warmup_requests=1,
        )
'''


@dataclass(frozen=True)
class Slope:
    """A line through the memory of a process; KiB per 1,000 trials, with the ends of the 95 % interval."""

    kib: float
    low_kib: float
    high_kib: float

    def __str__(self) -> str:
        return f"{self.kib:+.0f} [{self.low_kib:+.0f}, {self.high_kib:+.0f}]"


@dataclass
class Watched:
    """What was seen of a process. One value per look, beside `trials`, the number of trials that had ended."""

    trials: list[int] = field(default_factory=list)
    rss_kib: list[float] = field(default_factory=list)
    n_files: list[int] = field(default_factory=list)
    n_threads: list[int] = field(default_factory=list)

    def look(self, process: psutil.Process, n_ended: int) -> None:
        """Look once; a process that is gone is not looked at."""
        try:
            with process.oneshot():
                rss, n_threads, n_files = process.memory_info().rss, process.num_threads(), process.num_fds()
        except psutil.NoSuchProcess:
            return
        self.trials.append(n_ended)
        self.rss_kib.append(rss / 1024)
        self.n_threads.append(n_threads)
        self.n_files.append(n_files)

    def figures(self, n_trials: int) -> dict[str, Any]:
        """Slope, and medians of the first and of the last tenth of the looks after the warm-up."""
        keep = [i for i, n_ended in enumerate(self.trials) if WARM_UP * n_trials <= n_ended < n_trials]
        n_end = max(len(keep) // 10, 1)
        parts = {"start": keep[:n_end], "end": keep[-n_end:]}
        spans = _spans(self.trials, self.rss_kib)
        figures: dict[str, Any] = {"slope": None, "trials_thousand": spans[0], "rss_kib": spans[1]}
        if n_trials >= MIN_SLOPE_TRIALS:
            figures["slope"] = slope(*_spans([self.trials[i] for i in keep], [self.rss_kib[i] for i in keep]))
        for part, looks in parts.items():
            figures[part] = {
                "rss_kib": statistics.median(self.rss_kib[i] for i in looks),
                "n_files": statistics.median_high(self.n_files[i] for i in looks),
                "n_threads": statistics.median_high(self.n_threads[i] for i in looks),
            }
        return figures


def _spans(trials: Sequence[int], kib: Sequence[float]) -> tuple[list[float], list[float]]:
    """Medians of equal spans of trials, those without a look left out: thousands of trials, KiB."""
    edges = np.linspace(trials[0], trials[-1], N_SPANS + 1)
    span_of = np.clip(np.searchsorted(edges, trials, side="right") - 1, 0, N_SPANS - 1)
    filled = np.unique(span_of)
    return (
        [float(np.mean(np.asarray(trials)[span_of == span])) / 1000 for span in filled],
        [float(np.median(np.asarray(kib)[span_of == span])) for span in filled],
    )


def slope(trials_thousand: Sequence[float], kib: Sequence[float]) -> Slope:
    """The line of least squares through medians of spans."""
    if len(kib) < 2 * N_LAGS:
        raise RuntimeError("too few looks at the processes for a line: run more trials")
    line = OLS(np.asarray(kib), add_constant(np.asarray(trials_thousand)))
    fit = line.fit(cov_type="HAC", cov_kwds={"maxlags": N_LAGS, "use_correction": True}, use_t=True)
    low_kib, high_kib = fit.conf_int()[1]
    return Slope(float(fit.params[1]), float(low_kib), float(high_kib))


class Journal:
    """Counts the attempts that have ended, as they are written down."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = 0
        self.n_ended = 0

    def count(self) -> int:
        """How many there are now."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._begin)
                new = file.read()
            self._begin += len(new)
            self.n_ended += new.count(b"\n")
        return self.n_ended


@dataclass
class Campaign:
    """What was seen of a campaign, and what it left behind."""

    n_trials: int
    wall_s: float
    watched: dict[str, Watched]
    folder: Path
    early: Path
    late: Path
    data: dict[str, dict[str, int]]


def run_campaign(root: Path, n_trials: int, console: Console) -> Campaign:
    """Run it, and look at it from outside."""
    config = root / "config.py"
    config.write_text(CONFIG.format(name=EXPERIMENT, repetitions=n_trials // 4), encoding="utf-8")
    folder = root / "results" / EXPERIMENT
    n_spared = min(MAX_OPERATIONS, n_trials // 6)
    copies = {n_spared: root / "early.sqlite", n_trials - 2 * n_spared: root / "late.sqlite"}
    early, late = copies.values()
    data: dict[str, dict[str, int]] = {}
    journal = Journal(folder / JOURNAL)
    with LocalTestbed(root, LocalOptions(meter="fake")) as testbed, _bar(console, n_trials) as show:
        command = [sys.executable, "-m", "orchestrator", "run", str(config), "--testbed", testbed.url]
        command += ["--results", str(root / "results"), "--no-progress"]
        begin_s = time.monotonic()
        with (root / "orchestrator.out").open("wb") as out:
            environment = {**os.environ, TOKEN_VARIABLE: testbed.token}
            orchestrator = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        try:
            served = psutil.Process(json.loads((root / DATA / "ready.json").read_text(encoding="utf-8"))["pid"])
            watched = {"orchestrator": Watched(), "testbed": Watched(), "warm child": Watched()}
            while orchestrator.poll() is None:
                n_ended = journal.count()
                show(n_ended)
                if n_ended > 0:
                    watched["orchestrator"].look(psutil.Process(orchestrator.pid), n_ended)
                    watched["testbed"].look(served, n_ended)
                    for child in served.children():
                        watched["warm child"].look(child, n_ended)
                for due in [due for due in copies if n_ended >= due]:
                    _copy(folder / RUN_TABLE, copies.pop(due))
                    data["end" if data else "start"] = _size(root / DATA)
                time.sleep(PERIOD_S)
        finally:
            if orchestrator.poll() is None:
                orchestrator.terminate()
            orchestrator.wait()
        wall_s = time.monotonic() - begin_s
        if orchestrator.returncode != 0 or copies:
            console.print((root / "orchestrator.out").read_text(encoding="utf-8")[-2000:], markup=False)
            raise RuntimeError(f"the campaign ended with exit code {orchestrator.returncode}")
    return Campaign(n_trials, wall_s, watched, folder, early, late, data)


@contextmanager
def _bar(console: Console, n_trials: int) -> Iterator[Callable[[int], None]]:
    columns = [TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("trials", total=n_trials)
        yield lambda n_ended: progress.update(task, completed=n_ended)


def _copy(table: Path, copy: Path) -> None:
    with closing(sqlite3.connect(table)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def _size(folder: Path) -> dict[str, int]:
    """Attempts that are kept, and bytes of all files."""
    n_bytes = 0
    # os.walk passes over what is pruned in the meantime.
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                n_bytes += (Path(where) / name).stat().st_size
    n_attempts = sum(1 for path in (folder / "attempts").iterdir() if not path.name.startswith("."))
    return {"n_attempts": n_attempts, "n_bytes": n_bytes}


def overheads_ms(folder: Path) -> list[float]:
    """Of all trials but the first, in order."""
    overheads: list[float] = []
    previous_s: float | None = None
    with (folder / JOURNAL).open(encoding="utf-8") as lines:
        for line in lines:
            ended = json.loads(line)
            end_s = datetime.fromisoformat(ended["finished_at"]).timestamp()
            files = folder / RUNS / ended["run_id"] / ended["attempt_id"]
            record = json.loads((files / "record.json").read_text(encoding="utf-8"))
            result = json.loads((files / RESULT).read_text(encoding="utf-8"))
            trial_end_s = datetime.fromisoformat(result["finished_at"]).timestamp()
            trial_s = trial_end_s - (record["origin_s"] + record["unix_minus_monotonic_s"])
            if previous_s is not None:
                overheads.append(1000 * (end_s - previous_s - trial_s))
            previous_s = end_s
    return overheads


def windows(overheads: Sequence[float]) -> dict[str, dict[str, float]]:
    """Rows -> median, 95th percentile and worst of their overheads; the first row has none."""
    n_rows = len(overheads) + 1
    ends = [*range(WINDOW_ROWS, n_rows, WINDOW_ROWS), n_rows]
    spans = [(1, FIRST_ROWS), *((end - WINDOW_ROWS + 1, end) for end in ends if end % WINDOW_ROWS == 0), (1, n_rows)]
    figures = {}
    for first, last in spans:
        part = overheads[max(first - 2, 0) : last - 1]
        p95 = statistics.quantiles(part, n=20)[-1]
        figures[f"{first}-{last}"] = {"median": statistics.median(part), "p95": p95, "worst": max(part)}
    return figures


def operation_ms(early: Path, late: Path, result: TrialResult) -> dict[str, dict[str, float]]:
    """Operation -> median on each copy, and how the late one compares."""
    times: dict[str, dict[str, list[float]]] = {name: {"early": [], "late": []} for name in OPERATIONS}
    with (
        closing(SqlStore.open(early, create=False)) as first,
        closing(SqlStore.open(late, create=False)) as second,
    ):
        n_left = min(store.counts()[RunState.TODO] for store in (first, second))
        for store in (first, second):
            store.claim_next(EXPERIMENT)  # the one that ran when the copy was taken
        for i in range(min(MAX_OPERATIONS, n_left)):
            pair = (("early", first), ("late", second))
            for part, store in pair if i % 2 == 0 else reversed(pair):
                _operate(store, result, {name: times[name][part] for name in OPERATIONS})
    figures = {}
    for name, parts in times.items():
        early_ms, late_ms = statistics.median(parts["early"]), statistics.median(parts["late"])
        figures[name] = {"early": early_ms, "late": late_ms, "ratio": late_ms / early_ms, "n": len(parts["late"])}
    return figures


def _operate(store: SqlStore, result: TrialResult, times: dict[str, list[float]]) -> None:
    """What the controller asks of the run table for one trial, each step timed."""

    def timed(name: str, step: Callable[[], Any]) -> Any:
        begin_s = time.perf_counter()
        answer = step()
        times[name].append(1000 * (time.perf_counter() - begin_s))
        return answer

    claim = timed("claim_next", lambda: store.claim_next(EXPERIMENT))
    timed("record_state", lambda: store.record_state(claim.attempt_id, AttemptState.SUBMITTED))
    own = result.model_copy(update={"attempt_id": claim.attempt_id, "run_id": claim.run_id})
    timed("finish", lambda: store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=own))
    timed("counts", store.counts)


def evaluate(campaign: Campaign) -> dict[str, Any]:
    """All figures."""
    some = next(campaign.folder.glob(f"{RUNS}/*/*/{RESULT}"))
    with closing(SqlStore.open(campaign.folder / RUN_TABLE, create=False)) as store:
        states = {state.value: count for state, count in store.counts().items() if count}
    return {
        "n_trials": campaign.n_trials,
        "wall_s": campaign.wall_s,
        "load_average": os.getloadavg(),
        "states": states,
        "processes": {name: watched.figures(campaign.n_trials) for name, watched in campaign.watched.items()},
        "data_folder": campaign.data,
        "overhead_ms": windows(overheads_ms(campaign.folder)),
        "operation_ms": operation_ms(campaign.early, campaign.late, TrialResult.model_validate_json(some.read_bytes())),
    }


def broken_limits(figures: dict[str, Any]) -> list[str]:
    """What is not as it should be, in words."""
    broken = []
    for name, seen in figures["processes"].items():
        if seen["slope"] is not None and seen["slope"].low_kib > SLOPE_LIMIT_KIB:
            broken.append(f"the {name} grows by {seen['slope']} KiB per 1,000 trials, limit {SLOPE_LIMIT_KIB:.0f}")
        for what in ("n_files", "n_threads"):
            if seen["end"][what] > seen["start"][what] + 2:
                broken.append(f"the {name} has more {what} at the end")
    for name, times in figures["operation_ms"].items():
        if times["ratio"] > OPERATION_RATIO_LIMIT:
            broken.append(f"{name} takes {times['ratio']:.2f} times as long at the end, limit {OPERATION_RATIO_LIMIT}")
    median_ms = figures["overhead_ms"][f"1-{figures['n_trials']}"]["median"]
    if median_ms > OVERHEAD_LIMIT_MS:
        broken.append(f"the median overhead is {median_ms:.1f} ms, limit {OVERHEAD_LIMIT_MS:.0f} ms")
    return broken


def _told(line: Slope | None) -> str:
    if line is None:
        return f"told from {MIN_SLOPE_TRIALS} trials on"
    return f"{line}: {'flat' if line.high_kib < SLOPE_LIMIT_KIB else 'not shown to be flat'}"


def show(figures: dict[str, Any], console: Console) -> None:
    """Print them."""

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    n_trials, wall_s = figures["n_trials"], figures["wall_s"]
    states = ", ".join(f"{count} {state}" for state, count in figures["states"].items())
    load = " ".join(f"{value:.1f}" for value in figures["load_average"])
    line(f"{n_trials} trials in {wall_s:.0f} s ({1000 * wall_s / n_trials:.1f} ms each): {states}; load average {load}")
    line(f"\n{'':>14} {'RSS MiB':>16} {'files':>9} {'threads':>9}   KiB per 1,000 trials [95 %]")
    for name, seen in figures["processes"].items():
        start, end = seen["start"], seen["end"]
        line(
            f"{name:>14} {start['rss_kib'] / 1024:7.1f} ->{end['rss_kib'] / 1024:6.1f} "
            f"{start['n_files']:3} ->{end['n_files']:3} {start['n_threads']:3} ->{end['n_threads']:3}   "
            f"{_told(seen['slope'])}"
        )
    for part, size in figures["data_folder"].items():
        line(f"data folder near the {part}: {size['n_attempts']} attempts, {size['n_bytes'] / 2**20:.1f} MiB")
    line(f"\n{'overhead, rows':>14} {'median ms':>10} {'p95 ms':>8} {'worst ms':>9}")
    for rows, times in figures["overhead_ms"].items():
        line(f"{rows:>14} {times['median']:10.1f} {times['p95']:8.1f} {times['worst']:9.1f}")
    line(f"\n{'run table':>14} {'early ms':>10} {'late ms':>8} {'ratio':>9}")
    for name, times in figures["operation_ms"].items():
        line(f"{name:>14} {times['early']:10.2f} {times['late']:8.2f} {times['ratio']:9.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, help="at least 200, a multiple of 4")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--keep", type=Path, help="run in this folder, which must not exist, and keep what is in it")
    arguments = parser.parse_args()
    if arguments.trials < 200 or arguments.trials % 4:
        parser.error("--trials must be at least 200, and a multiple of 4")

    # Ended in order, it ends the processes that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.pop(TOKEN_VARIABLE, None)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        root = arguments.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=arguments.keep is None)
        try:
            figures = evaluate(run_campaign(root, arguments.trials, console))
        except RuntimeError as error:
            console.print(f"soak: {error}", markup=False)
            return 2
    show(figures, console)
    broken = broken_limits(figures)
    for limit in broken:
        console.print(f"limit broken: {limit}", markup=False, highlight=False, soft_wrap=True)
    if arguments.json is not None:
        text = json.dumps({**figures, "broken": broken}, indent=1, default=asdict)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
