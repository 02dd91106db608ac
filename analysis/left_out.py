"""Runs that a person left out of the results, with the reason: `orchestrator exclude` writes them down."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from analysis.experiment import Exclusion

PREFIX = "excluded/"
"""Beginning of the facts' keys; the rest is the run's id."""


def leave_out(
    facts: Mapping[str, JsonValue],
    rows: Sequence[dict[str, Any]],
    devices: Sequence[dict[str, Any]],
    excluded: Sequence[Exclusion],
) -> list[Exclusion]:
    """Count the runs no more that a person left out; what was measured stays in their rows.

    Args:
        facts: of the campaign.
        rows: one per planned run; `counted` is changed.
        devices: rows of single devices; the same.
        excluded: what is not counted for other reasons.

    Returns:
        All that is not counted, in the order of the rows.
    """
    decided = {key.removeprefix(PREFIX): _words(value) for key, value in facts.items() if key.startswith(PREFIX)}
    if not decided:
        return list(excluded)
    for row in (*rows, *devices):
        if row["run_id"] in decided:
            row["counted"] = False
    other = {each.run_id: each for each in excluded}
    found = []
    for row in rows:
        known = other.get(row["run_id"])
        if row["run_id"] in decided:
            besides = f"; besides, {known.why}" if known else ""
            why = decided[row["run_id"]] + besides
            found.append(Exclusion(row["run_id"], row["state"], why, is_decided=True))
        elif known is not None:
            found.append(known)
    return found


def _words(value: JsonValue) -> str:
    if not isinstance(value, dict):
        return "excluded by hand, for a reason that cannot be read"
    day = str(value.get("at") or "")[:10]
    return f"excluded by {value.get('by')}{f' on {day}' if day else ''}: {value.get('reason')}"
