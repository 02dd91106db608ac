"""The testbed in this process: no network, no token, for tests and for a single machine."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import ArtifactCorruptError
from contract.node_info import CheckProblem, NodeInfo
from contract.telemetry import TelemetrySample
from contract.trial_result import ArtifactRef, AttemptStatus, TrialResult
from contract.trial_spec import TrialSpec
from orchestrator.clients.artifact_file import ArtifactFile, holds

if TYPE_CHECKING:
    from testbed.node import TestbedNode

_CHUNK_BYTES = 1024 * 1024
_TELEMETRY_PERIOD_S = 1.0


class LocalClient:
    """A node in this process.

    Args:
        node: closed with the client.
    """

    def __init__(self, node: "TestbedNode") -> None:
        self._node = node

    @classmethod
    def open(cls, data_dir: Path, *, default_meter: str = "auto") -> "LocalClient":
        """A client of a new node of real parts.

        Args:
            data_dir: where the node keeps its attempts.
            default_meter: what the meter name `auto` stands for.
        """
        # The one place where the orchestrator's room opens on the testbed's: only on demand.
        from testbed.node import TestbedNode

        return cls(TestbedNode.open(data_dir, default_meter=default_meter))

    def node(self) -> NodeInfo:
        """See `TestbedClient.node`."""
        return self._node.info()

    def check(self, specs: Sequence[TrialSpec]) -> list[CheckProblem]:
        """See `TestbedClient.check`."""
        return self._node.check(specs).problems

    def submit(
        self, attempt_id: str, spec: TrialSpec, *, wait_s: float = 0.0, acknowledges: Sequence[str] = ()
    ) -> AttemptStatus:
        """See `TestbedClient.submit`."""
        self._node.acknowledge_known(acknowledges)
        status = self._node.submit(attempt_id, spec)
        return self.status(attempt_id, after_version=status.version, wait_s=wait_s) if wait_s else status

    def status(
        self, attempt_id: str, *, after_version: int = -1, wait_s: float = 0.0, with_result: bool = False
    ) -> AttemptStatus:
        """See `TestbedClient.status`."""
        status = self._node.status(attempt_id, after_version=after_version, wait_s=wait_s, with_result=with_result)
        return status.model_copy(update={"contents": {}})  # the files themselves are at hand

    def result(self, attempt_id: str) -> TrialResult:
        """See `TestbedClient.result`."""
        return self._node.result(attempt_id)

    def fetch_artifacts(self, attempt_id: str, artifacts: Sequence[ArtifactRef], folder: Path) -> None:
        """See `TestbedClient.fetch_artifacts`."""
        for artifact in artifacts:
            self._copy(attempt_id, artifact, folder / artifact.name)

    def cancel(self, attempt_id: str) -> AttemptStatus:
        """See `TestbedClient.cancel`."""
        return self._node.cancel(attempt_id)

    def acknowledge(self, attempt_id: str) -> AttemptStatus:
        """See `TestbedClient.acknowledge`."""
        return self._node.acknowledge(attempt_id)

    def telemetry(self, after: str = "") -> Iterator[TelemetrySample]:
        """See `TestbedClient.telemetry`."""
        with self._node.listen(after) as listener:
            while not self._node.is_closing and not listener.is_closed:
                yield listener.next()
                time.sleep(_TELEMETRY_PERIOD_S)

    def close(self) -> None:
        """See `TestbedClient.close`."""
        self._node.close()

    def _copy(self, attempt_id: str, artifact: ArtifactRef, destination: Path) -> None:
        if holds(destination, artifact):
            return
        source = self._node.artifact_path(attempt_id, artifact.name)
        with ArtifactFile(destination, artifact) as file:
            for _ in range(2):
                file.restart()
                with source.open("rb") as original:
                    while chunk := original.read(_CHUNK_BYTES):
                        file.write(chunk)
                if file.place():
                    return
        raise ArtifactCorruptError(
            f"{artifact.name} of attempt {attempt_id} does not have the size and SHA-256 that its result lists. "
            "The run is tried again; if it happens again, check this machine's disk.",
            artifact=artifact.name,
        )
