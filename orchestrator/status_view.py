"""Tells how an experiment stands: counts, what runs, what failed and why, what is doubted and why."""

import logging
import shlex
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from contract.attempt_state import RunState
from orchestrator.campaign import CampaignOutcome, Ending
from orchestrator.disk_space import DiskSpace
from orchestrator.driver import Condition, drivers
from orchestrator.explain import Remark, Situation, Weight, explain, is_active, open_attempts
from orchestrator.outage_note import outage_of
from orchestrator.processes import process_state
from orchestrator.run_table_columns import telling_attempt
from orchestrator.store.base import AttemptRow, RunReader, RunRow, RunTableError
from orchestrator.store.control import exclusions, paused
from orchestrator.suspicion import SuspectResultError, count_codes, reason_text, told_codes
from orchestrator.time_words import told_since

_log = logging.getLogger(__name__)

_SHOWN = 10
_NOT_HELD_UP = (Condition.WORKING, Condition.COOLING, Condition.GATE)
_HEADS = {Weight.PROBLEM: "[bold red]Problem:[/] ", Weight.WARNING: "[yellow]Warning:[/] ", Weight.NOTE: ""}
_WORDS = {
    RunState.DONE: "done",
    RunState.SUSPECT: "suspect",
    RunState.FAILED: "failed",
    RunState.RUNNING: "running",
    RunState.TODO: "to do",
}


def look_at(folder: Path, reader: RunReader) -> Situation:
    """What the run table and this machine tell of an experiment."""
    rows = reader.runs(with_results=False)
    return Situation(
        now=datetime.now(UTC),
        host=socket.gethostname(),
        folder=folder,
        rows=rows,
        drivers=drivers(reader),
        state_since={attempt.attempt_id: _state_since(reader, attempt) for attempt in open_attempts(rows)},
        disk=DiskSpace.of(folder),
        process_state=process_state,
        pause=paused(reader),
        outage=outage_of(folder),
    )


def status_document(folder: Path, reader: RunReader, situation: Situation | None = None) -> dict[str, Any]:
    """The standing of an experiment as JSON.

    Args:
        folder: the experiment's.
        reader: its run table.
        situation: where it was looked at already.
    """
    situation = situation or look_at(folder, reader)
    rows = situation.rows
    return {
        "folder": str(folder),
        "at": situation.now.isoformat(timespec="seconds"),
        "counts": {state.value: n for state, n in reader.counts().items()},
        "explanations": [asdict(remark) for remark in explain(situation)],
        "drivers": [driver.model_dump(mode="json") for driver in situation.drivers],
        "testbeds": testbeds(situation),
        "pause": situation.pause.model_dump(mode="json") if situation.pause else None,
        "running": [
            _running(row, row.attempts[-1], situation) for row in rows if row.state is RunState.RUNNING and row.attempts
        ],
        "failures": [_failure(row) for row in rows if row.state is RunState.FAILED],
        "retries": [_failure(row) for row in rows if row.state is RunState.TODO and row.attempts],
        "suspects": [_suspect(row) for row in rows if row.state is RunState.SUSPECT],
        "suspect_codes": dict(_suspect_codes(rows)),
        "excluded": [{"run_id": run_id, "reason": each.words} for run_id, each in exclusions(reader).items()],
    }


def suspect_codes(reader: RunReader) -> Counter[str]:
    """Reason code -> number of SUSPECT runs with it."""
    return _suspect_codes(reader.runs(with_results=False))


def print_status(console: Console, document: dict[str, Any]) -> None:
    """The same for people."""
    _line(console, _counts({RunState(state): n for state, n in document["counts"].items()}))
    now = datetime.fromisoformat(document["at"])
    _list_testbeds(console, document["testbeds"])
    running = document["running"]
    if len(running) > _SHOWN:
        _line(console, f"Open: {len(running)} attempts; the longest in their states first, all of them with --json:")
        running = sorted(running, key=lambda attempt: str(attempt["since"]))[:_SHOWN]
    for attempt in running:
        since = told_since(datetime.fromisoformat(attempt["since"]), now)
        _line(
            console,
            f"Open: {attempt['run_id']} as {attempt['attempt_id']} on {attempt['testbed']}, {attempt['state']} {since}",
        )
    print_remarks(console, [Remark(**remark) for remark in document["explanations"]])
    _list(console, "Failed", document["failures"])
    _list(console, "Without a result so far, will be tried again", document["retries"])
    _list_suspects(console, document)
    _list(console, "Left out of the results", document["excluded"])


