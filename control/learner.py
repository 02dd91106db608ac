"""Learns a policy for a serving case: imitation of a teacher, then PPO, and what of it did best on validation seeds.

PPO: Schulman et al., 2017, by sb3-contrib with masked actions. The objective is least energy with a share of requests
within the SLO; the price of a miss follows the share that is reached (a Lagrange multiplier, as in Stooke, Achiam,
Abbeel: Responsive safety in reinforcement learning by PID Lagrangian methods, 2020, without the D and P parts).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from contract.errors import UsageError
from control.imitation import ImitationConfig, Teacher, imitate
from control.judge import Checkpoint, Judge, Learned
from control.learner_state import StateFile
from control.serving_case import ServingCase
from control.serving_env import Reward, ServingVecEnv
from control.vector_env import StepResult, VectorEnv
from testbed.policies.learned_policy import PolicyNetwork

_USUAL_PRICE = 5.0
_USUAL_MARGIN = 0.001

TRAINING_SEED = 2_000_000_000
"""Added to a learner's seed: the arrivals that it trains on."""


@dataclass(frozen=True)
class LearnerConfig:
    """How a policy is learned.

    Attributes:
        seed: of weights, arrivals, and everything drawn.
        n_steps: decisions that PPO sees; 0: imitation alone.
        n_copies: environments side by side.
        n_rollout: decisions of each between two updates.
        n_epochs: over each rollout.
        batch_size: decisions of a gradient step.
        learning_rate: of Adam at the start; falls to 0.
        gamma: discount per decision.
        gae_lambda: of the advantages.
        clip_range: of the probability ratio.
        target_kl: an update stops early beyond it.
        entropy_weight: of the bonus for undecided policies.
        energy_weight: of energy in the reward; 0: an ablation that learns the deadlines alone.
        hidden: widths of the layers.
        miss_price: of a missed request at the start, in units of a request's energy; None: the teacher's own, and 5
            without one.
        price_rate: how quickly the price follows; 0: it stays.
        margin: added to the wanted share in training and validation, so that it is met on other seeds; None: by the
            spread between the validation episodes, see `control.judge`.
        n_validation: episodes that choose among checkpoints.
        check_every: rollouts between two of them.
        imitation: None: PPO alone, from random weights.
    """

    seed: int = 0
    n_steps: int = 500_000
    n_copies: int = 64
    n_rollout: int = 128
    n_epochs: int = 4
    batch_size: int = 2048
    learning_rate: float = 3e-4
    gamma: float = 0.999
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    target_kl: float | None = 0.02
    entropy_weight: float = 0.001
    energy_weight: float = 1.0
    hidden: tuple[int, ...] = (128, 128)
    miss_price: float | None = None
    price_rate: float = 0.1
    margin: float | None = None
    n_validation: int = 64
    check_every: int = 6
    imitation: ImitationConfig | None = field(default_factory=ImitationConfig)


@dataclass(frozen=True)
class CentredReward(Reward):
    """What a request saves against a constant setting, less the price of misses.

    Adding a constant per served request changes no policy's order, as all arrivals are served in the end, and takes
    the largest part of the noise away.

    Attributes:
        energy_weight: of what is saved.
    """

    energy_weight: float = 1.0

    def parts(self, result: StepResult) -> tuple[Any, Any]:
        """See `Reward`."""
        saved = self.energy_weight * (result.n_served - result.energy_j / self.energy_scale_j)
        return saved, -self.miss_price * result.n_missed


