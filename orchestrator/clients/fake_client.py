"""A testbed without a machine: deterministic, in memory, and it fails exactly where it is told to."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from contract.attempt_state import AttemptState
from contract.errors import (
    ArtifactCorruptError,
    AttemptConflictError,
    AttemptNotFinishedError,
    AttemptNotFoundError,
    ErrorBody,
    JouleBedError,
    TestbedBusyError,
)
from contract.node_info import Capability, CheckProblem, NodeIdentity, NodeInfo, TemperatureReading
from contract.telemetry import TelemetrySample
from contract.trial_result import ArtifactRef, AttemptStatus, SuspectReason, TrialResult
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_VERSION, sha256_of
from orchestrator.clients.artifact_file import ArtifactFile, holds

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_CONTENT = b'{"item_id": "0"}\n'


@dataclass(frozen=True)
class FakeTrial:
    """How one attempt goes.

    Attributes:
        state: how it ends.
        error: why, when it ends without a result.
        steps: states on the way; each long poll sees the next.
        is_corrupt: its artifact never verifies.
        reasons: why its result is doubted, when it ends SUSPECT.
    """

    state: AttemptState = AttemptState.SUCCEEDED
    error: ErrorBody | None = None
    steps: tuple[AttemptState, ...] = (AttemptState.LOADING, AttemptState.MEASURING, AttemptState.COLLECTING)
    is_corrupt: bool = False
    reasons: tuple[SuspectReason, ...] = (SuspectReason(code="fake", message="The script says so."),)


@dataclass
class _Attempt:
    spec: TrialSpec
    status: AttemptStatus
    trial: FakeTrial
    left: list[AttemptState] = field(default_factory=list)


class FakeClient:
    """Runs attempts by script.

    Args:
        script: the trial of a spec and how many attempts of its run came before; all succeed by default.
        failures: method name -> errors that its next calls raise, in order.
        temp_c: the temperature of the one sensor, asked at every `node()`; None: no sensor.
        brings_results: whether a final status brings the result, where it is asked to.

    Attributes:
        calls: (method, attempt id) of every call, in order.
    """

    def __init__(
        self,
        script: Callable[[TrialSpec, int], FakeTrial] = lambda spec, n_before: FakeTrial(),
        failures: Mapping[str, Sequence[JouleBedError]] | None = None,
        temp_c: Callable[[], float] | None = None,
        brings_results: bool = True,
    ) -> None:
        self._script = script
        self._failures = {method: list(errors) for method, errors in (failures or {}).items()}
        self._temp_c = temp_c
        self._brings_results = brings_results
        self._attempts: dict[str, _Attempt] = {}
        self.calls: list[tuple[str, str]] = []

    def node(self) -> NodeInfo:
        """See `TestbedClient.node`."""
        self._enter("node")
        running = self._running()
        return NodeInfo(
            protocol_version=PROTOCOL_VERSION,
            software_version="fake",
            identity=_identity(),
            capabilities=[
                Capability(seam="engine", name="fake", available=True),
                Capability(seam="workload", name="fake", available=True),
                Capability(seam="meter", name="fake", available=True),
            ],
            temperatures=[TemperatureReading(sensor="fake", temp_c=self._temp_c())] if self._temp_c else [],
            running_attempt_id=running.status.attempt_id if running else None,
        )

    def check(self, specs: Sequence[TrialSpec]) -> list[CheckProblem]:
        """See `TestbedClient.check`."""
        self._enter("check")
        return []

    def submit(
        self, attempt_id: str, spec: TrialSpec, *, wait_s: float = 0.0, acknowledges: Sequence[str] = ()
    ) -> AttemptStatus:
        """See `TestbedClient.submit`. Nothing is new before somebody asks."""
        for each in acknowledges:
            self.calls.append(("acknowledge", each))
        self._enter("submit", attempt_id)
        known = self._attempts.get(attempt_id)
        if known is not None:
            if known.spec != spec:
                raise AttemptConflictError(f"Attempt {attempt_id} was submitted with another spec. Use a new id.")
            return known.status
        running = self._running()
        if running is not None:
            raise TestbedBusyError(
                f"This testbed runs attempt {running.status.attempt_id}. Wait for its end or cancel it.",
                running_attempt_id=running.status.attempt_id,
            )
        n_before = sum(each.spec.run_id == spec.run_id for each in self._attempts.values())
        trial = self._script(spec, n_before)
        status = AttemptStatus(
            attempt_id=attempt_id,
            run_id=spec.run_id,
            spec_sha256=spec.sha256(),
            state=AttemptState.SUBMITTED,
            version=0,
            updated_at=_AT,
        )
        self._attempts[attempt_id] = _Attempt(spec, status, trial, [*trial.steps, trial.state])
        return status

    def status(
        self, attempt_id: str, *, after_version: int = -1, wait_s: float = 0.0, with_result: bool = False
    ) -> AttemptStatus:
        """See `TestbedClient.status`. The attempt goes on when somebody waits a second for it, and only then."""
        self._enter("status", attempt_id)
        attempt = self._find(attempt_id)
        if wait_s >= 1.0 and after_version >= attempt.status.version and attempt.left:
            self._step(attempt, attempt.left.pop(0))
        if with_result and self._brings_results and attempt.status.state.is_final:
            return attempt.status.model_copy(update={"result": self.outcome(attempt_id)})
        return attempt.status

    def result(self, attempt_id: str) -> TrialResult:
        """See `TestbedClient.result`."""
        self._enter("result", attempt_id)
        return self.outcome(attempt_id)

    def outcome(self, attempt_id: str) -> TrialResult:
        """The result of an attempt, without asking as a client does."""
        attempt = self._find(attempt_id)
        if not attempt.status.state.is_final:
            raise AttemptNotFinishedError(f"Attempt {attempt_id} still runs. Poll its status.")
        state = attempt.status.state
        return TrialResult(
            protocol_version=PROTOCOL_VERSION,
            attempt_id=attempt_id,
            run_id=attempt.spec.run_id,
            spec_sha256=attempt.spec.sha256(),
            state=state,
            reasons=list(attempt.trial.reasons) if state is AttemptState.SUSPECT else [],
            error=attempt.status.error,
            started_at=_AT,
            finished_at=_AT,
            duration_s=1.0 if state.has_result else None,
            node=_identity(),
            artifacts=[_artifact()],
        )

    def fetch_artifacts(self, attempt_id: str, artifacts: Sequence[ArtifactRef], folder: Path) -> None:
        """See `TestbedClient.fetch_artifacts`."""
        self._enter("fetch_artifacts", attempt_id)
        attempt = self._find(attempt_id)
        for artifact in artifacts:
            if artifact.name != _artifact().name:
                raise AttemptNotFoundError(f"Attempt {attempt_id} has no artifact {artifact.name}. See its result.")
            if holds(folder / artifact.name, artifact):
                continue
            with ArtifactFile(folder / artifact.name, artifact) as file:
                file.restart()
                file.write(_CONTENT[::-1] if attempt.trial.is_corrupt else _CONTENT)
                if not file.place():
                    raise ArtifactCorruptError(f"{artifact.name} does not verify. The run is tried again.")

    def cancel(self, attempt_id: str) -> AttemptStatus:
        """See `TestbedClient.cancel`."""
        self._enter("cancel", attempt_id)
        attempt = self._find(attempt_id)
        if not attempt.status.state.is_final:
            attempt.left = []
            self._step(attempt, AttemptState.CANCELLED)
        return attempt.status

    def acknowledge(self, attempt_id: str) -> AttemptStatus:
        """See `TestbedClient.acknowledge`."""
        self._enter("acknowledge", attempt_id)
        attempt = self._find(attempt_id)
        if not attempt.status.state.is_final:
            raise AttemptNotFinishedError(f"Attempt {attempt_id} still runs. Acknowledge it when its result is here.")
        return attempt.status

    def telemetry(self, after: str = "") -> Iterator[TelemetrySample]:
        """See `TestbedClient.telemetry`: where the attempt is; nothing is sampled."""
        self._enter("telemetry", after)
        while True:
            running = self._running()
            status = running.status if running else None
            yield TelemetrySample(
                attempt_id=status.attempt_id if status else None,
                run_id=status.run_id if status else None,
                state=status.state if status else None,
                at=datetime.now(UTC),
            )

    def close(self) -> None:
        """See `TestbedClient.close`."""

    def forget(self) -> None:
        """Lose all attempts, as a testbed does whose disk was emptied."""
        self._attempts.clear()

    def _enter(self, method: str, attempt_id: str = "") -> None:
        self.calls.append((method, attempt_id))
        errors = self._failures.get(method)
        if errors:
            raise errors.pop(0)

    def _find(self, attempt_id: str) -> _Attempt:
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            raise AttemptNotFoundError("This testbed has no such attempt: it was never submitted here, or was pruned.")
        return attempt

    def _running(self) -> _Attempt | None:
        return next((each for each in self._attempts.values() if not each.status.state.is_final), None)

    def _step(self, attempt: _Attempt, state: AttemptState) -> None:
        error = attempt.trial.error if state.is_final and not state.has_result else None
        attempt.status = attempt.status.model_copy(
            update={"state": state, "version": attempt.status.version + 1, "error": error}
        )


def _artifact() -> ArtifactRef:
    return ArtifactRef(name="requests.jsonl", size_bytes=len(_CONTENT), sha256=hashlib.sha256(_CONTENT).hexdigest())


def _identity() -> NodeIdentity:
    return NodeIdentity(
        hostname="fake",
        os="none",
        cpu_model="none",
        n_cpus=1,
        memory_bytes=0,
        python_version="3",
        hardware_sha256=sha256_of("fake"),
    )
