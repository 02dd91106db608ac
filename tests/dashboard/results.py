"""Experiments with results and files, made by the store's own operations: no trial runs, no browser is needed."""

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from contract.attempt_state import AttemptState
from contract.errors import ErrorBody
from contract.trial_result import ArtifactRef, EnergyMethod, Phase, PhaseWindow, SuspectReason
from contract.trial_spec import EngineSpec, ModelSpec, TrialSpec, WorkloadSpec
from contract.units import sha256_of
from energy.trace import Gauge, Trace
from energy.trace_log import write_gauges, write_traces
from orchestrator.artifacts import RESULT, RUNS
from orchestrator.experiment_folder import open_run_table
from orchestrator.store.base import Claim, Plan, PlannedRun
from orchestrator.store.sql_store import SqlStore
from tests.analysis.conftest import make_result

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"></textarea>'\"&amp;"
"""What a model may answer."""

POWER_W = 40.0
Measured = Callable[[dict[str, Any], int], dict[str, Any]]


class Results:
    """An experiment, filled run by run in the order of the plan.

    Args:
        folder: is made.
        factors: factor -> levels.
        repetitions: per treatment.
    """

    def __init__(self, folder: Path, factors: dict[str, Sequence[Any]], repetitions: int = 3) -> None:
        self.folder = folder
        treatments = [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]
        runs = []
        for repetition in range(repetitions):
            for i, treatment in enumerate(treatments):
                run_id = f"run_{i}_repetition_{repetition}"
                spec = TrialSpec(
                    experiment=folder.name,
                    run_id=run_id,
                    repetition=repetition,
                    treatment=treatment,
                    seed=1,
                    model=ModelSpec(name="m", source="fake:m"),
                    engine=EngineSpec(name="fake", options={"n_threads": 2, "mlock": True}),
                    workload=WorkloadSpec(name="superglue", options={"task": "BoolQ"}),
                )
                runs.append(PlannedRun(len(runs), run_id, treatment, repetition, spec))
        identity = sha256_of([run.spec.sha256() for run in runs])
        self.runs = {run.run_id: run for run in runs}
        self.store: SqlStore = open_run_table(folder, create=True)
        self.store.create_experiment(Plan(folder.name, 1, tuple(factors), tuple(runs), 1, "", {}, identity))

    def succeed(self, *, answer: str = "Yes, it is.", **measured: Any) -> Claim:
        """End the next run with a result, its samples and its answers."""
        claim = self._claim()
        self._walk(claim)
        state = AttemptState.SUSPECT if measured.get("reasons") else AttemptState.SUCCEEDED
        reasons = [SuspectReason(code=code, message=text) for code, text in measured.get("reasons", ())]
        files = self._files(claim, answer, measured.get("method", EnergyMethod.COUNTER))
        result = make_result(claim.run_id, state=state, **measured).model_copy(
            update={
                "attempt_id": claim.attempt_id,
                "artifacts": files,
                "phases": [PhaseWindow(phase=Phase.MEASURE, start_s=2.0, duration_s=8.0)],
            }
        )
        folder = self.folder / RUNS / claim.run_id / claim.attempt_id
        (folder / RESULT).write_text(result.model_dump_json())
        self.store.finish(claim.attempt_id, state, result=result, reasons=reasons)
        return claim

    def fail(self, message: str, **detail: Any) -> Claim:
        """End the next run with an error."""
        claim = self._claim()
        error = ErrorBody(code="child_died", message=message, detail=detail)
        self.store.finish(claim.attempt_id, AttemptState.FAILED, error=error, message="it died")
        return claim

    def succeed_all(self, measured: Measured, *, but: int = 0) -> None:
        """End all runs but the last ones."""
        for run in list(self.runs.values())[: len(self.runs) - but]:
            self.succeed(**measured(run.treatment, run.repetition))

    def _claim(self) -> Claim:
        claim = self.store.claim_next("http://box:8765")
        assert claim is not None
        return claim

    def _walk(self, claim: Claim) -> None:
        for state in (AttemptState.SUBMITTED, AttemptState.MEASURING, AttemptState.COLLECTING):
            self.store.record_state(claim.attempt_id, state)

    def _files(self, claim: Claim, answer: str, method: EnergyMethod) -> list[ArtifactRef]:
        folder = self.folder / RUNS / claim.run_id / claim.attempt_id
        folder.mkdir(parents=True)
        time_s = 1000.0 + np.arange(0.0, 10.01, 0.5)
        trace = Trace(
            domain="cpu_package",
            component="cpu",
            kind="power",
            method=method,
            source="rapl",
            time_s=time_s,
            values=np.full(time_s.size, POWER_W),
        )
        write_traces(folder / "trace_rapl.csv", [trace])
        write_gauges(folder / "gauges_rapl.csv", [Gauge("cpu", "temp_c", "rapl", time_s, 40.0 + (time_s - 1000.0))])
        phases = [
            {"phase": "load", "start_s": 0.0, "duration_s": 2.0},
            {"phase": "measure", "start_s": 2.0, "duration_s": 8.0},
        ]
        (folder / "record.json").write_text(json.dumps({"origin_s": 1000.0, "phases": phases}))
        lines = [
            {
                "item_id": f"BoolQ-{i}",
                "n_prompt_tokens": 10,
                "n_output_tokens": 4,
                "submitted_s": 1002.0 + i,
                "first_token_s": 1002.2 + i,
                "finished_s": 1003.0 + i,
                "messages": [{"role": "user", "content": f"Question {i}? {EVIL}"}],
                "answer": answer,
                "gold_label": "yes",
                "predicted_label": ["yes", "no", None][i % 3],
                "is_correct": i % 3 == 0,
            }
            for i in range(6)
        ]
        (folder / "requests.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        rows = "".join(f"{i},0.2,0.8,8.0,32.0,40.0\n" for i in range(6))
        (folder / "request_energy.csv").write_text(
            f"index,prefill_s,decode_s,prefill_energy_j,decode_energy_j,energy_j\n{rows}"
        )
        return [
            ArtifactRef(
                name=path.name, size_bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
            )
            for path in sorted(folder.iterdir())
        ]
