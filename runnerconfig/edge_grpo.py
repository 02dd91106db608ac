"""Who finds a good setting soon, and what happens when the fan stops: GRPO and others on a Jetson AGX Orin.

Each run has two parts. First a chooser seeks with `n_evaluations` batches, the same number for all that seek. Then it
serves `n_batches`, and in half of the runs the fan stops after a fifth of them. Choosers that seek keep what was found;
`governor` steps its clocks down near the limit; a `learned` policy chooses each batch anew.

As it stands the Orin is **simulated**: see `runnerconfig/edge_grid.py`, also for the board of two logs and for a real
Jetson. The best fixed settings are the simulation's own, found by trying all without noise: what others are judged by.
On a real Jetson give the grid's best as `fixed` in their place.

A policy that was trained before (`python -m control edge train`) is a file in the folder `policies` of the testbed's
data folder: `files` says which. The report: `python -m analysis edge-control results/edge_grpo`.
"""

from collections.abc import Mapping, Sequence

from edge_grid import EdgeConfig

from contract.edge import ChooserSpec
from orchestrator.config import Factor, RunTableModel, Treatment, Trial


class RunnerConfig(EdgeConfig):
    """Six choosers, the fan on or stopping, ten seeds: 120 runs."""

    name = "edge_grpo"
    # Level -> who chooses.
    choosers: Mapping[str, ChooserSpec] = {
        "grpo": ChooserSpec(name="grpo"),
        "random": ChooserSpec(name="random"),
        "tpe": ChooserSpec(name="tpe"),
        "governor": ChooserSpec(name="governor"),
        "best_fixed": ChooserSpec(name="best_fixed"),
        "best_fixed_within_limit": ChooserSpec(name="best_fixed", options={"within_limit": True}),
    }
    # Level -> file of a checkpoint, such as {"grpo_trained": "grpo-0.safetensors"}.
    files: Mapping[str, str] = {}
    fans: Sequence[str] = ("on", "stops")
    seeds: Sequence[int] = tuple(range(10))
    n_evaluations = 300
    n_batches = 750

    def create_run_table_model(self) -> RunTableModel:
        """The seed is a factor, so that all choosers meet the same noise; each run is made once."""
        return RunTableModel(
            factors=[
                Factor("chooser", [*self.choosers, *self.files]),
                Factor("fan", list(self.fans)),
                Factor("seed", list(self.seeds)),
            ],
            repetitions=1,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """One chooser: it seeks, then it serves."""
        level = str(treatment["chooser"])
        file = self.files.get(level)
        return self.edge_trial(
            self.choosers[level] if file is None else ChooserSpec(name="learned", file=file),
            seed=int(treatment["seed"]),
            n_evaluations=self.n_evaluations,
            n_batches=self.n_batches,
            fan=str(treatment["fan"]),
        )
