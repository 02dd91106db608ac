"""The testbed client seam: the orchestrator's only way to a testbed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from contract.node_info import CheckProblem, NodeInfo
from contract.telemetry import TelemetrySample
from contract.trial_result import ArtifactRef, AttemptStatus, TrialResult
from contract.trial_spec import TrialSpec


class TestbedClient(Protocol):
    """One testbed. Every method is blocking, idempotent and safe to repeat after any error.

    All raise `TestbedUnreachableError` when no answer came after the client's own retries, `UnauthorizedError`,
    `ProtocolMismatchError`, or the error that the testbed answered, as its own class.
    """

    def node(self) -> NodeInfo:
        """The testbed's description of itself, with its temperatures now."""
        ...

    def check(self, specs: Sequence[TrialSpec]) -> list[CheckProblem]:
        """What stands in the way of these trials there; empty when all could run. Loads and measures nothing."""
        ...

    def submit(
        self, attempt_id: str, spec: TrialSpec, *, wait_s: float = 0.0, acknowledges: Sequence[str] = ()
    ) -> AttemptStatus:
        """Start an attempt; the same id and spec again answers where it is.

        Waits up to `wait_s` for news, as `status` does. Of an attempt that is over by then, the status may bring the
        result along.

        `acknowledges` names at most `MAX_ACKNOWLEDGED` attempts that are acknowledged on the way, as by `acknowledge`;
        those that the testbed does not know any more are left out.

        Raises:
            AttemptConflictError: the id is taken by another spec.
            TestbedBusyError: another trial runs.
        """
        ...

    def status(
        self, attempt_id: str, *, after_version: int = -1, wait_s: float = 0.0, with_result: bool = False
    ) -> AttemptStatus:
        """Where an attempt is; waits up to `wait_s` for a version above `after_version`.

        With `with_result`, the status of an attempt that is over may bring its result along.

        Raises:
            AttemptNotFoundError: the testbed has never seen it.
        """
        ...

    def result(self, attempt_id: str) -> TrialResult:
        """The outcome of a finished attempt.

        Raises:
            AttemptNotFinishedError: it still runs.
        """
        ...

    def fetch_artifacts(self, attempt_id: str, artifacts: Sequence[ArtifactRef], folder: Path) -> None:
        """Download files, resuming what is there; verify size and SHA-256 of each, and move it into place atomically.

        Raises:
            ArtifactCorruptError: one does not verify, twice.
        """
        ...

    def cancel(self, attempt_id: str) -> AttemptStatus:
        """Stop an attempt if it runs."""
        ...

    def acknowledge(self, attempt_id: str) -> AttemptStatus:
        """Tell the testbed that result and artifacts are safe here."""
        ...

    def telemetry(self, after: str = "") -> Iterator[TelemetrySample]:
        """What the testbed tells, about once a second, until it stops or the caller closes the iterator.

        Not repeated by the client: ask again with the last `event_id`, and nothing comes twice.

        Args:
            after: `event_id` of the last event that was taken.

        Raises:
            TooManyListenersError: as many listen as may.
        """
        ...

    def close(self) -> None:
        """Free connections. Idempotent."""
        ...
