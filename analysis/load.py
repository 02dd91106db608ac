"""From an experiment's folder to one frame with a row per planned run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue, ValidationError

from analysis.columns import COLUMNS, METRIC_COLUMNS, polars_type
from analysis.run_table import Row, RunTable, read_run_table
from contract.attempt_state import AttemptState, RunState
from contract.errors import UsageError
from contract.trial_result import EnergyReading, Phase, TrialResult

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Exclusion:
    """A planned run that is not counted.

    Attributes:
        run_id: planned row.
        state: its state.
        why: in words, what is missing or doubted.
    """

    run_id: str
    state: str
    why: str


@dataclass(frozen=True)
class Experiment:
    """An experiment as it stands now.

    Attributes:
        name: as in the configuration.
        path: the run table that was read.
        factors: names of the factor columns in `runs`.
        runs: one row per planned run in execution order; `analysis.columns.COLUMNS` has each column's meaning
            and unit. None is "not measured".
        excluded: what is not counted, and why.
        facts: what the orchestrator noted about the campaign, such as its idle temperature.
        design: order, cooldown and so on, as declared.
        seed: of the plan.
        software_version: that wrote the plan.
    """

    name: str
    path: Path
    factors: tuple[str, ...]
    runs: "pl.DataFrame"
    excluded: tuple[Exclusion, ...]
    facts: dict[str, JsonValue]
    design: dict[str, JsonValue]
    seed: int | None
    software_version: str | None

    def counted(self, *, include_suspect: bool = False) -> "pl.DataFrame":
        """The rows that enter means.

        Args:
            include_suspect: also those with a result that is doubted.
        """
        import polars as pl

        is_suspect = (pl.col("state") == RunState.SUSPECT.value) & pl.col("attempt_id").is_not_null()
        return self.runs.filter(pl.col("counted") | is_suspect if include_suspect else pl.col("counted"))


def load_experiment(path: Path) -> Experiment:
    """Read an experiment; nothing is written, and one broken row costs that row only.

    Args:
        path: `results/EXPERIMENT`, or the run table in it.

    Raises:
        UsageError: there is no experiment there, or it has no runs.
    """
    import polars as pl

    table = read_run_table(path)
    planned = _json(table.experiment["factors"])
    if not table.runs or not isinstance(planned, list):
        raise UsageError(f"{table.path} holds no planned runs. Start with `orchestrator run CONFIG.py`.")
    # A factor may be called like a measurement; the measurement keeps its name.
    columns = {str(name): _factor_column(str(name)) for name in planned}
    rows, excluded = _rows(table, columns)
    schema = {name: polars_type(column.kind) for name, column in COLUMNS.items()}
    data: dict[str, pl.Series] = {}
    for name, dtype in schema.items():
        if name == "state":
            for factor in columns.values():
                data[factor] = _level_series(factor, [row[factor] for row in rows])
        data[name] = pl.Series(name, [row.get(name) for row in rows], dtype=dtype)
    facts = {str(fact["key"]): _json(fact["value"]) for fact in table.facts}
    design = _json(table.experiment["design"])
    return Experiment(
        name=str(table.experiment["name"]),
        path=table.path,
        factors=tuple(columns.values()),
        runs=pl.DataFrame(data),
        excluded=tuple(excluded),
        facts=facts,
        design=design if isinstance(design, dict) else {},
        seed=table.experiment["seed"],
        software_version=table.experiment["software_version"],
    )


def _factor_column(name: str) -> str:
    return f"factor_{name}" if name in COLUMNS or name in METRIC_COLUMNS else name


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


def _level_series(name: str, levels: list[Any]) -> "pl.Series":
    """A factor's levels in the narrowest type that holds them all; mixed levels become text."""
    import polars as pl

    present = {type(level) for level in levels if level is not None}
    if present == {bool}:
        return pl.Series(name, levels, dtype=pl.Boolean)
    if present == {int}:
        return pl.Series(name, levels, dtype=pl.Int64)
    if present and present <= {int, float}:
        return pl.Series(name, levels, dtype=pl.Float64)
    return pl.Series(name, [None if level is None else str(level) for level in levels], dtype=pl.String)


def _rows(table: RunTable, columns: dict[str, str]) -> tuple[list[Row], list[Exclusion]]:
    attempts: dict[str, list[Row]] = {}
    for attempt in table.attempts:
        attempts.setdefault(str(attempt["run_id"]), []).append(attempt)
    rows, excluded = [], []
    for run in table.runs:
        row, why = _row(run, attempts.get(str(run["run_id"]), []), columns)
        rows.append(row)
        if why:
            excluded.append(Exclusion(run_id=row["run_id"], state=row["state"], why=why))
    return rows, excluded


def _row(run: Row, attempts: list[Row], columns: dict[str, str]) -> tuple[Row, str | None]:
    """The row of a run, and why it is not counted."""
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
    # The orchestrator's reasons beside the testbed's; a table from before them has the result's alone.
    stored = _json(chosen.get("reasons"))
    if isinstance(stored, list):
        row["reasons"] = "; ".join(
            f"{each.get('code')}: {each.get('message')}" for each in stored if isinstance(each, dict)
        )
    if accepted:
        row["counted"] = True
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
    if work is not None:
        row |= work.model_dump(include={"n_requests", "n_prompt_tokens", "n_output_tokens", "prompt_sha256"})
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


def _headline(readings: list[EnergyReading], phase: Phase, domains: list[str]) -> list[EnergyReading]:
    return [r for r in readings if r.is_headline and r.phase is phase and r.domain in domains]


def _sum(values: Any) -> float | None:
    """The sum, or None where a part was not measured: a sum with a hole is not a sum."""
    parts = list(values)
    return sum(parts) if parts and None not in parts else None
