"""A network learns to do what a teacher does, in the states that the network itself comes to (DAgger).

Ross, Gordon, Bagnell: A reduction of imitation learning and structured prediction to no-regret online learning, 2011.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError
from control.vector_env import VectorEnv
from testbed.policies.plan import Plan

Ints = npt.NDArray[np.int64]


class Teacher(Protocol):
    """What a network learns from: a plan, or a rule.

    Attributes:
        price_j: joules that a miss is worth to it; None: it weighs them in another way.
        margin: what it aims at above the wanted share, so that other seeds have that too; None: it does not tell.
    """

    price_j: float | None
    margin: float | None

    def actions(self, env: VectorEnv) -> Ints:
        """The action for each copy as it stands now.

        Args:
            env: with the teacher's own actions.

        Returns:
            (N,), indices into `env.actions`.
        """
        ...


class PlanTeacher:
    """A plan, asked with the true waits of all that are queued.

    Of a plan that mixes two, the dearer alone is taught: the lot that chooses between them is nothing that a network
    could see, and of the two it is the one that keeps the share.

    Args:
        plan: with the actions of the environment.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = replace(plan, other=None, other_part=0.0)
        self.price_j: float | None = plan.price_j
        self.margin: float | None = plan.about.get("margin")

    def actions(self, env: VectorEnv) -> Ints:
        """See `Teacher`."""
        if env.actions != self._plan.action_set:
            raise InvalidOptionError(
                "imitation: the environment's actions are not the plan's. Give it the plan's batches and wait_s."
            )
        return self._plan.actions_of_waits([env.waits_s(copy) for copy in range(env.n_copies)], env.clock_index)


@dataclass(frozen=True)
class ImitationConfig:
    """How a teacher is imitated.

    Attributes:
        n_rounds: in the first the teacher acts, later more and more the network.
        n_steps: of each copy in each round.
        n_epochs: over all samples so far, after each round.
        batch_size: samples of a gradient step.
        learning_rate: of Adam.
    """

    n_rounds: int = 8
    n_steps: int = 400
    n_epochs: int = 8
    batch_size: int = 2048
    learning_rate: float = 2e-3


def imitate(
    actor: Any,
    env: VectorEnv,
    teacher: Teacher,
    config: ImitationConfig,
    seed: int,
    on_progress: Callable[[int, float], None] = lambda done, agreement: None,
) -> float:
    """Train a network to choose as a teacher does.

    Args:
        actor: torch module, observations (B, features) to scores (B, actions); trained in place.
        env: where samples are taken; its arrivals are those of `seed`.
        teacher: tells what to do.
        config: see there.
        seed: of arrivals, of who acts, and of the order of samples.
        on_progress: told of rounds done, and of the share of the last round's samples in which network and teacher
            agreed before training on them.

    Returns:
        The last of these shares, 0 to 1.
    """
    import torch

    draw = np.random.default_rng(seed)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(actor.parameters(), lr=config.learning_rate)
    seen: list[npt.NDArray[np.float32]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    labels: list[Ints] = []
    observations = env.reset(seed)
    agreement = 0.0
    for number in range(config.n_rounds):
        teacher_share = max(0.0, 1.0 - number / max(1, config.n_rounds - 2))
        n_same = 0
        for _ in range(config.n_steps):
            allowed = env.action_masks()
            wanted = teacher.actions(env)
            chosen = choose(actor, observations, allowed)
            n_same += int((wanted == chosen).sum())
            seen.append(observations)
            masks.append(allowed)
            labels.append(wanted)
            acts = draw.random(env.n_copies) < teacher_share
            observations = env.step(np.where(acts, wanted, chosen)).observations
        agreement = n_same / (config.n_steps * env.n_copies)
        inputs, allow = torch.from_numpy(np.concatenate(seen)), torch.from_numpy(np.concatenate(masks))
        targets = torch.from_numpy(np.concatenate(labels))
        for _ in range(config.n_epochs):
            for rows in torch.randperm(len(inputs), generator=order).split(config.batch_size):
                scores = actor(inputs[rows]).masked_fill(~allow[rows], -1e9)
                loss = torch.nn.functional.cross_entropy(scores, targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - (number + 1) / (config.n_rounds + 1))
        on_progress(number + 1, agreement)
    return agreement


def choose(actor: Any, observations: npt.NDArray[np.float32], allowed: npt.NDArray[np.bool_]) -> Ints:
    """The best-scored allowed action of each row.

    Args:
        actor: as in `imitate`.
        observations: (N, features).
        allowed: (N, actions).
    """
    import torch

    with torch.no_grad():
        scores = actor(torch.from_numpy(observations)).numpy()
    chosen: Ints = np.where(allowed, scores, -np.inf).argmax(axis=1)
    return chosen