def testbeds(situation: Situation) -> list[dict[str, Any]]:
    """Each testbed of the experiment: what it does now, and how many results are accepted from it; by name."""
    attempts = [attempt for row in situation.rows for attempt in row.attempts]
    n_done = Counter(attempt.testbed for attempt in attempts if attempt.accepted)
    at_work = {(attempt.owner, attempt.testbed): str(attempt.state) for attempt in open_attempts(situation.rows)}
    found = {name: {"testbed": name, "url": "", "doing": "not driven", "n_done": n} for name, n in n_done.items()}
    for driver in reversed(situation.drivers):
        if not is_active(situation, driver):
            continue
        doing = str(driver.condition)
        if driver.condition in _NOT_HELD_UP:
            doing = at_work.get((driver.owner, driver.testbed), "idle").lower()
            doing = str(driver.condition) if doing == "claimed" and driver.condition is not Condition.WORKING else doing
        found[driver.testbed] = {
            "testbed": driver.testbed,
            "url": driver.url,
            "doing": doing,
            "n_done": n_done[driver.testbed],
        }
    return sorted(found.values(), key=lambda each: str(each["testbed"]))


def _list_testbeds(console: Console, found: list[dict[str, Any]]) -> None:
    if len(found) < 2:
        return
    by_doing: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        by_doing.setdefault(each["doing"], []).append(each)
    told = ", ".join(
        f"{len(group)} {doing}" for doing, group in sorted(by_doing.items(), key=lambda item: -len(item[1]))
    )
    _line(console, f"{len(found)} testbeds: {told}")
    if len(found) <= _SHOWN:
        for each in found:
            _line(console, f"  {each['testbed']}: {each['doing']}, {each['n_done']} done")
        return
    for doing in (Condition.UNREACHABLE, Condition.BUSY, Condition.WAITING):
        names = [each["testbed"] for each in by_doing.get(doing, [])]
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            _line(console, f"  {doing}: {', '.join(names[:_SHOWN])}{more}")


def print_campaign_end(console: Console, folder: Path, reader: RunReader, outcome: CampaignOutcome) -> int:
    """Say how a campaign ended, where the results are, and what to do next.

    Returns:
        Exit code: 0 when all runs have a result, else 1.
    """
    if outcome.message:
        _line(console, outcome.message)
    counts = outcome.counts
    is_known = any(counts.values())
    if is_known:
        _line(console, _counts(counts))
    codes = Counter[str]()
    try:
        if counts[RunState.FAILED] or counts[RunState.SUSPECT]:
            document = status_document(folder, reader)
            _list(console, "Failed", document["failures"])
            _list_suspects(console, document)
            codes = suspect_codes(reader)
    except RunTableError as error:
        _log.warning("What failed cannot be told: %s", error.message)
        _line(console, "The run table cannot be asked now: these numbers are the last that this process knew.")
    n_left = counts[RunState.TODO] + counts[RunState.RUNNING]
    if n_left and outcome.ending is Ending.FINISHED:
        _line(console, "The runs that are left belong to another orchestrator that is at work on them.")
    elif n_left or not is_known:
        _line(console, "Run the same command again to continue: runs that are done are never repeated.")
    quoted = shlex.quote(str(folder))
    if counts[RunState.SUSPECT]:
        n_suspect = counts[RunState.SUSPECT]
        _line(
            console,
            f"{n_suspect} suspect run{'' if n_suspect == 1 else 's'} ({told_codes(codes)}): look with "
            f"`orchestrator status {quoted}`, measure again with `orchestrator retry {quoted} --suspect`.",
        )
    if counts[RunState.FAILED]:
        _line(console, f"Once it is mended, try what failed again with `orchestrator retry {quoted} --failed`.")
    _line(console, f"Results: {folder}")
    if counts[RunState.DONE] + counts[RunState.SUSPECT]:
        _line(console, f"Next: python -m analysis summary {quoted}")
    return 1 if n_left or counts[RunState.FAILED] or not is_known else 0


