"""Choosers from what a spec says of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue

from contract.edge import EdgeSetting
from contract.errors import InvalidOptionError
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.choosers import Chooser, Fixed, GovernorRule, Greedy, Likeliest, best_fixed
from testbed.edge_control.task import EdgeTask
from testbed.options import PartOptions, parse_options

Ints = npt.NDArray[np.int64]


class FixedOptions(PartOptions):
    """Options of `fixed`."""

    prefill_bin: int
    decode_bin: int
    batch: int
    exit_layer: int


class BestFixedOptions(PartOptions):
    """Options of `best_fixed`."""

    within_limit: bool = False
    """The most tokens per second of the settings that stay within the temperature limit for good without the fan,
    instead of the most reward with it."""


class GovernorOptions(PartOptions):
    """Options of `governor`."""

    margin_c: float = Field(default=2.0, gt=0)
    """Below the limit, where clocks begin to step down."""


class NoOptions(PartOptions):
    """Options of those that have none."""


class SeekerOptions(PartOptions):
    """Options of `random` and `tpe`."""

    confirm_share: float = Field(default=0.0, ge=0, lt=1)
    """Of the evaluations, for measuring the best settings again."""


class GrpoOptions(PartOptions):
    """Options of `grpo`."""

    takes_best_seen: bool = False
    """Learn with all evaluations, and serve with the best setting that was seen."""
    confirm_share: float = Field(default=0.2, ge=0, lt=1)
    """Of the evaluations, for measuring the best settings again; not with `takes_best_seen`."""


class LearnedOptions(PartOptions):
    """Options of `learned`."""

    guard_c: float | None = Field(default=None, ge=0)
    """It is told that the board is so much hotter than it is; None: as much as its checkpoint was calibrated to."""


def build_fixed(*, task: EdgeTask, seed: int, path: Path | None, **options: Any) -> Chooser:
    """One setting of the space, whatever happens."""
    wanted = parse_options("chooser", "fixed", FixedOptions, options)
    return Fixed(choice_of(task, EdgeSetting(**wanted.model_dump())), task)


def build_best_fixed(*, task: EdgeTask, seed: int, path: Path | None, **options: Any) -> Chooser:
    """The best setting of a simulated board, which knows all of them."""
    within = parse_options("chooser", "best_fixed", BestFixedOptions, options).within_limit
    case = _case(task, "best_fixed")
    return Fixed(best_fixed(case, is_fan_on=not within, within_limit=within), task, "best_fixed")


def build_governor(*, task: EdgeTask, seed: int, path: Path | None, **options: Any) -> Chooser:
    """The rule of a default governor."""
    return GovernorRule(task, parse_options("chooser", "governor", GovernorOptions, options).margin_c)


def build_greedy(*, task: EdgeTask, seed: int, path: Path | None, **options: Any) -> Chooser:
    """The best next reward by a simulated board's own model."""
    parse_options("chooser", "greedy", NoOptions, options)
    return Greedy(_case(task, "greedy"))


def build_random(*, task: EdgeTask, seed: int, path: Path | None, **options: Any) -> Chooser:
    """Settings at random."""
    from testbed.edge_control.seekers import RandomSeeker

    wanted = parse_options("chooser", "random", SeekerOptions, options)
    return RandomSeeker(task.space, seed, confirm_share=wanted.confirm_share)


def build_tpe(*, task: EdgeTask, seed: int, path: Path | None, **options: Any) -> Chooser:
    """Optuna's TPE."""
    from testbed.edge_control.seekers import TpeSeeker

    wanted = parse_options("chooser", "tpe", SeekerOptions, options)
    return TpeSeeker(task.space, seed, wanted.confirm_share)


def build_grpo(*, task: EdgeTask, seed: int, path: Path | None, **options: Any) -> Chooser:
    """GRPO, learning on the device itself, on one core: more would take them from the inference."""
    import torch

    from testbed.edge_control.grpo_seeker import GrpoSeeker

    wanted = parse_options("chooser", "grpo", GrpoOptions, options)
    torch.set_num_threads(1)
    return GrpoSeeker(task, seed, takes_best_seen=wanted.takes_best_seen, confirm_share=wanted.confirm_share)


def build_learned(*, task: EdgeTask, seed: int, path: Path | None, **options: Any) -> Chooser:
    """The policy of a checkpoint, run in NumPy."""
    from testbed.edge_control.grpo_checkpoint import Checkpoint

    wanted = parse_options("chooser", "learned", LearnedOptions, options)
    assert path is not None  # whoever reads the spec has seen to it
    checkpoint = Checkpoint.load(path, task.space)
    about: dict[str, JsonValue] = {"file": path.name, "seed": checkpoint.config.seed, "n_updates": checkpoint.n_updates}
    guard_c = checkpoint.metrics.get("guard_c") or 0.0 if wanted.guard_c is None else wanted.guard_c
    return Likeliest(checkpoint.policy, task, about, float(guard_c))


def choice_of(task: EdgeTask, setting: EdgeSetting) -> Ints:
    """Where a setting is in the space.

    Args:
        task: has the space.
        setting: by its values.

    Raises:
        InvalidOptionError: a value that the space does not have; the message has those that it has.
    """
    wanted: Mapping[str, int] = setting.model_dump()
    places = []
    for name, values in zip(task.space.names, task.space.values, strict=True):
        if wanted[name] not in values:
            raise InvalidOptionError(
                f"There is no {name} {wanted[name]} in the trial's space. Choose one of "
                f"{', '.join(str(each) for each in values)}."
            )
        places.append(values.index(wanted[name]))
    return np.array(places, dtype=np.int64)


def _case(task: EdgeTask, name: str) -> EdgeCase:
    if not isinstance(task, EdgeCase):
        raise InvalidOptionError(
            f"The chooser {name!r} asks a simulated board about all its settings, and this is a real one: measure them "
            "(runnerconfig/edge_grid.py), and take 'fixed' with the best."
        )
    return task
