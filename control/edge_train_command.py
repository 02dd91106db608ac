"""What `python -m control edge train` does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from contract.errors import UsageError
from control.edge_figure import curve_figure, save
from control.edge_study import simulated_case
from control.edge_training import ADAPTIVE_GRPO, OnlineConfig, train
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.grpo_checkpoint import Checkpoint
from testbed.simulation.orin_grid import OrinGrid, read_orin_grid

N_ROUNDS = 5
"""Of more training at most; see `OnlineConfig`."""


def train_command(
    grid_fan_on: Path,
    grid_fan_off: Path,
    out: Path,
    seeds: Sequence[int],
    *,
    n_updates: int,
    n_pretraining: int,
    as_json: bool,
) -> None:
    """Train a policy for each seed, draw the curves, and tell.

    Args:
        grid_fan_on: log.
        grid_fan_off: log.
        out: folder; a checkpoint in it is gone on from.
        seeds: of the learners.
        n_updates: on the simulated board.
        n_pretraining: from the log.
        as_json: print JSON.

    Raises:
        UsageError: the folder cannot be written.
        InvalidOptionError: a checkpoint in it is of another action space.
    """
    log = read_orin_grid(grid_fan_on)
    case, _ = simulated_case(log, read_orin_grid(grid_fan_off))
    found = train_all(case, log, out, seeds, n_updates=n_updates, n_pretraining=n_pretraining)
    save(curve_figure({seed: each.metrics["curve"] for seed, each in found.items()}), out / "training")
    rows = [
        {
            "seed": seed,
            "file": str(checkpoint_path(out, seed)),
            "n_updates": each.n_updates,
            "guard_c": each.metrics["guard_c"],
            "reward_mean": _last(each),
        }
        for seed, each in found.items()
    ]
    if as_json:
        print(json.dumps({"simulated": True, "learners": rows}, indent=1, allow_nan=False))
        return
    for row in rows:
        print(
            f"{row['file']}: {row['n_updates']} updates, mean reward of its last groups {row['reward_mean']:.3f}, told "
            f"{row['guard_c']:.2f} deg C more than it is (calibrated on the simulated board)"
        )
    print("Simulated: nothing was measured. To use one in a trial, copy it to the testbed's folder `policies`.")


def train_all(
    case: EdgeCase, log: OrinGrid, out: Path, seeds: Sequence[int], *, n_updates: int, n_pretraining: int
) -> Mapping[int, Checkpoint]:
    """A checkpoint for each seed; what is in the folder is not trained again.

    Args:
        case: the problem.
        log: for the pre-training, fan on.
        out: folder.
        seeds: of the learners.
        n_updates: on the simulated board.
        n_pretraining: from the log.

    Raises:
        UsageError: the folder cannot be written.
    """
    import torch

    torch.set_num_threads(1)
    found = {}
    with progress_bar() as bar:
        for seed in seeds:
            task = bar.add_task(f"train, seed {seed}", total=n_updates)
            try:
                out.mkdir(parents=True, exist_ok=True)
                found[seed] = train(
                    case,
                    log,
                    checkpoint_path(out, seed),
                    config=replace(ADAPTIVE_GRPO, seed=seed),
                    online=_online(n_updates),
                    n_pretraining=n_pretraining,
                    on_update=lambda done, of, task=task: bar.update(task, completed=done, total=of),  # type: ignore[misc]
                )
            except OSError as error:
                raise UsageError(f"{out} cannot be written ({error}). Give another folder: --out.") from error
            n_done = int(found[seed].metrics["n_online"])
            bar.update(task, completed=n_done, total=n_done)
    return found


def _online(n_updates: int) -> OnlineConfig:
    # Who asks for less than a round is trying something out, and gets what was asked for.
    config = OnlineConfig(n_updates=n_updates)
    return replace(config, n_rounds=N_ROUNDS) if n_updates >= config.n_round_updates else config


def checkpoint_path(out: Path, seed: int) -> Path:
    """Where the checkpoint of a seed is."""
    return out / f"grpo-{seed}.safetensors"


def progress_bar() -> Progress:
    """On standard error, so that standard output is the command's answer alone."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _last(checkpoint: Checkpoint) -> float | None:
    rewards = [each["reward_mean"] for each in checkpoint.metrics["curve"] if each["stage"] == "board"][-20:]
    return sum(rewards) / len(rewards) if rewards else None
