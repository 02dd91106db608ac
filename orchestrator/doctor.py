"""Looks at this machine and at a testbed, and says how to mend what is wrong."""

import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contract.errors import JouleBedError, ProtocolMismatchError, TestbedUnreachableError, UnauthorizedError
from contract.trial_result import NodeInfo
from contract.units import PROTOCOL_VERSION

_LEAST_FREE_GIB = 1.0
_LARGEST_CLOCK_DIFFERENCE_S = 5.0
_PACKAGES = {"httpx": "orchestrator", "tenacity": "orchestrator", "sqlalchemy": "orchestrator", "polars": "analysis"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        where: `here`, or `testbed`.
        name: what.
        is_fine: None when it is a fact, neither good nor bad.
        message: what was found, or how to mend it.
    """

    where: str
    name: str
    is_fine: bool | None
    message: str


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
        findings.append(Finding("here", package, is_here, message))
    folder = next(path for path in (results.resolve(), *results.resolve().parents) if path.exists())
    free_gib = shutil.disk_usage(folder).free / 2**30
    is_enough = free_gib >= _LEAST_FREE_GIB
    mend = (
        "" if is_enough else f": make room, or choose another folder with --results; {_LEAST_FREE_GIB:g} GiB at least"
    )
    findings.append(Finding("here", "disk", is_enough, f"{free_gib:.1f} GiB free for {results}{mend}"))
    return findings


def look_at_testbed(node: Callable[[], NodeInfo], offset_s: Callable[[], float | None]) -> list[Finding]:
    """Check a testbed.

    Args:
        node: asks it for its description.
        offset_s: its clock less ours; None when it does not tell.
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
    temperatures = ", ".join(f"{reading.sensor} {reading.temp_c:.0f} °C" for reading in info.temperatures)
    nothing = "no readable sensor: cooldown goes by time alone"
    findings.append(Finding("testbed", "temperatures", None, temperatures or nothing))
    running = info.running_attempt_id
    findings.append(Finding("testbed", "at work", None, f"on attempt {running}" if running else "idle"))
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
        table.add_row(finding.where, escape(finding.name), words[finding.is_fine], escape(finding.message))
    console.print(table, highlight=False)


def _reachable() -> Finding:
    return Finding("testbed", "reachable", True, "it answers")


def _clock(offset_s: float | None) -> Finding:
    if offset_s is None:
        return Finding("testbed", "clock", None, "it does not tell its time")
    is_close = abs(offset_s) <= _LARGEST_CLOCK_DIFFERENCE_S
    # Durations come from monotonic clocks; only labels suffer.
    mend = "" if is_close else "; labels will disagree (durations will not): set both clocks by NTP"
    return Finding("testbed", "clock", is_close, f"{offset_s:+.0f} s against this machine{mend}")
