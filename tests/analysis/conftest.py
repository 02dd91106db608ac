"""Run tables as an orchestrator leaves them, written with sqlite3 and the contract alone."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from contract.attempt_state import AttemptState
from contract.node_info import NodeIdentity
from contract.trial_result import (
    EnergyMethod,
    EnergyReading,
    EnergySummary,
    LoadReport,
    MeterCost,
    Phase,
    PhaseWindow,
    SuspectReason,
    TaskScore,
    TrialResult,
    WorkloadReport,
)
from contract.trial_spec import EngineSpec, ModelSpec, TrialSpec, WorkloadSpec
from contract.units import PROTOCOL_VERSION

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)

SCHEMA = """
CREATE TABLE experiment(id INTEGER PRIMARY KEY, name TEXT, seed INTEGER, factors JSON, max_attempts INTEGER,
  config_text TEXT, design JSON, plan_sha256 TEXT, created_at TEXT, software_version TEXT);
CREATE TABLE run(position INTEGER PRIMARY KEY, run_id TEXT UNIQUE, treatment JSON, repetition INTEGER, spec JSON,
  state TEXT);
CREATE TABLE attempt(attempt_id TEXT PRIMARY KEY, run_id TEXT, number INTEGER, state TEXT, accepted BOOLEAN,
  testbed TEXT, owner TEXT, lease_until TEXT, claimed_at TEXT, updated_at TEXT, finished_at TEXT, error JSON,
  result JSON);
CREATE TABLE event(id INTEGER PRIMARY KEY, at TEXT, attempt_id TEXT, run_id TEXT, state_before TEXT,
  state_after TEXT, message TEXT);
CREATE TABLE fact(key TEXT PRIMARY KEY, value JSON);
"""


class RunTableWriter:
    """Builds one experiment's folder row by row."""

    def __init__(self, folder: Path, factors: dict[str, Sequence[Any]], repetitions: int = 3) -> None:
        self.folder = folder
        self.name = folder.name
        self.factors = factors
        self.treatments = [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]
        self.repetitions = repetitions
        folder.mkdir(parents=True)
        self.database = folder / "run_table.sqlite"
        self.execute("PRAGMA journal_mode=WAL")
        with closing(sqlite3.connect(self.database)) as connection:
            connection.executescript(SCHEMA)
        self.execute(
            "INSERT INTO experiment VALUES(1, ?, 7, ?, 3, 'config', ?, ?, ?, '0.1.0')",
            (self.name, json.dumps(list(factors)), json.dumps({"order": "BLOCKS"}), "a" * 64, AT.isoformat()),
        )
        self.execute("INSERT INTO fact VALUES('idle_temp_c', '38.5')")
        rows = []
        for repetition in range(repetitions):
            for i, treatment in enumerate(self.treatments):
                run_id = f"run_{i}_repetition_{repetition}"
                # Reversed within a block: the execution order is not the design's.
                position = repetition * len(self.treatments) + len(self.treatments) - 1 - i
                spec = self.spec(run_id, repetition, treatment).model_dump_json()
                rows.append((position, run_id, json.dumps(treatment), repetition, spec, "TODO"))
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.executemany("INSERT INTO run VALUES(?, ?, ?, ?, ?, ?)", rows)

    def spec(self, run_id: str, repetition: int, treatment: dict[str, Any]) -> TrialSpec:
        return TrialSpec(
            experiment=self.name,
            run_id=run_id,
            repetition=repetition,
            treatment=treatment,
            seed=1,
            model=ModelSpec(name="m", source="fake:m"),
            engine=EngineSpec(name="fake"),
            workload=WorkloadSpec(name="superglue"),
        )

    def execute(self, statement: str, values: Sequence[Any] = ()) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(statement, values)

    def attempt(
        self,
        run_id: str,
        state: AttemptState,
        *,
        result: TrialResult | str | None = None,
        error: dict[str, Any] | None = None,
        run_state: str,
        number: int = 1,
    ) -> None:
        text = result.model_dump_json() if isinstance(result, TrialResult) else result
        self.execute(
            "INSERT INTO attempt VALUES(?, ?, ?, ?, ?, 'http://box:8765', 'me', NULL, ?, ?, ?, ?, ?)",
            (
                f"{run_id}-a{number}",
                run_id,
                number,
                state.value,
                state is AttemptState.SUCCEEDED,
                *[AT.isoformat()] * 3,
                json.dumps(error),
                text if text is not None else "null",
            ),
        )
        self.execute("UPDATE run SET state = ? WHERE run_id = ?", (run_state, run_id))

    def succeed(self, run_id: str, **measured: Any) -> None:
        self.attempt(run_id, AttemptState.SUCCEEDED, result=make_result(run_id, **measured), run_state="DONE")

    def succeed_all(self, measured: Callable[[dict[str, Any], int], dict[str, Any]] | None = None) -> None:
        for i, treatment in enumerate(self.treatments):
            for repetition in range(self.repetitions):
                values = measured(treatment, repetition) if measured else {"energy_j": 100.0 + i + repetition}
                self.succeed(f"run_{i}_repetition_{repetition}", **values)


