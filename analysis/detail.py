"""What one run left beside its row: samples, conditions, requests and answers. Read when asked for, never before."""

import csv
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.columns import GAUGE_COLUMNS, REQUEST_COLUMNS, TRACE_COLUMNS, Column, polars_schema
from analysis.experiment import Experiment
from analysis.experiment_runner import RunFolder, find_run_folders, read_prompt_sheet
from contract.errors import JouleBedError, LogFormatError, UsageError
from contract.trial_result import EnergyMethod
from energy.energibridge_log import read_energibridge_log
from energy.integrate import CumulativeEnergy
from energy.trace import Gauge, Trace
from energy.trace_log import read_gauges, read_traces

if TYPE_CHECKING:
    import polars as pl

_RUNS = "runs"
_ENERGIBRIDGE = "energibridge.csv"
_RECORD = "record.json"
_REQUESTS = "requests.jsonl"
_REQUEST_ENERGY = "request_energy.csv"
_THERE_SOMETIMES = ("device", "exit_layer", "entropy_nats")


def traces(experiment: Experiment, run_id: str) -> "pl.DataFrame":
    """Power over time: one row per sampling interval and domain, in the columns of `TRACE_COLUMNS`.

    Args:
        experiment: from `load_runs`.
        run_id: with a result.

    Raises:
        UsageError: no such run, it has no result, or its samples are not here.
        LogFormatError: they cannot be read.
    """
    return _frame(TRACE_COLUMNS, _trace_columns(run_traces(experiment, run_id)))


def run_traces(experiment: Experiment, run_id: str) -> list[Trace]:
    """The same as raw samples, all on one clock, for `energy.integrate`.

    Raises:
        UsageError: as `traces`.
        LogFormatError: as `traces`.
    """
    found, _ = run_samples(experiment, run_id)
    if not found:
        raise UsageError(
            f"{run_id} has left no samples. They are in the testbed's files of the run, where it kept any."
        )
    return found


def gauges(experiment: Experiment, run_id: str) -> "pl.DataFrame":
    """Temperatures, clocks and other conditions over time, in the columns of `GAUGE_COLUMNS`; maybe no row.

    Args:
        experiment: from `load_runs`.
        run_id: with a result.

    Raises:
        UsageError: as `traces`.
        LogFormatError: as `traces`.
    """
    samples, found = run_samples(experiment, run_id)
    zero_s = _zero_s(samples, found)
    columns: dict[str, list[Any]] = {name: [] for name in GAUGE_COLUMNS}
    for each in found:
        for name, value in (("domain", each.domain), ("quantity", each.quantity), ("source", each.source)):
            columns[name] += [value] * each.time_s.size
        columns["time_s"] += (each.time_s - zero_s).tolist()
        columns["value"] += each.values.tolist()
    return _frame(GAUGE_COLUMNS, columns)


def requests(experiment: Experiment, run_id: str) -> "pl.DataFrame":
    """Requests of the measured phase with their answers, one row each, in the columns of `REQUEST_COLUMNS`.

    Args:
        experiment: from `load_runs`.
        run_id: with a result.

    Raises:
        UsageError: no such run, it has no result, or its requests were not kept here.
        LogFormatError: they cannot be read.
    """
    if experiment.kind == "experiment_runner":
        rows = _sheet_rows(run_id, _run_folder(experiment, run_id))
    else:
        rows = _request_rows(run_id, _attempt_folder(experiment, run_id))
    frame = _frame(REQUEST_COLUMNS, {name: [row.get(name) for row in rows] for name in REQUEST_COLUMNS})
    return frame.drop([name for name in _THERE_SOMETIMES if all(row.get(name) is None for row in rows)])


def all_requests(experiment: Experiment) -> "Iterator[tuple[str, pl.DataFrame | JouleBedError]]":
    """The requests of each run with a result, one run at a time, each with what came of it.

    Args:
        experiment: from `load_runs`.
    """
    for run_id in experiment.runs.filter(experiment.runs["attempt_id"].is_not_null())["run_id"]:
        try:
            yield run_id, requests(experiment, run_id)
        except JouleBedError as error:
            yield run_id, error


