"""Tells what happened: to a run, attempt by attempt, or to the campaign."""

import difflib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from contract.errors import UsageError
from contract.trial_result import TrialResult
from orchestrator.artifacts import ArtifactFolder
from orchestrator.driver import drivers
from orchestrator.progress_view import describe_result
from orchestrator.store.base import AttemptRow, EventRow, RunReader, RunRow
from orchestrator.store.control import Exclusion, Pause, exclusions, paused
from orchestrator.time_words import told_span

_TAIL_LINES = 20


def campaign_document(reader: RunReader) -> dict[str, Any]:
    """What happened to the campaign as a whole, its waits included, as JSON."""
    plan = reader.plan()
    events = [event for event in reader.events() if event.state_after is None]
    pause = paused(reader)
    return {
        "experiment": plan.experiment if plan else None,
        "drivers": [driver.model_dump(mode="json") for driver in drivers(reader)],
        "pause": pause.model_dump(mode="json") if pause else None,
        "events": _events(events),
    }


def run_document(folder: Path, reader: RunReader, wanted: str) -> dict[str, Any]:
    """What happened to a run, as JSON.

    Args:
        folder: the experiment's.
        reader: its run table.
        wanted: id of the run, or of one of its attempts.

    Raises:
        UsageError: there is none; names what comes near.
    """
    rows = {row.run_id: row for row in reader.runs()}
    of_attempt = {attempt.attempt_id: row for row in rows.values() for attempt in row.attempts}
    row = rows.get(wanted) or of_attempt.get(wanted)
    if row is None:
        near = difflib.get_close_matches(wanted, [*rows, *of_attempt], n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else "See `__run_id` in run_table.csv."
        raise UsageError(f"The run table has no run and no attempt {wanted!r}. {hint}")
    attempts = [each for each in row.attempts if wanted in (row.run_id, each.attempt_id)]
    return row_document(folder, row, reader.events(row.run_id), attempts, exclusion=exclusions(reader).get(row.run_id))


def row_document(
    folder: Path,
    row: RunRow,
    events: Sequence[EventRow],
    attempts: Sequence[AttemptRow],
    *,
    exclusion: Exclusion | None = None,
) -> dict[str, Any]:
    """The same, of a row that was read already.

    Args:
        folder: the experiment's.
        row: of the run table.
        events: of the run.
        attempts: those of the run's that are told.
        exclusion: why a person left it out of the results; None where nobody did.
    """
    return {
        "run_id": row.run_id,
        "position": row.position,
        "treatment": row.treatment,
        "repetition": row.repetition,
        "state": row.state.value,
        "exclusion": exclusion.model_dump(mode="json") if exclusion else None,
        "attempts": [_attempt(folder, row, attempt, events) for attempt in attempts],
        # Of the run itself, such as `retry`: beside its attempts.
        "events": _events([event for event in events if event.attempt_id is None]),
    }


def print_campaign_story(console: Console, document: dict[str, Any]) -> None:
    """For people."""
    if document["pause"] is not None:
        pause = Pause.model_validate(document["pause"])
        _line(console, f"The campaign is {pause.words}, since {pause.at:%Y-%m-%d %H:%M:%S} (UTC).")
    if not document["events"]:
        _line(console, "Nothing has happened to the campaign yet.")
    _print_events(console, document["events"], with_run=True, with_date=True)


def print_run_story(console: Console, document: dict[str, Any]) -> None:
    """For people."""
    treatment = ", ".join(f"{name}={level}" for name, level in document["treatment"].items())
    n_attempts = len(document["attempts"])
    told = f"{n_attempts} attempt{'' if n_attempts == 1 else 's'}" if n_attempts else "not tried yet"
    _line(console, f"{document['run_id']}: {document['state']}, {told} ({treatment})")
    if document["exclusion"] is not None:
        exclusion = Exclusion.model_validate(document["exclusion"])
        _line(console, f"Left out of the results: {exclusion.words}, at {exclusion.at:%Y-%m-%d %H:%M:%S} (UTC).")
    for attempt in document["attempts"]:
        console.print()
        _print_attempt(console, attempt)
    if document["events"]:
        console.print()
        _line(console, "Of the run:")
        _print_events(console, document["events"], with_date=True)


def _print_attempt(console: Console, attempt: dict[str, Any]) -> None:
    accepted = ", accepted" if attempt["accepted"] else ""
    took = f", {told_span(attempt['duration_s'])} from claim to end" if attempt["duration_s"] is not None else ""
    claimed = datetime.fromisoformat(attempt["claimed_at"]).strftime("%Y-%m-%d")
    head = f"Attempt {attempt['number']} {attempt['attempt_id']} on {attempt['testbed']}, {claimed} (UTC)"
    _line(console, f"{head}: {attempt['state']}{accepted}{took}")
    _print_events(console, attempt["events"])
    if attempt["phases"]:
        phases = ", ".join(f"{phase['phase']} {told_span(phase['duration_s'])}" for phase in attempt["phases"])
        _line(console, f"  phases by the testbed's clock: {phases}")
    if attempt["result"]:
        _line(console, f"  result: {attempt['result']}")
    for reason in attempt["reasons"]:
        _line(console, f"  doubted, {reason['code']}: {reason['message']}")
    if attempt["error"] is not None:
        _print_error(console, attempt["error"])
    if attempt["artifacts"]:
        _line(console, f"  files in {attempt['folder']}:")
        for artifact in attempt["artifacts"]:
            gone = "" if artifact["is_here"] else "  (not here)"
            _line(console, f"    {artifact['name']}  {artifact['size_bytes']} bytes  {artifact['sha256'][:12]}{gone}")


def _print_error(console: Console, error: dict[str, Any]) -> None:
    _line(console, f"  error {error['code']}{' (worth a retry)' if error['retryable'] else ''}: {error['message']}")
    facts = ", ".join(f"{name}={value}" for name, value in error["detail"].items() if name != "log_tail")
    if facts:
        _line(console, f"    {facts}")
    tail = error["detail"].get("log_tail")
    if isinstance(tail, list) and tail:
        _line(console, "    its last output:")
        for line in tail[-_TAIL_LINES:]:
            _line(console, f"    | {line}")


def _attempt(folder: Path, row: RunRow, attempt: AttemptRow, events: Sequence[EventRow]) -> dict[str, Any]:
    files = ArtifactFolder(folder).folder(row.run_id, attempt.attempt_id)
    end = attempt.finished_at
    result = attempt.result
    return {
        "attempt_id": attempt.attempt_id,
        "number": attempt.number,
        "state": attempt.state.value,
        "accepted": attempt.accepted,
        "testbed": attempt.testbed,
        "owner": attempt.owner,
        "claimed_at": attempt.claimed_at.isoformat(),
        "finished_at": end.isoformat() if end else None,
        "duration_s": (end - attempt.claimed_at).total_seconds() if end else None,
        "cooldown": attempt.cooldown.message if attempt.cooldown else None,
        "events": _events([event for event in events if event.attempt_id == attempt.attempt_id]),
        "phases": [phase.model_dump(mode="json") for phase in result.phases] if result else [],
        "result": describe_result(result) if result and result.state.has_result else None,
        "reasons": [reason.model_dump(mode="json") for reason in attempt.reasons],
        "error": attempt.error.model_dump(mode="json") if attempt.error else None,
        "folder": str(files),
        "artifacts": _artifacts(files, result),
    }


def _artifacts(files: Path, result: TrialResult | None) -> list[dict[str, Any]]:
    if result is None:
        return []
    return [
        {**artifact.model_dump(mode="json"), "is_here": (files / artifact.name).is_file()}
        for artifact in result.artifacts
    ]


def _events(events: Sequence[EventRow]) -> list[dict[str, Any]]:
    """With the seconds since the one before."""
    told = []
    before: datetime | None = None
    for event in events:
        told.append(
            {
                "at": event.at.isoformat(),
                "after_s": (event.at - before).total_seconds() if before else None,
                "run_id": event.run_id,
                "attempt_id": event.attempt_id,
                "state_before": event.state_before.value if event.state_before else None,
                "state_after": event.state_after.value if event.state_after else None,
                "message": event.message,
            }
        )
        before = event.at
    return told


def _print_events(
    console: Console, events: Sequence[dict[str, Any]], *, with_run: bool = False, with_date: bool = False
) -> None:
    for event in events:
        at = datetime.fromisoformat(event["at"]).strftime("%Y-%m-%d %H:%M:%S" if with_date else "%H:%M:%S")
        after = f"+{told_span(event['after_s'])}" if event["after_s"] is not None else ""
        has_changed = event["state_after"] is not None and event["state_after"] != event["state_before"]
        run = event["run_id"] if with_run else None
        parts = [run, event["state_after"] if has_changed else None, event["message"]]
        _line(console, f"  {at} {after:>13}  {': '.join(part for part in parts if part)}")


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
