"""A configuration of GreenLab's Experiment Runner whose runs are done and measured on a JouleBed testbed.

    python experiment-runner/ /path/to/runnerconfig/RunnerConfig.py

Experiment Runner keeps design, order, pauses and run table. `experiment_runner.toml` beside this file says how levels
become trials; JOULEBED_TESTBED and JOULEBED_TOKEN (or JOULEBED_TOKEN_FILE) name the testbed. `orchestrator plan
--experiment-runner-config` takes the same two files. See docs/experiment-runner.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ConfigValidator.Config.Models.FactorModel import FactorModel
from ConfigValidator.Config.Models.OperationType import OperationType
from ConfigValidator.Config.Models.RunnerContext import RunnerContext
from ConfigValidator.Config.Models.RunTableModel import RunTableModel
from EventManager.EventSubscriptionController import EventSubscriptionController
from EventManager.Models.RunnerEvents import RunnerEvents

_HERE = Path(__file__).resolve().parent
_MISSING = (
    "JouleBed is not installed in the Python that runs Experiment Runner. Install it there: "
    "pip install '/path/to/joulebed[orchestrator]'"
)


class RunnerConfig:
    """Task x concurrency on a small model, two repetitions."""

    name: str = "delegated"
    results_output_path: Path = Path(os.environ.get("JOULEBED_RESULTS") or _HERE / "experiments")
    operation_type: OperationType = OperationType.AUTO
    # The cooldown is Experiment Runner's here: its pause has no thermal gate.
    time_between_runs_in_ms: int = 500
    template: Path = Path(os.environ.get("JOULEBED_TEMPLATE") or _HERE / "experiment_runner.toml")

    def __init__(self) -> None:
        EventSubscriptionController.subscribe_to_multiple_events(
            [
                (RunnerEvents.BEFORE_EXPERIMENT, self.before_experiment),
                (RunnerEvents.INTERACT, self.interact),
                (RunnerEvents.POPULATE_RUN_DATA, self.populate_run_data),
            ]
        )
        self.run_table_model: Any = None
        self.result: Any = None

    def create_run_table_model(self) -> RunTableModel:
        """2 tasks x 2 concurrency levels x 2 repetitions = 8 runs."""
        self.run_table_model = RunTableModel(
            factors=[FactorModel("task", ["BoolQ", "RTE"]), FactorModel("concurrency", [1, 4])],
            repetitions=2,
            shuffle=True,
            data_columns=["energy", "energy_method", "duration_s", "n_output_tokens", "accuracy", "state", "reasons"],
        )
        return self.run_table_model

    def before_experiment(self) -> None:
        """See, before anything runs, that JouleBed is here and the testbed can do every row."""
        rows = self.run_table_model.generate_experiment_run_table()
        delegate = self._delegate()
        try:
            delegate.check([self._levels(row) for row in rows if row["__run_id"].endswith("_repetition_0")])
        finally:
            delegate.close()

    def interact(self, context: RunnerContext) -> None:
        """The whole run: the testbed loads, warms up and measures; its files come into the run's folder."""
        delegate = self._delegate()
        try:
            self.result = delegate.run(self._levels(_row(context)), context.run_dir)
        finally:
            delegate.close()

    def populate_run_data(self, context: RunnerContext) -> dict[str, Any]:
        """The data columns, from the testbed's result."""
        delegate = self._delegate()
        try:
            return delegate.data(self.result, self.run_table_model.get_data_columns())
        finally:
            delegate.close()

    def _delegate(self) -> Any:
        try:
            from orchestrator.experiment_runner.delegate import delegate_from_environment
        except ModuleNotFoundError as error:
            raise RuntimeError(f"{_MISSING} ({error})") from error
        return delegate_from_environment(self.name, self.template)

    def _levels(self, row: dict[str, Any]) -> dict[str, Any]:
        columns = self.run_table_model.get_data_columns()
        return {name: cell for name, cell in row.items() if name not in columns}

    experiment_path: Path | None = None


def _row(context: RunnerContext) -> dict[str, Any]:
    # The name changed between versions.
    row: dict[str, Any] = context.execute_run if hasattr(context, "execute_run") else context.run_variation
    return row
