"""The choosers, by name. Importing this imports none of them."""

from testbed.edge_control.choosers import Chooser
from testbed.registry import Entry, Registry

_BUILD = "testbed.edge_control.chooser_source"

CHOOSERS: Registry[Chooser] = Registry(
    "chooser",
    {
        "fixed": Entry(f"{_BUILD}:build_fixed"),
        "best_fixed": Entry(f"{_BUILD}:build_best_fixed"),
        "governor": Entry(f"{_BUILD}:build_governor"),
        "greedy": Entry(f"{_BUILD}:build_greedy"),
        "random": Entry(f"{_BUILD}:build_random"),
        "tpe": Entry(f"{_BUILD}:build_tpe", "control", "optuna"),
        "grpo": Entry(f"{_BUILD}:build_grpo", "control", "torch"),
        "learned": Entry(f"{_BUILD}:build_learned", "testbed", "safetensors"),
    },
)
"""Factories take `task`, `seed` and `path`, and `ChooserSpec.options` as keyword arguments."""
