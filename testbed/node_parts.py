"""What a node is made of; `testbed.composition` has the real parts, tests bring some of their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contract.node_info import Capability, NodeIdentity
from contract.trial_spec import MeterSpec, TrialSpec
from testbed.child_verdict import count_oom_kills
from testbed.clock import Clock
from testbed.launcher import Launcher
from testbed.meters.base import Thermometer
from testbed.supervisor import Collect, Timing


@dataclass(frozen=True)
class NodeParts:
    """The parts.

    Attributes:
        identity: of this machine and software.
        software_version: of this distribution.
        capabilities: looks at what can be used here; asked once, since looking may disturb a measurement.
        thermometer: for the thermal gate and telemetry.
        check: raises when a spec names what this testbed does not have; fast.
        choose_meters: names of the meters for a spec; raises `MeterUnavailableError`.
        launcher: starts children.
        collect: makes results.
        clock: of this machine.
        timing: patience of supervisors.
        oom_kills: counts the kernel's kills for want of memory; None where it does not tell.
        restore: puts devices back that a dead child left set; raises `DeviceNotRestoredError` where it cannot. Costs
            next to nothing where there is nothing.
    """

    identity: NodeIdentity
    software_version: str
    capabilities: Callable[[], list[Capability]]
    thermometer: Thermometer
    check: Callable[[TrialSpec], None]
    choose_meters: Callable[[MeterSpec], Sequence[str]]
    launcher: Launcher
    collect: Collect
    clock: Clock
    timing: Timing
    oom_kills: Callable[[], int | None] = count_oom_kills
    restore: Callable[[], None] = lambda: None
