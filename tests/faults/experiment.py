"""The experiment of the fault suite: short trials on fakes, of every kind that a testbed treats differently."""

from pathlib import Path

N_TREATMENTS = 8

NAME = "faults"

_SMALL = {"words": [8, 12], "n_items": 8, "tokens_per_s": 600}

_CONFIG = """
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, OnSuspect, RunTableModel, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    name = "faults"
    seed = 5
    cooldown = Cooldown(floor_s=0.0, max_wait_s=0.0)
    # A killed EnergiBridge, or a machine too busy to sample, makes a doubted result: it is measured again.
    on_suspect = OnSuspect.RETRY
    max_attempts = 100

    def create_run_table_model(self):
        return RunTableModel(
            factors=[Factor("words", {words}), Factor("kind", ["alone", "warm", "bridged", "warm_bridged"])],
            repetitions={repetitions},
        )

    def trial(self, treatment):
        bridged = "bridged" in treatment["kind"]
        return Trial(
            model=ModelSpec(name="fake", source="fake:small"),
            engine=EngineSpec(
                name="fake",
                lifetime="block" if "warm" in treatment["kind"] else "trial",
                max_concurrency=2,
                options={{"tokens_per_s": {tokens_per_s}}},
            ),
            # Drawn answers: the table depends on every seed.
            sampling=SamplingSpec(temperature=0.7, max_tokens=16),
            workload=WorkloadSpec(
                name="fake", concurrency=2, options={{"n_items": {n_items}, "prompt_words": treatment["words"]}}
            ),
            # The fake's period is long, so that a busy machine makes no gaps.
            meter=MeterSpec(name="energibridge", period_s=0.15) if bridged else MeterSpec(name="fake", period_s=1.0),
            baseline_s=0.02,
        )
"""


def write_experiment(folder: Path, n_trials: int, *, is_large: bool = False) -> Path:
    """The configuration as a file.

    Args:
        folder: takes it; made if it is not there.
        n_trials: a multiple of `N_TREATMENTS`.
        is_large: half of the trials leave evidence that is fetched in several requests, and they take longer.
    """
    if n_trials <= 0 or n_trials % N_TREATMENTS:
        raise ValueError(f"the number of trials must be a multiple of {N_TREATMENTS}, not {n_trials}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.py"
    size = {"words": [8, 3000], "n_items": 24, "tokens_per_s": 200} if is_large else _SMALL
    path.write_text(_CONFIG.format(repetitions=n_trials // N_TREATMENTS, **size))
    return path
