"""Seeking a setting when measurements are noisy: no evaluation is wasted, and a lucky measurement does not decide."""

import math
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from contract.errors import InvalidOptionError
from control.edge_search import seek
from control.edge_study import GOAL, simulated_case
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.contenders import N_CONTENDERS, Confirmation, Tally
from testbed.edge_control.grpo_seeker import EntropyPlan, GrpoSeeker
from testbed.edge_control.reward import EdgeRewardError
from testbed.edge_control.seekers import RandomSeeker
from testbed.simulation.orin_grid import read_orin_grid
from tests.control.edge_double import made_up_grid, small_case
from tests.testbed.orin_logs import JETSON

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> EdgeCase:
    return small_case(made_up_grid(tmp_path_factory.mktemp("seekers")))


def measured(seeker: GrpoSeeker, case: EdgeCase, n: int) -> list[Ints]:
    """What it asks for, group by group, with rewards of no noise."""
    asked, n_left = [], n
    while n_left > 0 and len(choices := seeker.propose(n_left)):
        seeker.learn(choices, case.steady_reward(choices))
        asked.append(choices)
        n_left -= len(choices)
    return asked


def test_grpo_measures_nothing_twice_before_it_confirms(case: EdgeCase) -> None:
    seeker = GrpoSeeker(case, 4)
    asked = measured(seeker, case, 150)
    assert sum(map(len, asked)) == 150
    explored = np.concatenate(asked[: len(seeker.updates)])
    assert len(np.unique(explored, axis=0)) == len(explored) == 120
    assert len(asked[len(seeker.updates)]) == N_CONTENDERS


def test_groups_drawn_at_once_are_those_drawn_one_by_one(case: EdgeCase) -> None:
    policy, features = GrpoSeeker(case, 4).learner.policy, case.features(65.0, True)
    together = policy.sample_groups(features, 5, 7, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    assert np.array_equal(together, np.stack([policy.sample(features, 7, rng) for _ in range(5)]))


def test_without_confirmation_grpo_learns_with_all_and_takes_the_best_it_saw(case: EdgeCase) -> None:
    seeker = GrpoSeeker(case, 4, takes_best_seen=True)
    asked = np.concatenate(measured(seeker, case, 100))
    found = seeker.recommended()
    assert len(seeker.updates) == 10 and found is not None
    assert float(case.steady_reward(found)) == float(case.steady_reward(asked).max())


def test_a_reward_that_is_no_number_is_not_remembered(case: EdgeCase) -> None:
    seeker = GrpoSeeker(case, 1)
    choices = seeker.propose(100)
    with pytest.raises(EdgeRewardError, match="nothing was learned"):
        seeker.learn(choices, np.full(len(choices), math.nan))
    assert seeker.recommended() is None and seeker.updates == []


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_to_explore_is_refused(case: EdgeCase, share: float) -> None:
    with pytest.raises(InvalidOptionError, match="below 1"):
        RandomSeeker(case.space, 0, confirm_share=share)


def test_the_bonus_follows_the_entropy() -> None:
    plan = EntropyPlan()
    assert plan.bonus(0.05, entropy=3.0, even=8.0, done=0.0) > 0.05 > plan.bonus(0.05, entropy=7.9, even=8.0, done=1.0)
    assert plan.bonus(1e9, entropy=0.0, even=8.0, done=0.0) == plan.most
    assert plan.bonus(0.0, entropy=8.0, even=8.0, done=1.0) == plan.least


def test_the_lucky_one_of_many_is_drawn_to_the_others() -> None:
    tally, rng = Tally(), np.random.default_rng(2)
    choices = np.array([[number] for number in range(12)])
    for _ in range(3):
        tally.add(choices, 0.5 + 0.1 * rng.standard_normal(12))
    tally.add(np.array([[12]]), np.array([0.9]))
    settings = tally.best(13)
    mean, variance = tally.posterior(settings)
    assert settings[0] == (12,)
    assert 0.5 < mean[0] < 0.9
    assert variance[0] == variance.max()


def test_confirmation_finds_the_better_of_two_that_one_measurement_mistook() -> None:
    tally, rng = Tally(), np.random.default_rng(3)
    truth = {0: 0.50, 1: 0.60}
    tally.add(np.array([[0], [1]]), np.array([0.75, 0.45]))
    confirmation, n_left = Confirmation(tally, 0), 100
    while n_left:
        choices = confirmation.propose(n_left)
        tally.add(
            choices, np.array([truth[int(each[0])] for each in choices]) + 0.05 * rng.standard_normal(len(choices))
        )
        n_left -= len(choices)
    best = confirmation.best()
    assert best is not None and best.tolist() == [1]
    # Most measurements go where they matter.
    assert len(tally.rewards[(1,)]) > len(tally.rewards[(0,)])


def test_confirmation_of_nothing_asks_for_nothing() -> None:
    confirmation = Confirmation(Tally(), 0)
    assert len(confirmation.propose(10)) == 0 and confirmation.best() is None


def test_confirmation_measures_no_more_than_it_may(case: EdgeCase) -> None:
    found = seek(RandomSeeker(case.space, 0, confirm_share=0.2), case.steady_reward, 57)
    assert found.n_measurements == 57 and found.choice is not None
    assert len(np.unique(found.tried, axis=0)) == 46


@pytest.mark.skipif(not JETSON.exists(), reason="the shared Jetson grid logs are not here")
@pytest.mark.parametrize("seed", [100, 101, 102])
def test_grpo_finds_a_setting_within_two_percent_of_the_best_of_the_shared_grid(seed: int) -> None:
    orin, _ = simulated_case(read_orin_grid(JETSON / "grid_fan_on.csv"), read_orin_grid(JETSON / "grid_fan_off.csv"))
    rng = np.random.default_rng(seed)
    found = seek(GrpoSeeker(orin, seed), partial(orin.steady_reward, is_fan_on=True, rng=rng), 300)
    best = float(orin.steady_reward(orin.space.all_choices()).max())
    assert found.n_measurements == 300 and found.choice is not None
    assert float(orin.steady_reward(found.choice)) >= (1 - GOAL) * best
