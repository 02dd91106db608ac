from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import InvalidOptionError
from control.reference_simulation import simulate
from control.serving_case import ServingCase, ServingCaseError
from control.vector_env import VectorEnv, default_batches, episode_seed
from testbed.policies.base import Decision, Wait
from testbed.policies.features import MOST_WAIT, N_FEATURES, features
from testbed.simulation.arrivals import ArrivalSpec
from tests.control.scripted import Scripted, small_case, small_table

UNMEASURED = (
    *("latency_mean_s", "latency_p50_s", "latency_p99_s", "decision_mean_s", "decision_max_s"),
    *("wall_s", "requests", "decisions"),
)

arrivals = st.one_of(
    # From a nearly idle server to ten times what it can serve.
    st.builds(ArrivalSpec, rate_per_s=st.floats(0.05, 20.0)),
    st.builds(ArrivalSpec, kind=st.just("gamma"), rate_per_s=st.floats(0.1, 5.0), cv=st.floats(0.2, 6.0)),
    # Whole seconds: requests arrive together, and as services and waits end.
    st.builds(
        lambda gaps: ArrivalSpec(kind="trace", trace_s=tuple(np.cumsum([*gaps, 1]).tolist())),
        st.lists(st.integers(0, 4), min_size=3, max_size=60),
    ),
)
cases = st.builds(
    ServingCase,
    table=st.builds(small_table, st.integers(2, 4), st.integers(1, 9), latency_s=st.sampled_from([0.3, 1.0, 2.0, 2.7])),
    slo_s=st.sampled_from([0.1, 2.0, 4.0, 6.5, 30.0]),
    arrivals=arrivals,
    duration_s=st.sampled_from([20.0, 60.0, 150.0]),
    switch_s=st.sampled_from([0.0, 0.05, 1.0]),
    switch_energy_j=st.sampled_from([None, 0.0, 7.5]),
    idle_power_w=st.sampled_from([0.0, 55.5]),
    queue_limit=st.sampled_from([1, 3, 12, 100]),
    wait_s=st.sampled_from([None, 0.25, 1.0, 3.0]),
    drain=st.booleans(),
)


def play(env: VectorEnv, seeds: list[int], chance: np.random.Generator, n_episodes: int) -> None:
    """Random actions in all copies until each has ended so many episodes; all of them against the reference."""
    n_copies, n_actions = env.n_copies, len(env.actions)
    # Serving large batches, small ones, or mostly waiting: each episode of each copy has a taste of its own.
    weights = chance.dirichlet(np.full(n_actions, 0.2), size=n_copies)
    if env.actions.wait_index is not None and chance.random() < 0.3:
        weights *= 0.05
        weights[:, env.actions.wait_index] += 0.95
    told: list[list[tuple[object, ...]]] = [[] for _ in range(n_copies)]
    finished = [0] * n_copies
    seen = env.reset(seeds)
    while min(finished) < n_episodes:
        chosen = np.array([chance.choice(n_actions, p=weights[copy]) for copy in range(n_copies)])
        for copy in range(n_copies):
            expected = features(env.observation(copy), env.features)
            assert seen[copy] == pytest.approx(expected, abs=1e-6)
        before = [(env.observation(copy), env.actions.choice(int(chosen[copy]))) for copy in range(n_copies)]
        result = env.step(chosen)
        ended = dict(result.episodes)
        assert set(ended) == set(np.flatnonzero(result.done).tolist())
        for copy in range(n_copies):
            figures = (result.energy_j, result.n_served, result.n_missed, result.n_lost, result.duration_s)
            told[copy].append((*before[copy], *(each[copy] for each in figures)))
            if copy in ended:
                follow(env.case, told[copy], ended[copy])
                told[copy] = []
                finished[copy] += 1
        seen = result.observations


def follow(case: ServingCase, steps: list[tuple[object, ...]], outcome: object) -> None:
    """The same decisions in the reference: the same observations, steps and sums, to the last bit."""
    choices = iter([step[1] for step in steps])
    policy = Scripted(lambda _: next(choices))  # type: ignore[arg-type,return-value]
    truth = simulate(case, policy, outcome.seed, keep_records=True)  # type: ignore[attr-defined]
    assert truth.decisions is not None and truth.requests is not None
    assert policy.seen == [step[0] for step in steps]
    records = [(each.energy_j, each.n_served, each.n_missed, each.n_lost, each.duration_s) for each in truth.decisions]
    assert records == [step[2:] for step in steps]
    unmeasured = dict.fromkeys(UNMEASURED)
    assert replace(truth, policy="", **unmeasured) == outcome  # type: ignore[arg-type]
    assert truth.n_arrived == truth.n_served + truth.n_lost + truth.n_unfinished == len(truth.requests)


