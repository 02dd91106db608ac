"""The problem of edge control: which settings there are, what a batch of them is worth, and what a policy sees.

5,808 settings: 11 prefill clocks, 11 decode clocks, batches of 1, 7, 13, 19, 25, 31, exit after 9 to 16 layers.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from contract.errors import ConfigError, UsageError
from testbed.edge_control.reward import EdgeLimits, EdgeReward, EdgeWeights, Measured, RewardScale, edp_efficiency
from testbed.policies.factored_policy import FactoredSpace
from testbed.simulation.orin import BatchRun, OrinSetting, Service, SimulatedOrin
from testbed.simulation.orin_grid import CLOCKS_MHZ, OrinGrid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HEADS = ("prefill_bin", "decode_bin", "batch", "exit_layer")
N_FEATURES = 3

_NOMINAL_C = 65.0
"""About the mean of the fan-on log, 64.3 deg C: where features are near 0."""


@dataclass(frozen=True)
class EntropyModel:
    """Entropy of the output by exit layer: an assumption until it is measured (the study's was synthetic, too).

    `entropy = full_nats * exp(growth * (1 - layer / n_layers))`

    Attributes:
        full_nats: with all layers.
        growth: per share of layers left out.
    """

    full_nats: float = 2.0
    growth: float = 1.5

    def nats(self, exit_layer: Ints, n_layers: int) -> Floats:
        """Mean entropy of a token.

        Args:
            exit_layer: (...).
            n_layers: of the model.
        """
        return np.asarray(self.full_nats * np.exp(self.growth * (1 - np.asarray(exit_layer) / n_layers)))


@dataclass(frozen=True, eq=False)
class EdgeCase:
    """A board, what may be set on it, and the reward.

    Attributes:
        board: simulated.
        reward: see there.
        space: heads as in `HEADS`.
        entropy: by exit layer.
        temp_noise_c: standard deviation of a steady temperature from run to run; fan on, the thermal fit's error.

    Raises:
        ConfigError: a space with other heads.
    """

    board: SimulatedOrin
    reward: EdgeReward
    space: FactoredSpace
    entropy: EntropyModel = field(default_factory=EntropyModel)
    temp_noise_c: float = 1.3

    def __post_init__(self) -> None:
        if self.space.names != HEADS:
            raise ConfigError(f"edge case: the heads are {', '.join(HEADS)}; got {', '.join(self.space.names)}.")

    def setting(self, choice: Ints) -> OrinSetting:
        """What a choice means.

        Args:
            choice: (4,), indices.
        """
        return OrinSetting(*(int(each) for each in self.space.meaning(choice)))

    def service(self, choices: Ints) -> Service:
        """Without noise and throttling.

        Args:
            choices: (..., 4), indices.
        """
        meant = self.space.meaning(choices)
        return self.board.service(meant[..., 0], meant[..., 1], meant[..., 2].astype(float), meant[..., 3])

    def steady_temp_c(self, choices: Ints, is_fan_on: bool) -> Floats:
        """Where the temperature tends to.

        Args:
            choices: (..., 4).
            is_fan_on: or not.
        """
        return self.board.thermal.end_c(self.service(choices).mean_power_w, is_fan_on)

    def steady_reward(self, choices: Ints, is_fan_on: bool = True, rng: np.random.Generator | None = None) -> Floats:
        """Reward of a setting that is held until the temperature is steady, as the grid was measured.

        Args:
            choices: (..., 4).
            is_fan_on: or not.
            rng: for the noise of one measurement; None: none.
        """
        service = self.service(choices)
        if rng is not None:
            service = self._noisy(service, rng)
        temp_c = self.board.thermal.end_c(service.mean_power_w, is_fan_on)
        if rng is not None:
            temp_c = temp_c + self.temp_noise_c * rng.standard_normal(temp_c.shape)
        return self.reward(self._measured(service, temp_c, temp_c, self.space.meaning(choices)[..., 3]))

    def next_reward(self, choices: Ints, temp_c: float, is_fan_on: bool) -> Floats:
        """Reward of one batch from a state, without noise and throttling: what a group is compared by.

        Args:
            choices: (..., 4).
            temp_c: before the batch.
            is_fan_on: during it.
        """
        service = self.service(choices)
        after_c = self.board.thermal.after_c(
            temp_c, service.mean_power_w, service.latency_s + self.board.gap_s, is_fan_on
        )
        exits = self.space.meaning(choices)[..., 3]
        return self.reward(self._measured(service, after_c, self._ahead_c(service, temp_c, is_fan_on), exits))

    def reward_of_run(self, run: BatchRun, exit_layer: int) -> float:
        """Reward of a batch that was run.

        Args:
            run: from the board.
            exit_layer: that was set.
        """
        ahead_c = self._ahead_c(run.service, run.temp_c, run.is_fan_on)
        return float(self.reward(self._measured(run.service, np.array(run.temp_c), ahead_c, np.array(exit_layer))))

    def features(self, temp_c: float, is_fan_on: bool) -> Floats:
        """(N_FEATURES,): what a policy sees.

        Args:
            temp_c: now.
            is_fan_on: as read back from the fan.

        Raises:
            UsageError: a temperature that is not a number.
        """
        if not math.isfinite(temp_c):
            raise UsageError("edge case: the temperature is not a number. Look at the sensor; nothing was chosen.")
        left_c = self.reward.limits.temp_c - temp_c
        return np.array([1.0 if is_fan_on else -1.0, (temp_c - _NOMINAL_C) / 20, min(max(left_c / 5, -2.0), 2.0)])

    def _ahead_c(self, service: Service, temp_c: float, is_fan_on: bool) -> Floats:
        thermal, lookahead_s = self.board.thermal, self.reward.limits.lookahead_s
        return thermal.after_c(temp_c, service.mean_power_w, lookahead_s, is_fan_on)

    def _measured(self, service: Service, temp_c: Floats, ahead_c: Floats, exits: Ints) -> Measured:
        return Measured(
            throughput_per_s=service.throughput_per_s,
            energy_j=service.energy_j,
            latency_s=service.latency_s,
            n_tokens=service.n_prompt_tokens + service.n_output_tokens,
            power_w=service.mean_power_w,
            temp_c=temp_c,
            ahead_temp_c=ahead_c,
            entropy_nats=self.entropy.nats(exits, self.board.exits.n_layers),
        )

    def _noisy(self, service: Service, rng: np.random.Generator) -> Service:
        def factor(shape: tuple[int, ...]) -> Floats:
            return np.asarray(np.exp(self.board.noise * rng.standard_normal(shape)))

        shape = service.latency_s.shape
        return replace(
            service,
            prefill_s=service.prefill_s * factor(shape),
            decode_s=service.decode_s * factor(shape),
            prefill_power_w=service.prefill_power_w * factor(shape),
            decode_power_w=service.decode_power_w * factor(shape),
        )


def make_case(
    board: SimulatedOrin,
    *,
    batches: tuple[int, ...] = (1, 7, 13, 19, 25, 31),
    exit_layers: tuple[int, ...] = tuple(range(9, 17)),
    limits: EdgeLimits | None = None,
    weights: EdgeWeights | None = None,
    entropy: EntropyModel | None = None,
) -> EdgeCase:
    """A case whose reward is scaled by the least and most of its own settings.

    Args:
        board: simulated.
        batches: to choose from.
        exit_layers: to choose from.
        limits: None: the study's.
        weights: None: as `EdgeWeights` has them.
        entropy: None: as `EntropyModel` has it.

    Raises:
        ConfigError: settings that the board does not have all the same throughput.
    """
    bins = tuple(range(len(CLOCKS_MHZ)))
    space = FactoredSpace(HEADS, (bins, bins, batches, exit_layers))
    weights = weights or EdgeWeights()
    meant = space.meaning(space.all_choices())
    service = board.service(meant[:, 0], meant[:, 1], meant[:, 2].astype(float), meant[:, 3])
    seen = Measured(
        service.throughput_per_s,
        service.energy_j,
        service.latency_s,
        service.n_prompt_tokens + service.n_output_tokens,
        service.mean_power_w,
        np.zeros_like(service.energy_j),
    )
    edp, rate = edp_efficiency(seen, weights.edp_per_token), service.throughput_per_s
    scale = RewardScale((float(rate.min()), float(rate.max())), (float(edp.min()), float(edp.max())))
    reward = EdgeReward(scale, limits or EdgeLimits(), weights)
    return EdgeCase(board, reward, space, entropy or EntropyModel())


def log_rewards(grid: OrinGrid, reward: EdgeReward) -> Floats:
    """Rewards of a grid log's own measurements; no entropy, as no log has a measured one.

    Args:
        grid: a log.
        reward: its temperature penalty is of the temperature that was measured.

    Returns:
        (N,), in the log's order.
    """
    n_tokens = grid.figures["n_prompt_tokens"] + grid.figures["n_output_tokens"]
    return reward(
        Measured(
            throughput_per_s=n_tokens / grid.latency_s,
            energy_j=grid.figures["energy_j"],
            latency_s=grid.latency_s,
            n_tokens=n_tokens,
            power_w=grid.mean_power_w,
            temp_c=grid.figures["temp_c"],
        )
    )
