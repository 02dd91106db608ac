"""Results of GreenLab's Experiment Runner: energies from the logs, factors from the run table.

The table's own energy column is never taken: EnergiBridge's summary, which it mostly holds, is CPU-only, drops an
interval, and is absent after a wrap. `python -m analysis audit` says how wrong it is.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from analysis.audit.run_audit import Energy, RunAudit, audit_runs
from analysis.experiment import Exclusion, Experiment, Reading, factor_column, runs_frame
from analysis.experiment_runner import (
    RunFolder,
    RunTableFile,
    find_run_folders,
    find_run_tables,
    number,
    read_run_table,
    run_number,
    run_order,
)
from contract.attempt_state import RunState
from contract.errors import UsageError
from contract.trial_result import EnergyMethod, Phase
from energy.energibridge_log import SOURCE

AFTER = "after"
"""Phase from the last prompt to the end of the log; JouleBed's own results have none."""

_WEAKEST_FIRST = (EnergyMethod.ESTIMATE, EnergyMethod.SAMPLED, EnergyMethod.COUNTER)
_WHOLE_LOG = "whole log: the prompts' times are not known, so loading and idling are in it"
_RUN_COLUMN = "run"


def load_experiment_runner(folder: Path, *, table: Path | None = None) -> Experiment:
    """Read a folder of Experiment Runner; nothing is written, and a broken run costs that run only.

    The measured phase is from the first prompt's start to the last one's end; what lies before is reported as
    loading. Where prompts' times were not kept, it is the whole log, and `energy_notes` says so.

    Args:
        folder: with run folders at any depth up to four, and a run table in it or one folder down.
        table: the run table; None: the first one that is found with factors in it.

    Raises:
        UsageError: there is no log, or the table is none.
    """
    file = read_run_table(table) if table is not None else _find_table(folder)
    if file is not None and not file.rows:
        raise UsageError(f"{file.path} has no rows: no runs were planned. Start Experiment Runner with its config.")
    folders = find_run_folders(folder)
    names = file.factors() if file is not None else (_RUN_COLUMN,)
    columns = {name: factor_column(name) for name in names}
    levels = _levels(file, columns)
    measured = dict(_by_name(folder, folders, audit_runs(folders, for_audit=False)))
    done = _done(file)
    order = list(dict.fromkeys(file.run_ids)) if file is not None else []
    order += sorted(measured.keys() - set(order), key=run_order)
    if file is None:
        levels = {run_id: {_RUN_COLUMN: _typed([run_number(run_id)])[0]} for run_id in order}
    n_rows = Counter(file.run_ids if file is not None else ())
    rows, excluded = [], []
    readings: list[Reading] = []
    for position, run_id in enumerate(order):
        row, why = _row(run_id, measured.get(run_id), done.get(run_id, ""), readings)
        if file is not None and run_id not in levels:
            row["counted"], why = False, why or f"it has no row in {file.path.name}"
        elif file is not None and n_rows[run_id] > 1:
            row["counted"], why = False, f"it has {n_rows[run_id]} rows in {file.path.name}"
        row |= {"position": position, **levels.get(run_id, {})}
        rows.append(row)
        if why:
            excluded.append(Exclusion(run_id, row["state"], why))
    return Experiment(
        name=folder.resolve().name,
        source=str(file.path if file is not None else folder),
        factors=tuple(columns.values()),
        runs=runs_frame(rows, list(columns.values())),
        excluded=tuple(excluded),
        facts={},
        design={},
        seed=None,
        software_version=None,
        kind="experiment_runner",
        folder=folder,
        readings=readings,
    )


def _find_table(folder: Path) -> RunTableFile | None:
    """The first table that tells factors; the first of all where none does."""
    files = [read_run_table(path) for path in find_run_tables(folder)]
    return next((file for file in files if file.factors()), files[0] if files else None)


def _by_name(folder: Path, folders: Sequence[RunFolder], runs: Iterable[RunAudit]) -> Iterator[tuple[str, RunAudit]]:
    """Runs by their name; of folders with one name, all but the first by their path."""
    seen: set[str] = set()
    for each, run in zip(folders, runs, strict=True):
        yield each.run_id if each.run_id not in seen else str(each.path.relative_to(folder)), run
        seen.add(each.run_id)


def _done(file: RunTableFile | None) -> dict[str, str]:
    if file is None or "__done" not in file.columns:
        return {}
    return {run_id: row["__done"] for run_id, row in zip(file.run_ids, file.rows, strict=True)}


