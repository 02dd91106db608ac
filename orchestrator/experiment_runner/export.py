"""Results in Experiment Runner's own layout: a folder that it restarts from, and that its users' notebooks read."""

import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import UsageError
from orchestrator.artifacts import RUNS
from orchestrator.durable_file import write_durably
from orchestrator.experiment_runner import fingerprint
from orchestrator.experiment_runner.export_marks import MARKS, encode_marks
from orchestrator.experiment_runner.run_table_file import (
    METADATA,
    RUN_TABLE,
    UNTOUCHED,
    read_any_run_table,
    write_run_table,
    write_sum,
)
from orchestrator.experiment_runner.study import DESIGN_KEY
from orchestrator.run_table_columns import DATA_COLUMNS, DONE, RUN_ID, is_done, telling_attempt
from orchestrator.store.base import Plan, RunReader, RunRow
from orchestrator.store.control import exclusions

FOLDER = "experiment_runner"
"""Where the export goes, in the experiment's folder, unless another place is given."""

_FINGERPRINT_S = 60.0


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: of the whole.
        notes: what there is to say about it, in words.
    """

    folder: Path
    notes: tuple[str, ...]


def export_experiment_runner(
    reader: RunReader, experiment: Path, output: Path | None = None, python: Path | None = None
) -> Exported:
    """Write `run_table.csv`, `metadata.json` and a folder for each run with a result, the table last.

    An experiment that came from Experiment Runner gets that study's columns; any other ours. Rows that Experiment
    Runner measured are written back as they were, and its folders of them are copied. A run that a person excluded
    is DONE with empty cells and has no folder: Experiment Runner does not measure it again, and no mean takes it up.

    Args:
        reader: the run table.
        experiment: its folder, with the files of its attempts.
        output: where to; None: `experiment_runner/NAME` in the experiment's folder.
        python: the interpreter that Experiment Runner runs on, of which the configuration's sum depends; None: this
            one. Not used where the sum came with a campaign that was continued.

    Raises:
        UsageError: nothing was planned, the folder cannot be written, or a row there has other results.
    """
    plan = reader.plan()
    if plan is None:
        raise UsageError("The run table is empty: nothing was planned. Start with: orchestrator run CONFIG.py")
    origin = _origin(plan)
    folder = output or experiment / FOLDER / str(origin.get("name") or plan.experiment)
    runs = {run.run_id: run for run in reader.runs()}
    excluded = exclusions(reader)
    imported = {row["run_id"]: row for row in origin.get("imported", {}).get("rows", ())}
    columns = [RUN_ID, DONE, *plan.factors, *_data_columns(origin)]
    order = origin.get("order") or list(runs)
    rows = [
        _imported_row(imported[run_id])
        if run_id in imported
        else _row(plan, origin, runs[run_id], is_excluded=run_id in excluded)
        for run_id in order
    ]
    notes = []
    if plan.config_text:
        md5, note = (origin["md5"], "") if origin.get("md5") else _sum(plan.config_text, python)
        notes += [note] if note else []
    else:
        md5 = None
    _check_not_lost(folder, rows, _data_columns(origin), excluded.keys())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for run in runs.values():
            attempt = telling_attempt(run)
            if attempt is not None and is_done(run) and run.run_id not in excluded:
                _copy(experiment / RUNS / run.run_id / attempt.attempt_id, folder / run.run_id)
        theirs = Path(origin["imported"]["folder"]) if imported else folder
        absent = [each for each in imported if not (theirs / each).is_dir() and not (folder / each).is_dir()]
        for run_id in imported:
            if run_id not in absent and theirs.resolve() != folder.resolve():
                _copy(theirs / run_id, folder / run_id)
        measured = [run.run_id for run in runs.values() if is_done(run)]
        sources = {name: _source(origin, name) for name in _data_columns(origin)}
        write_durably(folder / MARKS, encode_marks(plan.experiment, plan.sha256, measured, list(imported), sources))
        if md5 is not None:
            write_durably(folder / METADATA, write_sum(md5))
        write_durably(folder / RUN_TABLE, write_run_table(columns, rows))
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written ({error.strerror or error}). Free disk space, or choose another place with "
            "--output; the run table itself is safe."
        ) from error
    if absent:
        notes.append(f"{len(absent)} runs of Experiment Runner have no folder in {theirs}, such as {absent[0]}.")
    notes += [f"{run_id} has no figures and no folder here: {each.words}." for run_id, each in excluded.items()]
    unfilled = [name for name in _data_columns(origin) if _source(origin, name) is None]
    if unfilled:
        notes.append(f"Left empty, for the template names no source of them: {', '.join(unfilled)}.")
    if origin.get("lost_by_experiment_runner"):
        notes.append("Experiment Runner cannot restart it: it would lose rows to overlapping exclusions that are here.")
    if not origin:
        notes.append("This experiment is no study of Experiment Runner: it has no configuration to restart it with.")
    return Exported(folder, tuple(notes))


def _origin(plan: Plan) -> dict[str, Any]:
    found = plan.design.get(DESIGN_KEY)
    return found if isinstance(found, dict) else {}


def _data_columns(origin: Mapping[str, Any]) -> list[str]:
    return list(origin["data_columns"]) if origin else [column.name for column in DATA_COLUMNS]


def _source(origin: Mapping[str, Any], column: str) -> str | None:
    found = origin["column_sources"].get(column) if origin else column
    return str(found) if found else None


def _row(plan: Plan, origin: Mapping[str, Any], run: RunRow, *, is_excluded: bool) -> dict[str, object]:
    row: dict[str, object] = {RUN_ID: run.run_id, DONE: "DONE" if is_done(run) else "TODO"}
    row |= {name: run.treatment[name] for name in plan.factors}
    attempt = telling_attempt(run)
    readers = {column.name: column.read for column in DATA_COLUMNS}
    for name in _data_columns(origin):
        source = _source(origin, name)
        # A row that is to be run again is as untouched as one that never was.
        if attempt is None or source is None or not is_done(run):
            row[name] = UNTOUCHED
        else:
            row[name] = None if is_excluded else readers[source](run, attempt)
    return row


def _imported_row(row: Mapping[str, Any]) -> dict[str, object]:
    return {RUN_ID: row["run_id"], DONE: "DONE", **row["treatment"], **row["data"]}


def _sum(config_text: str, python: Path | None) -> tuple[str, str]:
    if python is None:
        md5, is_certain = fingerprint.fingerprint(config_text)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        note = (
            f"The configuration's sum in {METADATA} is that of Python {version}. If Experiment Runner runs on another "
            "version, give its interpreter with --python, else it asks at a restart whether to go on."
        )
    else:
        md5, is_certain = _sum_by(python, config_text)
        note = ""
    if not is_certain:
        note = f"{note} It may differ, for there is no dill here: give --python.".strip()
    return md5, note


def _sum_by(python: Path, config_text: str) -> tuple[str, bool]:
    try:
        done = subprocess.run(
            [str(python), fingerprint.__file__],
            input=config_text.encode(),
            capture_output=True,
            timeout=_FINGERPRINT_S,
            check=True,
        )
        md5, is_certain = done.stdout.decode().split()
        bytes.fromhex(md5)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UsageError(
            f"{python} did not compute the configuration's sum ({error}). Give --python the interpreter that "
            "Experiment Runner runs on, 3.8 or later."
        ) from error
    return md5, is_certain == "True"


def _check_not_lost(
    folder: Path, rows: list[dict[str, object]], data_columns: Collection[str], excluded: Collection[str]
) -> None:
    """No row that is DONE in the folder may lose or change its results, unless a person excluded it or took it back."""
    if not (folder / RUN_TABLE).exists():
        return
    table = read_any_run_table(folder)
    new = {str(row[RUN_ID]): {name: "" if value is None else str(value) for name, value in row.items()} for row in rows}
    for old in table.rows:
        was_excluded = bool(data_columns) and not any(old.cells.get(name, "").strip() for name in data_columns)
        if not old.is_done or old.run_id in excluded or was_excluded:
            continue
        row = new.get(old.run_id, {})
        if row.get(DONE) != "DONE" or any(row.get(name) != cell for name, cell in old.cells.items()):
            raise UsageError(
                f"{table.path}, line {old.line}: {old.run_id} is DONE there with other results than here. Nothing was "
                "written: give another folder with --output."
            )


def _copy(source: Path, target: Path) -> None:
    """Copy a run's files; a file that is there already with the same size stays."""
    if not source.is_dir():
        return
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif path.is_file() and not (place.exists() and place.stat().st_size == path.stat().st_size):
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(place.name + ".part")
            shutil.copyfile(path, part)
            part.replace(place)
