"""Mends an experiment's run table: looks, puts the broken one aside, and moves a rebuilt one into its place.

May be killed at any point and started again: the rebuilt table appears under its name complete or not at all, and
what a broken one gave is read again from where it was put.
"""

import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, insert

from contract.attempt_state import RunState
from contract.errors import ConfigError, ErrorBody, UsageError
from contract.trial_result import SuspectReason
from orchestrator.attempt_journal import AttemptJournal, EndedAttempt
from orchestrator.cooldown import CooldownOutcome
from orchestrator.decision_journal import DecisionJournal
from orchestrator.durable_file import sync_names
from orchestrator.experiment_folder import (
    database_of,
    has_run_table,
    missing_attempts,
    open_run_table,
    remains,
    run_table_path,
)
from orchestrator.plan_file import keep_plan
from orchestrator.plan_source import PlanSource, find_plan
from orchestrator.processes import told_process
from orchestrator.rebuild import Rebuilt, rebuild
from orchestrator.store.base import Plan, RunTableDamagedError
from orchestrator.store.control import EXCLUDED_PREFIX, controls_of
from orchestrator.store.database import database_url, open_database, shown, told
from orchestrator.store.integrity import damage, files_of
from orchestrator.store.salvage import Row, Salvaged, salvage
from orchestrator.store.schema import ATTEMPT, EVENT, EXPERIMENT, FACT, RUN, RUN_TABLE
from orchestrator.stored_files import stored_attempts

BROKEN = "broken-"
"""Beginning of the folders where broken run tables are put; the rest is the time."""

_DONE = "repaired"
"""File in such a folder: the repair came to its end."""

_WORK = ".repair-"
_OPEN = (RunState.TODO, RunState.RUNNING)


@dataclass(frozen=True)
class Repair:
    """What was found, and what was, or would be, done.

    Attributes:
        faults: what is wrong with the run table, in words; empty: nothing, and nothing was done.
        table: the rebuilt rows; None without faults.
        aside: where the broken files are; None where nothing was moved.
    """

    faults: tuple[str, ...]
    table: Rebuilt | None = None
    aside: Path | None = None


def repair(folder: Path, planned: Plan | None, *, only_look: bool, now: datetime) -> Repair:
    """Mend an experiment's run table, if it needs it.

    Args:
        folder: the experiment's.
        planned: by its configuration; None: the plan that is kept in the folder counts.
        only_look: change nothing.
        now: aware UTC.

    Raises:
        UsageError: there is no experiment, no plan can be found, another process uses the table, or the folder cannot
            be written.
    """
    if (address := database_of(folder)) is not None:
        raise UsageError(
            f"The run table of {folder} is {shown(database_url(address))}: restore it from the server's backup."
        )
    if not has_run_table(folder) and not remains(folder):
        raise ConfigError(f"There is no experiment in {folder}: it has no {RUN_TABLE}, and no files of one.")
    _require_unused(folder)
    try:
        if not only_look:
            for left in folder.glob(f"{_WORK}*"):
                shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=_WORK, dir=None if only_look else folder) as work:
            faults = _faults(folder, Path(work))
            if not faults:
                return Repair(())
            return _mend(folder, planned, faults, Path(work), only_look=only_look, now=now)
    except OSError as error:
        raise UsageError(
            f"The run table in {folder} cannot be rebuilt ({error.strerror or error}). Free disk space or mend the "
            "permissions, then run the same command again: nothing is lost."
        ) from error


def _mend(
    folder: Path, planned: Plan | None, faults: list[str], work: Path, *, only_look: bool, now: datetime
) -> Repair:
    path = run_table_path(folder)
    new = work / "new" / RUN_TABLE
    _open(new).dispose()
    if not path.exists() and not only_look:
        _put_aside(folder, path, now)  # what a killed repair, or the loss of the table, left of it
    # The plan first: without one, no table is moved.
    salvaged = _salvage(path if path.exists() else _unfinished(folder), work, new)
    source = find_plan(folder, planned, salvaged)
    table = rebuild(
        source.plan, source.specs, salvaged, AttemptJournal(folder).read(), stored_attempts(folder), now=now
    )
    table.facts = DecisionJournal(folder).added_to(table.facts)
    table.notes += [*_drop_senseless_exclusions(table, source.plan), *source.notes]
    if only_look:
        return Repair(tuple(faults), table)
    _write(new, source, table, now)
    aside = _put_aside(folder, path, now)
    new.replace(path)
    sync_names(folder)
    keep_plan(folder, source.plan)
    # A refused attempt must not stand as accepted any more: the next look would find it missing.
    AttemptJournal(folder).note(*(_ended(row) for row in table.attempts if row["finished_at"] is not None))
    if aside is not None:
        (aside / _DONE).touch()
    return Repair(tuple(faults), table, aside)


def _drop_senseless_exclusions(table: Rebuilt, plan: Plan) -> list[str]:
    """A run that is measured again has no result that could be left out; what was done, in words."""
    notes = []
    ended = {run.run_id for run, row in zip(plan.runs, table.runs, strict=True) if row["state"] not in _OPEN}
    for run_id, exclusion in controls_of(table.facts).exclusions.items():
        if run_id not in ended:
            del table.facts[EXCLUDED_PREFIX + run_id]
            notes.append(f"{run_id} was {exclusion.words}; it is measured again, so it counts again")
    return notes


