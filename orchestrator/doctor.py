"""Looks at this machine, at an experiment and at a testbed, and says how to mend what is wrong."""

import importlib.util
import os
import sqlite3
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contract.errors import JouleBedError, ProtocolMismatchError, TestbedUnreachableError, UnauthorizedError
from contract.node_info import NodeInfo
from contract.units import PROTOCOL_VERSION
from orchestrator.disk_space import LEAST_FREE_BYTES, MOST_USED, DiskSpace
from orchestrator.experiment_folder import open_run_table, run_table_path
from orchestrator.explain import Weight, explain, open_attempts
from orchestrator.pool_file import PoolEntry
from orchestrator.processes import holders, told_process
from orchestrator.status_view import look_at

_LARGEST_CLOCK_DIFFERENCE_S = 5.0
_LOCK_S = 2.0
_AT_ONCE = 64
_PACKAGES = {"httpx": "orchestrator", "tenacity": "orchestrator", "sqlalchemy": "orchestrator", "polars": "analysis"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        where: `here`, `experiment`, or `testbed`.
        name: what.
        is_fine: None when it is a fact, neither good nor bad.
        message: what was found, or how to mend it.
        is_warning: whether a thing that is fine still is worth a look; it leaves the exit code alone.
    """

    where: str
    name: str
    is_fine: bool | None
    message: str
    is_warning: bool = False


def look_here(results: Path) -> list[Finding]:
    """Check this machine.

    Args:
        results: where results go; it need not exist.
    """
    version = ".".join(str(part) for part in sys.version_info[:3])
    is_new = sys.version_info >= (3, 11)
    findings = [Finding("here", "Python", is_new, version if is_new else f"{version}: install 3.11 or newer")]
    for package, extra in _PACKAGES.items():
        is_here = importlib.util.find_spec(package) is not None
        message = "installed" if is_here else f"install it: pip install 'joulebed[{extra}]'"
        # The analysis may well be done on another machine.
        findings.append(Finding("here", package, is_here or (False if extra == "orchestrator" else None), message))
    findings.append(_disk("here", DiskSpace.of(results), f"for {results}", "or choose another folder with --results"))
    return findings


def look_at_experiment(folder: Path) -> tuple[list[Finding], set[str]]:
    """Check an experiment: its folder, its run table, and why it stands as it does.

    Args:
        folder: the experiment's.

    Returns:
        What was found, and the ids of its open attempts.
    """
    path = run_table_path(folder)
    findings = [_writable(folder)]
    if path.exists():
        findings.append(_lock(path))
    try:
        store = open_run_table(folder, create=False)
    except JouleBedError as error:
        return [*findings, Finding("experiment", "run table", False, error.message)], set()
    try:
        situation = look_at(folder, store)
    except JouleBedError as error:
        return [*findings, Finding("experiment", "run table", False, error.message)], set()
    finally:
        store.close()
    findings.append(Finding("experiment", "run table", True, f"{len(situation.rows)} runs"))
    for remark in explain(situation):
        name, message = (
            remark.code.replace("_", " "),
            " ".join([remark.message, *remark.details, remark.advice]).rstrip(),
        )
        is_fine = None if remark.weight is Weight.NOTE else remark.weight is not Weight.PROBLEM
        findings.append(Finding("experiment", name, is_fine, message, remark.weight is Weight.WARNING))
    return findings, {attempt.attempt_id for attempt in open_attempts(situation.rows)}


def look_at_testbeds(
    entries: Sequence[PoolEntry], token_file: Path | None, ours: Collection[str] | None = None
) -> list[Finding]:
    """Check testbeds, all at once; of several, what is fine is told in one line each.

    Args:
        entries: where they are.
        token_file: holds the token of those that name none; None: the environment does.
        ours: attempts that are the experiment's own; None: no experiment was named.

    Raises:
        ConfigError: there is no token.
    """
    # Slow to import, and needed here only.
    from orchestrator.clients.http_client import HttpClient, read_token

    clients = [
        HttpClient(each.url, read_token(each.token_file or token_file), unreachable_after_s=3.0) for each in entries
    ]
    try:
        with ThreadPoolExecutor(min(_AT_ONCE, len(clients))) as executor:
            found = list(executor.map(lambda each: look_at_testbed(each.node, each.clock_offset_s, ours), clients))
    finally:
        for client in clients:
            client.close()
    if len(entries) == 1:
        return found[0]
    findings = []
    for entry, each in zip(entries, found, strict=True):
        wrong = [finding for finding in each if finding.is_fine is False or finding.is_warning]
        findings += [replace(finding, where=f"testbed {entry.told}") for finding in wrong]
        if not wrong:
            work = next((finding.message for finding in each if finding.name == "at work"), "")
            findings.append(Finding(f"testbed {entry.told}", "all of it", True, work))
    return findings


def look_at_testbed(
    node: Callable[[], NodeInfo], offset_s: Callable[[], float | None], ours: Collection[str] | None = None
) -> list[Finding]:
    """Check a testbed.

    Args:
        node: asks it for its description.
        offset_s: its clock less ours; None when it does not tell.
        ours: attempts that are the experiment's own; None: no experiment was named.
    """
    try:
        info = node()
    except TestbedUnreachableError as error:
        return [Finding("testbed", "reachable", False, error.message)]
    except UnauthorizedError as error:
        return [_reachable(), Finding("testbed", "token", False, error.message)]
    except ProtocolMismatchError as error:
        return [_reachable(), Finding("testbed", "protocol", False, error.message)]
    except JouleBedError as error:
        return [_reachable(), Finding("testbed", "answer", False, error.message)]
    findings = [
        _reachable(),
        Finding("testbed", "token", True, "accepted"),
        Finding("testbed", "protocol", True, f"version {PROTOCOL_VERSION}, joulebed {info.software_version}"),
        _clock(offset_s()),
    ]
    if info.disk_free_bytes is not None and info.disk_total_bytes:
        disk = DiskSpace(info.disk_free_bytes, info.disk_total_bytes)
        findings.append(_disk("testbed", disk, "for attempts", "or give `testbed serve` another --data-dir"))
    temperatures = ", ".join(f"{reading.sensor} {reading.temp_c:.0f} °C" for reading in info.temperatures)
    nothing = "no readable sensor: cooldown goes by time alone"
    findings.append(Finding("testbed", "temperatures", None, temperatures or nothing))
    running = info.running_attempt_id
    whose = "" if ours is None or running is None else ", this experiment's" if running in ours else ", another's"
    findings.append(Finding("testbed", "at work", None, f"on attempt {running}{whose}" if running else "idle"))
    for capability in info.capabilities:
        # What is not there is not wrong: a testbed needs one engine, not all.
        name = f"{capability.seam} {capability.name}"
        findings.append(Finding("testbed", name, capability.available or None, capability.message or "can be used"))
    if not any(each.available for each in info.capabilities if each.seam == "engine"):
        mend = "none can be used: `testbed doctor` there says how to install one"
        findings.append(Finding("testbed", "engines", False, mend))
    return findings


def findings_document(findings: list[Finding]) -> list[dict[str, Any]]:
    """As JSON."""
    return [asdict(finding) for finding in findings]


def print_findings(console: Console, findings: list[Finding]) -> None:
    """For people."""
    table = Table("", "what", "fine", "found, or how to mend it", box=None, pad_edge=False)
    words = {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}
    for finding in findings:
        fine = "[yellow]so so[/]" if finding.is_warning else words[finding.is_fine]
        table.add_row(finding.where, escape(finding.name), fine, escape(finding.message))
    console.print(table, highlight=False)


def _disk(where: str, disk: DiskSpace, what: str, otherwise: str) -> Finding:
    free = f"{disk.free_bytes / 2**30:.1f} GiB free {what}, {100 * disk.used:.0f} % full"
    if disk.is_too_little:
        least = f"{LEAST_FREE_BYTES / 2**30:g} GiB at least"
        return Finding(where, "disk", False, f"{free}: make room, {otherwise}; {least}")
    mend = f": from {100 * MOST_USED:.0f} % on it is worth making room" if disk.is_scarce else ""
    return Finding(where, "disk", True, free + mend, disk.is_scarce)


def _writable(folder: Path) -> Finding:
    is_writable = os.access(folder, os.W_OK | os.X_OK)
    mend = "" if is_writable else " cannot be written: give this user the right to, or mount it for writing"
    return Finding("experiment", "folder", is_writable, f"{folder}{mend}")


def _lock(path: Path) -> Finding:
    """Whether somebody keeps the run table locked, and who."""
    try:
        # Not as the store does: its patience is long, and it would bring an old table to this version.
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=_LOCK_S)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            return Finding("experiment", "lock", False, f"{path} cannot be written: {error}")
        who = ", ".join(told_process(pid) for pid in holders(path)) or "a program that this machine does not name"
        mend = "A campaign holds it for milliseconds: end what holds it for longer"
        return Finding("experiment", "lock", False, f"the run table is locked by {who}. {mend}.")
    except sqlite3.DatabaseError as error:
        return Finding("experiment", "lock", False, f"{path} is no run table, or is damaged: {error}")
    return Finding("experiment", "lock", True, "nobody keeps the run table locked")


def _reachable() -> Finding:
    return Finding("testbed", "reachable", True, "it answers")


def _clock(offset_s: float | None) -> Finding:
    if offset_s is None:
        return Finding("testbed", "clock", None, "it does not tell its time")
    is_close = abs(offset_s) <= _LARGEST_CLOCK_DIFFERENCE_S
    # Durations come from monotonic clocks; only labels suffer.
    mend = "" if is_close else "; labels will disagree (durations will not): set both clocks by NTP"
    return Finding("testbed", "clock", is_close, f"{offset_s:+.0f} s against this machine{mend}")
