"""The vectorised case as others know environments: a `gymnasium.Env`, and a `VecEnv` of stable-baselines3."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import gymnasium
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv

from contract.errors import InvalidOptionError
from control.serving_case import ServingCase
from control.vector_env import StepResult, VectorEnv
from testbed.policies.features import MOST_WAIT, N_FEATURES

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reward:
    """-(energy / scale) - price * misses, both parts also apart.

    Attributes:
        energy_scale_j: joules that weigh 1.
        miss_price: what a miss weighs: a request late, lost, or left unserved.

    Raises:
        InvalidOptionError: a scale not above 0, or a price below 0.
    """

    energy_scale_j: float
    miss_price: float

    def __post_init__(self) -> None:
        if not (0 < self.energy_scale_j < np.inf and 0 <= self.miss_price < np.inf):
            raise InvalidOptionError(f"{self}: give a scale above 0 and a price of 0 or above.")

    @classmethod
    def of(cls, case: ServingCase, miss_price: float = 10.0) -> Self:
        """Scaled by a request that is served alone at the highest clock."""
        return cls(float(case.table.energy_j[-1, 0]), miss_price)

    def parts(self, result: StepResult) -> tuple[Floats, Floats]:
        """(N,) each: of energy, and of misses; both 0 or below."""
        return -result.energy_j / self.energy_scale_j, -self.miss_price * result.n_missed


def observation_space() -> gymnasium.spaces.Box:
    """Of both environments."""
    return gymnasium.spaces.Box(-1.0, MOST_WAIT, (N_FEATURES,), np.float32)


class ServingEnv(gymnasium.Env):  # type: ignore[misc]
    """One copy.

    `reset(seed=s)` begins the first episode of seed s, `reset()` the next one (see `control.vector_env.episode_seed`).
    The step that ends an episode is `terminated`, and its observation is all 0: nothing is queued.
    `info` has energy_j, n_served, n_missed, n_lost, duration_s (a step takes its own time: a semi-Markov decision
    process), reward_energy, reward_miss, and at the end `outcome`, a `ServingOutcome`.

    Args:
        case: the problem.
        reward: None: `Reward.of(case)`.
        batches: batch choices; None: powers of two up to the largest.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, case: ServingCase, reward: Reward | None = None, batches: Sequence[int] | None = None) -> None:
        self.core = VectorEnv(case, 1, batches)
        self.reward = reward or Reward.of(case)
        self.observation_space = observation_space()
        self.action_space = gymnasium.spaces.Discrete(len(self.core.actions))
        self._next: npt.NDArray[np.float32] | None = None
        self._is_begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """See `gymnasium.Env.reset`. There are no options."""
        super().reset(seed=seed)
        if seed is not None or not self._is_begun:
            first = self.core.reset([seed or 0])[0]
        else:
            first = self.core.next_episode(0) if self._next is None else self._next
        self._is_begun, self._next = True, None
        return first, {}

    def step(self, action: int) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        if not self._is_begun or self._next is not None:
            raise gymnasium.error.ResetNeeded("Call reset() before the first step, and after each episode's end.")
        result = self.core.step(np.array([action]))
        rewards, info = _told(self.reward, result)
        is_done = bool(result.done[0])
        if is_done:
            self._next = result.observations[0]
            info[0]["outcome"] = result.episodes[0][1]
        seen = np.zeros(N_FEATURES, np.float32) if is_done else result.observations[0]
        return seen, float(rewards[0]), is_done, False, info[0]

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """(number of actions,): which are worth a thought, as sb3-contrib's maskable learners ask it."""
        masks: npt.NDArray[np.bool_] = self.core.action_masks()[0]
        return masks


