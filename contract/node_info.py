"""A testbed as it describes itself, and what it says of trials before they begin."""

from typing import Literal

from pydantic import Field

from contract.errors import ErrorBody
from contract.trial_spec import TrialSpec
from contract.units import Identifier, Sha256, WireModel


class NodeIdentity(WireModel):
    """The machine and the software: what is needed to repeat the trial."""

    hostname: str
    os: str
    cpu_model: str
    n_cpus: int
    memory_bytes: int
    gpus: list[str] = Field(default_factory=list)
    """Name and UUID of each."""
    driver_version: str | None = None
    python_version: str
    packages: dict[str, str] = Field(default_factory=dict)
    """Distribution -> version, of those that matter to a result."""
    hardware_sha256: Sha256
    """Hash over processor, memory and GPUs: machines of a class share it."""


class TemperatureReading(WireModel):
    """One thermal sensor."""

    sensor: str
    temp_c: float


class Capability(WireModel):
    """An implementation behind a seam, and whether it can be used here."""

    seam: Literal["engine", "meter", "workload", "actuator"]
    name: Identifier
    available: bool
    message: str = ""
    """Why not, and the command that mends it; or what it found."""


class NodeInfo(WireModel):
    """A testbed, as it describes itself."""

    protocol_version: int
    software_version: str
    identity: NodeIdentity
    capabilities: list[Capability]
    temperatures: list[TemperatureReading]
    """Now; empty where the machine has no readable sensor."""
    running_attempt_id: Identifier | None = None
    disk_free_bytes: int | None = Field(default=None, ge=0)
    """Where attempts are kept; None where no testbed runs."""
    disk_total_bytes: int | None = Field(default=None, ge=0)


class CheckRequest(WireModel):
    """Trials that an orchestrator is about to plan on this testbed, one per treatment."""

    specs: list[TrialSpec]


class CheckProblem(WireModel):
    """Why one of them could not run."""

    run_id: Identifier
    error: ErrorBody


class CheckReport(WireModel):
    """What stands in the way; empty when all could run."""

    problems: list[CheckProblem]
