"""Where an experiment's run table is, and how the command line finds it."""

import sqlite3
from pathlib import Path

from contract.errors import ConfigError
from orchestrator.artifacts import RUNS
from orchestrator.attempt_journal import JOURNAL, AttemptJournal
from orchestrator.plan_file import PLAN
from orchestrator.store.base import RunTableDamagedError, RunTableError
from orchestrator.store.database import LockWait
from orchestrator.store.integrity import damage
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import SqlStore


def run_table_path(folder: Path) -> Path:
    """The run table of an experiment's folder."""
    return folder / RUN_TABLE


def has_run_table(folder: Path) -> bool:
    """Whether the experiment was begun."""
    return run_table_path(folder).exists()


def open_run_table(folder: Path, *, create: bool, wait: LockWait | None = None) -> SqlStore:
    """Open an experiment's run table.

    Args:
        folder: the experiment's.
        create: make folder and table when they are not there.
        wait: see `SqlStore.open`.

    Raises:
        ConfigError: there is none.
        RunTableDamagedError: it is broken, or gone from beside its experiment's files.
    """
    is_empty = has_run_table(folder) and run_table_path(folder).stat().st_size == 0
    if (is_empty or not has_run_table(folder)) and remains(folder):
        # Before SQLite sees it: a -wal beside an empty file would be thrown away.
        raise RunTableDamagedError(
            f"The run table {run_table_path(folder)} is {'empty' if is_empty else 'gone'}, but the files of its "
            f"experiment are there. Rebuild it from them: orchestrator repair {folder}"
        )
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The folder {folder} cannot be made ({error.strerror}). Choose another with --results."
            ) from error
    elif not has_run_table(folder):
        raise ConfigError(
            f"There is no experiment in {folder}: it has no {RUN_TABLE}. Give the folder of one that was begun with "
            "`orchestrator run`."
        )
    return SqlStore.open(str(run_table_path(folder)), create=create, wait=wait)


def remains(folder: Path) -> bool:
    """Whether a folder holds what an experiment leaves beside its run table."""
    return any((folder / name).exists() for name in (PLAN, JOURNAL)) or any((folder / RUNS).glob("*/*/"))


def require_sound(folder: Path, store: SqlStore) -> None:
    """See that a run table is whole, and knows all that its folder tells; reads the whole file.

    Raises:
        RunTableDamagedError: it is not, or does not: going on would lose attempts, or run them twice.
    """
    path = run_table_path(folder)
    try:
        faults = damage(path, thorough=True)
    except sqlite3.OperationalError as error:
        raise RunTableError(
            f"The run table {path} cannot be checked: {error}. End the program that holds it, or mend its "
            "permissions, then run the same command again."
        ) from error
    if not faults:
        faults = missing_attempts(folder, store)
    if faults:
        raise RunTableDamagedError(
            f"The run table {path} is damaged: {faults[0]}. Look at what can be saved: orchestrator repair --check "
            f"{folder}. Mend it, which deletes nothing: orchestrator repair {folder}"
        )


def missing_attempts(folder: Path, store: SqlStore) -> list[str]:
    """What the files of an experiment know and its run table does not, in words; empty: nothing."""
    # The table last: it knows of an attempt before anything else does.
    accepted = {each.attempt_id for each in AttemptJournal(folder).read().values() if each.accepted}
    begun = {path.name for path in (folder / RUNS).glob("*/*/")}
    known = store.attempt_ids()
    unknown = sorted((accepted | begun) - known.keys())
    undone = sorted(each for each in accepted if each in known and not known[each])
    missing = [f"it does not know {len(unknown)} attempts that have files, such as {unknown[0]}"] if unknown else []
    if undone:
        missing.append(f"{len(undone)} attempts are not accepted that were, such as {undone[0]}")
    return missing


def find_experiment(where: Path, results: Path | None = None) -> Path:
    """The folder that is meant: an experiment's own, or that of a configuration file.

    Args:
        where: folder, or configuration.
        results: in place of the configuration's `results_output_path`.
    """
    if where.suffix == ".py":
        # Only here: a folder can be looked at where its configuration is not.
        from orchestrator.config_loader import load_config

        config, _ = load_config(where)
        return (results or Path(config.results_output_path)) / config.name
    return where
