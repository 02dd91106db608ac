"""What does a look at a run table cost, and how long does its repair take?

Fills a run table by the store's own operations, with results of the size of real ones and artifacts beside them, and
times the checks that `orchestrator run` makes at its start, and a repair after half of the file was cut off and after
all of it was deleted.

    python benchmarks/repair.py [--runs 900 10000] [--artifact-kib 256]

Prints seconds per number of runs.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from contract.attempt_state import AttemptState
from contract.node_info import NodeIdentity
from contract.trial_result import ArtifactRef, SuspectReason, TrialResult
from contract.trial_spec import EngineSpec, ModelSpec, TrialSpec, WorkloadSpec
from contract.units import PROTOCOL_VERSION, sha256_of
from orchestrator.artifacts import ArtifactFolder
from orchestrator.attempt_journal import EndedAttempt
from orchestrator.experiment_folder import missing_attempts, open_run_table, require_sound, run_table_path
from orchestrator.plan_file import keep_plan
from orchestrator.repair import repair
from orchestrator.store.base import Plan, PlannedRun
from orchestrator.store.integrity import damage

AT = datetime(2026, 1, 1, tzinfo=UTC)
PADDING = [SuspectReason(code="padding", message="as long as the figures of a real result " * 80)]


def plan_of(n_runs: int) -> Plan:
    """A plan of equal trials."""
    runs = tuple(
        PlannedRun(
            i,
            f"run_{i}_repetition_0",
            {"number": i},
            0,
            TrialSpec(
                experiment="repair",
                run_id=f"run_{i}_repetition_0",
                repetition=0,
                treatment={"number": i},
                seed=i,
                model=ModelSpec(name="fake", source="fake:small"),
                engine=EngineSpec(name="fake"),
                workload=WorkloadSpec(name="fake"),
            ),
        )
        for i in range(n_runs)
    )
    return Plan("repair", 1, ("number",), runs, 3, "", {}, sha256_of([run.spec.sha256() for run in runs]))


def fill(folder: Path, n_runs: int, artifact: bytes) -> None:
    """Every run with one accepted attempt, its artifact and its result.json."""
    plan = plan_of(n_runs)
    reference = ArtifactRef(
        name="requests.jsonl", size_bytes=len(artifact), sha256=hashlib.sha256(artifact).hexdigest()
    )
    node = NodeIdentity(
        hostname="box",
        os="Linux",
        cpu_model="CPU",
        n_cpus=8,
        memory_bytes=2**34,
        python_version="3.11",
        hardware_sha256="0" * 64,
    )
    artifacts = ArtifactFolder(folder)
    with closing(open_run_table(folder, create=True)) as store:
        store.create_experiment(plan)
        keep_plan(folder, plan)
        while (claim := store.claim_next("box")) is not None:
            result = TrialResult(
                protocol_version=PROTOCOL_VERSION,
                attempt_id=claim.attempt_id,
                run_id=claim.run_id,
                spec_sha256=claim.spec.sha256(),
                state=AttemptState.SUCCEEDED,
                reasons=PADDING,
                started_at=AT,
                finished_at=AT,
                node=node,
                artifacts=[reference],
            )
            place = artifacts.folder(claim.run_id, claim.attempt_id)
            place.mkdir(parents=True)
            (place / reference.name).write_bytes(artifact)
            (place / "result.json").write_text(result.model_dump_json(indent=1))
            for state in (
                AttemptState.SUBMITTED,
                AttemptState.LOADING,
                AttemptState.MEASURING,
                AttemptState.COLLECTING,
            ):
                store.record_state(claim.attempt_id, state)
            store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result)
            artifacts.journal.note(
                EndedAttempt(
                    attempt_id=claim.attempt_id,
                    run_id=claim.run_id,
                    number=claim.number,
                    state=AttemptState.SUCCEEDED,
                    accepted=True,
                    testbed="box",
                    finished_at=AT,
                )
            )


def timed_s(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    begin_s = time.monotonic()
    work()
    return time.monotonic() - begin_s


def measure(folder: Path, n_runs: int, artifact: bytes) -> None:
    """Print what looks and repairs cost for one number of runs."""
    fill(folder, n_runs, artifact)
    path = run_table_path(folder)
    print(f"{n_runs} runs, run table of {path.stat().st_size / 2**20:.0f} MiB")
    print(f"  quick_check         {timed_s(lambda: damage(path)):8.3f} s")
    print(f"  integrity_check     {timed_s(lambda: damage(path, thorough=True)):8.3f} s")
    with closing(open_run_table(folder, create=False)) as store:
        print(f"  files compared      {timed_s(lambda: missing_attempts(folder, store)):8.3f} s")
        print(f"  all, as by run      {timed_s(lambda: require_sound(folder, store)):8.3f} s")
    for what in ("cut to half", "deleted"):
        if what == "deleted":
            path.unlink()
        else:
            os.truncate(path, path.stat().st_size // 2)
        took_s = timed_s(lambda: repair(folder, None, only_look=False, now=datetime.now(UTC)))
        with closing(open_run_table(folder, create=False)) as store:
            n_done = sum(store.attempt_ids().values())
        print(f"  repair, {what:12}{took_s:8.3f} s, {n_done} of {n_runs} accepted", flush=True)


def main() -> None:
    """Entry of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[900, 10_000])
    parser.add_argument("--artifact-kib", type=int, default=256)
    given = parser.parse_args()
    for n_runs in given.runs:
        with tempfile.TemporaryDirectory() as name:
            measure(Path(name) / "repair", n_runs, os.urandom(given.artifact_kib * 1024))


if __name__ == "__main__":
    main()
