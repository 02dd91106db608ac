"""Serving on a profile of this very engine: real vLLM, no GPU, policies that choose batches from a measured table.

The second half of runnerconfig/profile_vllm_cpu.py, whose header has the commands. The table has one clock, "as it is":
policies that choose among clocks are refused. JOULEBED_TABLE_CSV names the table's file on this machine; it travels
in the plan.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from serving_policies import read_table
from serving_vllm_cpu import RunnerConfig as Serving

from contract.errors import ConfigError
from contract.serving import PolicySpec, TableSpec
from orchestrator.config import Factor, RunTableModel, Treatment, Trial

VARIABLE = "JOULEBED_TABLE_CSV"


class RunnerConfig(Serving):
    """Four policies x two seeds of the arrivals, batch by batch: 8 runs of 45 s."""

    name = "serving_profiled_vllm_cpu"
    rate_per_s = 1.2
    slo_s = 4.0
    ttft_slo_s = 4.0
    table_csv: Path | None = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
    policies: Mapping[str, PolicySpec] = {
        "one at a time": PolicySpec(name="fixed_batch", options={"batch": 1}),
        "fixed_batch 4": PolicySpec(name="fixed_batch", options={"batch": 4}),
        "static_high": PolicySpec(name="static_high"),
        "batch_only": PolicySpec(name="batch_only"),
    }

    def create_run_table_model(self) -> RunTableModel:
        """All policies of a seed meet the same arrivals."""
        return RunTableModel(
            factors=[
                Factor("policy", list(self.policies)),
                Factor("batching", ["static"]),
                Factor("arrival_seed", list(self.arrival_seeds)),
            ],
            repetitions=1,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """As the parent's, with a policy that knows the table."""
        trial = super().trial({**treatment, "policy": "capped_batch 8"})
        assert trial.serving is not None
        policy = self.policies[str(treatment["policy"])].model_copy(update={"table": self.table()})
        return replace(trial, serving=trial.serving.model_copy(update={"policy": policy}))

    def table(self) -> TableSpec:
        """Of `python -m control fit --table`.

        Raises:
            ConfigError: none is named.
        """
        if self.table_csv is None:
            raise ConfigError(
                f"Which table? Set {VARIABLE} to a file of `python -m control fit --table`, as the header of "
                "runnerconfig/profile_vllm_cpu.py has it."
            )
        return read_table(self.table_csv, self.n_input_tokens, self.n_output_tokens)