def _counts(counts: dict[RunState, int]) -> str:
    told = ", ".join(f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state])
    n_runs = sum(counts.values())
    return f"{n_runs} run{'' if n_runs == 1 else 's'}: {told or 'none'}"


def print_remarks(console: Console, remarks: Sequence[Remark]) -> None:
    """Explanations, each with what to do on a line of its own."""
    for remark in remarks:
        console.print(_HEADS[Weight(remark.weight)], end="", highlight=False)
        _line(console, remark.message)
        for detail in remark.details:
            _line(console, f"  {detail}")
        if remark.advice:
            _line(console, f"  -> {remark.advice}")


def _state_since(reader: RunReader, attempt: AttemptRow) -> datetime:
    """When an attempt got its present state; a renewed lease is none of its changes."""
    changes = [
        event.at
        for event in reader.events(attempt.run_id)
        if event.attempt_id == attempt.attempt_id
        and event.state_after is attempt.state
        and event.state_before is not event.state_after
    ]
    return changes[-1] if changes else attempt.updated_at


def _running(row: RunRow, last: AttemptRow, situation: Situation) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "attempt_id": last.attempt_id,
        "testbed": last.testbed,
        "state": str(last.state),
        "since": situation.state_since.get(last.attempt_id, last.updated_at).isoformat(timespec="seconds"),
        "owner": last.owner,
        "lease_until": last.lease_until.isoformat(timespec="seconds") if last.lease_until else None,
        "last_sign_at": last.updated_at.isoformat(timespec="seconds"),
    }


def _failure(row: RunRow) -> dict[str, Any]:
    last = row.attempts[-1]
    error = last.error
    if error is None and last.reasons:
        return _doubted(row, last)
    found = {
        "run_id": row.run_id,
        "n_attempts": len(row.attempts),
        "state": str(last.state),
        "code": error.code if error else "unknown",
        "reason": error.message if error else "no reason was recorded",
    }
    return found | {"codes": _codes(last)} if found["code"] == SuspectResultError.code else found


def _suspect(row: RunRow) -> dict[str, Any]:
    return _doubted(row, telling_attempt(row) or row.attempts[-1])


def _doubted(row: RunRow, attempt: AttemptRow) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "n_attempts": len(row.attempts),
        "state": str(attempt.state),
        "code": ",".join(_codes(attempt)) or "unknown",
        "codes": _codes(attempt),
        "reason": reason_text(attempt.reasons) or "no reason was recorded",
    }


def _codes(attempt: AttemptRow) -> list[str]:
    return list(dict.fromkeys(reason.code for reason in attempt.reasons))


def _suspect_codes(rows: Iterable[RunRow]) -> Counter[str]:
    telling = (telling_attempt(row) for row in rows if row.state is RunState.SUSPECT)
    return count_codes(attempt.reasons for attempt in telling if attempt)


def _list_suspects(console: Console, document: dict[str, Any]) -> None:
    told = told_codes(Counter(document["suspect_codes"]))
    _list(console, f"Suspect ({told})" if told else "Suspect", document["suspects"])


def _list(console: Console, title: str, rows: Iterable[dict[str, Any]]) -> None:
    """Group by reason: two hundred runs that failed alike are one line.

    Doubted results are grouped by their codes: the figures in the reasons differ from run to run.
    """
    rows = list(rows)
    if not rows:
        return
    _line(console, f"{title}:")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(",".join(row["codes"]) if row.get("codes") else row["reason"], []).append(row)
    for group in sorted(groups.values(), key=len, reverse=True)[:_SHOWN]:
        others = f" and {len(group) - 1} more" if len(group) > 1 else ""
        _line(console, f"  {group[0]['run_id']}{others}: {group[0]['reason']}")
    if len(groups) > _SHOWN:
        _line(console, f"  and {len(groups) - _SHOWN} other reasons: see --json")


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
