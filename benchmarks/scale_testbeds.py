"""Many testbeds that do nothing: one process, real HTTP. Each loopback address 127.x.y.z is a testbed of its own.

A trial takes a time that is drawn before it begins, in the states that a real one goes through; its result and its
artifact have the size of a small real one. The server notes how long each testbed had nothing to do between a trial's
end and the next submission: that is the time that coordination costs it.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import math
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from urllib.parse import parse_qs, urlsplit

from contract.attempt_state import AttemptState
from contract.node_info import NodeIdentity, NodeInfo
from contract.trial_result import (
    ArtifactRef,
    AttemptStatus,
    EnergyMethod,
    EnergyReading,
    EnergySummary,
    Phase,
    PhaseWindow,
    TrialResult,
    WorkloadReport,
)
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from orchestrator.clients.fake_client import FakeClient

STATES = (
    (AttemptState.LOADING, 0.15),
    (AttemptState.BASELINE, 0.05),
    (AttemptState.WARMUP, 0.05),
    (AttemptState.MEASURING, 0.70),
    (AttemptState.COLLECTING, 0.05),
)
"""States and their shares of a trial's time."""

SIGMA = 0.5
"""Of the logarithm of a trial's time."""

ARTIFACT = b'{"item_id": "0", "text": "an answer of some words", "n_tokens": 32}\n' * 200


@dataclass
class Trial:
    """One attempt on one testbed."""

    run_id: str
    spec_sha256: str
    begin_s: float
    duration_s: float

    def at(self, now_s: float) -> tuple[AttemptState, int, float]:
        """State, version, and when the next one begins."""
        passed_s, end_s = now_s - self.begin_s, 0.0
        for version, (state, share) in enumerate(STATES):
            end_s += share * self.duration_s
            if passed_s < end_s:
                return state, version, self.begin_s + end_s
        return AttemptState.SUCCEEDED, len(STATES), math.inf


@dataclass
class Box:
    """One testbed."""

    trials: dict[str, Trial] = field(default_factory=dict)
    last: str = ""
    gaps_s: list[float] = field(default_factory=list)
    trial_s: list[float] = field(default_factory=list)


class Testbeds:
    """All of them.

    Args:
        median_s: of a trial's time, log-normal with `SIGMA`; 0: no time at all.
        seed: of the draws.
    """

    def __init__(self, median_s: float, seed: int) -> None:
        self._median_s = median_s
        self._chance = random.Random(seed)
        self._boxes: dict[str, Box] = {}
        self._node = _node()
        self._identity = self._node.identity
        self.n_requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        box = self._boxes.setdefault(writer.get_extra_info("sockname")[0], Box())
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                method, target, _ = first.split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                answer = await self._answer(box, method, target, body)
                writer.write(
                    f"HTTP/1.1 200 OK\r\n{PROTOCOL_HEADER}: {PROTOCOL_VERSION}\r\nDate: {formatdate(usegmt=True)}\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
                    + answer
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, box: Box, method: str, target: str, body: bytes) -> bytes:
        self.n_requests += 1
        url = urlsplit(target)
        query = parse_qs(url.query)
        if url.path == "/stats":
            return self._stats()
        if url.path == "/v1/node":
            return self._node.model_dump_json().encode()
        if url.path == "/v1/check":
            return b'{"problems": []}'
        if not url.path.startswith("/v1/attempts/"):
            return b'{"live": true}'
        attempt_id = url.path.split("/")[3]
        if method == "PUT":
            self._begin(box, attempt_id, body)
        trial = box.trials[attempt_id]
        wait_s = float(query.get("wait_s", ["0"])[0])
        after = int(query.get("after_version", ["-1" if method != "PUT" else "0"])[0])
        until_s = time.monotonic() + wait_s
        while True:
            now_s = time.monotonic()
            state, version, next_s = trial.at(now_s)
            if version > after or now_s >= until_s:
                break
            await asyncio.sleep(max(min(next_s, until_s) - now_s, 0.001))
        return self._status(attempt_id, trial, state, version, "with_result" in query or method == "PUT")

    def _begin(self, box: Box, attempt_id: str, body: bytes) -> None:
        if attempt_id in box.trials:
            return
        now_s = time.monotonic()
        before = box.trials.get(box.last)
        if before is not None:
            box.gaps_s.append(now_s - before.begin_s - before.duration_s)
            box.trial_s.append(before.duration_s)
        spec = TrialSpec.model_validate_json(body)
        duration_s = self._median_s * math.exp(SIGMA * self._chance.gauss(0, 1))
        box.trials = {attempt_id: Trial(spec.run_id, spec.sha256(), now_s, duration_s)}
        box.last = attempt_id

    def _status(self, attempt_id: str, trial: Trial, state: AttemptState, version: int, with_result: bool) -> bytes:
        is_over = state is AttemptState.SUCCEEDED
        status = AttemptStatus(
            attempt_id=attempt_id,
            run_id=trial.run_id,
            spec_sha256=trial.spec_sha256,
            state=state,
            version=version,
            updated_at=datetime.now(UTC),
            result=result(attempt_id, trial, self._identity) if is_over and with_result else None,
        )
        document = status.model_dump(mode="json")
        if is_over and with_result:
            document["contents"] = {"requests.jsonl": base64.b64encode(ARTIFACT).decode()}
        return json.dumps(document).encode()

    def _stats(self) -> bytes:
        gaps_s = [gap for box in self._boxes.values() for gap in box.gaps_s]
        trial_s = [each for box in self._boxes.values() for each in box.trial_s]
        for box in self._boxes.values():
            box.gaps_s, box.trial_s = [], []
        answer = {"gaps_s": gaps_s, "trial_s": trial_s, "n_requests": self.n_requests}
        self.n_requests = 0
        return json.dumps(answer).encode()


