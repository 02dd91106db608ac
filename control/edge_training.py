"""Training for edge control: first from a grid log, then on the simulated board with the fan on and off."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.errors import UsageError
from control.edge_calibration import calibrate, late_gain
from testbed.edge_control.case import EdgeCase, log_rewards
from testbed.edge_control.grpo import GrpoLearner, GrpoUpdate
from testbed.edge_control.grpo_checkpoint import Checkpoint, GrpoConfig
from testbed.edge_control.task import N_FEATURES
from testbed.simulation.orin_grid import Cell, OrinGrid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


ADAPTIVE_GRPO = GrpoConfig(group_size=32, n_epochs=3, learning_rate=0.002, entropy_weight=0.05)
"""For many states, on the simulated board."""


NEAR_C = (-5.0, 1.5)
"""About the limit."""


@dataclass(frozen=True)
class OnlineConfig:
    """Training on the simulated board.

    Attributes:
        n_updates: of the policy.
        n_states: drawn for each update; a group of actions is compared from each.
        coldest_c: of the states.
        hottest_c: of them; above the limit, so that a way back is learned.
        fan_off_share: of the states, 0 to 1.
        near_share: of the states, drawn from `NEAR_C` about the limit: there a tenth of a degree decides.
        last_rate: the learning rate falls to this part of itself by the last update.
        n_rounds: at most, of more training for a policy that is worth less than it should be (`LEAST_GAIN`); in each
            the learning rate starts anew (warm restarts; Loshchilov and Hutter, SGDR, 2017).
        n_round_updates: of each.
    """

    n_updates: int = 600
    n_states: int = 12
    coldest_c: float = 55.0
    hottest_c: float = 98.0
    fan_off_share: float = 0.6
    near_share: float = 0.5
    last_rate: float = 0.1
    n_rounds: int = 0
    n_round_updates: int = 200


LEAST_GAIN = 0.002
"""Throughput of a hot board without the fan, above that of the best fixed setting within the limit: less is trained on.

