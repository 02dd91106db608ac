"""Tells how an experiment stands: counts, what runs, what failed and why, what is doubted and why."""

import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from contract.attempt_state import RunState
from orchestrator.campaign import CampaignOutcome, Ending
from orchestrator.store.base import RunReader, RunRow

_SHOWN = 10
_WORDS = {
    RunState.DONE: "done",
    RunState.SUSPECT: "suspect",
    RunState.FAILED: "failed",
    RunState.RUNNING: "running",
    RunState.TODO: "to do",
}


def status_document(folder: Path, reader: RunReader) -> dict[str, Any]:
    """The standing of an experiment as JSON."""
    rows = reader.runs()
    return {
        "folder": str(folder),
        "counts": {state.value: n for state, n in reader.counts().items()},
        "running": [_running(row) for row in rows if row.state is RunState.RUNNING],
        "failures": [_failure(row) for row in rows if row.state is RunState.FAILED],
        "retries": [_failure(row) for row in rows if row.state is RunState.TODO and row.attempts],
        "suspects": [_suspect(row) for row in rows if row.state is RunState.SUSPECT],
    }


def print_status(console: Console, document: dict[str, Any]) -> None:
    """The same for people."""
    _line(console, _counts({RunState(state): n for state, n in document["counts"].items()}))
    for attempt in document["running"]:
        _line(
            console,
            f"Running: {attempt['run_id']} as {attempt['attempt_id']} on {attempt['testbed']}, {attempt['state']} "
            f"since {attempt['since']}",
        )
    _list(console, "Failed", document["failures"])
    _list(console, "Failed so far, will be tried again", document["retries"])
    _list(console, "Suspect", document["suspects"])


def print_campaign_end(console: Console, folder: Path, reader: RunReader, outcome: CampaignOutcome) -> int:
    """Say how a campaign ended, where the results are, and what to do next.

    Returns:
        Exit code: 0 when all runs have a result, else 1.
    """
    if outcome.message:
        _line(console, outcome.message)
    counts = outcome.counts
    _line(console, _counts(counts))
    if counts[RunState.FAILED] or counts[RunState.SUSPECT]:
        document = status_document(folder, reader)
        _list(console, "Failed", document["failures"])
        _list(console, "Suspect", document["suspects"])
    n_left = counts[RunState.TODO] + counts[RunState.RUNNING]
    if n_left and outcome.ending is Ending.FINISHED:
        _line(console, "The runs that are left belong to another orchestrator that is at work on them.")
    elif n_left:
        _line(console, "Run the same command again to continue: runs that are done are never repeated.")
    _line(console, f"Results: {folder}")
    if counts[RunState.DONE] + counts[RunState.SUSPECT]:
        _line(console, f"Next: python -m analysis summary {shlex.quote(str(folder))}")
    return 1 if n_left or counts[RunState.FAILED] else 0


def _counts(counts: dict[RunState, int]) -> str:
    told = ", ".join(f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state])
    n_runs = sum(counts.values())
    return f"{n_runs} run{'' if n_runs == 1 else 's'}: {told or 'none'}"


def _running(row: RunRow) -> dict[str, Any]:
    last = row.attempts[-1]
    return {
        "run_id": row.run_id,
        "attempt_id": last.attempt_id,
        "testbed": last.testbed,
        "state": str(last.state),
        "since": last.updated_at.isoformat(timespec="seconds"),
    }


def _failure(row: RunRow) -> dict[str, Any]:
    last = row.attempts[-1]
    error = last.error
    return {
        "run_id": row.run_id,
        "n_attempts": len(row.attempts),
        "state": str(last.state),
        "code": error.code if error else "unknown",
        "reason": error.message if error else "no reason was recorded",
    }


def _suspect(row: RunRow) -> dict[str, Any]:
    result = row.attempts[-1].result
    reasons = result.reasons if result else []
    return {
        "run_id": row.run_id,
        "n_attempts": len(row.attempts),
        "state": str(row.attempts[-1].state),
        "code": ",".join(dict.fromkeys(reason.code for reason in reasons)) or "unknown",
        "reason": "; ".join(reason.message for reason in reasons) or "no reason was recorded",
    }


def _list(console: Console, title: str, rows: Iterable[dict[str, Any]]) -> None:
    """Group by reason: two hundred runs that failed alike are one line."""
    rows = list(rows)
    if not rows:
        return
    _line(console, f"{title}:")
    reasons = Counter(row["reason"] for row in rows)
    for reason, n_runs in reasons.most_common(_SHOWN):
        example = next(row["run_id"] for row in rows if row["reason"] == reason)
        others = f" and {n_runs - 1} more" if n_runs > 1 else ""
        _line(console, f"  {example}{others}: {reason}")
    if len(reasons) > _SHOWN:
        _line(console, f"  and {len(reasons) - _SHOWN} other reasons: see --json")


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
