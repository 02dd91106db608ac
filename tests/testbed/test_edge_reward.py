"""The reward: the study's own figures, its limits, and what is refused."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import ConfigError
from testbed.edge_control.case import log_rewards
from testbed.edge_control.reward import EdgeLimits, EdgeReward, EdgeRewardError, EdgeWeights, Measured, RewardScale
from testbed.simulation.orin_grid import read_orin_grid
from tests.testbed.orin_logs import JETSON

needs_shared = pytest.mark.skipif(not JETSON.exists(), reason="the shared Jetson grid logs are not here")

REWARD = EdgeReward(RewardScale((0.0, 1000.0), (0.0, 1.0)))


def measured(**changes: float) -> Measured:
    values = {
        "throughput_per_s": 500.0,
        "energy_j": 100.0,
        "latency_s": 4.0,
        "n_tokens": 100.0,
        "power_w": 25.0,
        "temp_c": 60.0,
        "ahead_temp_c": 60.0,
        "entropy_nats": 2.0,
    }
    return Measured(**{name: np.array(value) for name, value in {**values, **changes}.items()})


def test_it_is_headroom_times_throughput_and_the_rest_times_edp() -> None:
    headroom = (95 - 60) / (95 - 40)
    edp = 1 / ((100 / 100) * 4)
    assert float(REWARD(measured())) == pytest.approx(headroom * 0.5 + (1 - headroom) * edp)


@pytest.mark.parametrize(
    ("name", "quantity", "limit", "over"),
    [
        ("latency", "latency_s", 15.0, 1.5),
        ("power", "power_w", 60.0, 1.3),
        ("entropy", "entropy_nats", 3.0, 1.5),
        ("temperature", "ahead_temp_c", 94.3, 1.05),
    ],
)
def test_a_penalty_begins_at_its_limit_and_ends_at_its_weight(
    name: str, quantity: str, limit: float, over: float
) -> None:
    weight = getattr(EdgeWeights(), name)
    assert float(REWARD.penalties(measured(**{quantity: limit}))[name]) == 0
    assert float(REWARD.penalties(measured(**{quantity: limit * over}))[name]) == pytest.approx(weight)
    assert float(REWARD.penalties(measured(**{quantity: 3 * limit}))[name]) == pytest.approx(weight)
    half = float(REWARD.penalties(measured(**{quantity: limit * (1 + over) / 2}))[name])
    assert half == pytest.approx(weight * math.expm1(2.5) / math.expm1(5.0))


@given(st.floats(0, 150), st.floats(0, 150))
def test_hotter_is_never_better_where_throughput_is_the_better_half(one_c: float, other_c: float) -> None:
    cool, hot = sorted((one_c, other_c))
    at = [float(REWARD(measured(temp_c=each, ahead_temp_c=each))) for each in (cool, hot)]
    assert at[0] >= at[1] - 1e-12


@pytest.mark.parametrize("quantity", ["energy_j", "temp_c", "latency_s", "entropy_nats"])
def test_a_reward_that_is_no_number_is_refused_and_says_why(quantity: str) -> None:
    with pytest.raises(EdgeRewardError, match=quantity):
        REWARD(measured(**{quantity: math.nan}))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature is -1"):
        EdgeWeights(temperature=-1.0)
    with pytest.raises(ConfigError, match=r"latency_over is 1\.0"):
        EdgeWeights(latency_over=1.0)
    with pytest.raises(ConfigError, match="scale of edp"):
        RewardScale((0.0, 1.0), (1.0, 1.0))


@needs_shared
def test_it_gives_the_rewards_of_the_study() -> None:
    path = JETSON / "grid_fan_on.csv"
    grid = read_orin_grid(path)
    with path.open(encoding="utf-8") as file:
        wanted = np.array([float(row["reward"]) for row in csv.DictReader(file)])
    rate = (grid.figures["n_prompt_tokens"] + grid.figures["n_output_tokens"]) / grid.latency_s
    edp = 1 / (grid.figures["energy_j"] * grid.latency_s)
    scale = RewardScale((float(rate.min()), float(rate.max())), (float(edp.min()), float(edp.max())))
    reward = EdgeReward(scale, EdgeLimits(temp_c=100.0), EdgeWeights(edp_per_token=False))
    assert np.abs(log_rewards(grid, reward) - wanted).max() < 1e-6
    # With another headroom it would not.
    other = replace(reward, limits=EdgeLimits(temp_c=95.0))
    assert np.abs(log_rewards(grid, other) - wanted).max() > 0.01