class ServingVecEnv(VecEnv):  # type: ignore[misc]
    """N copies for stable-baselines3. A copy that ends goes on with its next episode.

    `info` is as in `ServingEnv`; at the end of an episode also `terminal_observation` (all 0) and `episode`, the sum
    of rewards and the number of steps, as stable-baselines3's own monitor tells them.

    Args:
        case: the problem.
        n_copies: N.
        reward: None: `Reward.of(case)`.
        batches: batch choices; None: powers of two up to the largest.
        seed: of the first copy; the next ones have the next numbers.
    """

    def __init__(
        self,
        case: ServingCase,
        n_copies: int = 64,
        reward: Reward | None = None,
        batches: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        self.core = VectorEnv(case, n_copies, batches)
        self.reward = reward or Reward.of(case)
        self.render_mode = None
        super().__init__(n_copies, observation_space(), gymnasium.spaces.Discrete(len(self.core.actions)))
        self._first_seeds = [seed + copy for copy in range(n_copies)]
        self._actions = np.zeros(n_copies, np.int64)
        self._sums = np.zeros(n_copies)
        self._lengths = np.zeros(n_copies, np.int64)

    def reset(self) -> npt.NDArray[np.float32]:
        """Begin anew with the seeds last given: the same episodes again."""
        given = [first if seed is None else seed for first, seed in zip(self._first_seeds, self._seeds, strict=True)]
        self._first_seeds = given
        self._reset_seeds()
        self._reset_options()
        self._sums[:], self._lengths[:] = 0.0, 0
        return self.core.reset(given)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """See `VectorEnv.state`; the reward is not in it."""
        own = {"reward_sums": self._sums.copy(), "lengths": self._lengths.copy()}
        return {f"core.{key}": value for key, value in self.core.state().items()} | own

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """See `VectorEnv.restore`."""
        self.core.restore({key.removeprefix("core."): value for key, value in state.items() if key[:5] == "core."})
        self._sums, self._lengths = np.copy(state["reward_sums"]), np.copy(state["lengths"])

    def step_async(self, actions: npt.NDArray[np.integer]) -> None:
        """Take the actions of the next `step_wait`."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Any, list[dict[str, Any]]]:
        """Observations, rewards, ends and infos of the copies."""
        result = self.core.step(self._actions)
        rewards, infos = _told(self.reward, result)
        self._sums += rewards
        self._lengths += 1
        for copy, outcome in result.episodes:
            infos[copy]["outcome"] = outcome
            infos[copy]["terminal_observation"] = np.zeros(N_FEATURES, np.float32)
            infos[copy]["episode"] = {"r": float(self._sums[copy]), "l": int(self._lengths[copy]), "t": 0.0}
            self._sums[copy], self._lengths[copy] = 0.0, 0
        return result.observations, rewards.astype(np.float32), result.done, infos

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of this object, once for each copy asked for."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Copies have no attributes of their own.

        Raises:
            InvalidOptionError: always.
        """
        raise InvalidOptionError(f"{attr_name} cannot be set in a copy; make another environment with another case.")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Of the copies' methods there is `action_masks`."""
        if method_name != "action_masks":
            raise InvalidOptionError(f"copies have no method {method_name}; there is action_masks.")
        masks = self.core.action_masks()
        return [masks[copy] for copy in self._get_indices(indices)]

    def has_attr(self, attr_name: str) -> bool:
        """Whether there is such an attribute or method of copies."""
        return attr_name == "action_masks" or hasattr(self, attr_name)

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """(N, number of actions): which are worth a thought now."""
        return self.core.action_masks()

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Copies are never wrapped."""
        return [False for _ in self._get_indices(indices)]


def _told(reward: Reward, result: StepResult) -> tuple[Floats, list[dict[str, Any]]]:
    """Rewards, and an info for each copy."""
    energy, miss = reward.parts(result)
    columns = {
        "energy_j": result.energy_j,
        "n_served": result.n_served,
        "n_missed": result.n_missed,
        "n_lost": result.n_lost,
        "duration_s": result.duration_s,
        "reward_energy": energy,
        "reward_miss": miss,
    }
    names = tuple(columns)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return energy + miss, [dict(zip(names, row, strict=True)) for row in rows]
