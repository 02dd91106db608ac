"""The testbed as a Ray actor: the same questions as over HTTP, carried by Ray."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from contract import routes
from contract.actor_answer import ActorAnswer
from contract.errors import ArtifactCorruptError, ErrorBody, JouleBedError, TestbedUnreachableError, error_from_body
from contract.node_info import CheckProblem, CheckReport, NodeInfo
from contract.telemetry import TelemetrySample
from contract.trial_result import ArtifactRef, AttemptStatus, TrialResult
from contract.trial_spec import TrialSpec
from contract.units import WireModel
from orchestrator.clients.artifact_file import ArtifactFile, holds, place_together
from orchestrator.clients.protocol import check_version
from orchestrator.pool_file import RAY_SCHEME

_Model = TypeVar("_Model", bound=WireModel)

_ANSWER_S = 20.0
_CHECK_S = 900.0
_CHUNK_BYTES = 4 * 1024 * 1024
_TELEMETRY_PERIOD_S = 1.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


class RayClient:
    """One testbed of a Ray cluster. Thread-safe.

    Args:
        name: of the actor.
        reach: finds the actor, or has it started; asked again when it has died for good.
        unreachable_after_s: how long one question is repeated while Ray restarts the actor.
        sleep: pauses between repetitions.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        reach: Callable[[], Any],
        *,
        unreachable_after_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.url = f"{RAY_SCHEME}{name}"
        self._reach = reach
        self._unreachable_after_s = unreachable_after_s
        self._sleep = sleep
        self._clock = clock
        self._caller = uuid.uuid4().hex
        self._actor: Any = None
        self._hardware_sha256 = ""
        # What the last status brought for `fetch_artifacts`.
        self._brought: tuple[str, dict[str, bytes]] = ("", {})

    def node(self) -> NodeInfo:
        """See `TestbedClient.node`."""
        return self._ask(NodeInfo, "node")

    def clock_offset_s(self) -> float | None:
        """Ray does not tell; see `HttpClient.clock_offset_s`."""
        return None

    def check(self, specs: Sequence[TrialSpec]) -> list[CheckProblem]:
        """See `TestbedClient.check`."""
        texts = [spec.model_dump_json() for spec in specs]
        return self._ask(CheckReport, "check", answer_s=_CHECK_S, specs=texts).problems

    def submit(
        self, attempt_id: str, spec: TrialSpec, *, wait_s: float = 0.0, acknowledges: Sequence[str] = ()
    ) -> AttemptStatus:
        """See `TestbedClient.submit`."""
        wait_s = min(wait_s, routes.MAX_WAIT_S)
        text = spec.model_dump_json()
        asked = {"attempt_id": attempt_id, "spec": text, "wait_s": wait_s, "acknowledges": list(acknowledges)}
        return self._unpacked(self._ask(AttemptStatus, "submit", answer_s=_ANSWER_S + wait_s, **asked))

    def status(
        self, attempt_id: str, *, after_version: int = -1, wait_s: float = 0.0, with_result: bool = False
    ) -> AttemptStatus:
        """See `TestbedClient.status`."""
        wait_s = min(wait_s, routes.MAX_WAIT_S)
        asked = {"attempt_id": attempt_id, "after_version": after_version, "wait_s": wait_s, "with_result": with_result}
        return self._unpacked(self._ask(AttemptStatus, "status", answer_s=_ANSWER_S + wait_s, **asked))

    def result(self, attempt_id: str) -> TrialResult:
        """See `TestbedClient.result`."""
        return self._ask(TrialResult, "result", attempt_id=attempt_id)

    def fetch_artifacts(self, attempt_id: str, artifacts: Sequence[ArtifactRef], folder: Path) -> None:
        """See `TestbedClient.fetch_artifacts`."""
        missing = [each for each in artifacts if not holds(folder / each.name, each)]
        brought_id, contents = self._brought
        placed = place_together(contents, missing, folder) if brought_id == attempt_id else ()
        for artifact in missing:
            if artifact.name not in placed:
                self._fetch(attempt_id, artifact, folder / artifact.name)

    def cancel(self, attempt_id: str) -> AttemptStatus:
        """See `TestbedClient.cancel`."""
        return self._ask(AttemptStatus, "cancel", attempt_id=attempt_id)

    def acknowledge(self, attempt_id: str) -> AttemptStatus:
        """See `TestbedClient.acknowledge`."""
        return self._ask(AttemptStatus, "acknowledge", attempt_id=attempt_id)

    def telemetry(self, after: str = "") -> Iterator[TelemetrySample]:
        """See `TestbedClient.telemetry`: the actor is asked once a second."""
        listener_id = uuid.uuid4().hex
        asked: dict[str, Any] = {"listener_id": listener_id, "after": after}
        try:
            while body := self._body(self._once("telemetry", asked, _ANSWER_S)):
                sample = self._read_as(TelemetrySample, body, "telemetry")
                asked["after"] = sample.event_id or asked["after"]
                yield sample
                self._sleep(_TELEMETRY_PERIOD_S)
        finally:
            with suppress(JouleBedError):  # it forgets a silent listener by itself
                self._once("end_telemetry", {"listener_id": listener_id}, _ANSWER_S)

    def close(self) -> None:
        """See `TestbedClient.close`. An actor that nobody else asks, and that runs no trial, ends: its GPU is free."""
        import ray

        actor, self._actor = self._actor, None
        if actor is None or not ray.is_initialized():
            return
        with suppress(ray.exceptions.RayError, ConnectionError):  # it has ended, as it should, or was gone
            ray.get(actor.leave.remote(self._caller), timeout=_ANSWER_S)

    def _ask(self, model: type[_Model], question: str, *, answer_s: float = _ANSWER_S, **arguments: Any) -> _Model:
        body = self._body(self._repeat(question, arguments, answer_s))
        return self._read_as(model, body, question)

    def _read_as(self, model: type[_Model], body: bytes, question: str) -> _Model:
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise TestbedUnreachableError(
                f"The testbed {self.url} answers {question!r} in another shape. Install the same joulebed on all "
                "machines of the cluster.",
                url=self.url,
            ) from error

    def _repeat(self, question: str, arguments: dict[str, Any], answer_s: float) -> ActorAnswer:
        """Ask until there is an answer: every question may be repeated, and an actor takes seconds to restart."""
        begin_s, pause_s = self._clock(), _FIRST_PAUSE_S
        while True:
            try:
                return self._once(question, arguments, answer_s)
            except TestbedUnreachableError:
                if self._clock() - begin_s + pause_s > self._unreachable_after_s:
                    raise
            self._sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _once(self, question: str, arguments: dict[str, Any], answer_s: float) -> ActorAnswer:
        from ray.exceptions import ActorDiedError, RayError, RayTaskError

        try:
            if self._actor is None:
                self._actor = self._reach()
            import ray

            reference = self._actor.answer.remote(self._caller, question, arguments)
            answer: ActorAnswer = ray.get(reference, timeout=answer_s)
            return answer
        except RayTaskError as error:
            raise JouleBedError(
                f"The testbed {self.url} failed by a fault of its own: {str(error.cause or error)[-500:]}"
            ) from error
        except (RayError, ConnectionError, ValueError) as error:
            if isinstance(error, ActorDiedError | ValueError):
                self._actor = None  # for good: the next question has it started again
            told = " ".join(str(error).split())[:500]
            raise TestbedUnreachableError(
                f"No answer from the testbed {self.url} ({type(error).__name__}: {told}). Look at `ray status` and "
                "`ray list actors`: its machine may be gone, or its resources may be taken.",
                url=self.url,
            ) from error

    def _body(self, answer: ActorAnswer) -> bytes:
        check_version(str(answer["protocol_version"]), self.url)
        if answer["error"] is not None:
            raise error_from_body(ErrorBody.model_validate_json(answer["error"]))
        found = answer["hardware_sha256"]
        self._hardware_sha256 = self._hardware_sha256 or found
        if found != self._hardware_sha256:
            raise TestbedUnreachableError(
                f"Ray has restarted the testbed {self.url} on {answer['hostname']}, whose hardware is not that of the "
                "machine that the campaign began on: their joules do not go into one table. Bring the first "
                "machine back, then run the same command again.",
                url=self.url,
            )
        return answer["body"]

    def _unpacked(self, status: AttemptStatus) -> AttemptStatus:
        """Keep the files that a status brought, until they are asked for or the next status brings others."""
        if not status.contents:
            return status
        self._brought = (status.attempt_id, status.contents)
        return status.model_copy(update={"contents": {}})

    def _fetch(self, attempt_id: str, artifact: ArtifactRef, destination: Path) -> None:
        with ArtifactFile(destination, artifact) as file:
            for _ in range(2):
                self._download(attempt_id, artifact.name, file)
                if file.place():
                    return
        raise ArtifactCorruptError(
            f"{artifact.name} of attempt {attempt_id} does not have the size and SHA-256 that its result lists, twice. "
            "The run is tried again; if it happens again, check disk and memory of both machines.",
            artifact=artifact.name,
        )

    def _download(self, attempt_id: str, name: str, file: ArtifactFile) -> None:
        while not file.is_complete:
            asked = {"attempt_id": attempt_id, "name": name, "offset": file.n_bytes, "n_bytes": _CHUNK_BYTES}
            chunk = self._body(self._repeat("read", asked, _ANSWER_S))
            if not chunk:
                return  # shorter than its result says
            file.write(chunk)
