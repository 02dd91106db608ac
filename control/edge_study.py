"""The study of edge control on a simulated Orin: who finds a good setting soon, and what happens when the fan stops.

    python -m control.edge_study GRID_FAN_ON GRID_FAN_OFF --seeds 10 --out FOLDER

Everything is simulated from two grid logs; the rows are written as JSON beside the checkpoints.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from contract.errors import UsageError
from control.edge_drive import Chooser, Drive, Fixed, Greedy, Likeliest, drive
from control.edge_search import (
    NOMINAL_C,
    STATIC_GRPO,
    Found,
    GovernorRule,
    Measure,
    best_fixed,
    grpo_search,
    grpo_then_best_seen,
    random_search,
    tpe_search,
)
from control.edge_training import ADAPTIVE_GRPO, OnlineConfig, fine_tune, pretrain
from testbed.edge_control.case import N_FEATURES, EdgeCase, make_case
from testbed.edge_control.grpo import GrpoLearner
from testbed.edge_control.grpo_checkpoint import Checkpoint, GrpoConfig
from testbed.simulation.orin import SimulatedOrin, errors_on, held_out_errors
from testbed.simulation.orin_grid import OrinGrid, read_orin_grid
from testbed.simulation.orin_thermal import HEATING, ThermalFit, fit_thermal

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GOAL = 0.02
"""Regret that counts as found."""

_NOISE_SEED = 3_000_000_000


@dataclass(frozen=True)
class SearchRow:
    """One way, one seed.

    Attributes:
        way: of search.
        seed: of it, and of the noise.
        n_measurements: used.
        regret: of what it recommends, noise-free reward below the best of all settings, as a share of that.
        setting: recommended: prefill bin, decode bin, batch, exit layer.
        search_s: its own time on this machine, with that of simulated measurements.
        update_s: median time of an update of GRPO; None otherwise.
    """

    way: str
    seed: int
    n_measurements: int
    regret: float
    setting: tuple[int, ...]
    search_s: float
    update_s: float | None


def search_study(
    case: EdgeCase,
    log: OrinGrid,
    seeds: Sequence[int],
    n_measurements: int = 300,
    n_pretraining: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> list[SearchRow]:
    """Every way with the same number of noisy measurements, fan on.

    `grpo_pretrained` and `pretrained_only` have seen the log besides, which is more than the others have.

    Args:
        case: the problem.
        log: for the pre-training, fan on.
        seeds: of the ways.
        n_measurements: for each.
        n_pretraining: updates from the log.
        clock: for times, seconds.
    """
    best_reward = float(case.steady_reward(best_fixed(case)))
    governor = np.array([size - 1 for size in case.space.sizes], dtype=np.int64)

    rows = []
    for seed in seeds:
        learner = GrpoLearner(case.space, N_FEATURES, replace(STATIC_GRPO, seed=seed))
        pretrain(case, learner, log, n_pretraining, is_fan_on=True)
        from_log = learner.policy.best(case.features(NOMINAL_C, True))
        budget: dict[str, Any] = {"case": case, "n_measurements": n_measurements, "seed": seed}
        ways: dict[str, Callable[[Measure], Found]] = {
            "governor_like": partial(_unsearched, choice=governor),
            "random": partial(_named, random_search, budget),
            "tpe": partial(_named, tpe_search, budget),
            "grpo": partial(_named, grpo_search, budget),
            "grpo_best_seen": partial(_named, grpo_then_best_seen, budget),
            "pretrained_only": partial(_unsearched, choice=from_log),
            "grpo_pretrained": partial(_named, grpo_search, {**budget, "learner": learner}),
        }
        for way, search in ways.items():
            # The same noise for all ways of a seed, as far as they ask in the same order.
            noise = np.random.default_rng(_NOISE_SEED + seed)
            began = clock()
            found = search(partial(case.steady_reward, is_fan_on=True, rng=noise))
            took_s = clock() - began
            regret = 1 - float(case.steady_reward(found.choice)) / best_reward
            update_s = float(np.median([each.duration_s for each in found.updates])) if found.updates else None
            setting = tuple(int(each) for each in case.space.meaning(found.choice))
            rows.append(SearchRow(way, seed, found.n_measurements, regret, setting, took_s, update_s))
    return rows


def _named(search: Callable[..., Found], arguments: dict[str, Any], measure: Measure) -> Found:
    return search(measure=measure, **arguments)


def _unsearched(measure: Measure, choice: Ints) -> Found:
    return Found(choice, 0)


@dataclass(frozen=True)
class FanOffRow:
    """One chooser, one seed.

    Attributes:
        chooser: who chose.
        seed: of the learning and the noise.
        before: with the fan: a `Stretch`.
        after: without it.
        late: the last third of that.
        overhead: time of choosing over simulated time.
        choosing_s: mean time of a choice.
        last_setting: chosen last.
    """

    chooser: str
    seed: int
    before: dict[str, Any]
    after: dict[str, Any]
    late: dict[str, Any]
    overhead: float
    choosing_s: float
    last_setting: tuple[int, ...]


def fan_off_study(
    case: EdgeCase,
    log: OrinGrid,
    seeds: Sequence[int],
    folder: Path,
    *,
    n_batches: int = 1500,
    fan_off_at: int = 200,
    config: GrpoConfig | None = None,
    online: OnlineConfig | None = None,
    n_pretraining: int = 100,
) -> list[FanOffRow]:
    """Train a policy for each seed, and let all choosers meet a fan that stops.

    Args:
        case: the problem.
        log: for the pre-training, fan on.
        seeds: of learning and noise.
        folder: for checkpoints; what is there is not trained again.
        n_batches: of each run.
        fan_off_at: the fan stops then.
        config: of GRPO.
        online: training on the simulated board.
        n_pretraining: updates from the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in seeds:
        path = folder / f"grpo-{seed}.safetensors"
        if not path.exists():
            learner = GrpoLearner(case.space, N_FEATURES, replace(config or ADAPTIVE_GRPO, seed=seed))
            pretrain(case, learner, log, n_pretraining, is_fan_on=True)
            updates = fine_tune(case, learner, online)
            last = updates[-1] if updates else None
            learner.save(path, {"last_update": asdict(last) if last else None, "n_pretraining": n_pretraining})
        policy = Checkpoint.load(path, case.space).policy
        choosers: dict[str, Chooser] = {
            "best_fixed_fan_on": Fixed(best_fixed(case)),
            "best_fixed_within_limit": Fixed(best_fixed(case, is_fan_on=False, within_limit=True)),
            "governor_like": GovernorRule(case),
            "greedy_on_model": Greedy(case),
            "grpo": Likeliest(policy, case),
        }
        for name, chooser in choosers.items():
            found = drive(case, chooser, n_batches, fan_off_at=fan_off_at, seed=seed)
            rows.append(_fan_off_row(case, name, seed, found))
    return rows