def learn(
    case: ServingCase,
    slo_share: float,
    config: LearnerConfig,
    *,
    batches: Sequence[int] | None = None,
    teacher: Teacher | None = None,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, of: None,
    on_checkpoint: Callable[[Checkpoint, PolicyNetwork], None] = lambda checkpoint, network: None,
    state_file: StateFile | None = None,
) -> Learned:
    """Learn a policy.

    Args:
        case: the problem.
        slo_share: share of requests that shall be within the SLO, 0 to 1.
        config: see there.
        batches: batch choices of the actions, a teacher's own where there is one; None: powers of two.
        teacher: imitated first; None: none is.
        on_progress: told of the stage, what is done of it, and how much it is.
        on_checkpoint: told of each checkpoint with its policy.
        state_file: kept up to date while PPO learns, every `check_every` rollouts; what it holds of this training is
            gone on from, to the same result to the last bit. A kill before, while a teacher is imitated, costs that.

    Raises:
        UsageError: imitation is wanted without a teacher.
    """
    import torch
    from sb3_contrib import MaskablePPO

    if config.imitation is not None and teacher is None:
        raise UsageError("Imitation needs a teacher: give a plan, or set imitation=None for PPO alone.")
    torch.set_num_threads(1)
    validation = VectorEnv(case, config.n_validation, batches)
    scale_j = _scale_j(case)
    margin = config.margin
    if margin is None:
        margin = teacher.margin if teacher is not None and teacher.margin is not None else _USUAL_MARGIN
    # Never all of what is left to the requests.
    wanted_share = slo_share + min(margin, (1 - slo_share) / 2)
    price = config.miss_price
    if price is None:
        price = teacher.price_j / scale_j if teacher is not None and teacher.price_j is not None else _USUAL_PRICE
    env = ServingVecEnv(
        case,
        config.n_copies,
        CentredReward(scale_j, price, config.energy_weight),
        batches,
        seed=TRAINING_SEED + config.seed * 10_000,
    )
    n_updates = math.ceil(config.n_steps / (config.n_copies * config.n_rollout))
    model = MaskablePPO(
        "MlpPolicy",
        env,
        learning_rate=lambda left: config.learning_rate * left,
        n_steps=config.n_rollout,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        target_kl=config.target_kl,
        ent_coef=config.entropy_weight,
        policy_kwargs={"net_arch": {"pi": list(config.hidden), "vf": list(config.hidden)}},
        seed=config.seed,
        device="cpu",
    )
    actor = torch.nn.Sequential(model.policy.mlp_extractor.policy_net, model.policy.action_net)
    judge = Judge(case, slo_share, config.margin, validation, actor, _about(config), on_checkpoint)
    state = None if state_file is None else state_file.find()
    agreement = None if state is None else state.agreement
    if state is None and config.imitation is not None and teacher is not None:
        rounds = config.imitation.n_rounds
        agreement = imitate(
            actor,
            VectorEnv(case, config.n_copies, batches),
            teacher,
            config.imitation,
            TRAINING_SEED + config.seed * 10_000 + 5_000,
            lambda done, _: on_progress("imitation", done, rounds),
        )
        judge.look("imitation", 0, price)
    if n_updates:
        if state is not None:
            state.apply(model, env, judge)
        elif agreement is not None:
            # Of a teacher's policy the values must be known before it is changed by them.
            _freeze(actor, True)
            model.learn(4 * config.n_copies * config.n_rollout)
            _freeze(actor, False)
        n_kept = -1 if state is None else state.n_updates

        def keep(n_done: int) -> None:
            if state_file is not None and n_done > n_kept:
                state_file.save(model, env, judge, n_done, agreement)

        watcher = _watcher(
            env, judge, config, wanted_share, max(n_kept, 0), keep, lambda i: on_progress("ppo", i, n_updates)
        )
        n_seen = 0 if state is None else model.num_timesteps
        model.learn(config.n_steps - n_seen, callback=watcher, reset_num_timesteps=state is None)
    return judge.verdict(agreement, price)


def _about(config: LearnerConfig) -> dict[str, Any]:
    """How a policy was learned, for its file."""
    learner = "imitation" if config.n_steps == 0 else "ppo" if config.imitation is None else "imitation, then ppo"
    return {"learner": learner, "seed": config.seed, "config": asdict(config)}


def _scale_j(case: ServingCase) -> float:
    """Energy of a request in a batch of the expected size, at the clock that needs least for it."""
    table = case.table
    expected = case.arrivals.mean_rate_per_s * float(np.median(table.latency_s[:, 0]))
    batch = int(np.clip(round(expected), 1, case.batch_limit))
    return float(table.energy_j[:, batch - 1].min()) / batch


def _freeze(actor: Any, is_frozen: bool) -> None:
    for parameter in actor.parameters():
        parameter.requires_grad_(not is_frozen)


def _watcher(
    env: ServingVecEnv,
    judge: Judge,
    config: LearnerConfig,
    wanted: float,
    n_before: int,
    keep: Callable[[int], None],
    on_update: Callable[[int], None],
) -> Any:
    from stable_baselines3.common.callbacks import BaseCallback

    class Watcher(BaseCallback):  # type: ignore[misc]
        """Moves the price after each rollout, and has the policy judged now and then."""

        def __init__(self) -> None:
            super().__init__()
            self._n_judged = self._n_missed = 0.0
            self._n_updates = n_before

        def _on_rollout_start(self) -> None:
            # The update before it is done: nothing is half-way.
            if self._n_updates % config.check_every == 0:
                keep(self._n_updates)

        def _on_step(self) -> bool:
            for info in self.locals["infos"]:
                self._n_judged += info["n_served"] + info["n_lost"]
                self._n_missed += info["n_missed"]
            return True

        def _on_rollout_end(self) -> None:
            self._n_updates += 1
            price = env.reward.miss_price
            if self._n_judged > 0 and config.price_rate > 0:
                allowed = max(1 - (judge.aim or wanted), 1e-4)
                # In units of what is allowed, so that 1 % too many of 1 % weighs as 10 % too many of 10 %.
                step = float(np.clip((self._n_missed / self._n_judged - allowed) / allowed, -1.0, 1.0))
                price = float(np.clip(price * math.exp(config.price_rate * step), 0.01, 1000.0))
                env.reward = replace(env.reward, miss_price=price)
            self._n_judged = self._n_missed = 0.0
            if self._n_updates % config.check_every == 0:
                judge.look("ppo", self.num_timesteps, price)
            on_update(self._n_updates)

        def _on_training_end(self) -> None:
            judge.look("ppo", self.num_timesteps, env.reward.miss_price)

    return Watcher()