def _salvage(broken: Path | None, work: Path, template: Path) -> Salvaged:
    if broken is None:
        return Salvaged(notes=("there is no run table to read",))
    place = work / "salvage"
    place.mkdir()
    return salvage(broken, place, template)


def _faults(folder: Path, work: Path) -> list[str]:
    """What is wrong with a run table; a copy is looked at, since SQLite would drop the -wal of an empty file."""
    path = run_table_path(folder)
    if not path.exists():
        return [f"{RUN_TABLE} is gone"]
    look = work / "look"
    look.mkdir()
    for file in files_of(path):
        shutil.copyfile(file, look / file.name)
    (look / f"{RUN_TABLE}-shm").unlink(missing_ok=True)
    faults = damage(look / RUN_TABLE, thorough=True)
    shutil.rmtree(look)
    if faults:
        return faults
    if path.stat().st_size == 0:
        return [f"{RUN_TABLE} is empty"]
    with closing(open_run_table(folder, create=False)) as store:
        try:
            plan, _, _, _ = store.plan(), store.runs(), store.events(), store.facts("")
        except RunTableDamagedError as error:
            return [error.message.partition(". Mend it")[0]]
        if plan is None:
            return ["it holds no plan"] if remains(folder) else []
        return missing_attempts(folder, store)


def _require_unused(folder: Path) -> None:
    """See that nobody has the run table open: what is put aside would be written on."""
    watched = {str(path.resolve()) for path in files_of(run_table_path(folder))}
    for process in psutil.process_iter():
        try:
            is_user = any(file.path in watched for file in process.open_files())
        except (psutil.Error, OSError):
            continue
        if is_user:
            who = told_process(process.pid)
            raise UsageError(f"{who[:1].upper()}{who[1:]} has the run table in {folder} open: end it, then repair.")


def _put_aside(folder: Path, path: Path, now: datetime) -> Path | None:
    """Move the broken files away. A -wal that is left must not stay: it would be taken for the new table's own."""
    files = files_of(path)
    unfinished = _unfinished(folder)
    if path.exists() or unfinished is None:
        if not files:
            return None
        aside = folder / f"{BROKEN}{now:%Y%m%dT%H%M%S.%fZ}"
        aside.mkdir()
    else:
        aside = unfinished.parent
    # The table first: while it is gone, a killed repair goes on with what is aside, and adds the -wal to it.
    for file in files:
        file.replace(aside / file.name)
    sync_names(aside)
    sync_names(folder)
    return aside


def _unfinished(folder: Path) -> Path | None:
    """The broken table that a repair put aside before it was killed."""
    found = sorted(folder.glob(f"{BROKEN}*/"))
    if found and not (found[-1] / _DONE).exists() and (found[-1] / RUN_TABLE).exists():
        return found[-1] / RUN_TABLE
    return None


def _open(path: Path) -> Engine:
    return open_database(database_url(path), create=True)


def _write(path: Path, source: PlanSource, table: Rebuilt, now: datetime) -> None:
    """Fill the empty table; afterwards it is one whole file."""
    plan = source.plan
    runs: list[dict[str, Any]] = [
        {
            "position": run.position,
            "run_id": run.run_id,
            "treatment": run.treatment,
            "repetition": run.repetition,
            "spec": run.spec.model_dump(mode="json"),
            "state": row["state"],
            "reopened_after": row["reopened_after"],
        }
        for run, row in zip(plan.runs, table.runs, strict=True)
    ]
    experiment = {
        "id": 1,
        "name": plan.experiment,
        "seed": plan.seed,
        "factors": list(plan.factors),
        "max_attempts": plan.max_attempts,
        "config_text": plan.config_text,
        "design": plan.design,
        "plan_sha256": plan.sha256,
        "created_at": source.created_at or now,
        "software_version": metadata.version("joulebed"),
    }
    facts = [{"key": key, "value": value} for key, value in table.facts.items()]
    engine = _open(path)
    with told(database_url(path)), engine.begin() as connection:
        for into, rows in (
            (EXPERIMENT, [experiment]),
            (RUN, runs),
            (ATTEMPT, table.attempts),
            (EVENT, table.events),
            (FACT, facts),
        ):
            if rows:
                connection.execute(insert(into), rows)
    engine.dispose()  # the last one out takes the -wal along
    faults = damage(path, thorough=True)
    if faults:
        raise UsageError(f"The rebuilt run table is damaged too ({faults[0]}): the disk, or the memory, is at fault.")


def _ended(row: Row) -> EndedAttempt:
    return EndedAttempt(
        attempt_id=row["attempt_id"],
        run_id=row["run_id"],
        number=row["number"],
        state=row["state"],
        accepted=row["accepted"],
        testbed=row["testbed"],
        finished_at=row["finished_at"],
        error=ErrorBody.model_validate(row["error"]) if row["error"] else None,
        reasons=tuple(SuspectReason.model_validate(reason) for reason in row["reasons"] or ()),
        cooldown=CooldownOutcome(**row["cooldown"]) if row["cooldown"] else None,
    )
