"""Edge control as a whole, on a made-up board: searches with equal budgets, training, and a fan that stops."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from contract.errors import InvalidOptionError, UsageError
from control.edge_calibration import SLACK_C, calibrate, late_gain
from control.edge_drive import drive
from control.edge_search import seek
from control.edge_study import fan_off_study, fan_off_table, search_study, search_table
from control.edge_training import OnlineConfig, fine_tune, pretrain, train
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.choosers import Chooser, Fixed, GovernorRule, Greedy, Likeliest, best_fixed
from testbed.edge_control.grpo import GrpoLearner
from testbed.edge_control.grpo_checkpoint import GrpoConfig
from testbed.edge_control.grpo_seeker import GrpoSeeker
from testbed.edge_control.seekers import RandomSeeker, TpeSeeker
from testbed.edge_control.task import N_FEATURES
from testbed.policies.factored_policy import FactoredPolicy
from testbed.simulation.orin_grid import OrinGrid
from tests.control.edge_double import made_up_grid, small_case

QUICK = GrpoConfig(group_size=8, learning_rate=0.02, hidden=(16,))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> OrinGrid:
    return made_up_grid(tmp_path_factory.mktemp("edge"))


@pytest.fixture(scope="module")
def case(grid: OrinGrid) -> EdgeCase:
    return small_case(grid, batches=(1, 13, 31), exit_layers=(9, 12, 16))


def test_the_whole_action_space_has_5808_settings(grid: OrinGrid) -> None:
    assert small_case(grid).space.n_actions == 5808


def test_rewards_of_many_settings_are_those_of_each(case: EdgeCase) -> None:
    choices = case.space.all_choices()[::97]
    for is_fan_on in (True, False):
        together = case.next_reward(choices, 80.0, is_fan_on)
        one_by_one = [float(case.next_reward(choice, 80.0, is_fan_on)) for choice in choices]
        assert together == pytest.approx(one_by_one)


def test_without_the_fan_a_setting_is_worth_no_more(case: EdgeCase) -> None:
    choices = case.space.all_choices()
    limits = replace(case.reward.limits, lookahead_s=0.0)
    plain = replace(case, reward=replace(case.reward, limits=limits))
    hotter = plain.steady_temp_c(choices, False) - plain.steady_temp_c(choices, True)
    assert (hotter > 0).all()
    penalised = plain.steady_temp_c(choices, False) > limits.temp_c + 4
    assert (plain.steady_reward(choices, False) < plain.steady_reward(choices, True))[penalised].all()


def test_the_best_fixed_setting_within_the_limit_stays_there(case: EdgeCase) -> None:
    chosen = best_fixed(case, is_fan_on=False, within_limit=True)
    found = drive(case, Fixed(chosen), 400, fan_off_at=0, seed=1)
    assert found.after is not None
    # The noise of the power is 1 %, of about 40 deg C above the ambient.
    assert found.after.hottest_c < case.reward.limits.temp_c + 1
    cold = replace(case, reward=replace(case.reward, limits=replace(case.reward.limits, temp_c=41.0)))
    with pytest.raises(UsageError, match="no setting stays"):
        best_fixed(cold, is_fan_on=False, within_limit=True)


class Counted:
    def __init__(self, case: EdgeCase) -> None:
        self.case, self.n_asked = case, 0

    def __call__(self, choices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        self.n_asked += len(choices)
        return self.case.steady_reward(choices)


def seekers(case: EdgeCase, seed: int) -> dict[str, Chooser]:
    return {"random": RandomSeeker(case.space, seed), "grpo": GrpoSeeker(case, seed)}


@pytest.mark.parametrize("way", ["random", "grpo"])
def test_a_search_measures_no_more_than_it_may(case: EdgeCase, way: str) -> None:
    measure = Counted(case)
    found = seek(seekers(case, 0)[way], measure, 47)
    assert measure.n_asked == found.n_measurements == len(found.rewards) == len(found.tried) <= 47
    assert found.choice is not None


def test_the_bayesian_search_measures_no_more_and_beats_a_blind_guess(case: EdgeCase) -> None:
    pytest.importorskip("optuna")
    measure = Counted(case)
    found = seek(TpeSeeker(case.space, 0), measure, 40)
    assert measure.n_asked == found.n_measurements == 40 and found.choice is not None
    assert float(case.steady_reward(found.choice)) > float(np.median(case.steady_reward(case.space.all_choices())))


def test_random_search_with_every_setting_finds_the_best(case: EdgeCase) -> None:
    found = seek(RandomSeeker(case.space, 0), case.steady_reward, case.space.n_actions + 10)
    assert found.n_measurements == case.space.n_actions and found.choice is not None
    assert float(case.steady_reward(found.choice)) == pytest.approx(float(case.steady_reward(best_fixed(case))))


def test_grpo_comes_near_the_best_on_a_smooth_board(case: EdgeCase) -> None:
    learner = GrpoLearner(case.space, N_FEATURES, replace(QUICK, seed=1))
    found = seek(GrpoSeeker(case, 1, learner), case.steady_reward, 600)
    best, worst = float(case.steady_reward(best_fixed(case))), float(case.steady_reward(case.space.all_choices()).min())
    assert found.choice is not None
    assert float(case.steady_reward(found.choice)) > best - 0.1 * (best - worst)


def test_the_log_alone_teaches_clocks_and_batch(case: EdgeCase, grid: OrinGrid) -> None:
    learner = GrpoLearner(case.space, N_FEATURES, replace(QUICK, seed=2))
    pretrain(case, learner, grid, 80, is_fan_on=True)
    chosen = learner.policy.best(case.features(62.0, True))
    full = np.array([*chosen[:3], 2])
    logged = np.array([each for each in case.space.all_choices() if each[3] == 2])
    rewards = case.steady_reward(logged)
    assert float(case.steady_reward(full)) > np.quantile(rewards, 0.9)


def test_training_that_is_resumed_equals_training_that_went_on(case: EdgeCase, tmp_path: Path) -> None:
    config = OnlineConfig(n_updates=8, n_states=3)
    straight, stopped = (GrpoLearner(case.space, N_FEATURES, QUICK) for _ in range(2))
    fine_tune(case, straight, config)
    fine_tune(case, stopped, config, n_updates=4)
    stopped.save(tmp_path / "half.safetensors")
    resumed = GrpoLearner.resume(tmp_path / "half.safetensors", case.space)
    fine_tune(case, resumed, config, first=4, n_updates=4)
    states = np.stack([case.features(temp_c, False) for temp_c in (60.0, 80.0, 94.0)])
    assert np.array_equal(resumed.policy.logits(states), straight.policy.logits(states))


def test_when_the_fan_stops_rules_hold_the_limit_and_a_hot_setting_does_not(case: EdgeCase) -> None:
    hot = Fixed(np.array([10, 10, 2, 2]))
    after = {
        name: drive(case, chooser, 900, fan_off_at=50, seed=1).after
        for name, chooser in (("hot", hot), ("rule", GovernorRule(case)), ("greedy", Greedy(case)))
    }
    assert after["hot"] is not None and after["rule"] is not None and after["greedy"] is not None
    assert after["hot"].longest_violation_s > 100
    assert after["rule"].longest_violation_s <= 10
    assert after["greedy"].longest_violation_s <= 10


def test_the_fan_stops_at_the_batch_that_was_said(case: EdgeCase) -> None:
    warm = Fixed(np.array([10, 10, 2, 2]))
    with_fan, without = (drive(case, warm, 60, fan_off_at=each, seed=4) for each in (None, 40))
    assert np.array_equal(with_fan.temps_c[:40], without.temps_c[:40])
    assert (without.temps_c[40:] > with_fan.temps_c[40:]).all()
    assert with_fan.after is None and without.after is not None and without.after.n_batches == 20
    with pytest.raises(UsageError, match="batch 60 of 60"):
        drive(case, warm, 60, fan_off_at=60, seed=4)


def test_what_cannot_be_chosen_or_seen_is_refused(case: EdgeCase) -> None:
    with pytest.raises(InvalidOptionError, match="no decode_bin number 11"):
        case.setting(np.array([0, 11, 0, 0]))
    with pytest.raises(UsageError, match="not a number"):
        case.features(float("nan"), True)


def test_both_studies_run_and_go_on_from_checkpoints(case: EdgeCase, grid: OrinGrid, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    found = search_study(case, grid, [0], n_measurements=24, n_pretraining=3)
    assert {row.way for row in found} >= {"random", "tpe", "grpo", "governor"}
    assert all(row.regret >= -1e-12 for row in found)
    assert all(len(row.best_seen_regrets) == row.n_measurements // 10 for row in found)
    assert len(search_table(found)) == 1 + len({row.way for row in found})
    path = tmp_path / "grpo-0.safetensors"
    online = OnlineConfig(n_updates=6, n_states=2)
    learned = train(case, grid, path, config=QUICK, online=online, n_pretraining=2, checkpoint_every=4)
    assert learned.metrics["n_online"] == 6 and len(learned.metrics["curve"]) == 8
    rows = fan_off_study(case, {0: learned}, n_batches=30, fan_off_at=5)
    assert {row.chooser for row in rows} >= {"grpo", "best_fixed_within_limit", "governor"}
    assert len(fan_off_table(rows)) == 1 + len(rows)
    before = path.read_bytes()
    assert train(case, grid, path, online=online).n_updates == learned.n_updates
    assert path.read_bytes() == before


def test_training_that_was_cut_off_ends_as_if_it_had_not_been(case: EdgeCase, grid: OrinGrid, tmp_path: Path) -> None:
    online = OnlineConfig(n_updates=6, n_states=2)
    kept = {"config": QUICK, "n_pretraining": 2, "checkpoint_every": 2}
    straight = train(case, grid, tmp_path / "straight.safetensors", online=online, **kept)  # type: ignore[arg-type]

    def stop(done: int, of: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    path = tmp_path / "stopped.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(case, grid, path, online=online, on_update=stop, **kept)  # type: ignore[arg-type]
    resumed = train(case, grid, path, online=online, **kept)  # type: ignore[arg-type]
    assert [each["reward_mean"] for each in resumed.metrics["curve"]] == [
        each["reward_mean"] for each in straight.metrics["curve"]
    ]
    states = np.stack([case.features(temp_c, False) for temp_c in (60.0, 94.0)])
    assert np.array_equal(resumed.policy.logits(states), straight.policy.logits(states))


class Thermostat(FactoredPolicy):
    """All or nothing: hot settings up to a temperature, cool ones from there on."""

    def __init__(self, case: EdgeCase, switch_c: float) -> None:
        super().__init__(case.space, ())
        object.__setattr__(self, "switch", case.features(switch_c, False)[1])

    def best(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return np.array([10, 10, 2, 2] if features[1] < self.switch else [0, 0, 0, 0])  # type: ignore[attr-defined]


def test_calibration_tells_a_policy_that_is_too_warm_to_hold_the_board_cooler(case: EdgeCase) -> None:
    limit_c = case.reward.limits.temp_c
    assert calibrate(case, Thermostat(case, limit_c - 5), 0) == 0.0
    policy = Thermostat(case, limit_c + 0.3)
    guard_c = calibrate(case, policy, 0)
    assert 0.3 < guard_c < 1.5
    held = drive(case, Likeliest(policy, case, guard_c=guard_c), 600, fan_off_at=0, seed=9, start_c=85.0).after
    bare = drive(case, Likeliest(policy, case), 600, fan_off_at=0, seed=9, start_c=85.0).after
    assert held is not None and bare is not None
    assert held.longest_violation_s == 0.0 < bare.longest_violation_s
    assert held.hottest_c < limit_c - SLACK_C / 2


def test_a_policy_that_passes_the_limit_or_serves_too_little_is_told_from_one_that_serves_more(case: EdgeCase) -> None:
    limit_c = case.reward.limits.temp_c
    cold, hot = Thermostat(case, 0.0), Thermostat(case, limit_c + 50)
    found_cold = late_gain(case, cold, 0.0, 1)
    assert found_cold is not None and -1 < found_cold < 0
    assert late_gain(case, hot, 0.0, 1) == -1.0
    chilly = replace(case, reward=replace(case.reward, limits=replace(case.reward.limits, temp_c=41.0)))
    assert late_gain(chilly, cold, 0.0, 1) is None


def test_a_policy_that_serves_too_little_is_trained_on_and_one_that_was_is_left(
    case: EdgeCase, grid: OrinGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import control.edge_training

    gains = iter([-0.1, -1.0, 0.01])
    monkeypatch.setattr(control.edge_training, "late_gain", lambda *_: next(gains))
    monkeypatch.setattr(control.edge_training, "calibrate", lambda *_: 0.25)
    path = tmp_path / "grpo-0.safetensors"
    online = OnlineConfig(n_updates=4, n_states=2, n_rounds=5, n_round_updates=3)
    learned = train(case, grid, path, config=QUICK, online=online, n_pretraining=2)
    assert learned.metrics["n_online"] == 10 and len(learned.metrics["curve"]) == 12
    assert (learned.metrics["late_gain"], learned.metrics["guard_c"]) == (0.01, 0.25)
    before = path.read_bytes()
    train(case, grid, path, online=online)
    assert path.read_bytes() == before
