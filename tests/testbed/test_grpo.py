"""GRPO: what a group teaches, what is refused, and going on from a checkpoint."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InvalidOptionError
from testbed.edge_control.grpo import GrpoLearner, GrpoUpdate, advantages
from testbed.edge_control.grpo_checkpoint import Checkpoint, GrpoConfig
from testbed.edge_control.reward import EdgeRewardError
from testbed.policies.factored_policy import FactoredPolicy, FactoredSpace

SPACE = FactoredSpace(("clock", "batch"), ((0, 1, 2, 3, 4), (1, 7, 13)))
STATES = np.array([[1.0, 0.0], [-1.0, 0.5]])
BEST = np.array([[4, 0], [1, 2]])
"""In each of the states."""


def rewards_of(choices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Choices (states, group, heads): nearer to the best of each state is better."""
    return -np.abs(choices - BEST[:, None, :]).sum(axis=-1).astype(float)


def learner(**changes: object) -> GrpoLearner:
    config = GrpoConfig(seed=3, group_size=16, learning_rate=0.02, hidden=(16,), reference_every=20)
    return GrpoLearner(SPACE, 2, replace(config, **changes))  # type: ignore[arg-type]


def train(mine: GrpoLearner, n_updates: int) -> list[GrpoUpdate]:
    updates = []
    for _ in range(n_updates):
        groups = np.stack([mine.propose(state) for state in STATES])
        updates.append(mine.update(STATES, groups, rewards_of(groups)))
    return updates


def weights(mine: GrpoLearner) -> list[npt.NDArray[np.float64]]:
    return [each for layer in mine.policy.layers for each in layer]


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_advantages_are_centred_and_of_size_one(rewards: list[float]) -> None:
    found = advantages(np.array(rewards))
    assert abs(found.sum()) < 1e-6 * len(rewards)
    assert found.std() == pytest.approx(1.0, abs=1e-3) or np.std(rewards) < 1e-4


def test_a_group_that_is_all_alike_teaches_nothing() -> None:
    mine = learner(entropy_weight=0.0, kl_weight=0.0)
    before = weights(mine)
    group = np.stack([mine.propose(state) for state in STATES])
    mine.update(STATES, group, np.full(group.shape[:2], 0.7))
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(mine), strict=True))


def test_it_learns_another_action_for_each_state() -> None:
    mine = learner()
    updates = train(mine, 120)
    assert np.array_equal(mine.policy.best(STATES), BEST)
    assert updates[-1].reward_mean > updates[0].reward_mean + 1
    assert updates[-1].entropy < updates[0].entropy


def test_the_kl_holds_it_to_the_reference() -> None:
    free, held = learner(reference_every=0), learner(reference_every=0, kl_weight=5.0)
    train(free, 60)
    train(held, 60)
    start = learner().policy.logits(STATES)
    assert np.abs(held.policy.logits(STATES) - start).max() < np.abs(free.policy.logits(STATES) - start).max() / 2


def test_a_reward_that_is_no_number_is_refused_and_changes_nothing() -> None:
    mine = learner()
    before = weights(mine)
    group = np.stack([mine.propose(state) for state in STATES])
    rewards = rewards_of(group)
    rewards[1, 2] = math.nan
    with pytest.raises(EdgeRewardError, match="1 of 32 rewards"):
        mine.update(STATES, group, rewards)
    assert mine.n_updates == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(mine), strict=True))


@pytest.mark.parametrize("changes", [{"group_size": 1}, {"n_epochs": 0}, {"learning_rate": 0.0}, {"hidden": (0,)}])
def test_settings_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidOptionError):
        learner(**changes)


@pytest.mark.parametrize("n_before", [0, 1, 25])
def test_resumed_equals_never_stopped(tmp_path: Path, n_before: int) -> None:
    straight, stopped = learner(), learner()
    train(straight, n_before + 7)
    train(stopped, n_before)
    stopped.save(tmp_path / "grpo.safetensors")
    resumed = GrpoLearner.resume(tmp_path / "grpo.safetensors", SPACE)
    assert resumed.n_updates == n_before
    train(resumed, 7)
    assert all(np.array_equal(a, b) for a, b in zip(weights(straight), weights(resumed), strict=True))
    assert np.array_equal(straight.propose(STATES[0]), resumed.propose(STATES[0]))


def test_a_checkpoint_has_its_settings_and_metrics_and_chooses_without_torch(tmp_path: Path) -> None:
    mine = learner()
    train(mine, 5)
    mine.save(tmp_path / "grpo.safetensors", {"regret": 0.25})
    found = Checkpoint.load(tmp_path / "grpo.safetensors", SPACE)
    assert (found.config, found.n_updates, found.metrics) == (mine.config, 5, {"regret": 0.25})
    assert np.array_equal(found.policy.logits(STATES), mine.policy.logits(STATES))


def test_a_checkpoint_of_another_action_space_is_refused(tmp_path: Path) -> None:
    learner().save(tmp_path / "grpo.safetensors")
    other = FactoredSpace(("clock", "batch"), ((0, 1, 2, 3), (1, 7, 13)))
    with pytest.raises(InvalidOptionError, match=r"clock 0\.\.4 \(5\).*wanted is clock 0\.\.3 \(4\).*another action"):
        Checkpoint.load(tmp_path / "grpo.safetensors", other)
    with pytest.raises(InvalidOptionError, match="another action space"):
        GrpoLearner.resume(tmp_path / "grpo.safetensors", other)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grpo.safetensors"
    with pytest.raises(InvalidOptionError, match="cannot be read"):
        Checkpoint.load(path, SPACE)
    learner().save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InvalidOptionError, match="cannot be read"):
        Checkpoint.load(path, SPACE)


def test_actions_come_as_often_as_their_probabilities_say() -> None:
    logits = np.log([0.5, 0.3, 0.1, 0.1, 1e-9, 0.2, 0.2, 0.6])
    policy = FactoredPolicy(SPACE, ((np.zeros((8, 2)), logits),))
    drawn = policy.sample(STATES[0], 20_000, np.random.default_rng(1))
    for head, share in enumerate(policy.probabilities(STATES[0])):
        counts = np.bincount(drawn[:, head], minlength=share.size) / len(drawn)
        # Four standard errors of the largest share.
        assert np.abs(counts - share).max() < 4 * math.sqrt(0.25 / len(drawn))
    assert policy.best(STATES[0]).tolist() == [0, 2]


def test_a_choice_that_does_not_exist_is_refused() -> None:
    assert SPACE.meaning(np.array([4, 2])).tolist() == [4, 13]
    assert SPACE.all_choices().shape == (SPACE.n_actions, 2)
    with pytest.raises(InvalidOptionError, match="no batch number 3; there are 0 to 2"):
        SPACE.meaning(np.array([0, 3]))
