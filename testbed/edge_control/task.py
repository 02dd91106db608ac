"""What edge control decides on any board: which settings there are, what a policy sees, what a batch was worth."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from contract.errors import ConfigError, UsageError
from testbed.edge_control.reward import EdgeReward, Measured
from testbed.policies.factored_policy import FactoredSpace
from testbed.simulation.orin_thermal import ThermalModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HEADS = ("prefill_bin", "decode_bin", "batch", "exit_layer")
N_FEATURES = 4

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
class BatchFigures:
    """What is known of a batch, or of many: arrays of one shape.

    Attributes:
        n_tokens: prompt and output.
        latency_s: prefill and decode.
        energy_j: of both.
        temp_c: at the end.
        exit_layer: that was set.
        entropy_nats: measured; None: the task's model is asked.
    """

    n_tokens: Floats
    latency_s: Floats
    energy_j: Floats
    temp_c: Floats
    exit_layer: Ints
    entropy_nats: Floats | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class EdgeTask:
    """The problem without a board.

    Attributes:
        reward: see there.
        space: heads as in `HEADS`.
        n_layers: of the whole model.
        thermal: what is believed of the board, for the look-ahead; None: the temperature now is taken.
        entropy: by exit layer, where it is not measured; None: then there is no penalty.

    Raises:
        ConfigError: a space with other heads.
    """

    reward: EdgeReward
    space: FactoredSpace
    n_layers: int = 16
    thermal: ThermalModel | None = None
    entropy: EntropyModel | None = field(default_factory=EntropyModel)

    def __post_init__(self) -> None:
        if self.space.names != HEADS:
            raise ConfigError(f"edge case: the heads are {', '.join(HEADS)}; got {', '.join(self.space.names)}.")

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
        # The last tells tenths of a degree apart at the limit, where they decide.
        near = (min(max(left_c / 5, -2.0), 2.0), math.tanh(left_c))
        return np.array([1.0 if is_fan_on else -1.0, (temp_c - _NOMINAL_C) / 20, *near])

    def reward_of(self, seen: BatchFigures, ahead_c: Floats | None = None) -> Floats:
        """R.

        Args:
            seen: of batches.
            ahead_c: where the temperature would be after the look-ahead; None: not known.

        Raises:
            EdgeRewardError: a figure that is not a number.
        """
        entropy_nats = seen.entropy_nats
        if entropy_nats is None and self.entropy is not None:
            entropy_nats = self.entropy.nats(seen.exit_layer, self.n_layers)
        return self.reward(
            Measured(
                throughput_per_s=seen.n_tokens / seen.latency_s,
                energy_j=seen.energy_j,
                latency_s=seen.latency_s,
                n_tokens=seen.n_tokens,
                power_w=seen.energy_j / seen.latency_s,
                temp_c=seen.temp_c,
                ahead_temp_c=ahead_c,
                entropy_nats=entropy_nats,
            )
        )

    def ahead_c(self, power_w: Floats, temp_c: Floats | float, is_fan_on: bool) -> Floats | None:
        """Where the temperature would be after the look-ahead at this power; None without a thermal model.

        Args:
            power_w: (...).
            temp_c: now, (...) or one for all.
            is_fan_on: or not.
        """
        if self.thermal is None:
            return None
        end_c = self.thermal.end_c(power_w, is_fan_on)
        left = math.exp(-self.reward.limits.lookahead_s / self.thermal.time_constant_s(is_fan_on))
        return np.asarray(end_c + (np.asarray(temp_c) - end_c) * left)
