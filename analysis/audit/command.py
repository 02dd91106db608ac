"""What `python -m analysis audit` does: progress to the error stream, the result to the output."""

import csv
import json
import sys
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from analysis.audit.audit import audit_folder, to_json
from analysis.audit.audit_table import print_audit
from analysis.audit.consumer_audit import audit_consumer
from analysis.audit.consumer_audit import to_json as consumer_json
from analysis.audit.consumer_files import is_consumer_study
from analysis.audit.consumer_table import print_consumer
from analysis.audit.recipe import RECIPES, PublishedRow, published
from analysis.experiment_runner import find_run_folders
from contract.errors import LogFormatError, UsageError


def audit_command(folder: Path, tables: list[Path], *, as_json: bool, all_runs: bool) -> None:
    """Audit a folder and print the result; a study with a table of latencies has an audit of its own.

    Raises:
        UsageError: there is nothing to audit.
    """
    if is_consumer_study(folder):
        study = audit_consumer(folder)
        if as_json:
            print(json.dumps(consumer_json(study), indent=1, ensure_ascii=False, allow_nan=False))
        else:
            print_consumer(study, Console(highlight=False))
        return
    with _progress() as bar:
        task = bar.add_task("Reading logs", total=None)
        result = audit_folder(folder, tables=tables, on_run=lambda done, of: bar.update(task, completed=done, total=of))
    if as_json:
        print(json.dumps(to_json(result), indent=1, ensure_ascii=False, allow_nan=False, default=str))
    else:
        print_audit(result, Console(highlight=False), all_runs=all_runs)


def recipe_command(folder: Path, name: str, *, as_json: bool) -> None:
    """Print the columns of a published recipe, one row per run; a run that cannot be computed is told on the error
    stream.

    Raises:
        UsageError: there is no such recipe, or it fits no run.
    """
    if name not in RECIPES:
        raise UsageError(f"There is no recipe {name!r}. There is: {', '.join(RECIPES)}.")
    rows = []
    with _progress() as bar:
        for run in bar.track(find_run_folders(folder), description="Reading logs"):
            try:
                rows.append(published(run))
            except LogFormatError as error:
                print(f"{run.run_id}: {error.message}", file=sys.stderr)
    if not rows:
        raise UsageError(f"The recipe {name!r} fits no run under {folder}: see above.")
    names = [each.name for each in fields(PublishedRow)]
    header = ["__run_id" if each == "run_id" else each for each in names]
    cells = [[asdict(row)[each] for each in names] for row in rows]
    if as_json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in cells], indent=1))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[repr(cell) if isinstance(cell, float) else cell for cell in row] for row in cells])


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # On the error stream, so that a pipe gets the result alone.
    return Progress(*columns, console=Console(stderr=True), transient=True)