def _levels(file: RunTableFile | None, columns: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Run -> factor column -> level."""
    if file is None:
        return {}
    typed = {column: _typed([row[name] for row in file.rows]) for name, column in columns.items()}
    return {
        run_id: {column: cells[index] for column, cells in typed.items()} for index, run_id in enumerate(file.run_ids)
    }


def _typed(cells: Sequence[str]) -> list[Any]:
    """Whole numbers or decimals where all cells are, and none would read otherwise afterwards: not `007` or `3.10`.

    `3` beside `3.1` stays text, as Experiment Runner itself reads it: it may be a version, and would turn into 3.0.
    """
    if all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", cell) for cell in cells):
        return [int(cell) for cell in cells]
    if all("." in cell and number(cell)[0] is not None and repr(float(cell)) == cell for cell in cells):
        return [float(cell) for cell in cells]
    if all(cell in ("True", "False") for cell in cells):
        return [cell == "True" for cell in cells]
    return [cell or None for cell in cells]


def _row(run_id: str, run: RunAudit | None, done: str, readings: list[Reading]) -> tuple[dict[str, Any], str | None]:
    """The row of a run, and why it is not counted; its energies by phase go to `readings`."""
    row: dict[str, Any] = {
        "run_id": run_id,
        "repetition": run_order(run_id)[1],
        "state": RunState.TODO.value,
        "counted": False,
        "n_attempts": 0,
        "reasons": "",
    }
    if run is None or run.log is None:
        return row, "not run yet" if done.upper() == "TODO" else "no log in this folder"
    row |= {"state": RunState.FAILED.value, "n_attempts": 1}
    if run.whole is None:
        return row, run.problem
    doubts = [text for text in run.warnings if text not in run.tolerated]
    # With a prompt sheet that the log does not cover, the whole log would be another quantity.
    energy = run.window or (run.whole if run.window_s is None else None)
    readings += _readings(run_id, run)
    row |= {
        "state": RunState.SUSPECT.value if doubts else RunState.DONE.value,
        "counted": not doubts,
        "attempt_id": run_id,
        "start_temp_c": run.start_temp_c,
        "n_requests": run.n_prompts,
        "n_output_tokens": run.n_response_tokens,
        "reasons": "; ".join(doubts),
        **(_energy(energy, run) if energy is not None else {}),
    }
    return row, f"suspect: {row['reasons']}" if doubts else None


def _energy(energy: Energy, run: RunAudit) -> dict[str, Any]:
    is_window = energy is run.window
    # Of the whole log, it would be diluted by loading and idling.
    tokens = run.n_response_tokens if is_window and energy.duration_s > 0 else None
    notes = [*run.tolerated, *([] if is_window else [_WHOLE_LOG])]
    return {
        "energy_j": energy.total_j,
        "cpu_energy_j": energy.cpu_j,
        "gpu_energy_j": energy.gpu_j,
        "dram_energy_j": energy.dram_j,
        "load_energy_j": run.before.total_j if run.before is not None else None,
        "uncertainty_j": energy.uncertainty_j,
        "energy_method": next(
            (method.value for method in _WEAKEST_FIRST if any(each.method is method for each in energy.added)), None
        ),
        "energy_source": SOURCE,
        "energy_domains": ", ".join(each.domain for each in energy.added),
        "energy_notes": "; ".join(notes),
        "n_gaps": sum(each.n_gaps for each in energy.added),
        "n_wraps": sum(each.n_wraps for each in energy.added),
        "duration_s": energy.duration_s,
        "tokens_per_s": None if tokens is None else tokens / energy.duration_s,
    }


def _readings(run_id: str, run: RunAudit) -> list[Reading]:
    if run.window is not None:
        stretches = [(Phase.LOAD.value, run.before), (Phase.MEASURE.value, run.window), (AFTER, run.after)]
    else:
        stretches = [(Phase.MEASURE.value, run.whole if run.window_s is None else None)]
    return [
        Reading(
            run_id=run_id,
            phase=phase,
            domain=each.domain,
            component=each.component,
            method=each.method.value,
            source=SOURCE,
            energy_j=each.energy_j,
            uncertainty_j=each.uncertainty_j,
            n_gaps=each.n_gaps,
            n_wraps=each.n_wraps,
            is_added=each in energy.added,
        )
        for phase, energy in stretches
        if energy is not None
        for each in energy.domains
    ]
