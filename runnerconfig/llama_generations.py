"""Energy and accuracy over generations and sizes of Llama: five models x six SuperGLUE tasks x 30 repetitions.

The full factorial of the LLaMA energy study, 900 runs: one prompt at a time on vLLM, temperature 0.7, top-p 0.9, at
most 2048 tokens, context capped at 10,240, a fresh process per run, at least 30 s of cooldown. What differs from
the study, and why: each repetition has its own stored seed (the study had none), the date in the chat template is
pinned (Llama 3.2 prints today's), and the thermal gate waits until the machine is as cool as at the start (30 s
were not enough).
"""

from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, Order, RunTableModel, Treatment, Trial
from orchestrator.config import RunnerConfig as Base

MODELS = {
    "llama-2-7b": ("meta-llama/Llama-2-7b-chat-hf", 4096),
    "llama-3-8b": ("meta-llama/Meta-Llama-3-8B-Instruct", 8192),
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B-Instruct", 10240),
    "llama-3.2-1b": ("meta-llama/Llama-3.2-1B-Instruct", 10240),
    "llama-3.2-3b": ("meta-llama/Llama-3.2-3B-Instruct", 10240),
}
"""Level -> Hugging Face repository, and context length: the model's own, at most 10,240 tokens."""

TASKS = ["BoolQ", "CB", "COPA", "RTE", "WiC", "WSC"]


class RunnerConfig(Base):
    """Five Llama models x six tasks x 30 repetitions."""

    name = "llama_generations"
    seed = 42
    # As in the study. With engine lifetime "block", Order.GROUPED by model saves most of the loads.
    order = Order.RANDOM
    cooldown = Cooldown(floor_s=30.0, max_wait_s=300.0)

    def create_run_table_model(self) -> RunTableModel:
        """5 models x 6 tasks x 30 repetitions = 900 runs."""
        return RunTableModel(factors=[Factor("model", list(MODELS)), Factor("task", TASKS)], repetitions=30)

    def trial(self, treatment: Treatment) -> Trial:
        """Eighty prompts that ask to explain the choice, one at a time."""
        repository, max_model_len = MODELS[str(treatment["model"])]
        return Trial(
            model=ModelSpec(name=str(treatment["model"]), source=f"hf:{repository}", max_model_len=max_model_len),
            engine=EngineSpec(name="vllm"),
            sampling=SamplingSpec(temperature=0.7, top_p=0.9, max_tokens=2048),
            workload=WorkloadSpec(
                name="superglue",
                concurrency=1,
                options={"task": treatment["task"], "n_items": 80, "template": "explain"},
            ),
            meter=MeterSpec(period_s=0.2),
            baseline_s=10.0,
        )
