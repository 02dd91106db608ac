"""From results, whoever made them, to an `Experiment`."""

from pathlib import Path

from analysis.experiment import Exclusion, Experiment
from analysis.experiment_runner import find_run_tables, has_run_folder
from analysis.load_experiment_runner import load_experiment_runner
from analysis.load_joulebed import load_joulebed
from analysis.run_table import DATABASE, RUN_TABLE
from contract.errors import UsageError

__all__ = ["Exclusion", "Experiment", "load_runs"]


def load_runs(path_or_url: Path | str, *, files: Path | None = None) -> Experiment:
    """Read the results of an experiment; nothing is written, and a broken run costs that run only.

    Samples, requests and answers stay on the disk until `analysis.detail` is asked for them.

    Args:
        path_or_url: one of

            - `results/EXPERIMENT`, or the run table in it;
            - the database of one: `postgresql+psycopg://user@host/name`, `sqlite:///results/x/run_table.sqlite`;
              `?experiment=NAME` chooses where its schemas hold several;
            - a folder of Experiment Runner, or a run table (CSV) in it.
        files: of a database: the folder of the experiment's files, for `analysis.detail`.

    Raises:
        UsageError: there is no experiment, or it has no runs; says what to give instead.
        MissingPackageError: no driver for this kind of database.
    """
    if isinstance(path_or_url, str) and "://" in path_or_url:
        return load_joulebed(path_or_url, files=files)
    path = Path(path_or_url)
    if path.is_file():
        is_table = path.suffix.lower() in (".csv", ".tsv")
        return load_experiment_runner(path.parent, table=path) if is_table else load_joulebed(path)
    if not path.is_dir() or _holds_joulebed(path):
        return load_joulebed(path)
    if find_run_tables(path) or has_run_folder(path):
        return load_experiment_runner(path)
    raise UsageError(
        f"{path} has no {RUN_TABLE}, and no run_table.csv or EnergiBridge log either: it is not an experiment's "
        f"folder. Give one that `orchestrator run` or Experiment Runner has written."
    )


def _holds_joulebed(folder: Path) -> bool:
    """Also where it holds several, so that the message says which."""
    return (folder / RUN_TABLE).is_file() or (folder / DATABASE).is_file() or any(folder.glob(f"*/{RUN_TABLE}"))
