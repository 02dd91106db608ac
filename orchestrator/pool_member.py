"""The testbeds of a pool before any trial: asked all at once, and refused where they are unlike."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from contract.errors import ConfigError, JouleBedError, TestbedUnreachableError, UsageError
from contract.node_info import NodeInfo
from contract.units import Scalar
from orchestrator.clients.base import TestbedClient
from orchestrator.pool_file import PoolEntry
from orchestrator.preflight import outline, preflight
from orchestrator.store.base import Plan

HARDWARE = "hardware"
"""Factor whose levels are kinds of testbeds, as the pool file names them."""

_AT_ONCE = 64


class Dialled(TestbedClient, Protocol):
    """A client that also tells what a campaign notes at its beginning."""

    def clock_offset_s(self) -> float | None:
        """The testbed's clock less ours, to a second; None when it does not tell the time."""
        ...


@dataclass(frozen=True)
class PoolMember:
    """A testbed of a pool.

    Attributes:
        entry: as it was given.
        client: asks it.
        info: as it describes itself; None: it did not answer.
        clock_offset_s: its clock less ours; None: not told.
    """

    entry: PoolEntry
    client: Dialled
    info: NodeInfo | None = None
    clock_offset_s: float | None = None

    @property
    def name(self) -> str:
        """In the run table."""
        return self.entry.told

    @property
    def kind(self) -> str:
        """Its level of the factor `hardware`; empty: it was given none."""
        return self.entry.hardware


def gather(entries: Sequence[PoolEntry], plan: Plan, dial: Callable[[PoolEntry], Dialled]) -> list[PoolMember]:
    """Ask all testbeds whether they can run the plan.

    Args:
        entries: of the pool.
        plan: what is to run.
        dial: makes a client; it is the caller's to close.

    Returns:
        All of them; those that do not answer without `info`: they may join later.

    Raises:
        UsageError: one could not run its part of the plan, or they are unlike.
        JouleBedError: one refuses, speaks another version, or none answers.
    """
    plan = outline(plan)
    check_kinds(entries, plan)
    with ThreadPoolExecutor(min(_AT_ONCE, len(entries)), thread_name_prefix="preflight") as executor:
        members = list(executor.map(lambda entry: _asked(PoolMember(entry, dial(entry)), plan), entries))
    if all(member.info is None for member in members):
        named = ", ".join(each.url for each in entries[:3]) + (" ..." if len(entries) > 3 else "")
        raise TestbedUnreachableError(
            f"None of the {len(entries)} testbeds answers ({named}). Check that `testbed serve` runs there, and the "
            "addresses."
        )
    require_alike(members)
    return members


def join(member: PoolMember, plan: Plan, others: Sequence[PoolMember]) -> PoolMember:
    """Ask one testbed that did not answer before.

    Raises:
        TestbedUnreachableError: it does not answer now either.
        JouleBedError: it does not belong here; see `gather`.
    """
    client = member.client
    info = preflight(client, part_of(plan, member.kind))
    joined = replace(member, info=info, clock_offset_s=client.clock_offset_s())
    require_alike([*(each for each in others if each.info is not None), joined])
    return joined


def part_of(plan: Plan, kind: str) -> Plan:
    """The plan's runs for a kind of testbed."""
    if HARDWARE not in plan.factors or not kind:
        return plan
    return replace(plan, runs=tuple(run for run in plan.runs if allows(kind, run.treatment)))


def allows(kind: str, treatment: Mapping[str, Scalar]) -> bool:
    """Whether a kind of testbed may run a treatment."""
    return HARDWARE not in treatment or str(treatment[HARDWARE]) == kind


def has_kinds(entries: Iterable[PoolEntry]) -> bool:
    """Whether the testbeds are levels of the factor `hardware`."""
    return any(each.hardware for each in entries)


