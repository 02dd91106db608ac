"""How a run stands, from the rows of its attempts: pure, apart from where the rows come from."""

from collections.abc import Sequence
from typing import Any

from contract.attempt_state import AttemptState, RunState, derive_run_state
from contract.errors import ErrorBody
from orchestrator.suspicion import is_refused


def standing(attempts: Sequence[Any], *, max_attempts: int, reopened_after: int) -> RunState:
    """The state of a run.

    Args:
        attempts: rows with `number`, `state`, `accepted` and `error`, oldest first.
        max_attempts: how often a run is tried.
        reopened_after: attempts up to this number do not count as tries.
    """
    tries = [row for row in attempts if row.number > reopened_after]
    return derive_run_state(_history(attempts), may_retry=_may_retry(tries, max_attempts))


def _may_retry(tries: Sequence[Any], max_attempts: int) -> bool:
    """Retryable failures are tried again up to a limit; what a person cancelled does not count.

    A suspect attempt that is to be tried again has a retryable error too.
    """
    counted = [row for row in tries if row.state != AttemptState.CANCELLED]
    if len(counted) >= max_attempts or not counted:
        return not counted
    last = counted[-1]
    return last.state == AttemptState.LOST or bool(last.error and last.error.get("retryable"))


def _history(attempts: Sequence[Any]) -> list[tuple[AttemptState, bool]]:
    """States and acceptance; doubted results stand as failures when the last of them was refused."""
    errors = [row.error for row in attempts if row.state == AttemptState.SUSPECT]
    refused = bool(errors) and is_refused(ErrorBody.model_validate(errors[-1]) if errors[-1] else None)
    return [
        (
            AttemptState.FAILED if refused and row.state == AttemptState.SUSPECT else AttemptState(row.state),
            bool(row.accepted),
        )
        for row in attempts
    ]
