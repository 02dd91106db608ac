"""Puts a run table together again: from what the broken one still gives, the journal, and the files under `runs/`.

Pure, apart from where its arguments come from. The plan says which runs there are; everything else is evidence.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter

from contract.attempt_state import AttemptState, RunState
from contract.errors import ArtifactCorruptError, ErrorBody
from contract.trial_result import TrialResult
from contract.units import Identifier
from orchestrator.attempt_journal import EndedAttempt
from orchestrator.store.base import Plan
from orchestrator.store.salvage import Row, Salvaged, from_json
from orchestrator.store.standing import standing
from orchestrator.stored_files import StoredAttempt

_NUMBER = re.compile(r"-a(\d+)-[0-9a-f]+$")
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)
_OWNER = "orchestrator repair"


@dataclass
class Rebuilt:
    """Rows of the new run table, and what there is to say about them.

    Attributes:
        runs: position -> state and `reopened_after`, in the plan's order.
        attempts: rows as the schema has them.
        events: the same, without ids.
        facts: key -> value.
        n_salvaged: attempts that the broken table gave.
        n_from_files: attempts that only the journal or their folder knew.
        refused: attempt id -> why it is not accepted any more.
        notes: what was left out, in words.
    """

    runs: list[Row] = field(default_factory=list)
    attempts: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    n_salvaged: int = 0
    n_from_files: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def rebuild(
    plan: Plan,
    specs: Mapping[str, str],
    salvaged: Salvaged,
    journal: Mapping[str, EndedAttempt],
    stored: Iterable[StoredAttempt],
    *,
    now: datetime,
) -> Rebuilt:
    """The run table that the evidence tells.

    A run has at most one accepted attempt: the one that was, or else the oldest SUCCEEDED one; in both cases only
    with files that verify. A result without them counts as a failure that may be tried again.

    Args:
        plan: which runs there are.
        specs: run id -> identity of its spec.
        salvaged: from the broken table.
        journal: ends of attempts.
        stored: attempts with files.
        now: aware UTC.
    """
    table = Rebuilt(notes=list(salvaged.notes))
    files = {each.attempt_id: each for each in stored}
    known = _salvaged_attempts(salvaged, table)
    table.n_salvaged = len(known)
    by_run: dict[str, list[Row]] = defaultdict(list)
    for attempt_id in sorted(known.keys() | journal.keys() | files.keys()):
        row = _attempt(attempt_id, known.get(attempt_id), journal.get(attempt_id), files.get(attempt_id), now)
        if row["run_id"] not in specs:
            table.notes.append(f"attempt {attempt_id} is of {row['run_id']}, which is no run of this plan: left out")
            continue
        by_run[row["run_id"]].append(row)
        table.n_from_files += attempt_id not in known
        fault = _fault(row, files.get(attempt_id), specs[row["run_id"]])
        if row["state"].has_result and fault:
            _refuse(table, row, fault)
    for rows in by_run.values():
        _number(rows)
        _settle(rows, now)
    reopened = {str(row.get("run_id")): row.get("reopened_after") for row in salvaged.rows("run")}
    for run in plan.runs:
        rows = by_run.get(run.run_id, [])
        after = reopened.get(run.run_id)
        reopened_after = after if isinstance(after, int) else 0
        state = _standing(rows, plan.max_attempts, reopened_after)
        table.runs.append({"position": run.position, "state": state, "reopened_after": reopened_after})
        table.attempts += rows
    table.facts = {row["key"]: from_json(row["value"]) for row in salvaged.rows("fact") if isinstance(row["key"], str)}
    _tell(table, salvaged, now)
    return table


def _salvaged_attempts(salvaged: Salvaged, table: Rebuilt) -> dict[str, Row]:
    """Attempt id -> its row with Python's types; rows that make no sense are left out."""
    known: dict[str, Row] = {}
    n_senseless = 0
    for row in salvaged.rows("attempt"):
        try:
            typed = _typed(row)
        except (ValueError, TypeError, KeyError):  # pydantic's errors are ValueErrors
            n_senseless += 1
            continue
        known[typed["attempt_id"]] = typed
    if n_senseless:
        table.notes.append(f"table attempt: {n_senseless} rows make no sense and are left out")
    return known


