"""What each part of a learned policy is worth, through the testbed: plan, five learners, ablations, another model's.

The policies are files, trained beforehand on `table_csv` for the same SLO and rate; `files` names them. To make them:

    python -m control train QWEN.csv --slo-s 11 --rate 0.8 --slo-share 0.98 -o trained/own
    python -m control train QWEN.csv --slo-s 11 --rate 0.8 --slo-share 0.98 --energy-weight 0 --seeds 1 \
        -o trained/no_energy
    python -m control train LLAMA.csv --slo-s 20 --rate 0.8 --slo-share 0.99 --seeds 1 -o trained/other_model

and each goes where the testbed looks for it, under the name below, such as `trained/own/seed_0.safetensors` as
`DATA_DIR/policies/own_seed_0.safetensors`. What PPO began with is "no RL":
`trained/own/checkpoints/seed_0/imitation_000000000.safetensors`. `--local` has its DATA_DIR at
results/serving_ablations/testbed.

A policy of another model's table keeps to the SLO that it was trained for, and to the SLO of this study it is held.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from serving_policies import RunnerConfig as Base

from contract.serving import PolicySpec

VARIABLE = "JOULEBED_TABLE_CSV"


class RunnerConfig(Base):
    """Baselines, the plan, learners, and what is left when a part is taken away; ten seeds of a simulated hour."""

    name = "serving_ablations"
    table_csv: Path | None = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
    policies: Mapping[str, PolicySpec] = {
        "static_high": PolicySpec(name="static_high"),
        "fixed_clock": PolicySpec(name="fixed_clock", options={"clock_mhz": 1050.0}),
        "deadline": PolicySpec(name="deadline"),
        "deadline_energy": PolicySpec(name="deadline_energy"),
        "ablation: fixed clock": PolicySpec(name="batch_only", options={"clock_mhz": 1050.0}),
        "ablation: fixed batch": PolicySpec(name="fixed_batch", options={"batch": 8}),
    }
    n_learners = 5
    files: Mapping[str, tuple[str, str]] = {
        "planned": ("planned", "own_plan.safetensors"),
        **{f"learned, seed {n}": ("learned", f"own_seed_{n}.safetensors") for n in range(n_learners)},
        "ablation: no RL": ("learned", "no_rl_seed_0.safetensors"),
        "ablation: no energy in the reward": ("learned", "no_energy_seed_0.safetensors"),
        "cross-model: another table's": ("learned", "other_model_seed_0.safetensors"),
    }
