"""The reward of edge control, as in the study, with every weight in one place.

    R = H * T_n + (1 - H) * EDP_n - penalties
    penalties = w_L f(x_L) + w_T f(x_T) + w_P f(x_P) + w_E f(x_E)

| symbol | what it is |
|---|---|
| T | temperature, deg C |
| H | effective headroom: (T_max - T) / (T_max - T_min), cut to 0 .. 1; of temperature alone, as in the study |
| T_n | tokens per second, prompt and output, cut to 0 .. 1 between the smallest and largest of the scale |
| EDP_n | 1 / (energy * latency) in the same way |
| x_L, x_T, x_P, x_E | latency, temperature, power, entropy beyond the limit, over what may be beyond it, 0 .. 1 |
| f | (exp(k x) - 1) / (exp(k) - 1) |
| w | weight of each penalty |

With `T_max` 100 and `T_min` 40, EDP per batch, and the log's own scale, this gives all 3,872 rewards of the fan-on log
of Zanatticus/EnergyLLM, to the digits it has. Ours differs by default, and each difference is an argument: EDP is per
token instead of per batch, which favours a batch of one as soon as the board is hot; `T_max` is 95, as in the study's
code; the temperature penalty begins a margin below the limit and looks ahead (`EdgeLimits.lookahead_s`), as what is
chosen now is felt minutes later. Further terms of the study's code (a bonus for few layers when hot, a blend with
inverse energy) are left out.
"""

import math
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from contract.errors import ConfigError, JouleBedError

Floats = npt.NDArray[np.float64]


class EdgeRewardError(JouleBedError):
    """A reward is not a number; nothing is learned from it."""

    code = "edge_reward"
    http_status = 422


@dataclass(frozen=True)
class EdgeLimits:
    """What must not be passed.

    Attributes:
        latency_s: of a batch, the study's 15 s.
        temp_c: T_max, the study's code has 95.
        power_w: mean over a batch, the study's 60 W.
        entropy_nats: mean of the output tokens' entropy.
        lookahead_s: the temperature penalty is of the temperature that a setting would have led to after this long;
            0: of the temperature now, as in the study.
        temp_margin_c: the temperature penalty begins so far below the limit.
    """

    latency_s: float = 15.0
    temp_c: float = 95.0
    power_w: float = 60.0
    entropy_nats: float = 3.0
    lookahead_s: float = 600.0
    temp_margin_c: float = 0.7


@dataclass(frozen=True)
class EdgeWeights:
    """Every weight of the reward.

    Attributes:
        latency: of its penalty, w_L.
        temperature: w_T.
        power: w_P.
        entropy: w_E.
        steepness: k of f; 0: f(x) = x.
        coldest_c: T_min of the headroom.
        latency_over: a latency of this many limits has the whole penalty.
        temp_over: a temperature of this many limits.
        power_over: a power of this many limits.
        entropy_over: an entropy of this many limits.
        edp_per_token: energy-delay product of a token instead of a batch.

    Raises:
        ConfigError: a weight or the steepness below 0, or a multiple of a limit that is not above 1.
    """

    latency: float = 1.0
    temperature: float = 5.0
    power: float = 1.0
    entropy: float = 1.5
    steepness: float = 5.0
    coldest_c: float = 40.0
    latency_over: float = 1.5
    temp_over: float = 1.05
    power_over: float = 1.3
    entropy_over: float = 1.5
    edp_per_token: bool = True

    def __post_init__(self) -> None:
        for each in fields(self):
            value = float(getattr(self, each.name))
            is_low = value <= 1 if each.name.endswith("_over") else value < 0
            if not math.isfinite(value) or is_low:
                least = "above 1" if each.name.endswith("_over") else "0 or above"
                raise ConfigError(f"edge reward: {each.name} is {value}; give a number {least}.")


@dataclass(frozen=True)
class RewardScale:
    """Between which values throughput and EDP efficiency are 0 and 1.

    Attributes:
        throughput: tokens per second, least and most.
        edp: 1 / (J s), least and most.

    Raises:
        ConfigError: a range that is not rising and finite.
    """

    throughput: tuple[float, float]
    edp: tuple[float, float]

    def __post_init__(self) -> None:
        for name, (least, most) in (("throughput", self.throughput), ("edp", self.edp)):
            if not (math.isfinite(least) and math.isfinite(most) and least < most):
                raise ConfigError(
                    f"edge reward: the scale of {name} is {least} to {most}; give the least and the most."
                )


