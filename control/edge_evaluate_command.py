"""What `python -m control edge evaluate` does."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contract.errors import UsageError
from control.edge_calibration import learned_chooser
from control.edge_drive import Drive, drive
from control.edge_figure import drive_figure, save
from control.edge_study import simulated_case
from control.edge_train_command import progress_bar
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.choosers import Chooser, Fixed, GovernorRule, best_fixed
from testbed.edge_control.grpo_checkpoint import Checkpoint
from testbed.simulation.orin_grid import read_orin_grid


def evaluate_command(
    grid_fan_on: Path,
    grid_fan_off: Path,
    checkpoints: Sequence[Path],
    out: Path,
    *,
    n_batches: int,
    fan_off_at: int | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Run each checkpoint beside the best fixed settings and a governor's rule; write rows and a figure of each.

    Args:
        grid_fan_on: log.
        grid_fan_off: log.
        checkpoints: of the training.
        out: folder for rows and figures.
        n_batches: of each run.
        fan_off_at: batch from which the fan is off; None: it runs on.
        seed: of the board's noise; None: the checkpoint's.
        as_json: print JSON.

    Raises:
        InvalidOptionError: a checkpoint cannot be read, or is of another action space.
        UsageError: the fan would stop after the end, or the folder cannot be written.
    """
    case, _ = simulated_case(read_orin_grid(grid_fan_on), read_orin_grid(grid_fan_off))
    loaded = {path: Checkpoint.load(path, case.space) for path in checkpoints}
    rows: list[dict[str, Any]] = []
    with progress_bar() as bar:
        task = bar.add_task("runs", total=4 * len(loaded))
        for path, checkpoint in loaded.items():
            used = checkpoint.config.seed if seed is None else seed
            for name, chooser in _choosers(case, checkpoint).items():
                found = drive(case, chooser, n_batches, fan_off_at=fan_off_at, seed=used)
                rows.append({"checkpoint": path.name, "chooser": name, "seed": used, **told(found)})
                if name == "grpo":
                    save(drive_figure(case, found, fan_off_at, f"{path.stem}, noise of seed {used}"), out / path.stem)
                bar.advance(task)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "evaluation.json").write_text(json.dumps(rows, indent=1, allow_nan=False), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error}). Give another folder: --out.") from error
    if as_json:
        print(json.dumps({"simulated": True, "rows": rows}, indent=1, allow_nan=False))
        return
    print("\n".join(_lines(rows)))
    print(f"Simulated: nothing was measured. Rows and figures: {out}")


def told(found: Drive) -> dict[str, Any]:
    """What a run comes to, for programs."""
    stages = {"before": found.before, "after": found.after, "late": found.late}
    return {
        **{name: None if stage is None else asdict(stage) for name, stage in stages.items()},
        "choosing_mean_s": found.choosing_s / len(found.choices),
        "overhead": found.overhead,
    }


def _choosers(case: EdgeCase, checkpoint: Checkpoint) -> dict[str, Chooser]:
    return {
        "grpo": learned_chooser(checkpoint, case),
        "best_fixed_fan_on": Fixed(best_fixed(case)),
        "best_fixed_within_limit": Fixed(best_fixed(case, is_fan_on=False, within_limit=True)),
        "governor": GovernorRule(case),
    }


def _lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = f"{'fan on tok/s':>12} {'off':>6} {'late':>6} {'hottest':>8} {'violation s':>12}"
    lines = [f"{'checkpoint':<24} {'chooser':<24} {head}"]
    for row in rows:
        off, late = row["after"], row["late"]
        cells = (
            f"{row['before']['throughput_per_s']:.0f}" if row["before"] else "-",
            f"{off['throughput_per_s']:.0f}" if off else "-",
            f"{late['throughput_per_s']:.0f}" if late else "-",
            f"{max(each['hottest_c'] for each in (row['before'], off) if each):.1f}",
            f"{max(each['longest_violation_s'] for each in (row['before'], off) if each):.1f}",
        )
        widths = (12, 6, 6, 8, 12)
        told_cells = " ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{row['checkpoint']:<24} {row['chooser']:<24} {told_cells}")
    return lines
