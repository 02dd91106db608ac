"""Small plans, and a clock that moves when somebody sleeps."""

from contract.trial_result import TrialResult
from contract.trial_spec import EngineSpec, ModelSpec, TrialSpec, WorkloadSpec
from contract.units import sha256_of
from orchestrator.clients.base import TestbedClient as Client
from orchestrator.store.base import Plan, PlannedRun


def spec(number: int) -> TrialSpec:
    return TrialSpec(
        experiment="test",
        run_id=f"run_{number}_repetition_0",
        repetition=0,
        treatment={"number": number},
        seed=number,
        model=ModelSpec(name="fake", source="fake:small"),
        engine=EngineSpec(name="fake"),
        workload=WorkloadSpec(name="fake"),
    )


def plan(n_runs: int, max_attempts: int = 3) -> Plan:
    runs = tuple(
        PlannedRun(position=i, run_id=spec(i).run_id, treatment={"number": i}, repetition=0, spec=spec(i))
        for i in range(n_runs)
    )
    return Plan(
        experiment="test",
        seed=1,
        factors=("number",),
        runs=runs,
        max_attempts=max_attempts,
        config_text="",
        design={},
        sha256=sha256_of([run.spec.sha256() for run in runs]),
    )


def finished_attempt(client: Client, attempt_id: str, trial: TrialSpec) -> TrialResult:
    status = client.submit(attempt_id, trial)
    while not status.state.is_final:
        status = client.status(attempt_id, after_version=status.version, wait_s=1.0)
    return client.result(attempt_id)


class Clock:
    """Monotonic seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s
