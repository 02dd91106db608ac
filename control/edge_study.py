"""The study of edge control on a simulated Orin: who finds a good setting soon, and what happens when the fan stops.

Everything is simulated from two grid logs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from control.edge_calibration import learned_chooser
from control.edge_drive import Drive, drive
from control.edge_search import Found, seek
from control.edge_training import pretrain
from testbed.edge_control.case import EdgeCase, make_case
from testbed.edge_control.choosers import Chooser, Fixed, GovernorRule, Greedy, best_fixed
from testbed.edge_control.grpo import GrpoLearner
from testbed.edge_control.grpo_checkpoint import Checkpoint
from testbed.edge_control.grpo_seeker import NOMINAL_C, STATIC_GRPO, GrpoSeeker
from testbed.edge_control.seekers import CONFIRMED, RandomSeeker, TpeSeeker
from testbed.edge_control.task import N_FEATURES
from testbed.simulation.orin import SimulatedOrin
from testbed.simulation.orin_grid import OrinGrid
from testbed.simulation.orin_thermal import ThermalFit, fit_thermal

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
        best_seen_regrets: after every 10 measurements, the regret of the best that was seen so far.
    """

    way: str
    seed: int
    n_measurements: int
    regret: float
    setting: tuple[int, ...]
    search_s: float
    update_s: float | None
    best_seen_regrets: list[float]


def search_study(
    case: EdgeCase,
    log: OrinGrid,
    seeds: Sequence[int],
    n_measurements: int = 300,
    n_pretraining: int = 10,
    is_fan_on: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    on_done: Callable[[str, int], None] = lambda way, seed: None,
) -> list[SearchRow]:
    """Every way with the same number of noisy measurements.

    `grpo_pretrained` and `pretrained_only` have seen the log besides, which is more than the others have. `confirmed`:
    with a fifth of the measurements for its best settings again, as `grpo` has it; `grpo_best_seen` has none for that.

    Args:
        case: the problem.
        log: for the pre-training, fan on.
        seeds: of the ways.
        n_measurements: for each.
        n_pretraining: updates from the log.
        is_fan_on: while settings are measured.
        clock: for times, seconds.
        on_done: told of each way and seed.
    """
    best_reward = float(case.steady_reward(best_fixed(case, is_fan_on), is_fan_on))
    governor = np.array([size - 1 for size in case.space.sizes], dtype=np.int64)
    rows = []
    for seed in seeds:
        learner = GrpoLearner(case.space, N_FEATURES, replace(STATIC_GRPO, seed=seed))
        pretrain(case, learner, log, n_pretraining, is_fan_on=True)
        ways: dict[str, Chooser] = {
            "governor": Fixed(governor),
            "random": RandomSeeker(case.space, seed),
            "random_confirmed": RandomSeeker(case.space, seed, confirm_share=CONFIRMED),
            "tpe": TpeSeeker(case.space, seed),
            "tpe_confirmed": TpeSeeker(case.space, seed, confirm_share=CONFIRMED),
            "grpo": GrpoSeeker(case, seed, is_fan_on=is_fan_on),
            "grpo_best_seen": GrpoSeeker(case, seed, takes_best_seen=True, is_fan_on=is_fan_on),
            "pretrained_only": Fixed(learner.policy.best(case.features(NOMINAL_C, True))),
            "grpo_pretrained": GrpoSeeker(case, seed, learner, is_fan_on=is_fan_on),
        }
        for way, chooser in ways.items():
            # The same noise for all ways of a seed, as far as they ask in the same order.
            noise = np.random.default_rng(_NOISE_SEED + seed)
            began = clock()
            found = seek(chooser, partial(case.steady_reward, is_fan_on=is_fan_on, rng=noise), n_measurements)
            took_s = clock() - began
            assert found.choice is not None  # all of these recommend
            regret = 1 - float(case.steady_reward(found.choice, is_fan_on)) / best_reward
            update_s = float(np.median([each.duration_s for each in found.updates])) if found.updates else None
            setting = tuple(int(each) for each in case.space.meaning(found.choice))
            rows.append(
                SearchRow(
                    way, seed, found.n_measurements, regret, setting, took_s, update_s, _regrets(case, found, is_fan_on)
                )
            )
            on_done(way, seed)
    return rows


def _regrets(case: EdgeCase, found: Found, is_fan_on: bool, every: int = 10) -> list[float]:
    """Noise decides what looks best, and is not in the regret of that."""
    best_reward = float(case.steady_reward(best_fixed(case, is_fan_on), is_fan_on))
    ends = range(every, found.n_measurements + 1, every)
    places = [int(found.rewards[:end].argmax()) for end in ends]
    return (
        [1 - float(each) / best_reward for each in case.steady_reward(found.tried[places], is_fan_on)] if places else []
    )


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
    learned: Mapping[int, Checkpoint],
    *,
    n_batches: int = 1500,
    fan_off_at: int = 200,
    on_done: Callable[[str, int, Drive], None] = lambda chooser, seed, found: None,
) -> list[FanOffRow]:
    """Let all choosers meet a fan that stops.

    Args:
        case: the problem.
        learned: seed of the learning, and of the noise -> what was learned, calibrated.
        n_batches: of each run.
        fan_off_at: the fan stops then.
        on_done: told of each chooser, seed and drive.
    """
    rows = []
    for seed, checkpoint in learned.items():
        choosers: dict[str, Chooser] = {
            "best_fixed_fan_on": Fixed(best_fixed(case)),
            "best_fixed_within_limit": Fixed(best_fixed(case, is_fan_on=False, within_limit=True)),
            "governor": GovernorRule(case),
            "greedy_on_model": Greedy(case),
            "grpo": learned_chooser(checkpoint, case),
        }
        for name, chooser in choosers.items():
            found = drive(case, chooser, n_batches, fan_off_at=fan_off_at, seed=seed)
            rows.append(_fan_off_row(case, name, seed, found))
            on_done(name, seed, found)
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
