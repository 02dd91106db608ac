"""Reads from disk what an earlier testbed process knew of its attempts."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from contract.attempt_state import AttemptState
from contract.errors import TestbedRestartedError
from contract.trial_result import AttemptStatus
from testbed import attempt_folder
from testbed.attempt_store import AttemptStore
from testbed.child_log import log_tail
from testbed.child_process import AdoptedTrial, ProcessRecord, RunningTrial, kill_strays
from testbed.clock import Clock, utc_now
from testbed.supervisor import Attempt

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundAttempt:
    """An attempt on disk.

    Attributes:
        status: where it is.
        attempt: what there is to finish; None when it has its result.
        record: its child, which may live or not; None when none was recorded.
    """

    status: AttemptStatus
    attempt: Attempt | None = None
    record: ProcessRecord | None = None


def find_attempts(store: AttemptStore, clock: Clock) -> list[FoundAttempt]:
    """All attempts of a store; those that cannot be read are put aside, with a line in the log.

    Args:
        store: where they are.
        clock: for the times of what is not recorded.
    """
    found = (_find(attempt_id, store, clock) for attempt_id in sorted(store.attempt_ids()))
    return [each for each in found if each is not None]


def find_again(attempt: Attempt, record: ProcessRecord | None) -> tuple[bool, Callable[[], RunningTrial]]:
    """The child of an attempt that an earlier testbed process left unfinished.

    Args:
        attempt: what it ran.
        record: its child, as recorded.

    Returns:
        Whether the child lives, and what a supervisor starts with: it answers the child, if it lives or has left
        its record, and raises `TestbedRestartedError` otherwise.
    """
    trial = AdoptedTrial(record) if record else None
    is_alive = trial is not None and not trial.has_ended()

    def start() -> RunningTrial:
        if trial is None:
            kill_strays(attempt.folder)
        elif is_alive or (attempt.folder / attempt_folder.RECORD).exists():
            return trial
        raise TestbedRestartedError(
            "The testbed was restarted while this trial ran, and its process did not survive. Run it again.",
            log_tail=log_tail(attempt.folder / attempt_folder.CHILD_LOG),
        )

    return is_alive, start


def _find(attempt_id: str, store: AttemptStore, clock: Clock) -> FoundAttempt | None:
    result = store.result(attempt_id)
    now_at = utc_now(clock)
    # Past every version that an earlier process told, without a file of them. Where the clock was set back since, a
    # long poll lasts its full time once.
    version = int(now_at.timestamp())
    if result is not None:
        ended = AttemptStatus(
            attempt_id=attempt_id,
            run_id=result.run_id,
            spec_sha256=result.spec_sha256,
            state=result.state,
            version=version,
            error=result.error,
            updated_at=result.finished_at,
        )
        return FoundAttempt(ended)
    try:
        spec = store.spec(attempt_id)
    except (OSError, ValidationError) as error:
        _put_aside(attempt_id, store, error)
        return None
    status = AttemptStatus(
        attempt_id=attempt_id,
        run_id=spec.run_id,
        spec_sha256=spec.sha256(),
        state=AttemptState.SUBMITTED,
        version=version,
        updated_at=now_at,
    )
    folder = store.folder(attempt_id)
    record = _process_record(folder)
    started_s = record.started_s if record else clock.monotonic_ns() / 1e9
    attempt = Attempt(attempt_id, spec, folder, started_s, record.started_at if record else now_at)
    return FoundAttempt(status, attempt, record)


def _put_aside(attempt_id: str, store: AttemptStore, error: OSError | ValidationError) -> None:
    """Neither result nor spec: nobody can be told anything of it, and its name must not stay taken."""
    why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
    kill_strays(store.folder(attempt_id))
    try:
        aside = store.set_aside(attempt_id)
    except OSError as failed:
        _log.error("Attempt %s cannot be read (%s), nor put aside (%s)", attempt_id, why, failed.strerror)
        return
    _log.error(
        "Attempt %s has no readable %s (%s): its files are in %s now", attempt_id, attempt_folder.SPEC, why, aside
    )


def _process_record(folder: Path) -> ProcessRecord | None:
    try:
        return ProcessRecord.model_validate_json((folder / attempt_folder.PROCESS).read_bytes())
    except (OSError, ValidationError):
        return None
