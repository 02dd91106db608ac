"""`orchestrator retry`: gives ended runs new attempts; the next `orchestrator run` executes them."""

from collections.abc import Sequence

from contract.attempt_state import RunState
from orchestrator.store.control import CampaignControl, this_person
from orchestrator.store.sql_store import SqlStore


def retry_command(
    store: SqlStore, *, wants_suspect: bool, wants_failed: bool, run_ids: Sequence[str], by: str | None = None
) -> str:
    """Make runs TODO again.

    Args:
        store: the run table.
        wants_suspect: all SUSPECT runs, but for excluded ones.
        wants_failed: all FAILED runs, but for excluded ones.
        run_ids: and these.
        by: who decides; the user at this machine by default.

    Returns:
        What was done, and the next step.

    Raises:
        UsageError: a run is not in the plan, is done, or is excluded; nothing was changed.
    """
    states = {RunState.SUSPECT} if wants_suspect else set()
    states |= {RunState.FAILED} if wants_failed else set()
    control = CampaignControl(store)
    ended = {row.run_id for row in store.runs() if row.state in states} - control.exclusions().keys()
    reopened = control.retry(ended | set(run_ids), by or this_person())
    if not reopened:
        return "Nothing to try again: no such run has ended without an accepted result."
    n_runs = f"{len(reopened)} run{'' if len(reopened) == 1 else 's'}"
    return f"{n_runs} to do again. Start them with the same `orchestrator run` command as before."