@dataclass(frozen=True, eq=False)
class Measured:
    """What is judged; arrays of one shape.

    Attributes:
        throughput_per_s: tokens per second.
        energy_j: of the batch.
        latency_s: of the batch.
        n_tokens: of the batch, prompt and output.
        power_w: mean over the batch.
        temp_c: at its end.
        ahead_temp_c: where the temperature would be after the look-ahead; None: not known, `temp_c` is taken.
        entropy_nats: None: not measured, no penalty.
    """

    throughput_per_s: Floats
    energy_j: Floats
    latency_s: Floats
    n_tokens: Floats
    power_w: Floats
    temp_c: Floats
    ahead_temp_c: Floats | None = None
    entropy_nats: Floats | None = None


@dataclass(frozen=True)
class EdgeReward:
    """The reward with its settings.

    Attributes:
        scale: of throughput and EDP.
        limits: see there.
        weights: see there.
    """

    scale: RewardScale
    limits: EdgeLimits = field(default_factory=EdgeLimits)
    weights: EdgeWeights = field(default_factory=EdgeWeights)

    def headroom(self, temp_c: Floats) -> Floats:
        """H, 0 to 1.

        Args:
            temp_c: (...).
        """
        coldest, hottest = self.weights.coldest_c, self.limits.temp_c
        found: Floats = np.clip((hottest - np.asarray(temp_c)) / (hottest - coldest), 0.0, 1.0)
        return found

    def penalties(self, seen: Measured) -> dict[str, Floats]:
        """Each penalty with its weight.

        Args:
            seen: what is judged.
        """
        limits, weights = self.limits, self.weights
        ahead_c = seen.temp_c if seen.ahead_temp_c is None else seen.ahead_temp_c
        hottest = limits.temp_c - limits.temp_margin_c
        found = {
            "latency": weights.latency * self._beyond(seen.latency_s, limits.latency_s, weights.latency_over),
            "temperature": weights.temperature * self._beyond(ahead_c, hottest, weights.temp_over),
            "power": weights.power * self._beyond(seen.power_w, limits.power_w, weights.power_over),
        }
        if seen.entropy_nats is not None:
            beyond = self._beyond(seen.entropy_nats, limits.entropy_nats, weights.entropy_over)
            found["entropy"] = weights.entropy * beyond
        return found

    def __call__(self, seen: Measured) -> Floats:
        """R.

        Args:
            seen: what is judged, arrays (...).

        Returns:
            (...).

        Raises:
            EdgeRewardError: a reward that is not a number.
        """
        headroom = self.headroom(seen.temp_c)
        throughput = _scaled(seen.throughput_per_s, self.scale.throughput)
        edp = _scaled(edp_efficiency(seen, self.weights.edp_per_token), self.scale.edp)
        reward = np.asarray(headroom * throughput + (1 - headroom) * edp - sum(self.penalties(seen).values()))
        if not np.isfinite(reward).all():
            wrong = [each.name for each in fields(seen) if _is_wrong(getattr(seen, each.name))]
            raise EdgeRewardError(
                f"the reward is not a number, because of {', '.join(wrong) or 'the scale'}. Measure this batch again, "
                "or leave it out: nothing is learned from it.",
                columns=wrong,
            )
        return reward

    def _beyond(self, value: Floats, limit: float, over: float) -> Floats:
        part = np.clip((np.asarray(value) - limit) / (limit * (over - 1)), 0.0, 1.0)
        steepness = self.weights.steepness
        if steepness == 0:
            return np.asarray(part)
        return np.asarray(np.expm1(steepness * part) / math.expm1(steepness))


def edp_efficiency(seen: Measured, per_token: bool) -> Floats:
    """1 / (energy * latency), J and s, of a batch or of a token: a token's energy, and the batch's latency.

    Args:
        seen: what is judged.
        per_token: of a token.
    """
    energy_j = seen.energy_j / seen.n_tokens if per_token else seen.energy_j
    return np.asarray(1.0 / (energy_j * seen.latency_s))


def _scaled(values: Floats, scale: tuple[float, float]) -> Floats:
    found: Floats = np.clip((values - scale[0]) / (scale[1] - scale[0]), 0.0, 1.0)
    return found


def _is_wrong(values: Floats | None) -> bool:
    return values is not None and not bool(np.isfinite(values).all())
