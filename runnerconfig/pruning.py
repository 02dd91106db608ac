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

from early_exit import CutModelConfig

from orchestrator.config import Factor, RunTableModel, Treatment, Trial


class RunnerConfig(CutModelConfig):
    """2 methods x 5 sparsities x 3 tasks x 3 repetitions = 90 runs."""

    name = "pruning"
    seed = 31
    n_layers = 30
    # Name of a method -> the engine's options but for the sparsity.
    methods: Mapping[str, Mapping[str, Any]] = {
        "magnitude": {"prune": "magnitude"},
        "layers": {"prune": "layers", "prune_rule": "deep"},
    }
    # Whole numbers of 30 layers: a level that is none makes its runs SUSPECT.
    sparsities: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.5)

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
        """One method at one sparsity; see `cut_trial`."""
        method, sparsity = str(treatment["method"]), float(treatment["sparsity"])
        options = {
            "exit_layer": self._layers_left(method, sparsity),
            **self.methods[method],
            "sparsity": sparsity,
        }
        return self.cut_trial(str(treatment["task"]), options)

    def _layers_left(self, method: str, sparsity: float) -> int:
        n_dropped = round(sparsity * self.n_layers) if self.methods[method]["prune"] == "layers" else 0
        return self.n_layers - n_dropped