def result(attempt_id: str, trial: Trial, identity: NodeIdentity) -> TrialResult:
    """Of a trial that went well, with eight energy readings."""
    readings = [
        EnergyReading(
            domain=domain,
            component=component,
            phase=phase,
            energy_j=100.0,
            method=EnergyMethod.ESTIMATE,
            source="fake",
            period_s=0.1,
            n_samples=600,
        )
        for domain, component in (("cpu_package", "cpu"), ("gpu:0", "gpu"))
        for phase in Phase
    ]
    summary = EnergySummary(
        energy_j=200.0,
        energy_net_j=150.0,
        cpu_energy_j=100.0,
        gpu_energy_j=100.0,
        dram_energy_j=None,
        baseline_power_w=10.0,
        method=EnergyMethod.ESTIMATE,
        source="fake",
        domains=["cpu_package", "gpu:0"],
    )
    now = datetime.now(UTC)
    return TrialResult(
        protocol_version=PROTOCOL_VERSION,
        attempt_id=attempt_id,
        run_id=trial.run_id,
        spec_sha256=trial.spec_sha256,
        state=AttemptState.SUCCEEDED,
        started_at=now,
        finished_at=now,
        phases=[PhaseWindow(phase=phase, start_s=0.0, duration_s=1.0) for phase in Phase],
        energy=readings,
        summary=summary,
        duration_s=trial.duration_s,
        tokens_per_s=100.0,
        workload=WorkloadReport(
            name="fake",
            source="none",
            prompt_sha256="0" * 64,
            n_requests=200,
            n_prompt_tokens=1000,
            n_output_tokens=6400,
        ),
        node=identity,
        artifacts=[
            ArtifactRef(name="requests.jsonl", size_bytes=len(ARTIFACT), sha256=hashlib.sha256(ARTIFACT).hexdigest())
        ],
    )


def _node() -> NodeInfo:
    return FakeClient().node().model_copy(update={"software_version": "simulated"})


async def _main(port: int, median_s: float, seed: int) -> None:
    server = await asyncio.start_server(Testbeds(median_s, seed).serve, "0.0.0.0", port, backlog=4096)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--median-s", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.port, arguments.median_s, arguments.seed))
