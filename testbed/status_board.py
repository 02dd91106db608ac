"""Where every attempt is, for those who wait. The next process tells it from the files of the attempt."""

import threading
import time

from contract.errors import AttemptNotFoundError
from contract.trial_result import AttemptStatus, TrialResult
from testbed.attempt_folder import Progress
from testbed.clock import Clock, utc_now

COALESCE_S = 0.05
"""Changes that come this soon after one another are answered together: a poll costs both nodes more than the wait."""


class StatusBoard:
    """The statuses of all attempts that are kept. Thread-safe.

    Args:
        clock: labels the changes.

    Attributes:
        changed: its lock; held by the node for changes that must be seen together. Notified at every change.
    """

    def __init__(self, clock: Clock) -> None:
        self.changed = threading.Condition()
        self._clock = clock
        self._statuses: dict[str, AttemptStatus] = {}
        self._is_closing = False

    @property
    def is_closing(self) -> bool:
        """Whether `end_waits` was called."""
        return self._is_closing

    def find(self, attempt_id: str) -> AttemptStatus | None:
        """The status of an attempt, or None where there is no such attempt."""
        with self.changed:
            return self._statuses.get(attempt_id)

    def get(self, attempt_id: str) -> AttemptStatus:
        """The status of an attempt.

        Raises:
            AttemptNotFoundError: it is not here, or not any more.
        """
        status = self.find(attempt_id)
        if status is None:
            raise AttemptNotFoundError(
                "This testbed has no such attempt: it was never submitted here, or was acknowledged and pruned."
            )
        return status

    def wait(self, attempt_id: str, after_version: int, wait_s: float) -> AttemptStatus:
        """The status: at once when it is final, else when its version has exceeded the given one for `COALESCE_S`, or
        the time is over.

        Raises:
            AttemptNotFoundError: see `get`.
        """
        end_s = time.monotonic() + wait_s
        with self.changed:
            is_news = False
            while True:
                status = self.get(attempt_id)
                now_s = time.monotonic()
                if not is_news and status.version > after_version:
                    is_news, end_s = True, min(end_s, now_s + COALESCE_S)
                if status.state.is_final or self._is_closing or now_s >= end_s:
                    return status
                self.changed.wait(end_s - now_s)

    def put(self, status: AttemptStatus) -> None:
        """Add an attempt whose files are on disk already."""
        with self.changed:
            self._statuses[status.attempt_id] = status

    def remove(self, attempt_id: str) -> None:
        """Forget an attempt that was pruned."""
        with self.changed:
            self._statuses.pop(attempt_id, None)

    def step(self, attempt_id: str, progress: Progress, result: TrialResult | None = None) -> None:
        """Take an attempt a step on, and wake who waits for it.

        Args:
            attempt_id: on the board.
            progress: where it is now.
            result: with the last step.
        """
        with self.changed:
            before = self._statuses[attempt_id]
            status = before.model_copy(
                update={
                    "state": progress.state,
                    "version": before.version + 1,
                    "n_requests_done": progress.n_requests_done,
                    "n_requests": progress.n_requests,
                    "error": result.error if result else None,
                    "updated_at": utc_now(self._clock),
                }
            )
            self._statuses[attempt_id] = status
            self.changed.notify_all()

    def end_waits(self) -> None:
        """Answer everybody who waits, now and from now on."""
        with self.changed:
            self._is_closing = True
            self.changed.notify_all()
