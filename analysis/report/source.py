"""Everything a report is made of; what it says is computed from this alone."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from analysis.audit.audit import Audit, audit_folder
from analysis.detail import run_traces
from analysis.experiment import Experiment
from analysis.figures.power import Band, PowerTrace, power_of
from analysis.label_score import with_accuracy
from analysis.load import load_runs
from analysis.report.document import Caution
from analysis.run_table import read_run_table
from analysis.summary import Summary, summarise
from contract.errors import LogFormatError, UsageError

_RUN_TABLES = ("run_table_edited.csv", "run_table_raw.csv")
_DESCRIPTIVE = "RQ1.1/RQ1.1_Descriptive_Summary.csv"
_ARTIFACTS = "runs"
_RECORD = "record.json"
_MAX_TRIED = 20
"""Runs whose samples are looked for before the power over time is given up."""


@dataclass(frozen=True)
class Source:
    """What was read.

    Attributes:
        experiment: with NaN taken out.
        summary: of it; at least one counted run has an energy.
        audit: of the logs; None where the results are JouleBed's own.
        power: of one run; or why there is none.
        results: accepted results as documents; empty where none are kept.
        published: folder of published result tables that can be computed again; None where there is none.
        cautions: of reading.
    """

    experiment: Experiment
    summary: Summary
    audit: Audit | None = field(repr=False)
    power: PowerTrace | str
    results: tuple[dict[str, Any], ...] = field(repr=False)
    published: Path | None
    cautions: tuple[Caution, ...]


def read_source(
    path: Path, *, include_suspect: bool = False, on_run: Callable[[int, int], None] = lambda done, of: None
) -> Source:
    """Read an experiment, or a folder of Experiment Runner with its audit.

    Args:
        path: `results/EXPERIMENT`, or a folder with EnergiBridge logs.
        include_suspect: also count results that are doubted.
        on_run: called while logs are audited, with how many are done, and of how many.

    Raises:
        UsageError: there is nothing to report.
    """
    loaded, cautions = load_runs(path), []
    is_own = loaded.kind == "joulebed"
    folder = loaded.folder or path
    if not is_own:
        loaded = with_accuracy(loaded)
        cautions += [Caution("note", note) for note in loaded.notes]
    experiment, n_nan = without_nan(loaded)
    summary = summarise(experiment, include_suspect=include_suspect)
    if all(row.means["energy_j"].mean is None for row in summary.treatments):
        why = f" ({n_nan} are NaN)" if n_nan else ""
        raise UsageError(
            f"No counted run of {experiment.name} has an energy{why}: a report would be without its subject. "
            f"`python -m analysis summary` shows what there is."
        )
    if n_nan:
        cautions.append(Caution("wrong", f"{n_nan} figures are NaN, no number; they count as not measured."))
    audit = None if is_own else audit_folder(folder, on_run=on_run)
    if audit is not None:
        n_wrong = sum(any(cell.verdict == "wrong" for cell in column.cells) for column in audit.columns)
        # The audit tells the wrong columns first.
        cautions += [Caution("wrong" if i < n_wrong else "doubt", text) for i, text in enumerate(audit.findings)]
    return Source(
        experiment=experiment,
        summary=summary,
        audit=audit,
        power=_power(summary, audit),
        results=_results(path) if is_own else (),
        published=None if is_own else find_published(folder),
        cautions=tuple(cautions),
    )


def find_published(folder: Path) -> Path | None:
    """The folder of the public study's tables: the folder itself or one below it."""
    for each in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if all((each / name).is_file() for name in (*_RUN_TABLES, _DESCRIPTIVE)):
            return each
    return None


def without_nan(experiment: Experiment) -> tuple[Experiment, int]:
    """The experiment with None for NaN and infinity in measured columns, and how many there were."""
    import polars as pl

    runs = experiment.runs
    floats = [name for name, dtype in runs.schema.items() if dtype.is_float() and name not in experiment.factors]
    broken = {name: int((~runs[name].is_finite()).sum()) for name in floats}
    if not sum(broken.values()):
        return experiment, 0
    cleaned = runs.with_columns(
        pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name, n in broken.items() if n
    )
    return replace(experiment, runs=cleaned), sum(broken.values())


def _results(path: Path) -> tuple[dict[str, Any], ...]:
    """As they were stored: a version that knows other fields shows what it knows."""
    found = []
    for attempt in read_run_table(path).attempts:
        if attempt["accepted"]:
            try:
                document = json.loads(attempt["result"]) if isinstance(attempt["result"], str) else attempt["result"]
            except ValueError:
                continue  # its run is among the excluded ones, with this reason
            if isinstance(document, dict):
                found.append(document)
    return tuple(found)


def _power(summary: Summary, audit: Audit | None) -> PowerTrace | str:
    """Of the counted run with the median energy, or the nearest one with samples: neither the best nor the worst."""
    runs = [run for row in summary.treatments for run in row.runs if run["energy_j"] is not None]
    runs.sort(key=lambda run: (run["energy_j"], run["run_id"]))
    middle = len(runs) // 2
    nearest = sorted(range(len(runs)), key=lambda i: abs(i - middle))
    problem = "no run has its samples here."
    for run in [runs[i] for i in nearest[:_MAX_TRIED]]:
        run_id = str(run["run_id"])
        try:
            traces = run_traces(summary.experiment, run_id)
            first_s = min((float(each.time_s[0]) for each in traces if each.time_s.size), default=0.0)
            last_s = max((float(each.time_s[-1]) for each in traces if each.time_s.size), default=0.0)
            if audit is not None:
                bands = _audited_bands(run_id, audit, first_s, last_s)
            else:
                bands = phase_bands(run, summary.experiment.folder)
            return power_of(run_id, traces, bands)
        except (LogFormatError, UsageError) as error:
            problem = error.message
    return f"Power over time: {problem}"


def _audited_bands(run_id: str, audit: Audit, first_s: float, last_s: float) -> list[Band]:
    window_s = next((each.window_s for each in audit.runs if each.run_id == run_id), None)
    if window_s is None:
        return [Band("whole log", first_s, last_s)]
    start_s, end_s = window_s
    return [
        Band("before the prompts (load, idle)", first_s, start_s),
        Band("prompts", start_s, end_s),
        Band("after the prompts", end_s, last_s),
    ]


def phase_bands(run: Mapping[str, Any], folder: Path | None) -> list[Band]:
    """Phases of a trial on the traces' clock; none where its record cannot be read: the power is worth drawing.

    Args:
        run: row of `Experiment.runs` with a result.
        folder: of the experiment's files.
    """
    if folder is None:
        return []
    path = folder / _ARTIFACTS / str(run["run_id"]) / str(run["attempt_id"]) / _RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    origin_s = _number(record.get("origin_s")) if isinstance(record, dict) else None
    bands = []
    for each in record.get("phases") or [] if origin_s is not None else []:
        start_s, duration_s = _number(each.get("start_s")), _number(each.get("duration_s"))
        if origin_s is not None and start_s is not None and duration_s is not None:
            bands.append(Band(str(each.get("phase")), origin_s + start_s, origin_s + start_s + duration_s))
    return bands


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