Above 0, as the noise of the next run is another.
"""


def pretrain(case: EdgeCase, learner: GrpoLearner, grid: OrinGrid, n_updates: int, is_fan_on: bool) -> list[GrpoUpdate]:
    """Learn from a log alone: groups are drawn by the policy, and their rewards looked up.

    A log has neither all batches nor early exits. Groups are drawn as the policy would, given that a setting is in the
    log; all exit after the last layer, so the exit's head learns next to nothing here.

    Args:
        case: the reward, scaled as in the case.
        learner: is changed.
        grid: the log.
        n_updates: of it.
        is_fan_on: while the log was made.

    Raises:
        UsageError: the log has no setting of the case.
    """
    lookup = _lookup(case, grid, log_rewards(grid, case.reward))
    full = case.space.values[3].index(case.board.exits.n_layers)
    places = {
        name: {value: i for i, value in enumerate(case.space.values[k])} for k, name in enumerate(case.space.names)
    }
    logged = np.array([[places["prefill_bin"][p], places["decode_bin"][d], places["batch"][b]] for p, d, b in lookup])
    rewards = np.array([each[0] for each in lookup.values()])
    temps_c = np.array([each[1] for each in lookup.values()])
    features = case.features(float(temps_c.mean()), is_fan_on)
    updates = []
    for _ in range(n_updates):
        shares = learner.policy.probabilities(features)
        weight = np.prod([shares[head][logged[:, head]] for head in range(3)], axis=0)
        drawn = learner.rng.choice(len(logged), learner.config.group_size, p=weight / weight.sum())
        group = np.column_stack([logged[drawn], np.full(len(drawn), full)])
        updates.append(learner.update(features[None], group[None], rewards[drawn][None]))
    return updates


def fine_tune(
    case: EdgeCase,
    learner: GrpoLearner,
    config: OnlineConfig | None = None,
    *,
    first: int = 0,
    n_updates: int | None = None,
) -> list[GrpoUpdate]:
    """Learn on the simulated board: states are drawn, and a group of settings is tried from each.

    Everything is drawn from the learner's own generator, so a resumed learner goes on as one that was never stopped.

    Args:
        case: the problem.
        learner: is changed.
        config: see there.
        first: updates of this training that were made before.
        n_updates: to make now; None: what is left of it.
    """
    config = config or OnlineConfig()
    updates = []
    for number in range(first, config.n_updates if n_updates is None else first + n_updates):
        temps_c = learner.rng.uniform(config.coldest_c, config.hottest_c, config.n_states)
        is_near = learner.rng.random(config.n_states) < config.near_share
        limit_c = case.reward.limits.temp_c
        near_c = learner.rng.uniform(limit_c + NEAR_C[0], limit_c + NEAR_C[1], config.n_states)
        temps_c = np.where(is_near, near_c, temps_c)
        fans = learner.rng.random(config.n_states) >= config.fan_off_share
        states = list(zip(temps_c.tolist(), fans.tolist(), strict=True))
        features = np.stack([case.features(temp_c, is_on) for temp_c, is_on in states])
        groups = np.stack([learner.propose(each) for each in features])
        rewards = np.stack(
            [case.next_reward(group, temp_c, is_on) for group, (temp_c, is_on) in zip(groups, states, strict=True)]
        )
        rate = config.last_rate ** (number / config.n_updates)
        updates.append(learner.update(features, groups, rewards, rate=rate))
    return updates


def train(
    case: EdgeCase,
    log: OrinGrid,
    path: Path,
    *,
    config: GrpoConfig = ADAPTIVE_GRPO,
    online: OnlineConfig | None = None,
    n_pretraining: int = 100,
    checkpoint_every: int = 50,
    on_update: Callable[[int, int], None] = lambda done, of: None,
) -> Checkpoint:
    """Learn from the log, then on the simulated board, and calibrate; what a checkpoint has done is not done again.

    With `n_rounds`, a policy that serves too little on a hot board without the fan is trained on. That is judged on the
    simulated board with noise of its own, which no study has.

    Args:
        case: the problem.
        log: for the pre-training, fan on.
        path: of the checkpoint; where there is one, it is gone on from.
        config: of a new learner.
        online: see there; `n_updates` is that of the whole training.
        n_pretraining: updates from the log, of a new learner.
        checkpoint_every: so many updates.
        on_update: told how many online updates are done, and of how many.

    Raises:
        InvalidOptionError: the checkpoint cannot be read, or is of another action space.
    """
    online = online or OnlineConfig()
    if path.exists():
        learner = GrpoLearner.resume(path, case.space)
        metrics: dict[str, Any] = dict(Checkpoint.load(path, case.space).metrics)
    else:
        learner = GrpoLearner(case.space, N_FEATURES, config)
        logged = pretrain(case, learner, log, n_pretraining, is_fan_on=True) if n_pretraining else []
        metrics = {"n_pretraining": n_pretraining, "n_online": 0, "curve": [_point(each, "log") for each in logged]}
    curve = list(metrics.get("curve", []))
    for number in range(online.n_rounds + 1):
        part = online if number == 0 else replace(online, n_updates=online.n_round_updates)
        before = 0 if number == 0 else online.n_updates + (number - 1) * part.n_updates
        n_all = before + part.n_updates
        while (n_done := int(metrics.get("n_online", 0))) < n_all:
            now = min(checkpoint_every, n_all - n_done)
            updates = fine_tune(case, learner, part, first=n_done - before, n_updates=now)
            curve += [_point(each, "board") for each in updates]
            metrics = {**metrics, "n_online": n_done + now, "curve": curve, "guard_c": None}
            _save(learner, path, metrics)
            on_update(n_done + now, n_all)
        if n_done > n_all and number < online.n_rounds:
            continue
        if metrics.get("guard_c") is None:
            guard_c = calibrate(case, learner.policy, learner.config.seed)
            gain = late_gain(case, learner.policy, guard_c, learner.config.seed)
            metrics = {**metrics, "guard_c": guard_c, "late_gain": gain}
            _save(learner, path, metrics)
        gain = metrics.get("late_gain")
        if gain is None or gain >= LEAST_GAIN:
            break
    return Checkpoint.load(path, case.space)


def _save(learner: GrpoLearner, path: Path, metrics: Mapping[str, Any]) -> None:
    # A new name first: a checkpoint that is cut off could not be gone on from.
    part = path.with_suffix(".part")
    learner.save(part, metrics)
    part.replace(path)


def _point(update: GrpoUpdate, stage: str) -> dict[str, float | int | str]:
    return {
        "stage": stage,
        "number": update.number,
        "reward_mean": round(update.reward_mean, 6),
        "entropy": round(update.entropy, 6),
        "kl": round(update.kl, 6),
        "duration_s": round(update.duration_s, 6),
    }


def _lookup(case: EdgeCase, grid: OrinGrid, rewards: Floats) -> dict[Cell, tuple[float, float]]:
    """Mean reward and temperature of each logged cell that the case has."""
    bins, others, batches = (set(each) for each in case.space.values[:3])
    found: dict[Cell, list[tuple[float, float]]] = {}
    for cell, reward, temp_c in zip(grid.cells, rewards.tolist(), grid.figures["temp_c"].tolist(), strict=True):
        if cell[0] in bins and cell[1] in others and cell[2] in batches:
            found.setdefault(cell, []).append((reward, temp_c))
    if not found or case.board.exits.n_layers not in case.space.values[3]:
        raise UsageError(f"{grid.source} has no setting of this case: bins, batches, and all layers. Give another log.")
    return {
        cell: (float(np.mean([each[0] for each in rows])), float(np.mean([each[1] for each in rows])))
        for cell, rows in found.items()
    }