def _typed(row: Row) -> Row:
    result = from_json(row.get("result"))
    error = from_json(row.get("error"))
    finished_at = row.get("finished_at")
    if not isinstance(row["number"], int) or (finished_at is not None) is not AttemptState(row["state"]).is_final:
        raise ValueError("not a row of ours")
    return {
        "attempt_id": _IDENTIFIER.validate_python(row["attempt_id"]),
        "run_id": _IDENTIFIER.validate_python(row["run_id"]),
        "number": row["number"],
        "state": AttemptState(row["state"]),
        "accepted": bool(row["accepted"]),
        "testbed": str(row["testbed"]),
        "owner": str(row["owner"]),
        "lease_until": _moment(row.get("lease_until")),
        "claimed_at": _moment(row["claimed_at"]) or datetime.fromtimestamp(0, UTC),
        "updated_at": _moment(row["updated_at"]) or datetime.fromtimestamp(0, UTC),
        "finished_at": _moment(finished_at),
        "error": ErrorBody.model_validate(error).model_dump(mode="json") if error else None,
        "result": TrialResult.model_validate(result).model_dump(mode="json") if result else None,
        "cooldown": from_json(row.get("cooldown")),
        "reasons": from_json(row.get("reasons")),
    }


def _moment(text: Any) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _attempt(
    attempt_id: str, known: Row | None, ended: EndedAttempt | None, stored: StoredAttempt | None, now: datetime
) -> Row:
    """One attempt's row from all that is known of it."""
    result = stored.result if stored else None
    if known is not None and (known["finished_at"] is not None or ended is None):
        # An open one stays open, whatever is in its folder: the next campaign takes it up and judges it.
        # What ended as its files say had them as its result, a failure too: the page with it is lost.
        is_its = result is not None and (known["state"].has_result or known["state"] is result.state)
        if known["result"] is None and result is not None and is_its:
            return {**known, "result": result.model_dump(mode="json")}
        return known
    if ended is not None:
        since = known["claimed_at"] if known else result.started_at if result else ended.finished_at
        return {
            "attempt_id": attempt_id,
            "run_id": ended.run_id,
            "number": ended.number,
            "state": ended.state,
            "accepted": ended.accepted,
            "testbed": ended.testbed,
            "owner": known["owner"] if known else _OWNER,
            "lease_until": None,
            "claimed_at": since,
            "updated_at": ended.finished_at,
            "finished_at": ended.finished_at,
            "error": ended.error.model_dump(mode="json") if ended.error else None,
            "result": result.model_dump(mode="json") if result else None,
            "cooldown": asdict(ended.cooldown) if ended.cooldown else None,
            "reasons": [reason.model_dump(mode="json") for reason in ended.reasons],
        }
    assert stored is not None  # it is known from somewhere
    if result is None:
        # Its files began to arrive: the testbed is asked for it again.
        return _open(attempt_id, stored.run_id, now)
    number = _NUMBER.search(attempt_id)
    return {
        "attempt_id": attempt_id,
        "run_id": stored.run_id,
        "number": int(number[1]) if number else 0,
        "state": result.state,
        "accepted": False,
        "testbed": result.node.hostname,
        "owner": _OWNER,
        "lease_until": None,
        "claimed_at": result.started_at,
        "updated_at": result.finished_at,
        "finished_at": result.finished_at,
        "error": result.error.model_dump(mode="json") if result.error else None,
        "result": result.model_dump(mode="json"),
        "cooldown": None,
        "reasons": [reason.model_dump(mode="json") for reason in result.reasons],
    }


def _open(attempt_id: str, run_id: str, now: datetime) -> Row:
    number = _NUMBER.search(attempt_id)
    return {
        "attempt_id": attempt_id,
        "run_id": run_id,
        "number": int(number[1]) if number else 0,
        "state": AttemptState.SUBMITTED,
        "accepted": False,
        "testbed": "unknown",
        "owner": _OWNER,
        "lease_until": now - timedelta(seconds=1),
        "claimed_at": now,
        "updated_at": now,
        "finished_at": None,
        "error": None,
        "result": None,
        "cooldown": None,
        "reasons": None,
    }


