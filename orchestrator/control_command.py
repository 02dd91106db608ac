"""`orchestrator pause`, `resume`, `exclude` and `include`: what they do, and what they say of it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from contract.attempt_state import RunState
from orchestrator.export import FORMATS, export_run_table
from orchestrator.store.control import CampaignControl, this_person
from orchestrator.store.sql_store import SqlStore


def pause_command(store: SqlStore, folder: Path, *, by: str | None, reason: str) -> str:
    """Let a campaign take up no further run.

    Args:
        store: the run table.
        folder: the experiment's, for the next step.
        by: who decides; the user at this machine by default.
        reason: why.

    Raises:
        UsageError: a text is too long.
    """
    pause = CampaignControl(store).pause(by or this_person(), reason)
    counts = store.counts()
    running = " The trial under way goes on to its end." if counts[RunState.RUNNING] else ""
    return f"The campaign is {pause.words}.{running} Let it go on with: orchestrator resume {shlex.quote(str(folder))}"


def resume_command(store: SqlStore, *, by: str | None) -> str:
    """Let a campaign go on.

    Args:
        store: the run table.
        by: who decides; the user at this machine by default.

    Raises:
        UsageError: the name is too long.
    """
    ended = CampaignControl(store).resume(by or this_person())
    if ended is None:
        return "The campaign was not paused."
    counts = store.counts()
    if counts[RunState.TODO] + counts[RunState.RUNNING] == 0:
        return "Resumed; no run is left to do."
    return "Resumed: an orchestrator that waits goes on within seconds. If none does: the same `orchestrator run`."


def exclude_command(store: SqlStore, folder: Path, run_ids: Sequence[str], *, by: str | None, reason: str) -> str:
    """Leave ended runs out of the results.

    Args:
        store: the run table.
        folder: the experiment's; exports that are there are written anew.
        run_ids: planned runs.
        by: who decides; the user at this machine by default.
        reason: why.

    Raises:
        UsageError: a run is not planned or has not ended, or a text is empty or too long. Those before it are excluded.
    """
    control = CampaignControl(store)
    for run_id in run_ids:
        control.exclude(run_id, reason, by or this_person())
    refresh_exports(store, folder)
    one = len(run_ids) == 1
    return (
        f"{'1 run is' if one else f'{len(run_ids)} runs are'} left out of exports and analysis from now on; what was "
        "measured stays."
    )


def include_command(store: SqlStore, folder: Path, run_ids: Sequence[str], *, by: str | None) -> str:
    """Take excluded runs back into the results.

    Args:
        store: the run table.
        folder: the experiment's; exports that are there are written anew.
        run_ids: planned runs.
        by: who decides; the user at this machine by default.

    Raises:
        UsageError: a run is not planned. Those before it are included.
    """
    control = CampaignControl(store)
    back = [run_id for run_id in run_ids if control.include(run_id, by or this_person()) is not None]
    if not back:
        return "Nothing to do: none of them was excluded."
    refresh_exports(store, folder)
    return f"{'1 run counts' if len(back) == 1 else f'{len(back)} runs count'} again."


def refresh_exports(store: SqlStore, folder: Path) -> None:
    """Write `run_table.csv` and `.parquet` anew, where they are: no campaign may be at work that would.

    Args:
        store: the run table.
        folder: the experiment's.

    Raises:
        UsageError: the folder cannot be written.
        MissingPackageError: Parquet without polars.
    """
    for file_format in FORMATS:
        if (folder / f"run_table.{file_format}").exists():
            export_run_table(store, folder, file_format)
