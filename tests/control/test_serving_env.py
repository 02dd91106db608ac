import numpy as np
import pytest

from contract.errors import InvalidOptionError
from control.reference_simulation import simulate
from control.vector_env import VectorEnv, episode_seed
from testbed.policies.features import N_FEATURES
from tests.control.scripted import Scripted, small_case

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("stable_baselines3")

from gymnasium.utils.env_checker import check_env  # noqa: E402
from stable_baselines3 import PPO  # noqa: E402

from control.serving_env import Reward, ServingEnv, ServingVecEnv  # noqa: E402


def test_gymnasium_s_own_checks() -> None:
    check_env(ServingEnv(small_case()), skip_render_check=True)


def test_an_episode_is_the_reference_s() -> None:
    case = small_case(idle_power_w=30.0)
    env = ServingEnv(case, Reward(energy_scale_j=200.0, miss_price=3.0))
    chance = np.random.default_rng(0)
    seen, _ = env.reset(seed=11)
    taken, rewards, infos, ends = [], [], [], False
    while not ends:
        allowed = np.flatnonzero(env.action_masks())
        taken.append(env.core.actions.choice(int(chance.choice(allowed))))
        before = env.core.observation(0)
        seen, reward, ends, is_cut, info = env.step(env.core.actions.index(taken[-1], before.n_queued))
        rewards.append(reward)
        infos.append(info)
        assert not is_cut and env.observation_space.contains(seen)
    assert not seen.any()
    choices = iter(taken)
    truth = simulate(case, Scripted(lambda _: next(choices)), 11)
    assert sum(info["energy_j"] for info in infos) == pytest.approx(truth.energy_j)
    assert sum(info["n_served"] for info in infos) == truth.n_served
    assert sum(rewards) == pytest.approx(-truth.energy_j / 200.0 - 3.0 * truth.n_missed)
    assert sum(info["reward_miss"] for info in infos) == pytest.approx(-3.0 * truth.n_missed)
    assert infos[-1]["outcome"].slo_share == truth.slo_share and "outcome" not in infos[0]


def test_resets_go_on_to_the_next_episode() -> None:
    env = ServingEnv(small_case(duration_s=30.0))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    seeds = []
    first, _ = env.reset(seed=4)
    for _ in range(3):
        ends = False
        while not ends:
            _, _, ends, _, info = env.step(0)
        seeds.append(info["outcome"].seed)
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)
        env.reset()
    assert seeds == [episode_seed(4, n) for n in range(3)]
    # Leaving an episode early goes on too; the seed brings the first one back.
    env.reset()
    assert env.reset(seed=4)[0].tolist() == first.tolist()


def test_the_adapter_says_what_the_core_does() -> None:
    case = small_case(duration_s=60.0)
    reward = Reward(100.0, 2.0)
    env, core = ServingVecEnv(case, 6, reward, seed=5), VectorEnv(case, 6)
    chance = np.random.default_rng(0)
    assert env.reset().tolist() == core.reset(5).tolist()
    n_episodes, sums = 0, np.zeros(6)
    for _ in range(200):
        actions = chance.integers(0, len(core.actions), 6)
        seen, rewards, done, infos = env.step(actions)
        result = core.step(actions)
        assert seen.tolist() == result.observations.tolist() and done.tolist() == result.done.tolist()
        assert rewards == pytest.approx(-result.energy_j / 100.0 - 2.0 * result.n_missed, rel=1e-6)
        assert [info["duration_s"] for info in infos] == result.duration_s.tolist()
        assert env.env_method("action_masks", indices=[1, 3])[1].tolist() == core.action_masks()[3].tolist()
        sums += rewards
        for copy, outcome in result.episodes:
            info = infos[copy]
            assert info["outcome"] == outcome and info["terminal_observation"].shape == (N_FEATURES,)
            assert info["episode"]["r"] == pytest.approx(sums[copy], rel=1e-5)
            assert info["episode"]["l"] == outcome.n_decisions
            sums[copy] = 0.0
            n_episodes += 1
    assert n_episodes > 6


def test_seeds_begin_anew() -> None:
    env = ServingVecEnv(small_case(), 3, seed=1)
    first = env.reset().tolist()
    env.step(np.zeros(3, np.int64))
    assert env.reset().tolist() == first
    env.seed(2)
    second = env.reset().tolist()
    assert second[0] == first[1] and second[:2] == first[1:]


def test_what_copies_do_not_have() -> None:
    env = ServingVecEnv(small_case(), 2)
    assert env.env_is_wrapped(object) == [False, False] and env.get_attr("render_mode") == [None, None]
    assert env.has_attr("action_masks") and not env.has_attr("colour")
    with pytest.raises(InvalidOptionError, match="cannot be set"):
        env.set_attr("slo_s", 1.0)
    with pytest.raises(InvalidOptionError, match="no method fly"):
        env.env_method("fly")
    for wrong in ((0.0, 1.0), (1.0, -1.0), (float("inf"), 1.0)):
        with pytest.raises(InvalidOptionError):
            Reward(*wrong)


def test_stable_baselines_learns_on_it() -> None:
    env = ServingVecEnv(small_case(duration_s=30.0), 4)
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=64, n_epochs=1, seed=0, device="cpu")
    model.learn(256)
    assert model.num_timesteps == 256 and len(model.ep_info_buffer) > 0
