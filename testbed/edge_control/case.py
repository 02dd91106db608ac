"""The problem of edge control on a simulated board, where every setting can be tried without running it.

5,808 settings: 11 prefill clocks, 11 decode clocks, batches of 1, 7, 13, 19, 25, 31, exit after 9 to 16 layers.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from testbed.edge_control.reward import EdgeLimits, EdgeReward, EdgeWeights, Measured, RewardScale, edp_efficiency
from testbed.edge_control.task import HEADS, BatchFigures, EdgeTask, EntropyModel
from testbed.policies.factored_policy import FactoredSpace
from testbed.simulation.orin import BatchRun, OrinSetting, Service, SimulatedOrin
from testbed.simulation.orin_grid import CLOCKS_MHZ, OrinGrid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class EdgeCase(EdgeTask):
    """A board, what may be set on it, and the reward.

    Attributes:
        board: simulated.
        temp_noise_c: standard deviation of a steady temperature from run to run; fan on, the thermal fit's error.

    Raises:
        ConfigError: a space with other heads.
    """

    board: SimulatedOrin
    temp_noise_c: float = 1.3

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
        return self._reward(service, temp_c, temp_c, self.space.meaning(choices)[..., 3])

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
        return self._reward(service, after_c, self.ahead_c(service.mean_power_w, temp_c, is_fan_on), exits)

    def reward_of_run(self, run: BatchRun, exit_layer: int) -> float:
        """Reward of a batch that was run.

        Args:
            run: from the board.
            exit_layer: that was set.
        """
        ahead_c = self.ahead_c(run.service.mean_power_w, run.temp_c, run.is_fan_on)
        return float(self._reward(run.service, np.array(run.temp_c), ahead_c, np.array(exit_layer)))

    def _reward(self, service: Service, temp_c: Floats, ahead_c: Floats | None, exits: Ints) -> Floats:
        n_tokens = service.n_prompt_tokens + service.n_output_tokens
        return self.reward_of(BatchFigures(n_tokens, service.latency_s, service.energy_j, temp_c, exits), ahead_c)

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
    prefill_bins: tuple[int, ...] = tuple(range(len(CLOCKS_MHZ))),
    decode_bins: tuple[int, ...] = tuple(range(len(CLOCKS_MHZ))),
    limits: EdgeLimits | None = None,
    weights: EdgeWeights | None = None,
    entropy: EntropyModel | None = None,
    scale: RewardScale | None = None,
) -> EdgeCase:
    """A case whose reward is scaled by the least and most of its own settings.

    Args:
        board: simulated.
        batches: to choose from.
        exit_layers: to choose from.
        prefill_bins: to choose from.
        decode_bins: to choose from.
        limits: None: the study's.
        weights: None: as `EdgeWeights` has them.
        entropy: None: as `EntropyModel` has it.
        scale: None: of its own settings.

    Raises:
        ConfigError: settings that the board does not have all the same throughput.
    """
    space = FactoredSpace(HEADS, (prefill_bins, decode_bins, batches, exit_layers))
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
    scale = scale or RewardScale((float(rate.min()), float(rate.max())), (float(edp.min()), float(edp.max())))
    return EdgeCase(
        board=board,
        reward=EdgeReward(scale, limits or EdgeLimits(), weights),
        space=space,
        n_layers=board.exits.n_layers,
        thermal=board.thermal,
        entropy=entropy or EntropyModel(),
    )


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