def _frame(columns: dict[str, Column], data: dict[str, Any]) -> "pl.DataFrame":
    import polars as pl

    return pl.DataFrame(data, schema=polars_schema(columns))


def _trace_columns(found: Sequence[Trace]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in TRACE_COLUMNS}
    zero_s = _zero_s(found, ())
    for trace in found:
        time_s = np.unique(trace.time_s)
        spans_s = np.diff(time_s)
        energy_j = np.diff(CumulativeEnergy(trace).at_times(time_s))
        same = {
            "domain": trace.domain,
            "component": trace.component,
            "method": trace.method.value,
            "source": trace.source,
            "is_headline": trace.is_headline,
        }
        for name, value in same.items():
            columns[name] += [value] * spans_s.size
        columns["time_s"] += (time_s[:-1] - zero_s).tolist()
        columns["duration_s"] += spans_s.tolist()
        columns["power_w"] += (energy_j / spans_s).tolist()
        columns["energy_j"] += energy_j.tolist()
    return columns


def _zero_s(samples: Sequence[Trace], conditions: Sequence[Gauge]) -> float:
    firsts = [float(each.time_s[0]) for each in samples if each.time_s.size]
    return min(firsts or [float(each.time_s[0]) for each in conditions if each.time_s.size] or [0.0])


def run_samples(experiment: Experiment, run_id: str) -> tuple[list[Trace], list[Gauge]]:
    """Everything that was sampled, on one clock: power and energy, and the conditions beside them.

    Raises:
        UsageError: as `traces`; but no samples are two empty lists.
        LogFormatError: as `traces`.
    """
    if experiment.kind == "experiment_runner":
        run = _run_folder(experiment, run_id)
        if run.log is None:
            raise UsageError(f"{run.path} holds no EnergiBridge log.")
        log = read_energibridge_log(run.log)
        return list(log.traces), list(log.gauges)
    folder = _attempt_folder(experiment, run_id)
    found = [trace for path in sorted(folder.glob("trace_*.csv")) for trace in read_traces(path)]
    conditions = [gauge for path in sorted(folder.glob("gauges_*.csv")) for gauge in read_gauges(path)]
    if (folder / _ENERGIBRIDGE).is_file():
        row = _row(experiment, run_id)
        # A stand-in's log is no measurement, whatever it looks like.
        method = EnergyMethod.ESTIMATE if row["energy_method"] == EnergyMethod.ESTIMATE else None
        log = read_energibridge_log(folder / _ENERGIBRIDGE, method=method)
        # EnergiBridge's clock is the wall's, all others are the machine's monotonic one.
        offset_s = _unix_minus_monotonic_s(folder / _RECORD)
        if offset_s is None and (found or conditions):
            raise UsageError(
                f"{folder / _RECORD} does not say how its two clocks relate: the samples cannot be joined."
            )
        found += [replace(each, time_s=each.time_s - (offset_s or 0.0)) for each in log.traces]
        conditions += [replace(each, time_s=each.time_s - (offset_s or 0.0)) for each in log.gauges]
    return found, conditions


def _row(experiment: Experiment, run_id: str) -> dict[str, Any]:
    rows = experiment.runs.filter(experiment.runs["run_id"] == run_id)
    if rows.height == 0:
        raise UsageError(f"{experiment.name} has no run {run_id!r}. The first is {experiment.runs['run_id'][0]}.")
    row = rows.row(0, named=True)
    if row["attempt_id"] is None:
        why = next((each.why for each in experiment.excluded if each.run_id == run_id), "not run yet")
        raise UsageError(f"{run_id} has no result: {why}.")
    return row