def _fault(row: Row, stored: StoredAttempt | None, spec_sha256: str) -> str:
    """Why an attempt's result has no evidence; empty: it has."""
    if stored is None:
        return "it has no files under runs/"
    if stored.fault or stored.result is None:
        return stored.fault
    if stored.result.spec_sha256 != spec_sha256:
        return "it was measured with another spec than the plan has"
    return ""


def _refuse(table: Rebuilt, row: Row, fault: str) -> None:
    table.refused[row["attempt_id"]] = fault
    error = ArtifactCorruptError(
        f"The run table was rebuilt, and this result has no evidence: {fault}. The run is measured again."
    )
    row |= {
        "state": AttemptState.FAILED,
        "accepted": False,
        "error": error.body().model_dump(mode="json"),
        "result": None,
    }


def _number(rows: list[Row]) -> None:
    """Put a run's attempts in order; numbers that are not known, or taken, become the next free ones."""
    rows.sort(key=lambda row: (row["number"] <= 0, row["number"], row["claimed_at"]))
    last = 0
    for row in rows:
        row["number"] = last = max(row["number"], last + 1)


def _settle(rows: list[Row], now: datetime) -> None:
    """One accepted attempt at most, and one open one, of a run that has no accepted one."""
    succeeded = [row for row in rows if row["state"] is AttemptState.SUCCEEDED]
    chosen = min(succeeded, key=lambda row: (not row["accepted"], row["number"]), default=None)
    for row in rows:
        row["accepted"] = row is chosen
    is_open = [row for row in rows if row["finished_at"] is None]
    for row in is_open if chosen is not None else is_open[:-1]:
        row |= {"state": AttemptState.LOST, "lease_until": None, "updated_at": now, "finished_at": now}


def _standing(rows: list[Row], max_attempts: int, reopened_after: int) -> RunState:
    attempts = [SimpleNamespace(**row) for row in rows]
    return standing(attempts, max_attempts=max_attempts, reopened_after=reopened_after)


def _tell(table: Rebuilt, salvaged: Salvaged, now: datetime) -> None:
    """The story: what can be read of the old one, the ends that it lacks, and what happened now."""
    ended = set()
    for row in salvaged.rows("event"):
        try:
            event = _typed_event(row)
        except (ValueError, TypeError, KeyError):
            continue
        table.events.append(event)
        if event["state_after"] is not None and event["state_after"].is_final:
            ended.add(event["attempt_id"])
    for row in sorted(table.attempts, key=lambda row: (row["updated_at"], row["number"])):
        fault = table.refused.get(row["attempt_id"])
        if fault or (row["finished_at"] is not None and row["attempt_id"] not in ended):
            message = f"not accepted by `orchestrator repair`: {fault}" if fault else "told by its files"
            at = now if fault else row["finished_at"]
            table.events.append(_event(at, row["attempt_id"], row["run_id"], row["state"], message))
    told = f"the run table was rebuilt by `orchestrator repair`: {table.n_salvaged} attempts were read from the old "
    told += f"one, {table.n_from_files} from files, {len(table.refused)} were refused"
    table.events.append(_event(now, None, None, None, told))


def _typed_event(row: Row) -> Row:
    before, after = row.get("state_before"), row.get("state_after")
    return {
        "at": datetime.fromisoformat(row["at"]),
        "attempt_id": None if row["attempt_id"] is None else _IDENTIFIER.validate_python(row["attempt_id"]),
        "run_id": None if row["run_id"] is None else _IDENTIFIER.validate_python(row["run_id"]),
        "state_before": None if before is None else AttemptState(before),
        "state_after": None if after is None else AttemptState(after),
        "message": str(row["message"]),
    }


def _event(at: datetime, attempt_id: str | None, run_id: str | None, state: AttemptState | None, message: str) -> Row:
    return {
        "at": at,
        "attempt_id": attempt_id,
        "run_id": run_id,
        "state_before": None,
        "state_after": state,
        "message": message,
    }