def make_result(
    run_id: str = "run_0_repetition_0",
    *,
    energy_j: float | None = 100.0,
    energy_net_j: float | None = None,
    method: EnergyMethod = EnergyMethod.COUNTER,
    source: str = "rapl",
    duration_s: float = 10.0,
    n_output_tokens: int = 500,
    n_items: int = 16,
    n_correct: int = 8,
    chance_accuracy: float = 0.5,
    state: AttemptState = AttemptState.SUCCEEDED,
    reasons: Sequence[tuple[str, str]] = (),
    workload_source: str = "a folder of SuperGLUE items",
    note: str = "",
    attempt: int = 1,
    hardware: str = "a",
    exit_layer: float | None = None,
    entropy_nats: float | None = None,
) -> TrialResult:
    """A result whose parts agree with each other."""

    def reading(phase: Phase, joules: float | None) -> EnergyReading:
        return EnergyReading(
            domain="cpu_package",
            component="cpu",
            phase=phase,
            energy_j=joules,
            method=method,
            source=source,
            n_samples=50,
            n_wraps=1,
            uncertainty_j=0.5,
            note=note,
        )

    return TrialResult(
        protocol_version=PROTOCOL_VERSION,
        attempt_id=f"{run_id}-a{attempt}",
        run_id=run_id,
        spec_sha256="c" * 64,
        state=state,
        reasons=[SuspectReason(code=code, message=message) for code, message in reasons],
        started_at=AT,
        finished_at=AT,
        start_temp_c=38.0,
        phases=[PhaseWindow(phase=Phase.MEASURE, start_s=2.0, duration_s=duration_s)],
        energy=[reading(Phase.LOAD, 20.0), reading(Phase.MEASURE, energy_j)],
        summary=EnergySummary(
            energy_j=energy_j,
            energy_net_j=energy_net_j,
            cpu_energy_j=energy_j,
            gpu_energy_j=None,
            dram_energy_j=None,
            baseline_power_w=None if energy_net_j is None else 2.0,
            method=method,
            source=source,
            domains=["cpu_package"],
        ),
        duration_s=duration_s,
        tokens_per_s=n_output_tokens / duration_s,
        workload=WorkloadReport(
            name="superglue",
            source=workload_source,
            prompt_sha256="b" * 64,
            n_requests=n_items,
            n_prompt_tokens=900,
            n_output_tokens=n_output_tokens,
            exit_layer=exit_layer,
            entropy_nats=entropy_nats,
            score=TaskScore(
                n_items=n_items,
                n_correct=n_correct,
                n_abstained=1,
                accuracy=n_correct / n_items,
                chance_accuracy=chance_accuracy,
            ),
        ),
        load=LoadReport(
            engine="fake",
            engine_version="1",
            model_name="m",
            model_source="fake:m",
            model_revision="r1",
            load_s=1.5,
        ),
        meters=[MeterCost(name=source, cpu_s=0.1, window_s=10.0, cpu_share=0.01)],
        node=NodeIdentity(
            hostname="box",
            os="Linux",
            cpu_model="Example CPU",
            n_cpus=2,
            memory_bytes=2**33,
            python_version="3.11",
            hardware_sha256=hardware * 64,
        ),
    )


@pytest.fixture
def write_experiment(tmp_path: Path) -> Callable[..., RunTableWriter]:
    """Makes `tmp_path/results/NAME`: `write_experiment("name", {"task": [...]}, repetitions=3)`."""

    def write(name: str, factors: dict[str, Sequence[Any]], repetitions: int = 3) -> RunTableWriter:
        return RunTableWriter(tmp_path / "results" / name, factors, repetitions)

    return write


@pytest.fixture
def quickstart(write_experiment: Callable[..., RunTableWriter]) -> RunTableWriter:
    """Twelve finished runs, estimated energy, a model that guesses: what `make quickstart` leaves."""
    table = write_experiment("quickstart", {"task": ["BoolQ", "COPA"], "concurrency": [1, 4]})

    def measured(treatment: dict[str, Any], repetition: int) -> dict[str, Any]:
        slow = 1.0 if treatment["concurrency"] == 1 else 0.7
        return {
            "energy_j": (150.25 + 3.1 * repetition) * slow * (1.4 if treatment["task"] == "COPA" else 1.0),
            "duration_s": (5.2 + 0.11 * repetition) * slow,
            "method": EnergyMethod.ESTIMATE,
            "source": "estimate",
            "n_output_tokens": 310,
            "n_correct": 9 if treatment["task"] == "BoolQ" else 7,
            "workload_source": "sample of 16 items that comes with JouleBed, not SuperGLUE's own",
            "note": "CPU time x 15 W per busy core",
        }

    table.succeed_all(measured)
    return table


@pytest.fixture
def result_of() -> Callable[..., TrialResult]:
    """`make_result`, for tests that store a result themselves."""
    return make_result