def _fan_off_row(case: EdgeCase, name: str, seed: int, found: Drive) -> FanOffRow:
    return FanOffRow(
        name,
        seed,
        asdict(found.before) if found.before else {},
        asdict(found.after) if found.after else {},
        asdict(found.late) if found.late else {},
        found.overhead,
        found.choosing_s / len(found.choices),
        tuple(int(each) for each in case.space.meaning(found.choices[-1])),
    )


def simulated_case(fan_on: OrinGrid, fan_off: OrinGrid) -> tuple[EdgeCase, ThermalFit]:
    """The case of a pair of logs, with the thermal fit behind it.

    Args:
        fan_on: log.
        fan_off: log, in the order it was run.
    """
    fit = fit_thermal(fan_on, fan_off)
    return make_case(SimulatedOrin.of(fan_on, fit.model)), fit


def thermal_lines(fit: ThermalFit) -> list[str]:
    """The fit, for a person."""
    low_s, high_s = fit.plausible_tau_s()
    return [
        f"thermal: {fit.model}",
        f"  rmse fan on {fit.rmse_on_c:.2f} (constant: {fit.sd_on_c:.2f}) deg C",
        f"  rmse fan off {fit.rmse_off_c:.2f} (constant: {fit.sd_off_c:.2f}) deg C, all rows {fit.rmse_off_all_c:.2f}",
        f"  time constant fan off {fit.model.time_constant_s(False):.0f} s; {low_s:.0f} to {high_s:.0f} s fit as well",
    ]


