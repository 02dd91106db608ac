"""The testbed's composition root: which parts a node is made of on this machine."""

import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from contract.errors import UnknownNameError
from contract.node_info import NodeInfo
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_VERSION
from testbed.actuators.registry import ACTUATORS
from testbed.capabilities import look
from testbed.clock import SystemClock
from testbed.collect import collect
from testbed.engines.registry import ENGINES
from testbed.identity import identify
from testbed.launcher import Launcher
from testbed.meters.registry import METERS
from testbed.meters.selection import MeterSelector
from testbed.meters.thermometer import SystemThermometer
from testbed.model_policy import ModelPolicy
from testbed.node_parts import NodeParts
from testbed.restore import Restorer
from testbed.restore_ledger import LEDGER
from testbed.supervisor import Timing
from testbed.workloads.registry import WORKLOADS

AUTO = "auto"


def node_parts(
    data_dir: Path,
    *,
    default_meter: str = AUTO,
    env: Mapping[str, str],
    idle_s: float = 600.0,
    timing: Timing = Timing(),  # noqa: B008 (frozen)
    models: ModelPolicy = ModelPolicy(),  # noqa: B008 (frozen)
) -> NodeParts:
    """The real parts.

    Args:
        data_dir: the node's, absolute: it ends up in the children's arguments.
        default_meter: what the meter name `auto` stands for.
        env: environment of the children.
        idle_s: an unused warm engine is freed after this time.
        timing: patience of supervisors.
        models: which ones may be loaded.

    Raises:
        UnknownNameError: no such default meter.
    """

    def check(spec: TrialSpec) -> None:
        check_names(spec)
        for model in [spec.model, *(device.model for device in spec.devices if device.model is not None)]:
            models.check(model)

    _check_name("meter", default_meter, [AUTO, *METERS.names])
    clock = SystemClock()
    selector = MeterSelector(default_meter)
    return NodeParts(
        identity=identify(),
        software_version=metadata.version("joulebed"),
        capabilities=lambda: look(ENGINES, METERS, WORKLOADS, ACTUATORS),
        thermometer=SystemThermometer(),
        check=check,
        choose_meters=lambda spec: selector.choose(spec).names,
        launcher=Launcher(data_dir, env, clock, idle_s=idle_s),
        collect=collect,
        clock=clock,
        timing=timing,
        restore=Restorer(data_dir / LEDGER),
    )


def describe(data_dir: Path) -> NodeInfo:
    """What a testbed on this machine would say of itself; none need be running.

    Args:
        data_dir: where it would keep attempts; it need not exist.
    """
    folder = data_dir.resolve()
    disk = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
    return NodeInfo(
        protocol_version=PROTOCOL_VERSION,
        software_version=metadata.version("joulebed"),
        identity=identify(),
        capabilities=look(ENGINES, METERS, WORKLOADS, ACTUATORS),
        temperatures=SystemThermometer().read(),
        disk_free_bytes=disk.free,
        disk_total_bytes=disk.total,
    )


def check_names(spec: TrialSpec) -> None:
    """Refuse a spec that names what does not exist, before anything is written.

    Raises:
        UnknownNameError: the message lists the names that do exist.
    """
    for engine in [spec.engine, *(device.engine for device in spec.devices if device.engine is not None)]:
        _check_name("engine", engine.name, ENGINES.names)
    _check_name("workload", spec.workload.name, WORKLOADS.names)
    _check_name("meter", spec.meter.name, [AUTO, *METERS.names])
    for actuator in spec.actuators:
        _check_name("actuator", actuator.name, ACTUATORS.names)


def _check_name(seam: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise UnknownNameError(f"There is no {seam} named {name!r}. Choose one of: {', '.join(known)}.", name=name)
