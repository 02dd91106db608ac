"""Results of JouleBed: from its run table to a frame with a row per planned run."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from analysis.device_rows import device_rows
from analysis.experiment import Exclusion, Experiment, Reading, factor_column, runs_frame
from analysis.left_out import leave_out
from analysis.run_table import Row, RunTable, read_run_table
from contract.attempt_state import AttemptState, RunState
from contract.edge import EdgeReport
from contract.errors import UsageError
from contract.serving import ServingReport
from contract.trial_result import EnergyReading, Phase, TrialResult

_WORK = {"n_requests", "n_prompt_tokens", "n_output_tokens", "prompt_sha256"}


def load_joulebed(path_or_url: Path | str, *, files: Path | None = None, run_id: str | None = None) -> Experiment:
    """Read an experiment; nothing is written, and one broken row costs that row only.

    Args:
        path_or_url: see `analysis.load.load_runs`.
        files: folder of the experiment's files; None: the run table's, where that is a file.
        run_id: of a file: this run alone, to look into it without reading the others.

    Raises:
        UsageError: there is no experiment there, or it has no runs; or not that one.
        MissingPackageError: no driver for this kind of database.
    """
    table = read_run_table(path_or_url, run_id=run_id)
    planned = _json(table.experiment["factors"])
    if run_id is not None and not table.runs:
        raise UsageError(f"{table.source} has no run {run_id!r}. Its runs are in the column __run_id of run_table.csv.")
    if not table.runs or not isinstance(planned, list):
        raise UsageError(f"{table.source} holds no planned runs. Start with `orchestrator run CONFIG.py`.")
    columns = {str(name): factor_column(str(name)) for name in planned}
    readings: list[Reading] = []
    devices: list[Row] = []
    serving: dict[str, ServingReport] = {}
    edge: dict[str, EdgeReport] = {}
    rows, excluded = _rows(table, columns, readings, devices, serving, edge)
    facts = {str(fact["key"]): _json(fact["value"]) for fact in table.facts}
    excluded = leave_out(facts, rows, devices, excluded)
    design = _json(table.experiment["design"])
    return Experiment(
        name=str(table.experiment["name"]),
        source=table.source,
        factors=tuple(columns.values()),
        runs=runs_frame(rows, list(columns.values())),
        excluded=tuple(excluded),
        facts=facts,
        design=design if isinstance(design, dict) else {},
        seed=table.experiment["seed"],
        software_version=table.experiment["software_version"],
        folder=files or table.folder,
        readings=readings,
        devices=devices,
        serving=serving,
        edge=edge,
    )


def _json(value: Any) -> JsonValue:
    """A JSON column: text in SQLite, decoded already elsewhere. None when it cannot be read."""
    if not isinstance(value, str | bytes):
        decoded: JsonValue = value
        return decoded
    try:
        decoded = json.loads(value, parse_constant=_refuse_constant)
    except ValueError:
        return None
    return decoded


def _refuse_constant(name: str) -> None:
    """NaN and infinity are not JSON, and not measurements."""
    raise ValueError(name)


def _rows(
    table: RunTable,
    columns: dict[str, str],
    readings: list[Reading],
    devices: list[Row],
    serving: dict[str, ServingReport],
    edge: dict[str, EdgeReport],
) -> tuple[list[Row], list[Exclusion]]:
    attempts: dict[str, list[Row]] = {}
    for attempt in table.attempts:
        attempts.setdefault(str(attempt["run_id"]), []).append(attempt)
    rows, excluded = [], []
    for run in table.runs:
        n_devices = len(devices)
        row, why = _row(run, attempts.get(str(run["run_id"]), []), columns, readings, devices, serving, edge)
        rows.append(row)
        if len(devices) == n_devices:
            devices += device_rows(row, _json(run["spec"]), None)
        if why:
            excluded.append(Exclusion(run_id=row["run_id"], state=row["state"], why=why))
    return rows, excluded


def _row(
    run: Row,
    attempts: list[Row],
    columns: dict[str, str],
    readings: list[Reading],
    devices: list[Row],
    serving: dict[str, ServingReport],
    edge: dict[str, EdgeReport],
) -> tuple[Row, str | None]:
    """The row of a run, and why it is not counted.

    Energies by phase go to `readings`, single devices to `devices`, what came of an open loop to `serving`, of edge
    control to `edge`.
    """
    treatment, spec = _json(run["treatment"]), _json(run["spec"])
    treatment = treatment if isinstance(treatment, dict) else {}
    sampling = spec.get("sampling") if isinstance(spec, dict) else None
    row: Row = {
        "run_id": str(run["run_id"]),
        "repetition": run["repetition"],
        "position": run["position"],
        "state": str(run["state"]),
        "counted": False,
        "n_attempts": len(attempts),
        "temperature": sampling.get("temperature") if isinstance(sampling, dict) else None,
        "reasons": "",
        **{column: treatment.get(name) for name, column in columns.items()},
    }
    if not treatment and columns:
        return row, "its treatment cannot be read in the run table"
    accepted = [attempt for attempt in attempts if attempt["accepted"]]
    if len(accepted) > 1:
        return row, f"{len(accepted)} attempts are accepted where one may be: the run table is damaged"
    if not accepted and row["state"] != RunState.SUSPECT:
        return row, _why_without_result(row["state"], attempts)
    chosen = accepted[0] if accepted else _last_doubted(attempts)
    result = _result(chosen)
    if chosen is None or isinstance(result, str):
        return row, str(result)
    row.update(_measurements(result), attempt_id=str(chosen["attempt_id"]), testbed=chosen["testbed"])
    readings += _readings(row["run_id"], result)
    if result.serving is not None:
        serving[row["run_id"]] = result.serving
    if result.edge is not None:
        edge[row["run_id"]] = result.edge
    # The orchestrator's reasons beside the testbed's; a table from before them has the result's alone.
    stored = _json(chosen.get("reasons"))
    if isinstance(stored, list):
        row["reasons"] = "; ".join(
            f"{each.get('code')}: {each.get('message')}" for each in stored if isinstance(each, dict)
        )
    row["counted"] = bool(accepted)
    devices += device_rows(row, spec, result)
    if accepted:
        return row, None
    return row, f"suspect: {row['reasons'] or 'no reason was recorded'}"


def _last_doubted(attempts: list[Row]) -> Row | None:
    """The newest SUSPECT attempt, which makes its run so; the newest of all where none is, so that its gap is told."""
    for attempt in reversed(attempts):
        if attempt["state"] == AttemptState.SUSPECT:
            return attempt
    return attempts[-1] if attempts else None


def _result(attempt: Row | None) -> TrialResult | str:
    """The result of an attempt, or why there is none to read."""
    if attempt is None:
        return "it has no attempt"
    stored = _json(attempt["result"])
    if stored is None:
        missing = attempt["result"] is None or attempt["result"] == "null"
        return "its result is missing in the run table" if missing else "its result is not readable JSON"
    try:
        return TrialResult.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        return f"its result does not fit the contract of this version ({where}: {first['msg']})"


def _why_without_result(state: str, attempts: list[Row]) -> str:
    if state == RunState.RUNNING:
        return "still running"
    if not attempts:
        return "not run yet"
    error = _json(attempts[-1]["error"])
    said = f"{error.get('code')}: {error.get('message')}" if isinstance(error, dict) else "no error was recorded"
    attempt = f"last attempt {attempts[-1]['state']}, {said}"
    return f"failed, {attempt}" if state == RunState.FAILED else f"to be tried again, {attempt}"


def _measurements(result: TrialResult) -> Row:
    """What a result puts into the frame."""
    summary, work, load = result.summary, result.workload, result.load
    row: Row = {
        "duration_s": result.duration_s,
        "tokens_per_s": result.tokens_per_s,
        "start_temp_c": result.start_temp_c,
        "sampler_cpu_s": _sum(meter.cpu_s for meter in result.meters),
        "hardware_sha256": result.node.hardware_sha256,
        "device": device_name(result),
        "reasons": "; ".join(f"{reason.code}: {reason.message}" for reason in result.reasons),
    }
    if summary is not None:
        measured = _headline(result.energy, Phase.MEASURE, summary.domains)
        notes = {reading.note for reading in result.energy if reading.phase is Phase.MEASURE and reading.note}
        row |= summary.model_dump(exclude={"method", "source", "domains", "split_note"})
        row |= {
            "energy_method": summary.method.value,
            "energy_source": summary.source,
            "energy_domains": ", ".join(summary.domains),
            "energy_notes": "; ".join(sorted(notes)),
            "load_energy_j": _sum(r.energy_j for r in _headline(result.energy, Phase.LOAD, summary.domains)),
            "uncertainty_j": _sum(r.uncertainty_j for r in measured),
            "n_gaps": sum(r.n_gaps for r in measured) if measured else None,
            "n_wraps": sum(r.n_wraps for r in measured) if measured else None,
        }
    if result.conditions is not None:
        row |= result.conditions.model_dump(
            include={
                "max_temp_c",
                "temp_rise_c",
                "memory_peak_bytes",
                "gpu_memory_peak_bytes",
                "throttled_share",
            }
        )
    if result.edge is not None:
        cost = result.edge.overhead
        row |= {
            "choosing_s": cost.selection_s + cost.sampling_s + cost.update_s,
            "choosing_energy_j": cost.energy_j,
        }
    if result.steady is not None:
        row |= {"is_steady": result.steady.is_steady, "steady_s": result.steady.waited_s}
    if work is not None:
        row |= work.model_dump(include=_WORK)
        row |= {"mean_exit_layer": work.exit_layer, "mean_entropy_nats": work.entropy_nats}
        row["workload_source"] = work.source
        if work.score is not None:
            row |= work.score.model_dump(exclude={"chance_p_value"})
    if load is not None:
        row |= {
            "load_s": load.load_s,
            "engine": f"{load.engine} {load.engine_version}",
            "model_revision": load.model_revision,
        }
    return row


def device_name(result: TrialResult) -> str:
    """What computed, without its serial number: the GPUs, unless the engine says that it ran on the processor."""
    if result.devices:
        kinds = Counter(device.kind or device.device for device in result.devices)
        return " + ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in kinds.items())
    settings = result.load.settings if result.load is not None else {}
    names = sorted({gpu.rpartition(" (")[0] or gpu for gpu in result.node.gpus})
    on_cpu = any(str(settings.get(name, "")).startswith("cpu") for name in ("device", "platform", "backend"))
    return " + ".join(names) if names and not on_cpu else result.node.cpu_model or result.node.hostname


def _headline(readings: list[EnergyReading], phase: Phase, domains: list[str]) -> list[EnergyReading]:
    return [r for r in readings if r.is_headline and r.phase is phase and r.domain in domains]


def _sum(values: Any) -> float | None:
    """The sum, or None where a part was not measured: a sum with a hole is not a sum."""
    parts = list(values)
    return sum(parts) if parts and None not in parts else None


def _readings(run_id: str, result: TrialResult) -> list[Reading]:
    added = set(result.summary.domains) if result.summary is not None else set()
    return [
        Reading(
            run_id=run_id,
            phase=each.phase.value,
            domain=each.domain,
            component=each.component,
            method=each.method.value,
            source=each.source,
            energy_j=each.energy_j,
            uncertainty_j=each.uncertainty_j,
            n_gaps=each.n_gaps,
            n_wraps=each.n_wraps,
            is_added=each.is_headline and each.domain in added,
        )
        for each in result.energy
    ]
