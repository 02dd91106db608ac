"""Where an experiment's run table is, and how the command line finds it.

It is a file in the experiment's folder; or it is in a database server, and a file in the folder says where.
"""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from contract.errors import ConfigError
from orchestrator.artifacts import RUNS
from orchestrator.attempt_journal import JOURNAL, AttemptJournal
from orchestrator.durable_file import write_durably
from orchestrator.outage_note import outage_of
from orchestrator.plan_file import PLAN
from orchestrator.store.base import RunTableAwayError, RunTableDamagedError, RunTableError
from orchestrator.store.database import LockWait, database_url, secret_options, shown
from orchestrator.store.integrity import damage
from orchestrator.store.outage import ServerWait
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import SqlStore

DATABASE = "database.url"
"""File name in the experiment's folder: the address of a database server's run table, without a password."""


def run_table_path(folder: Path) -> Path:
    """The run table of an experiment's folder."""
    return folder / RUN_TABLE


def has_run_table(folder: Path) -> bool:
    """Whether the experiment was begun."""
    return run_table_path(folder).exists() or (folder / DATABASE).exists()


def database_of(folder: Path) -> str | None:
    """Address of the database server's run table of an experiment; None: it is a file in the folder.

    Raises:
        ConfigError: the file that says so cannot be read.
    """
    path = folder / DATABASE
    if not path.exists():
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}). It holds one line: the run table's address.") from error


def checked_database(url: str) -> str:
    """An address that may be written down and shown.

    Raises:
        UsageError: it is none of a database server, or holds a password.
    """
    parsed = database_url(url)
    if "://" not in url or parsed.get_backend_name() != "postgresql":
        raise ConfigError(
            "--database takes the address of a PostgreSQL server, such as postgresql+psycopg://USER@HOST/DATABASE. "
            "Without it the run table is a file in the experiment's folder."
        )
    if parsed.password is not None or secret_options(parsed):
        raise ConfigError(
            "The database's address holds a password, which `ps` and the experiment's folder would show. Take it out, "
            "also from behind the `?`, and give it in PGPASSWORD or in ~/.pgpass."
        )
    return url


def keep_database(folder: Path, url: str) -> None:
    """Write down where the run table of an experiment is, for all other commands."""
    write_durably(folder / DATABASE, f"{url}\n".encode())


def open_run_table(
    folder: Path,
    *,
    create: bool,
    wait: LockWait | None = None,
    database: str | None = None,
    server: ServerWait | None = None,
) -> SqlStore:
    """Open an experiment's run table.

    Args:
        folder: the experiment's.
        create: make folder and table when they are not there.
        wait: see `SqlStore.open`.
        database: address of a server's, see `checked_database`; None: as the folder says.
        server: see `SqlStore.open`.

    Raises:
        RunTableAwayError: its server does not answer; with what a campaign that waits for it says.
        ConfigError: there is none, or it is elsewhere than `database` says.
        RunTableDamagedError: it is broken, or gone from beside its experiment's files.
    """
    known = database_of(folder)
    if database is not None and (run_table_path(folder).exists() or known not in (None, database)):
        where = shown(database_url(known)) if known else run_table_path(folder)
        raise ConfigError(
            f"The run table of {folder} is {where}. Leave out --database, or give the experiment another `name` or "
            "--results folder."
        )
    if known is not None or database is not None:
        if create:
            _make(folder)
        try:
            return SqlStore.open(database or known or "", create=create, wait=wait, server=server)
        except RunTableAwayError as error:
            outage = outage_of(folder)
            waits = f" {outage.words(datetime.now(UTC))}" if outage is not None else ""
            raise RunTableAwayError(f"{error.message}{waits}") from error
    is_empty = has_run_table(folder) and run_table_path(folder).stat().st_size == 0
    if (is_empty or not has_run_table(folder)) and remains(folder):
        # Before SQLite sees it: a -wal beside an empty file would be thrown away.
        raise RunTableDamagedError(
            f"The run table {run_table_path(folder)} is {'empty' if is_empty else 'gone'}, but the files of its "
            f"experiment are there. Rebuild it from them: orchestrator repair {folder}"
        )
    if create:
        _make(folder)
    elif not has_run_table(folder):
        raise ConfigError(
            f"There is no experiment in {folder}: it has no {RUN_TABLE}. Give the folder of one that was begun with "
            "`orchestrator run`."
        )
    return SqlStore.open(str(run_table_path(folder)), create=create, wait=wait)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} cannot be made ({error.strerror}). Choose another with --results."
        ) from error


def remains(folder: Path) -> bool:
    """Whether a folder holds what an experiment leaves beside its run table."""
    return any((folder / name).exists() for name in (PLAN, JOURNAL)) or any((folder / RUNS).glob("*/*/"))


def require_sound(folder: Path, store: SqlStore) -> None:
    """See that a run table is whole, and knows all that its folder tells; reads the whole file.

    Raises:
        RunTableDamagedError: it is not, or does not: going on would lose attempts, or run them twice.
    """
    path = run_table_path(folder)
    if store.file is None:
        return  # the server looks after its own; what other orchestrators hold is not here
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
