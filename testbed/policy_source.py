"""The policy of a trial: from its spec to one that can decide."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from contract.errors import InvalidOptionError
from contract.trial_spec import TrialSpec
from testbed.data_folder import POLICIES, named_file
from testbed.engines.base import ContinuousEngine, Engine
from testbed.engines.simulated_engine import SimulatedEngine
from testbed.engines.simulated_orin_engine import SimulatedOrinEngine
from testbed.open_loop_drive import refuse_continuous
from testbed.open_loop_trial import OpenLoopParts
from testbed.policies.base import Policy
from testbed.policies.registry import POLICIES as POLICIES_BY_NAME
from testbed.simulation.service_table import ServiceTable
from testbed.simulation.simulated_machine import SimulatedMachine
from testbed.table_source import service_table

_FROM_FILE = ("planned", "learned")
_WITHOUT_TABLE = ("capped_batch",)
_BATCHES_ALONE = ("batch_only", "fixed_batch", "fixed_clock", "static_high", *_WITHOUT_TABLE)
"""What is left to choose where the table has one clock."""


def open_loop_parts(spec: TrialSpec, engine: Engine, machine: SimulatedMachine | None) -> OpenLoopParts:
    """Who decides in a trial.

    Args:
        spec: with `serving`.
        engine: of the trial; not necessarily loaded.
        machine: of a simulated trial; None: time and power are real.

    Raises:
        InvalidOptionError: the policy, its table or its file is not possible, or the engine cannot serve so.
    """
    serving = spec.serving
    assert serving is not None
    if isinstance(engine, SimulatedOrinEngine):
        raise InvalidOptionError(
            f"The engine {engine.name!r} is for edge control, and knows no arrivals: take the engine 'simulated'."
        )
    if serving.continuous and not isinstance(engine, ContinuousEngine):
        raise refuse_continuous(engine.name)
    own = engine.table if isinstance(engine, SimulatedEngine) else None
    given = serving.policy.table
    # A table of a real device may have one clock, where nobody sets it; of a simulated one, several are simulated.
    table = service_table(given, os.environ, is_clock_left_alone=own is None) if given is not None else own
    if own is not None and spec.workload.concurrency > own.max_batch:
        raise InvalidOptionError(
            f"workload.concurrency is {spec.workload.concurrency}, and the simulated server has batches of 1 to "
            f"{own.max_batch}: lower it."
        )
    floor_s = float(table.latency_s.min()) if table is not None else None
    if floor_s is not None and serving.slo_s < floor_s:
        raise InvalidOptionError(
            f"The objective of {serving.slo_s:g} s is below the fastest service of {table.source if table else ''}, "
            f"{floor_s:g} s: at best 0 % can be met, whoever decides. Raise serving.slo_s.",
            slo_s=serving.slo_s,
            floor_s=floor_s,
        )
    policy = build_policy(spec, table, os.environ)
    return OpenLoopParts(
        policy=policy,
        start_mhz=float(table.clock_mhz[-1]) if table is not None else 0.0,
        settled=machine.switch if machine is not None else lambda: None,
        is_simulated=machine is not None,
        floor_s=floor_s,
    )


def build_policy(
    spec: TrialSpec, table: ServiceTable | None, env: Mapping[str, str], *, folder: Path | None = None
) -> Policy:
    """Build the policy of a spec.

    Args:
        spec: with `serving`.
        table: what the policy believes about the device; None: it has none.
        env: of the process.
        folder: of policy files, in place of the testbed's own.

    Raises:
        InvalidOptionError: an unknown or impossible option, or a file that is not there or another.
    """
    serving = spec.serving
    assert serving is not None
    given = serving.policy
    if given.name in _FROM_FILE and given.file is None:
        raise InvalidOptionError(
            f"The policy {given.name!r} is read from a file: name one of the testbed's folder {POLICIES} in "
            "serving.policy.file."
        )
    if given.name not in _FROM_FILE and given.file is not None:
        raise InvalidOptionError(f"The policy {given.name!r} has no file: leave out serving.policy.file.")
    if table is None and given.name not in _WITHOUT_TABLE:
        raise InvalidOptionError(
            f"The policy {given.name!r} chooses from a table of this device, and the trial has none: give "
            f"serving.policy.table, or take the policy {' or '.join(_WITHOUT_TABLE)}."
        )
    if table is not None and table.n_clocks == 1 and given.name not in _BATCHES_ALONE:
        raise InvalidOptionError(
            f"The policy {given.name!r} chooses among clocks, and {table.source} has one, {table.clock_mhz[0]:g} MHz. "
            f"Profile several, or take a policy that chooses batches alone: {', '.join(_BATCHES_ALONE)}.",
            clock_mhz=float(table.clock_mhz[0]),
        )
    own: dict[str, object] = {"slo_s": serving.slo_s, "table": table}
    if given.file is not None:
        path = named_file(POLICIES, given.file, env, folder=folder)
        _check_sha256(path, given.file_sha256)
        own["path"] = path
    elif table is not None and spec.workload.concurrency < table.max_batch:
        own["table"] = _up_to(table, spec.workload.concurrency)
    return POLICIES_BY_NAME.create_from_spec(given.name, given.options, **own)


def _check_sha256(path: Path, wanted: str | None) -> None:
    if wanted is None:
        return
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wanted:
        raise InvalidOptionError(
            f"The policy file {path.name} has the hash {found}, and the trial wants {wanted}: copy the right one to "
            "the testbed."
        )


def _up_to(table: ServiceTable, max_batch: int) -> ServiceTable:
    """The table without the batches that this trial cannot serve: a policy's own limit is then within reach."""
    return replace(
        table,
        batch_sizes=table.batch_sizes[:max_batch],
        latency_s=table.latency_s[:, :max_batch],
        power_w=table.power_w[:, :max_batch],
    )
