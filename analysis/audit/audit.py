"""The whole audit of a results folder: runs, tables, repetitions, temperatures, and the findings in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from analysis.audit.repetition_check import RepetitionCheck, check_repetitions
from analysis.audit.run_audit import RunAudit, audit_runs
from analysis.audit.table_check import ColumnCheck, check_tables
from analysis.audit.thermal_check import ThermalCheck, check_temperatures
from analysis.experiment_runner import RunTableFile, find_run_folders, find_run_tables, read_run_table
from contract.errors import UsageError

_OVERLAP_S = 1.0
_LOAD_SHARE = 0.01
_FEW = 3


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        folder: that was audited.
        runs: one per run folder, in the order of their numbers.
        treatments: run id -> factor -> level, of all rows of the run table.
        columns: one per energy or duration column of each table.
        repetitions: outputs compared.
        thermal: temperatures compared.
        findings: in words, the gravest first.
    """

    folder: Path
    runs: tuple[RunAudit, ...]
    treatments: dict[str, dict[str, str]]
    columns: tuple[ColumnCheck, ...]
    repetitions: RepetitionCheck
    thermal: ThermalCheck
    findings: tuple[str, ...]


def audit_folder(
    folder: Path, *, tables: Sequence[Path] = (), on_run: Callable[[int, int], None] = lambda done, of: None
) -> Audit:
    """Audit a results folder of Experiment Runner, or any folder with EnergiBridge logs.

    Args:
        folder: with run folders at any depth up to four; run tables in it or one folder down are checked too.
        tables: further run tables.
        on_run: called after each run with how many are done, and of how many.

    Raises:
        UsageError: no folder, no log in it, or a table that was named is none.
    """
    folders = find_run_folders(folder)
    files = [read_run_table(path) for path in (*find_run_tables(folder), *tables)]
    runs: dict[str, RunAudit] = {}
    for number, (each, run) in enumerate(zip(folders, audit_runs(folders), strict=True), start=1):
        name = each.run_id if each.run_id not in runs else str(each.path.relative_to(folder))
        runs[name] = run
        on_run(number, len(folders))
    if all(run.whole is None for run in runs.values()):
        first = next(iter(runs.values()))
        raise UsageError(f"None of {len(runs)} runs has a log that can be read. The first: {first.problem}")
    levels = _levels(files)
    names = {run_id: " / ".join(each.values()) for run_id, each in levels.items() if each}
    columns = check_tables(files, runs)
    repetitions = check_repetitions(list(runs.values()), names)
    order = next((file.run_ids for file in files if file.factors()), ())
    thermal = check_temperatures(runs, order, levels)
    findings = [
        *_table_findings(columns),
        *_run_findings(list(runs.values())),
        *repetitions.sentences(),
        *thermal.sentences(),
    ]
    return Audit(folder, tuple(runs.values()), levels, tuple(columns), repetitions, thermal, tuple(findings))


def to_json(audit: Audit) -> dict[str, Any]:
    """The audit as a document: every run, every checked figure."""
    return {
        "folder": str(audit.folder),
        "findings": list(audit.findings),
        "runs": [_run_document(run, audit.treatments.get(run.run_id, {})) for run in audit.runs],
        "tables": [
            {
                "file": str(column.table),
                "column": column.column,
                "quantity": column.quantity,
                "sentence": column.sentence(),
                "n_rows": len(column.cells),
                "n_checked": sum(cell.verdict != "unchecked" for cell in column.cells),
                "n_wrong": sum(cell.verdict == "wrong" for cell in column.cells),
                "rows": [asdict(cell) for cell in column.cells if cell.verdict != "unchecked"],
            }
            for column in audit.columns
        ],
        "repetitions": {
            "n_cross_midnight": audit.repetitions.n_cross_midnight,
            "treatments": [
                asdict(each)
                | {
                    "is_identical": each.is_identical,
                    "has_identical": each.has_identical,
                    "follows_date": each.follows_date,
                }
                for each in audit.repetitions.treatments
            ],
        },
        "thermal": asdict(audit.thermal),
    }


def _run_document(run: RunAudit, treatment: Mapping[str, str]) -> dict[str, Any]:
    document = asdict(run)
    for name in ("raw", "gpu_200ms_j"):
        del document[name]
    return {"run_id": run.run_id, "treatment": dict(treatment), **document, "log": str(run.log) if run.log else None}


