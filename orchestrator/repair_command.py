"""`orchestrator repair`: what it says of a repair."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from contract.attempt_state import RunState
from orchestrator.config_loader import load_config
from orchestrator.design import expand
from orchestrator.experiment_folder import find_experiment
from orchestrator.repair import repair


def repair_command(where: Path, results: Path | None, *, only_look: bool) -> dict[str, Any]:
    """Mend the run table of an experiment, if it needs it.

    Args:
        where: the experiment's folder, or its configuration, which has the plan where that is lost.
        results: in place of the configuration's `results_output_path`.
        only_look: change nothing.

    Returns:
        What was found and done, as JSON.

    Raises:
        UsageError: see `orchestrator.repair.repair`.
    """
    folder = find_experiment(where, results)
    planned = expand(*load_config(where)) if where.suffix == ".py" else None
    mended = repair(folder, planned, only_look=only_look, now=datetime.now(UTC))
    document: dict[str, Any] = {
        "folder": str(folder),
        "sound": not mended.faults,
        "faults": list(mended.faults),
        "repaired": bool(mended.faults) and not only_look,
        "aside": str(mended.aside) if mended.aside else None,
    }
    table = mended.table
    if table is not None:
        counts = Counter(row["state"] for row in table.runs)
        document |= {
            "runs": {state.value: counts[state] for state in RunState},
            "attempts": len(table.attempts),
            "attempts_from_table": table.n_salvaged,
            "attempts_from_files": table.n_from_files,
            "accepted": sum(row["accepted"] for row in table.attempts),
            "refused": table.refused,
            "notes": table.notes,
        }
    return document


def print_repair(console: Console, document: dict[str, Any]) -> None:
    """For people."""
    if document["sound"]:
        console.print(f"The run table in {escape(document['folder'])} is sound: nothing was done.", highlight=False)
        return
    console.print("[bold]Wrong with the run table[/]")
    for fault in document["faults"]:
        console.print(f"  {escape(fault)}", highlight=False)
    done = document["repaired"]
    counts = ", ".join(f"{n} {state}" for state, n in document["runs"].items() if n)
    console.print("[bold]Rebuilt[/]" if done else "[bold]A repair would give[/]")
    console.print(f"  runs: {counts}", highlight=False)
    console.print(
        f"  attempts: {document['attempts_from_table']} from the old table, {document['attempts_from_files']} from "
        f"files; {document['accepted']} accepted",
        highlight=False,
    )
    for attempt_id, fault in document["refused"].items():
        console.print(f"  [yellow]not accepted[/]: {attempt_id}: {escape(fault)}", highlight=False)
    for note in document["notes"]:
        console.print(f"  {escape(note)}", highlight=False)
    if document["aside"]:
        console.print(f"The broken files are in {escape(document['aside'])}.", highlight=False)
    where = escape(document["folder"])
    console.print(
        "Go on with the same `orchestrator run` command as before: it runs only what is missing."
        if done
        else f"Nothing was changed. Mend it with: orchestrator repair {where}",
        highlight=False,
    )