def search_table(rows: Sequence[SearchRow]) -> list[str]:
    """A line for each way."""
    lines = [f"{'way':<16} {'n':>4} {'found':>6} {'median':>8} {'worst':>8} {'search s':>9}"]
    for way in dict.fromkeys(row.way for row in rows):
        mine = [row for row in rows if row.way == way]
        regrets = [row.regret for row in mine]
        n_found = sum(regret <= GOAL for regret in regrets)
        lines.append(
            f"{way:<16} {mine[0].n_measurements:>4} {n_found:>3}/{len(mine):<2} {np.median(regrets):>8.2%} "
            f"{max(regrets):>8.2%} {np.median([row.search_s for row in mine]):>9.2f}"
        )
    return lines


def fan_off_table(rows: Sequence[FanOffRow]) -> list[str]:
    """A line for each chooser, after the fan stopped; median over seeds, and the worst violation."""
    lines = [
        f"{'chooser':<24} {'tok/s':>6} {'late':>6} {'J/tok':>7} {'hottest':>8} {'violation s':>12} {'choice ms':>10}"
    ]
    for name in dict.fromkeys(row.chooser for row in rows):
        mine = [row for row in rows if row.chooser == name]

        def median(key: str, of: list[FanOffRow] = mine) -> float:
            return float(np.median([row.after[key] for row in of]))

        late = float(np.median([row.late["throughput_per_s"] for row in mine]))
        worst_s = max(row.after["longest_violation_s"] for row in mine)
        choosing_ms = 1e3 * float(np.median([row.choosing_s for row in mine]))
        lines.append(
            f"{name:<24} {median('throughput_per_s'):>6.0f} {late:>6.0f} {median('energy_per_token_j'):>7.4f} "
            f"{median('hottest_c'):>8.1f} {worst_s:>12.1f} {choosing_ms:>10.4f}"
        )
    return lines


def main(
    grid_fan_on: Annotated[Path, typer.Argument(help="log with the fan on")],
    grid_fan_off: Annotated[Path, typer.Argument(help="log with the fan off, in the order it was run")],
    seeds: Annotated[int, typer.Option(help="how many")] = 10,
    first_seed: Annotated[int, typer.Option(help="the first")] = 0,
    measurements: Annotated[int, typer.Option(help="of each way of search")] = 300,
    batches: Annotated[int, typer.Option(help="of a run in which the fan stops")] = 1500,
    fan_off_at: Annotated[int, typer.Option(help="batch from which the fan is off")] = 200,
    search: Annotated[bool, typer.Option(help="compare the ways of search")] = True,
    fan_off: Annotated[bool, typer.Option(help="train, and stop the fan")] = True,
    out: Annotated[Path, typer.Option(help="folder for rows and checkpoints")] = Path("results/edge"),
) -> None:
    """Search and fan-off study on the simulated Orin."""
    import torch

    if seeds < 1:
        raise UsageError("Give 1 seed or more.")
    torch.set_num_threads(1)
    fan_on, fan_off_log = read_orin_grid(grid_fan_on), read_orin_grid(grid_fan_off)
    case, fit = simulated_case(fan_on, fan_off_log)
    typer.echo(f"{fan_on.source}: {len(fan_on)} rows, twice {fan_on.repeated}, missing {fan_on.missing}")
    errors = held_out_errors(fan_on)
    row = np.arange(len(fan_off_log))
    undisturbed = np.any([(row >= first) & (row < after) for first, after in HEATING], axis=0)
    off_errors = errors_on(case.board, fan_off_log.rows(undisturbed))
    for name, each in (("held out", errors), ("fan off, heating", off_errors)):
        typer.echo(f"{name}: " + ", ".join(f"{quantity} {error:.1%}" for quantity, error in each.items()))
    typer.echo("\n".join(thermal_lines(fit)))
    wanted = range(first_seed, first_seed + seeds)
    found: list[SearchRow] = []
    stopped: list[FanOffRow] = []
    if search:
        found = search_study(case, fan_on, wanted, measurements)
        typer.echo("\n".join(["", *search_table(found)]))
    if fan_off:
        stopped = fan_off_study(case, fan_on, wanted, out, n_batches=batches, fan_off_at=fan_off_at)
        typer.echo("\n".join(["", *fan_off_table(stopped)]))
    out.mkdir(parents=True, exist_ok=True)
    rows = {
        "errors": errors,
        "errors_fan_off": off_errors,
        "thermal": asdict(fit),
        "search": [asdict(row) for row in found],
        "fan_off": [asdict(row) for row in stopped],
    }
    (out / "edge_study.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