def check_kinds(entries: Sequence[PoolEntry], plan: Plan) -> None:
    """See that kinds of testbeds and levels of `hardware` are the same.

    Raises:
        ConfigError: they are not.
    """
    if not has_kinds(entries):
        return
    if HARDWARE not in plan.factors:
        raise ConfigError(
            f"The pool gives its testbeds `{HARDWARE}`, but the design has no factor of that name. Add "
            f"Factor({HARDWARE!r}, [...]) with these levels, or take it out of the pool file."
        )
    levels = list(dict.fromkeys(str(run.treatment[HARDWARE]) for run in plan.runs))
    for entry in entries:
        if entry.hardware not in levels:
            raise ConfigError(
                f"The testbed {entry.url} has the {HARDWARE} {entry.hardware!r}, which is no level of the factor "
                f"{HARDWARE!r}. Choose from: {', '.join(levels)}."
            )
    missing = [level for level in levels if all(entry.hardware != level for entry in entries)]
    if missing:
        raise ConfigError(
            f"No testbed of the pool has the {HARDWARE} {missing[0]!r}, which is a level of the design. Add one to the "
            "pool file, or take the level out."
        )


def require_alike(members: Sequence[PoolMember]) -> None:
    """See that testbeds of one kind have one hardware.

    Raises:
        UsageError: they have not.
    """
    by_kind: dict[str, dict[str, list[PoolMember]]] = {}
    for member in members:
        if member.info is not None:
            found = by_kind.setdefault(member.kind, {})
            found.setdefault(member.info.identity.hardware_sha256, []).append(member)
    for kind, found in by_kind.items():
        if len(found) > 1:
            of = f" of the {HARDWARE} {kind!r}" if kind else ""
            lines = [f"  {_hardware(group[0])}: {_names(group)}" for group in found.values()]
            raise UsageError(
                f"The testbeds{of} are of {len(found)} kinds of hardware, and nothing was run: what they measure "
                "cannot be told apart from what the treatments do.\n"
                + "\n".join(lines)
                + f"\nRun on one kind, or make it a factor: Factor({HARDWARE!r}, [...]) in the design, and "
                f"`{HARDWARE} = LEVEL` at each [[testbed]] of a --pool file."
            )


def differences(members: Sequence[PoolMember]) -> list[str]:
    """What is unlike in the software of testbeds of one kind, in words; it is no reason to refuse."""
    told = []
    for kind in dict.fromkeys(member.kind for member in members):
        same = [member.info.identity for member in members if member.kind == kind and member.info is not None]
        packages = sorted({name for each in same for name in each.packages})
        for what, values in (
            ("driver", Counter(each.driver_version or "none" for each in same)),
            *((name, Counter(each.packages.get(name, "none") for each in same)) for name in packages),
        ):
            if len(values) > 1:
                versions = ", ".join(f"{version} on {n}" for version, n in values.most_common(4))
                told.append(f"the testbeds differ in {what}{f' of {kind}' if kind else ''}: {versions}")
    return told


def _asked(member: PoolMember, plan: Plan) -> PoolMember:
    try:
        info = preflight(member.client, part_of(plan, member.kind))
        return replace(member, info=info, clock_offset_s=member.client.clock_offset_s())
    except TestbedUnreachableError:
        return member
    except JouleBedError as error:
        raise type(error)(f"The testbed {member.entry.url}: {error.message}", **error.detail) from error


def _hardware(member: PoolMember) -> str:
    assert member.info is not None  # only those that answered are compared
    identity = member.info.identity
    gpus = f", {', '.join(each.partition(' (')[0] for each in identity.gpus)}" if identity.gpus else ""
    memory = f"{identity.memory_bytes / 2**30:.0f} GiB"
    return f"{identity.cpu_model}, {identity.n_cpus} cores, {memory}{gpus} ({identity.hardware_sha256[:8]})"


def _names(members: Sequence[PoolMember]) -> str:
    shown = ", ".join(member.name for member in members[:5])
    return f"{shown} and {len(members) - 5} more" if len(members) > 5 else shown
