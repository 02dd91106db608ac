"""Parts for a node that runs `child_double.py`, and a `collect` that only tells what it was told."""

import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contract.attempt_state import AttemptState
from contract.errors import DeadlineExceededError, JouleBedError, UnknownNameError
from contract.node_info import Capability, NodeIdentity, TemperatureReading
from contract.trial_result import ArtifactRef, AttemptStatus, TrialResult
from contract.trial_spec import DeadlineSpec, EngineSpec, MeterSpec, ModelSpec, TrialSpec, WorkloadSpec
from contract.units import PROTOCOL_VERSION
from testbed import attempt_folder
from testbed.attempt_folder import ChildRecord
from testbed.attempt_store import AttemptStore
from testbed.clock import SystemClock
from testbed.launcher import Launcher
from testbed.node import TestbedNode
from testbed.node_parts import NodeParts
from testbed.supervisor import Timing

CHILD = Path(__file__).with_name("child_double.py")

IDENTITY = NodeIdentity(
    hostname="here",
    os="Linux",
    cpu_model="CPU",
    n_cpus=2,
    memory_bytes=2**33,
    python_version="3.11",
    hardware_sha256="0" * 64,
)


def spec(
    *, run_id: str = "run_0_repetition_0", lifetime: str = "trial", meter: str = "auto", **options: Any
) -> TrialSpec:
    """A trial of the double; `model` and the names of `DeadlineSpec` are taken out of the options."""
    limits = {name: options.pop(name) for name in DeadlineSpec.model_fields if name in options}
    deadline = DeadlineSpec(**{"load_s": 60.0, "total_s": 60.0, **limits})
    model = options.pop("model", "fake")
    return TrialSpec(
        experiment="test",
        run_id=run_id,
        repetition=0,
        treatment={},
        seed=1,
        model=ModelSpec(name=model, source=f"fake:{model}"),
        engine=EngineSpec.model_validate({"name": "fake", "lifetime": lifetime}),
        workload=WorkloadSpec(name="fake", options=options),
        meter=MeterSpec(name=meter),
        deadline=deadline,
    )


def collect(
    folder: Path,
    *,
    attempt_id: str,
    spec: TrialSpec,
    node: NodeIdentity,
    started_at: datetime,
    finished_at: datetime,
    failure: JouleBedError | None = None,
    cancelled: bool = False,
) -> TrialResult:
    """The states that the real one gives, without any energy."""
    error = failure.body() if failure else None
    record_path = folder / attempt_folder.RECORD
    if error is None and not cancelled:
        error = ChildRecord.model_validate_json(record_path.read_bytes()).error
    state = AttemptState.SUCCEEDED if error is None else AttemptState.FAILED
    if cancelled:
        state = AttemptState.CANCELLED
    elif isinstance(failure, DeadlineExceededError):
        state = AttemptState.TIMED_OUT
    (folder / "data.bin").write_bytes(bytes(range(256)) * 4)
    return TrialResult(
        protocol_version=PROTOCOL_VERSION,
        attempt_id=attempt_id,
        run_id=spec.run_id,
        spec_sha256=spec.sha256(),
        state=state,
        error=error,
        started_at=started_at,
        finished_at=finished_at,
        node=node,
        artifacts=[ArtifactRef(name="data.bin", size_bytes=1024, sha256="0" * 64)],
    )


class Thermometer:
    def read(self) -> list[TemperatureReading]:
        return [TemperatureReading(sensor="cpu", temp_c=41.5)]


def check(spec: TrialSpec) -> None:
    if spec.engine.name != "fake" or spec.workload.name != "fake":
        raise UnknownNameError("There is no engine of this name. Choose one of: fake.")


def make_node(data_dir: Path, *, keep: int = 50, **changes: Any) -> TestbedNode:
    """A node of doubles; `changes` replace parts, or arguments of the launcher."""
    names = ("runner_command", "wrapping_meter", "idle_s", "grace_s", "reclaimer")
    launcher_options = {"runner_command": [sys.executable, str(CHILD)]}
    launcher_options |= {name: changes.pop(name) for name in names if name in changes}
    root = str(CHILD.parents[2])
    env = {**os.environ, "PYTHONPATH": root, **changes.pop("env", {})}
    store = AttemptStore(data_dir, keep_acknowledged=keep)
    parts: dict[str, Any] = {
        "identity": IDENTITY,
        "software_version": "0",
        "capabilities": lambda: [Capability(seam="engine", name="fake", available=True)],
        "thermometer": Thermometer(),
        "check": check,
        "choose_meters": lambda meter: (meter.name,),
        "launcher": Launcher(store.data_dir, env, SystemClock(), **launcher_options),
        "collect": collect,
        "clock": SystemClock(),
        "timing": Timing(poll_s=0.05, grace_s=0.3),
    }
    return TestbedNode(store, NodeParts(**{**parts, **changes}))


def wait_final(node: TestbedNode, attempt_id: str, limit_s: float = 30.0) -> AttemptStatus:
    """Long poll to the end."""
    return wait_until(node, attempt_id, lambda status: status.state.is_final, limit_s)


def wait_until(
    node: TestbedNode, attempt_id: str, is_there: Callable[[AttemptStatus], bool], limit_s: float = 30.0
) -> AttemptStatus:
    """Long poll until a condition holds."""
    end_s = time.monotonic() + limit_s
    status = node.status(attempt_id)
    while not is_there(status):
        assert time.monotonic() < end_s, f"still {status}"
        status = node.status(attempt_id, after_version=status.version, wait_s=1.0)
    return status


def measuring(status: AttemptStatus) -> bool:
    """Whether the child is in its measured phase, or past it."""
    return status.state is AttemptState.MEASURING


def aware(moment: datetime) -> bool:
    """Whether a time is UTC and says so."""
    return moment.utcoffset() == UTC.utcoffset(None)