def _levels(files: Sequence[RunTableFile]) -> dict[str, dict[str, str]]:
    """Factor levels of each run, from the first table that tells them."""
    for file in files:
        factors = file.factors()
        if factors:
            return {
                run_id: {name: row[name] for name in factors}
                for run_id, row in zip(file.run_ids, file.rows, strict=True)
            }
    return {}


def _table_findings(columns: Sequence[ColumnCheck]) -> list[str]:
    return [
        f"{column.table.name}, {column.column}: {column.sentence()}"
        for column in columns
        if any(cell.verdict == "wrong" for cell in column.cells)
    ]


def _run_findings(runs: Sequence[RunAudit]) -> list[str]:
    words = []
    broken = [run for run in runs if run.problem]
    if broken:
        words.append(f"{len(broken)} runs have no figures, such as {broken[0].run_id}: {broken[0].problem}")
    words += _twin_findings(runs)
    words += _overlap_findings(runs)
    wrapped = [run for run in runs if run.n_wraps]
    if wrapped:
        names = _listed([run.run_id for run in wrapped])
        words.append(f"The counter wrapped in {len(wrapped)} of {len(runs)} runs ({names}); here it is unwound.")
    words += _scope_findings(runs)
    gaps = [run for run in runs if run.n_gaps]
    if gaps:
        words.append(
            f"{len(gaps)} runs have gaps of more than three periods between samples, such as {gaps[0].run_id}."
        )
    notes: dict[str, list[str]] = {}
    for run in runs:
        for text in run.warnings:
            notes.setdefault(text, []).append(run.run_id)
    for text, of in list(notes.items())[:10]:
        words.append(f"{of[0]}{f' and {len(of) - 1} more' if len(of) > 1 else ''}: {text}.")
    if len(notes) > 10:
        words.append(f"{len(notes) - 10} more warnings are in --json.")
    return words


def _twin_findings(runs: Sequence[RunAudit]) -> list[str]:
    """Logs that are in several folders."""
    by_log: dict[str, list[str]] = {}
    for run in runs:
        if run.log_sha256 is not None:
            by_log.setdefault(run.log_sha256, []).append(run.run_id)
    twins = [names for names in by_log.values() if len(names) > 1]
    if not twins:
        return []
    n_runs = sum(len(names) for names in twins)
    return [
        f"Stale file: {n_runs} runs share {len(twins)} log{'s' if len(twins) > 1 else ''}, byte for byte, "
        f"such as {_listed(twins[0])}."
    ]


def _overlap_findings(runs: Sequence[RunAudit]) -> list[str]:
    """Runs that were measured at the same time; copies of one log are told elsewhere."""
    by_time = sorted((run for run in runs if run.whole), key=lambda run: run.started_unix_s or 0.0)
    overlaps = []
    for first, second in pairwise(by_time):
        if first.whole is None or first.started_unix_s is None or second.started_unix_s is None:
            continue
        overlap_s = first.started_unix_s + first.whole.duration_s - second.started_unix_s
        if overlap_s > _OVERLAP_S and first.log_sha256 != second.log_sha256:
            overlaps.append(f"{first.run_id} and {second.run_id} by {overlap_s:.0f} s")
    if not overlaps:
        return []
    return [f"Runs overlap in time, each measured the other too: {_listed(overlaps)}."]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")


def _scope_findings(runs: Sequence[RunAudit]) -> list[str]:
    """What a whole log holds besides the prompts, and how well the stamps tell where they begin."""
    shares = []
    edges_j = []
    for run in runs:
        whole, before, after = run.whole, run.before, run.after
        if whole is None or before is None or after is None or not whole.total_j:
            continue
        if before.total_j is not None and after.total_j is not None:
            shares.append((before.total_j + after.total_j) / whole.total_j)
        if run.stamp_resolution_s and run.window is not None and run.window.total_j and run.window.duration_s:
            edges_j.append(run.stamp_resolution_s / run.window.duration_s)
    words = []
    if shares and max(shares) > _LOAD_SHARE:
        words.append(
            f"{min(shares):.0%} to {max(shares):.0%} of a log's energy is before the first prompt (model load) or "
            f"after the last: figures of whole logs hold it."
        )
    coarse = [run for run in runs if run.stamp_resolution_s and run.stamp_resolution_s >= 1]
    if coarse and edges_j:
        words.append(
            f"Prompts are stamped in whole seconds: each end of the window is uncertain by up to 1 s, up to "
            f"{max(edges_j):.1%} of a window's length each."
        )
    return words