def _attempt_folder(experiment: Experiment, run_id: str) -> Path:
    row = _row(experiment, run_id)
    if experiment.folder is None:
        raise UsageError(
            f"{experiment.source} is a database alone: its files are in the orchestrator's results/{experiment.name}. "
            f"Give that folder as `files` to load_runs."
        )
    folder: Path = experiment.folder / _RUNS / run_id / row["attempt_id"]
    if not folder.is_dir():
        raise UsageError(
            f"The files of {run_id} are not here: there is no folder {folder}. Copy the whole experiment; "
            "from a store that `orchestrator run --artifacts` filled, `orchestrator fetch` brings them."
        )
    return folder


def _run_folder(experiment: Experiment, run_id: str) -> RunFolder:
    _row(experiment, run_id)
    assert experiment.folder is not None  # of Experiment Runner's, it is what was read
    for run in find_run_folders(experiment.folder):
        if run_id in (run.run_id, str(run.path.relative_to(experiment.folder))):
            return run
    raise UsageError(f"The folder of {run_id} is no longer in {experiment.folder}.")


def _unix_minus_monotonic_s(path: Path) -> float | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    value = record.get("unix_minus_monotonic_s") if isinstance(record, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _sheet_rows(run_id: str, run: RunFolder) -> list[dict[str, Any]]:
    if run.prompt_sheet is None:
        raise UsageError(f"{run.path} holds no sheet of prompts.")
    sheet = read_prompt_sheet(run.prompt_sheet)
    rows: list[dict[str, Any]] = []
    for index, (start_s, end_s) in enumerate(zip(sheet.start_s, sheet.end_s, strict=True)):
        rows.append(
            {
                "run_id": run_id,
                "index": index,
                "start_s": start_s - sheet.start_s[0],
                "duration_s": end_s - start_s,
                "n_output_tokens": sheet.tokens[index] if sheet.tokens else None,
                "prompt": sheet.prompts[index] if sheet.prompts else None,
                "answer": sheet.answers[index] if sheet.answers else None,
            }
        )
    return rows


def _request_rows(run_id: str, folder: Path) -> list[dict[str, Any]]:
    path = folder / _REQUESTS
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise UsageError(f"{run_id} has kept no requests: there is no {path}.") from error
    energies = _request_energies(folder / _REQUEST_ENERGY)
    rows: list[dict[str, Any]] = []
    first_s: float | None = None
    for index, line in enumerate(lines):
        try:
            record = json.loads(line)
            submitted_s, finished_s = float(record["submitted_s"]), float(record["finished_s"])
            messages = record["messages"]
            prompt = next((str(each["content"]) for each in reversed(messages) if each["role"] == "user"), None)
        except (ValueError, KeyError, TypeError) as error:
            raise LogFormatError(
                f"{path}, line {index + 1} is not a request ({error!r}).", file=str(path), line=index + 1
            ) from error
        first_s = submitted_s if first_s is None else first_s
        first_token_s = record.get("first_token_s")
        rows.append(
            {
                **{name: record.get(name) for name in REQUEST_COLUMNS},
                "run_id": run_id,
                "index": index,
                "start_s": submitted_s - first_s,
                "duration_s": finished_s - submitted_s,
                "prefill_s": None if first_token_s is None else first_token_s - submitted_s,
                "prompt": prompt,
                "exit_layer": _mean(record.get("token_exit_layer")),
                "entropy_nats": _mean(record.get("token_entropy_nats")),
                **energies.get(index, {}),
            }
        )
    return rows


def _mean(values: list[float] | None) -> float | None:
    return statistics.fmean(values) if values else None


def _request_energies(path: Path) -> dict[int, dict[str, float | None]]:
    """Place in the workload -> joules and times; empty where the testbed has written none."""
    wanted = ("prefill_s", "decode_s", "energy_j", "prefill_energy_j", "decode_energy_j")
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {
                int(row["index"]): {name: float(row[name]) if row[name] else None for name in wanted}
                for row in csv.DictReader(file)
            }
    except (OSError, ValueError, KeyError) as error:
        raise LogFormatError(f"{path} is not a sheet of requests' energies ({error!r}).", file=str(path)) from error
