"""What `python -m control edge study` does: fit, search, fan that stops, figures, report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import UsageError
from control.edge_calibration import learned_chooser
from control.edge_drive import Drive
from control.edge_figure import action_figure, curve_figure, drive_figure, fan_off_figure, regret_figure, save
from control.edge_report import write_report
from control.edge_study import (
    FanOffRow,
    SearchRow,
    fan_off_study,
    fan_off_table,
    search_study,
    search_table,
    simulated_case,
    thermal_lines,
)
from control.edge_train_command import progress_bar, train_all
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.grpo_checkpoint import Checkpoint
from testbed.simulation.orin import errors_on, held_out_errors
from testbed.simulation.orin_grid import OrinGrid, read_orin_grid
from testbed.simulation.orin_thermal import HEATING, ThermalFit

_N_PRETRAINING = 100
_N_WAYS, _N_CHOOSERS = 9, 5


def study_command(
    grid_fan_on: Path,
    grid_fan_off: Path,
    out: Path,
    seeds: Sequence[int],
    *,
    n_measurements: int,
    n_updates: int,
    n_batches: int,
    fan_off_at: int,
    with_search: bool,
    with_fan_off: bool,
    as_json: bool,
) -> None:
    """Run the study; a checkpoint that is in the folder is not trained again.

    Args:
        grid_fan_on: log.
        grid_fan_off: log.
        out: folder.
        seeds: of searches, learners and noise.
        n_measurements: of each way of search.
        n_updates: of each policy.
        n_batches: of a run in which the fan stops.
        fan_off_at: batch from which it is off.
        with_search: compare the ways of search.
        with_fan_off: train, and stop the fan.
        as_json: print the rows instead of tables.

    Raises:
        UsageError: the folder cannot be written.
    """
    import torch

    torch.set_num_threads(1)
    log, off_log = read_orin_grid(grid_fan_on), read_orin_grid(grid_fan_off)
    case, fit = simulated_case(log, off_log)
    lines = [f"{log.source}: {len(log)} rows, twice {log.repeated}, missing {log.missing}"]
    errors, off_errors = held_out_errors(log), errors_on(case.board, _undisturbed(off_log))
    lines += [_error_line("held out", errors), _error_line("fan off, heating", off_errors), *thermal_lines(fit)]
    figures: dict[str, Path] = {}
    found: list[SearchRow] = []
    stopped: list[FanOffRow] = []
    if with_search:
        with progress_bar() as bar:
            task = bar.add_task("search", total=_N_WAYS * len(seeds))
            found = search_study(case, log, seeds, n_measurements, on_done=lambda way, seed: bar.advance(task))
        lines += ["", *search_table(found)]
        figures["regret"] = save(regret_figure(found), out / "regret")
    if with_fan_off:
        learned = train_all(case, log, out, seeds, n_updates=n_updates, n_pretraining=_N_PRETRAINING)
        stopped, first = _stop_the_fan(case, learned, n_batches, fan_off_at)
        lines += ["", *fan_off_table(stopped)]
        figures |= _fan_figures(case, learned, stopped, first, fan_off_at, out)
    rows = _rows(errors, off_errors, fit, found, stopped)
    _write(out, rows, lines, figures)
    if as_json:
        print(json.dumps(rows, indent=1, allow_nan=False))
        return
    print("\n".join(lines))
    print(f"\nSimulated: nothing was measured. Report: {out / 'report.html'}")


def _stop_the_fan(
    case: EdgeCase, learned: Mapping[int, Checkpoint], n_batches: int, fan_off_at: int
) -> tuple[list[FanOffRow], Drive]:
    drives: list[Drive] = []
    with progress_bar() as bar:
        task = bar.add_task("fan stops", total=_N_CHOOSERS * len(learned))

        def done(chooser: str, seed: int, found: Drive) -> None:
            bar.advance(task)
            if chooser == "grpo":
                drives.append(found)

        rows = fan_off_study(case, learned, n_batches=n_batches, fan_off_at=fan_off_at, on_done=done)
    return rows, drives[0]


def _fan_figures(
    case: EdgeCase,
    learned: Mapping[int, Checkpoint],
    rows: Sequence[FanOffRow],
    first: Drive,
    fan_off_at: int,
    out: Path,
) -> dict[str, Path]:
    seed = next(iter(learned))
    return {
        "training": save(
            curve_figure({seed: each.metrics["curve"] for seed, each in learned.items()}), out / "training"
        ),
        "actions": save(
            action_figure(case, [learned_chooser(each, case) for each in learned.values()]), out / "actions"
        ),
        "run": save(drive_figure(case, first, fan_off_at, f"GRPO, seed {seed}"), out / "run"),
        "fan_off": save(fan_off_figure(rows, case.reward.limits.temp_c), out / "fan_off"),
    }


def _undisturbed(log: OrinGrid) -> OrinGrid:
    row = np.arange(len(log))
    return log.rows(np.any([(row >= first) & (row < after) for first, after in HEATING], axis=0))


def _error_line(name: str, errors: Mapping[str, float]) -> str:
    return f"{name}: " + ", ".join(f"{quantity} {error:.1%}" for quantity, error in errors.items())


def _rows(
    errors: Mapping[str, float],
    off_errors: Mapping[str, float],
    fit: ThermalFit,
    found: Sequence[SearchRow],
    stopped: Sequence[FanOffRow],
) -> dict[str, Any]:
    return {
        "simulated": True,
        "errors": dict(errors),
        "errors_fan_off": dict(off_errors),
        "thermal": asdict(fit),
        "search": [asdict(row) for row in found],
        "fan_off": [asdict(row) for row in stopped],
    }


def _write(out: Path, rows: Mapping[str, Any], lines: Sequence[str], figures: Mapping[str, Path]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "edge_study.json").write_text(json.dumps(rows, indent=1, allow_nan=False), encoding="utf-8")
        write_report(out, lines, figures)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error}). Give another folder: --out.") from error