@settings(max_examples=150, deadline=None)
@given(case=cases, seed=st.integers(0, 2**32), chance_seed=st.integers(0, 2**32), n_copies=st.integers(1, 3))
def test_each_step_is_the_reference(case: ServingCase, seed: int, chance_seed: int, n_copies: int) -> None:
    env = VectorEnv(case, n_copies)
    seeds = [seed + copy for copy in range(n_copies)]
    try:
        play(env, seeds, np.random.default_rng(chance_seed), n_episodes=2 if n_copies == 1 else 1)
    except ServingCaseError:
        # A trace, the same for every seed, that is later than the duration.
        assert case.arrivals.kind == "trace" and (case.arrivals.trace_s or (0,))[0] >= case.duration_s


@pytest.mark.parametrize("rate_per_s", [0.3, 3.0])
def test_many_copies_in_long_episodes_are_the_reference(rate_per_s: float) -> None:
    case = small_case(rate_per_s, duration_s=1500.0, queue_limit=20)
    play(VectorEnv(case, 5, batches=(1, 3, 4)), [3, 1, 4, 1, 5], np.random.default_rng(0), n_episodes=1)


def outcomes(case: ServingCase, seeds: list[int], n_steps: int = 400) -> list[list[object]]:
    env = VectorEnv(case, len(seeds))
    env.reset(seeds)
    found: list[list[object]] = [[] for _ in seeds]
    for _ in range(n_steps):
        for copy, outcome in env.step(np.full(len(seeds), 5)).episodes:
            found[copy].append(outcome)
    return found


def test_a_seed_decides_alone() -> None:
    case = small_case(duration_s=60.0)
    together = outcomes(case, [8, 9, 8])
    assert len(together[0]) > 3
    assert together[0] == together[2] == outcomes(case, [8])[0]
    assert together[1] == outcomes(case, [9])[0] != together[0]


def test_later_episodes_have_seeds_drawn_from_the_first() -> None:
    found = outcomes(small_case(duration_s=60.0), [8])[0]
    assert [outcome.seed for outcome in found] == [episode_seed(8, n) for n in range(len(found))]  # type: ignore[attr-defined]
    assert len({episode_seed(seed, n) for seed in range(50) for n in range(50)}) == 2500


def test_an_episode_without_arrivals_is_passed_over() -> None:
    case = small_case(rate_per_s=0.02, duration_s=20.0)
    found = outcomes(case, [0])[0]
    assert found and all(outcome.n_arrived > 0 for outcome in found)  # type: ignore[attr-defined]
    with pytest.raises(ServingCaseError, match="nothing arrives within"):
        VectorEnv(replace(case, duration_s=0.001), 1).reset(0)


def test_observations_are_bounded_and_float32() -> None:
    case = small_case(rate_per_s=5.0, duration_s=300.0)
    env = VectorEnv(case, 8)
    seen, chance = [env.reset(0)], np.random.default_rng(0)
    for _ in range(500):
        seen.append(env.step(chance.integers(0, len(env.actions), 8)).observations)
    every = np.concatenate(seen)
    assert every.dtype == np.float32 and every.shape[1] == N_FEATURES
    assert every.min() >= -1.0 and every.max() <= MOST_WAIT
    assert np.all(every.std(axis=0)[[0, 2, 3, 7, -2]] > 0)


def test_masked_actions_are_those_that_change_nothing() -> None:
    case = small_case(rate_per_s=2.0, queue_limit=6)
    env = VectorEnv(case, 4, batches=(1, 2, 4))
    env.reset(0)
    chance = np.random.default_rng(0)
    n_seen = set()
    for _ in range(300):
        masks = env.action_masks()
        assert masks.shape == (4, len(env.actions))
        for copy, mask in enumerate(masks):
            n_queued = env.observation(copy).n_queued
            n_seen.add(n_queued)
            allowed = [env.actions.choice(each) for each in np.flatnonzero(mask).tolist()]
            served = [(c.clock_mhz, min(c.max_batch, n_queued)) for c in allowed if isinstance(c, Decision)]
            every = {(clock, min(size, n_queued)) for clock in env.actions.clocks_mhz for size in (1, 2, 4)}
            assert len(served) == len(set(served)) and set(served) == every
            assert (Wait(1.0) in allowed) == (n_queued < 4)
            for each in range(len(env.actions)):
                same = env.actions.index(env.actions.choice(each), n_queued)
                assert same == env.actions.wait_index or mask[same]
        env.step(chance.integers(0, len(env.actions), 4))
    assert n_seen == {1, 2, 3, 4, 5, 6}


def test_batch_choices() -> None:
    assert default_batches(64) == (1, 2, 4, 8, 16, 32, 64)
    assert default_batches(48) == (1, 2, 4, 8, 16, 32, 48)
    assert default_batches(1) == (1,)
    case = small_case(wait_s=None)
    assert len(VectorEnv(case, 1).actions) == 3 * 3
    for wrong in ([], [2, 1], [0, 1], [5]):
        with pytest.raises(InvalidOptionError):
            VectorEnv(case, 1, batches=wrong)
    with pytest.raises(InvalidOptionError, match="2 seeds for 3 copies"):
        VectorEnv(case, 3).reset([1, 2])
