"""Where an experiment's run table is, and how the command line finds it."""

from pathlib import Path

from contract.errors import ConfigError
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import SqlStore


def run_table_path(folder: Path) -> Path:
    """The run table of an experiment's folder."""
    return folder / RUN_TABLE


def has_run_table(folder: Path) -> bool:
    """Whether the experiment was begun."""
    return run_table_path(folder).exists()


def open_run_table(folder: Path, *, create: bool) -> SqlStore:
    """Open an experiment's run table.

    Args:
        folder: the experiment's.
        create: make folder and table when they are not there.

    Raises:
        ConfigError: there is none.
    """
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
    return SqlStore.open(str(run_table_path(folder)), create=create)


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
