"""The measured phase of a trial of edge control: from its spec to a drive."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from contract.edge import ChooserSpec, EdgeSpec
from contract.errors import ConfigError, InvalidOptionError
from contract.trial_spec import TrialSpec
from testbed.clock import Clock
from testbed.data_folder import POLICIES, named_file
from testbed.device_settings import DeviceSettings
from testbed.edge_control.case import make_case
from testbed.edge_control.choosers import Chooser
from testbed.edge_control.drive import Board, EdgeDrive
from testbed.edge_control.phase_dial import PhaseDial
from testbed.edge_control.phased import PhasedEngine
from testbed.edge_control.record import EdgeRecord
from testbed.edge_control.registry import CHOOSERS
from testbed.edge_control.reward import EdgeLimits, EdgeReward, EdgeWeights, RewardScale
from testbed.edge_control.task import HEADS, EdgeTask
from testbed.engines.base import Completion, Engine, GenerationRequest
from testbed.engines.simulated_orin_engine import SimulatedOrinEngine
from testbed.meters.base import Meter, Thermometer
from testbed.policies.factored_policy import FactoredSpace
from testbed.simulation.orin_grid import CLOCKS_MHZ
from testbed.workloads.base import PreparedWorkload, WorkItem

_LEARNED = "learned"

KindT = TypeVar("KindT", EdgeLimits, EdgeWeights)


@dataclass(frozen=True)
class EdgeParts:
    """What edge control needs beside the parts of every trial.

    Attributes:
        task: space and reward; with a board, where it is simulated.
        chooser: seeks and serves.
        engine: the trial's, as one with phases.
    """

    task: EdgeTask
    chooser: Chooser
    engine: PhasedEngine


class Measuring(Protocol):
    """The parts of a trial that edge control looks at: `testbed.trial_run.Parts`."""

    @property
    def meters(self) -> Sequence[Meter]:
        """In-process meters."""
        ...

    @property
    def thermometer(self) -> Thermometer:
        """Of the device."""
        ...

    @property
    def devices(self) -> DeviceSettings:
        """Applied."""
        ...


@dataclass(frozen=True)
class Controlled:
    """What came of it.

    Attributes:
        prepared: with an item for each answer.
        completions: the answers, in that order.
        record: for the result.
    """

    prepared: PreparedWorkload
    completions: list[Completion]
    record: EdgeRecord


def edge_parts(spec: TrialSpec, engine: Engine, env: Mapping[str, str] | None = None) -> EdgeParts:
    """Who decides in a trial of edge control.

    Args:
        spec: with `edge`.
        engine: of the trial; not necessarily loaded.
        env: of the process; None: this one's.

    Raises:
        InvalidOptionError: the chooser, its file or the space is not possible, or the engine has no phases.
    """
    edge = spec.edge
    assert edge is not None
    if not isinstance(engine, PhasedEngine):
        raise InvalidOptionError(
            f"The engine {engine.name!r} does not tell when a batch's prompts are read, so its phases cannot have "
            "clocks of their own. Take one that does: transformers, simulated_orin.",
            engine=engine.name,
        )
    task = _task(edge, engine)
    return EdgeParts(task, build_chooser(edge, task, _seed(spec, edge), os.environ if env is None else env), engine)


def build_chooser(
    edge: EdgeSpec, task: EdgeTask, seed: int, env: Mapping[str, str], *, folder: Path | None = None
) -> Chooser:
    """Build the chooser of a spec.

    Args:
        edge: of the trial.
        task: of it.
        seed: of the chooser.
        env: of the process.
        folder: of policy files, in place of the testbed's own.

    Raises:
        InvalidOptionError: an unknown or impossible option, or a file that is not there or another.
    """
    given = edge.chooser
    if (given.file is not None) != (given.name == _LEARNED):
        needs = "is read from a file: name one of" if given.name == _LEARNED else "has no file: leave out"
        raise InvalidOptionError(
            f"The chooser {given.name!r} {needs} edge.chooser.file (the testbed's folder {POLICIES})."
        )
    path = None if given.file is None else named_file(POLICIES, given.file, env, folder=folder)
    if path is not None:
        _check_sha256(path, given)
    return CHOOSERS.create_from_spec(given.name, given.options, task=task, seed=seed, path=path)


def serve_edge(
    spec: TrialSpec,
    parts: EdgeParts,
    measuring: Measuring,
    prepared: PreparedWorkload,
    requests: Sequence[GenerationRequest],
    clock: Clock,
    on_batch: Callable[[], None],
) -> Controlled:
    """Drive batches; blocking, for the whole of the measured phase.

    Args:
        spec: of the trial, with `edge`.
        parts: of edge control.
        measuring: sensors and devices of the trial.
        prepared: the items.
        requests: one for each; taken in turn, as often as needed.
        clock: of the measurement.
        on_batch: called as batches complete.
    """
    edge, devices = spec.edge, measuring.devices
    assert edge is not None
    fan = devices.fan(edge.fan_domain) if edge.fan_domain is not None else None
    board = Board(
        temp_c=lambda: max((each.temp_c for each in measuring.thermometer.read()), default=None),
        power_w=lambda: _power_w(measuring.meters, edge.power_domains),
        is_fan_on=(lambda: True) if fan is None else lambda: fan.is_on,
        stop_fan=(lambda: None) if fan is None else lambda: fan.turn(is_on=False),
    )
    dial = PhaseDial(devices.dial(edge.clock_domain), edge.space.clocks_mhz, clock)
    items = {item.item_id: item for item in prepared.items}
    drive = EdgeDrive(edge, parts.task, parts.chooser, parts.engine, dial, board, _again(requests), clock, on_batch)
    served = drive.run()
    answered = tuple(_item(items, request.request_id) for request in served.requests)
    source = f"{prepared.source}, asked in turn; in batches that a chooser sized"
    return Controlled(replace(prepared, items=answered, source=source), served.completions, served.record)


def _task(edge: EdgeSpec, engine: PhasedEngine) -> EdgeTask:
    space = edge.space
    n_clocks = len(space.clocks_mhz)
    for bin_ in (*space.prefill_bins, *space.decode_bins):
        if not 0 <= bin_ < n_clocks:
            raise InvalidOptionError(
                f"edge.space has the bin {bin_}, and clocks_mhz has 0 to {n_clocks - 1}. Choose one of these."
            )
    limits, weights = _named(EdgeLimits, "limits", edge.limits), _named(EdgeWeights, "weights", edge.weights)
    if isinstance(engine, SimulatedOrinEngine):
        if tuple(space.clocks_mhz) != CLOCKS_MHZ:
            known = ", ".join(f"{each:g}" for each in CLOCKS_MHZ)
            raise InvalidOptionError(f"The simulated Orin has the clocks {known} MHz: give these as clocks_mhz.")
        case = make_case(
            engine.board,
            batches=tuple(space.batches),
            exit_layers=tuple(space.exit_layers),
            prefill_bins=tuple(space.prefill_bins),
            decode_bins=tuple(space.decode_bins),
            limits=limits,
            weights=weights,
            scale=_scale(edge),
        )
        return case
    scale = _scale(edge)
    if scale is None and edge.n_evaluations > 0:
        raise InvalidOptionError(
            "edge.scale is missing: a real device cannot know the least and most tokens per second and 1 / (J s) of "
            "its settings. Take them from a grid (runnerconfig/edge_grid.py), which needs none."
        )
    heads = (space.prefill_bins, space.decode_bins, space.batches, space.exit_layers)
    return EdgeTask(
        # Without a scale no batch has a reward, and nobody asks for it.
        reward=EdgeReward(scale or RewardScale((0.0, 1.0), (0.0, 1.0)), limits, weights),
        space=FactoredSpace(HEADS, tuple(tuple(each) for each in heads)),
        n_layers=max(space.exit_layers),
        entropy=None,
    )


def _scale(edge: EdgeSpec) -> RewardScale | None:
    given = edge.scale
    return None if given is None else RewardScale(given.throughput_per_s, given.edp_per_js)


def _named(kind: type[KindT], name: str, given: Mapping[str, Any]) -> KindT:
    try:
        return kind(**given)
    except TypeError as error:
        raise InvalidOptionError(
            f"edge.{name} has one that there is not ({error}). There are: {', '.join(vars(kind()))}."
        ) from error
    except ConfigError as error:
        raise InvalidOptionError(error.message) from error


def _check_sha256(path: Path, given: ChooserSpec) -> None:
    if given.file_sha256 is None:
        return
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != given.file_sha256:
        raise InvalidOptionError(
            f"The policy file {path.name} has the hash {found}, and the trial wants {given.file_sha256}: copy the "
            "right one to the testbed."
        )


def _power_w(meters: Sequence[Meter], domains: Sequence[str]) -> float | None:
    told = {domain: watts for meter in meters for domain, watts in meter.latest_power_w().items()}
    if not domains:
        return max(told.values(), default=None)
    return sum(told[domain] for domain in domains) if set(domains) <= told.keys() else None


def _seed(spec: TrialSpec, edge: EdgeSpec) -> int:
    return spec.seed if edge.seed is None else edge.seed


def _again(requests: Sequence[GenerationRequest]) -> Iterator[GenerationRequest]:
    """The requests without end, each time with an id and a seed of its own."""
    n_rounds = 0
    while True:
        for request in requests:
            request_id = f"{request.request_id}@{n_rounds}"
            yield replace(request, request_id=request_id, seed=(request.seed + n_rounds) % 2**31)
        n_rounds += 1


def _item(items: Mapping[str, WorkItem], request_id: str) -> WorkItem:
    return replace(items[request_id.rpartition("@")[0]], item_id=request_id)
