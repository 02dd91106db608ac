"""What a run costs in a loop like Experiment Runner's, and in ours, in tables of growing size.

    python benchmarks/experiment_runner_loop.py                  # tables of 100, 500, 2,000 and 10,000 rows
    python benchmarks/experiment_runner_loop.py --rows 100 500 --runs 30

Their loop is told here in a few lines of our own, after what is known of Experiment Runner (commit of 2025-11-27): a
process per run (`multiprocessing`, forked), in it a folder for the run, the hooks one after the other, and then the
whole run_table.csv read again, one row changed, and all of it written anew, with CRLF, untouched cells as one space,
and cells of digits alone read as numbers. All hooks are empty. It is local: no network, nothing is synced to disk, so
a power cut loses the table. It runs in a Python of its own that has nothing else loaded, which makes the fork cheap.

Ours is the overhead of a trial as orchestration.py measures it: a controller, HTTP on loopback to a testbed process,
its warm child, artifacts fetched and verified, durable commits; all but the trial itself.

Not every run of a table is run: the rows before are marked as done, with their cells filled, and a window of runs at
the end of the table is timed. Half of their runs are timed before ours and half after, so that a change of the
machine's load meets both.
"""

import argparse
import csv
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TABLE = "run_table.csv"
RUN_ID, STATE = "__run_id", "__done"
TODO, DONE = "TODO", "DONE"
UNTOUCHED = " "
FACTORS = ("words", "concurrency")
DATA_COLUMNS = tuple(f"measured_{i}" for i in range(4))
"""Few, for they cost in every row: a run table of energy, time and counts has more."""

Row = dict[str, str | int]


class Hooks:
    """What an experiment may do at each step of a run: nothing."""

    def before_run(self) -> None: ...

    def start_run(self) -> None: ...

    def start_measurement(self) -> None: ...

    def interact(self) -> None: ...

    def stop_measurement(self) -> None: ...

    def stop_run(self) -> None: ...

    def populate_run_data(self) -> dict[str, str | int]:
        """The cells of the run: two of them counts, as tables of measurements have them."""
        return {name: i if i < 2 else f"{i}.123456789" for i, name in enumerate(DATA_COLUMNS)}


def read_table(path: Path) -> list[Row]:
    """All rows; a cell of digits alone is a number."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: int(cell) if cell.isdigit() else cell for name, cell in row.items()} for row in csv.DictReader(file)
        ]


def write_table(path: Path, rows: list[Row]) -> None:
    """All rows, under another name first."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def run_one(folder: Path, row: Row, hooks: Hooks) -> None:
    """A run, in its own process."""
    (folder / str(row[RUN_ID])).mkdir()
    hooks.start_run()
    hooks.start_measurement()
    hooks.interact()
    hooks.stop_measurement()
    hooks.stop_run()
    changed: Row = {**row, **hooks.populate_run_data(), STATE: DONE}
    rows = read_table(folder / TABLE)
    write_table(folder / TABLE, [changed if each[RUN_ID] == row[RUN_ID] else each for each in rows])


def loop(folder: Path, n_runs: int) -> list[float]:
    """Do the next runs of a table, each in a process of its own.

    Returns:
        Milliseconds of each.
    """
    hooks = Hooks()
    fork = multiprocessing.get_context("fork")
    todo = [row for row in read_table(folder / TABLE) if row[STATE] == TODO]
    times_ms = []
    for row in todo[:n_runs]:
        begin_s = time.perf_counter()
        hooks.before_run()
        process = fork.Process(target=run_one, args=(folder, row, hooks))
        process.start()
        process.join()
        times_ms.append(1000 * (time.perf_counter() - begin_s))
        if process.exitcode != 0:
            raise RuntimeError(f"a run ended with exit code {process.exitcode}")
    return times_ms


def make_table(folder: Path, n_rows: int, n_todo: int) -> None:
    """A table whose last rows are to do."""
    cells = Hooks().populate_run_data()
    rows: list[Row] = []
    for i in range(n_rows):
        is_done = i < n_rows - n_todo
        row: Row = {RUN_ID: f"run_{i // 10}_repetition_{i % 10}", STATE: DONE if is_done else TODO}
        row |= {name: 8 * (1 + (i + k) % 2) for k, name in enumerate(FACTORS)}
        row |= cells if is_done else dict.fromkeys(DATA_COLUMNS, UNTOUCHED)
        rows.append(row)
    folder.mkdir(parents=True)
    write_table(folder / TABLE, rows)


def time_theirs(folder: Path, n_runs: int) -> list[float]:
    """`loop` in a Python of its own."""
    command = [sys.executable, __file__, "--loop", str(folder), "--runs", str(n_runs)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    times_ms: list[float] = json.loads(answer)
    if not all(row[STATE] == DONE for row in read_table(folder / TABLE)[:-n_runs]):
        raise RuntimeError("the loop lost a run")
    return times_ms


def time_ours(root: Path, n_rows: int, n_runs: int) -> list[float]:
    """The overheads of the last trials of a table."""
    # Not above: their loop is run by this file too, and a fork costs by what its parent has loaded.
    import orchestration

    parts = orchestration.measure(root, n_rows, min(n_runs, n_rows // 2 - 2), full=False)
    overheads_ms: list[float] = list(parts.values())[-1][-n_runs:]
    return overheads_ms


def compare(n_rows: int, n_runs: int) -> dict[str, float]:
    """Medians of both in a table of this size."""
    with tempfile.TemporaryDirectory(prefix="loop-") as temporary:
        folder = Path(temporary) / "theirs"
        n_half = max(n_runs // 2, 1)
        make_table(folder, n_rows, 2 * n_half)
        theirs_ms = time_theirs(folder, n_half)
        ours_ms = time_ours(Path(temporary), n_rows, n_runs)
        theirs_ms += time_theirs(folder, n_half)
    return {"theirs_ms": statistics.median(theirs_ms), "ours_ms": statistics.median(ours_ms)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 500, 2000, 10_000], help="multiples of 4")
    parser.add_argument("--runs", type=int, default=60, help="timed at the end of each table, of both")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop is not None:
        print(json.dumps(loop(arguments.loop, arguments.runs)))
        return 0

    os.environ.pop("JOULEBED_TOKEN", None)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"medians of {arguments.runs} runs at the end of each table; load average {load}")
    print(f"{'rows':>7} {'theirs ms':>10} {'ours ms':>9} {'theirs/ours':>12} {'growth: theirs':>15} {'ours':>7}")
    figures: dict[int, dict[str, float]] = {}
    for n_rows in arguments.rows:
        found = figures[n_rows] = compare(n_rows, arguments.runs)
        first = figures[arguments.rows[0]]
        print(
            f"{n_rows:>7} {found['theirs_ms']:>10.1f} {found['ours_ms']:>9.1f} "
            f"{found['theirs_ms'] / found['ours_ms']:>12.2f} {found['theirs_ms'] / first['theirs_ms']:>15.2f} "
            f"{found['ours_ms'] / first['ours_ms']:>7.2f}",
            flush=True,
        )
    print("Experiment Runner itself, on another machine: 11 ms at 500 rows, 16 ms at 2,000.")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
