"""A training as it stands between two updates, in a file: another process goes on from it as this one would have.

Tensors lie in one safetensors file, everything else as JSON in its header; nothing in it is run when it is read (the
learner's own archive holds a pickle). It is replaced as a whole, so that a kill leaves the old one or the new one.

The same to the last bit on the same machine with the same packages: weights, moments of the optimiser, all random
states, the running episodes of the environment, the price of a miss and the best so far are kept. What is not kept is
what stable-baselines3 would log.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import UsageError
from control.judge import Checkpoint, Judge
from control.serving_env import ServingVecEnv
from testbed.attempt_folder import write_atomic

FORMAT = "joulebed-training-state"
FORMAT_VERSION = 2
_HEADER = "joulebed"


@dataclass(frozen=True)
class StateFile:
    """Where a training keeps its state.

    Attributes:
        path: of the file; there may be none yet.
        identity: of the training: a state of another one is not gone on from.
    """

    path: Path
    identity: str

    def save(self, model: Any, env: ServingVecEnv, judge: Judge, n_updates: int, agreement: float | None) -> None:
        """Replace the file by the state at the start of a rollout.

        Args:
            model: `MaskablePPO`.
            env: its environment.
            judge: of its policies.
            n_updates: of the policy so far.
            agreement: with the teacher.
        """
        from safetensors.numpy import save

        name, keys, position, has_gauss, cached = np.random.get_state()
        tensors = {
            **{f"policy.{key}": value.detach().numpy() for key, value in model.policy.state_dict().items()},
            **{
                f"optimizer.{number}.{key}": value.numpy()
                for number, moments in model.policy.optimizer.state_dict()["state"].items()
                for key, value in moments.items()
            },
            **{f"env.{key}": value for key, value in env.state().items()},
            "random.numpy": np.asarray(keys),
            "random.torch": _torch_random().numpy(),
            "last_observations": model._last_obs,
            "last_episode_starts": model._last_episode_starts,
        }
        best = judge.best
        for number, (weight, bias) in enumerate(() if best is None else best[1]):
            tensors |= {f"best.{number}.weight": weight, f"best.{number}.bias": bias}
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "identity": self.identity,
            "packages": _packages(),
            "n_updates": n_updates,
            "n_timesteps": model.num_timesteps,
            "n_gradient_epochs": model._n_updates,
            "miss_price": env.reward.miss_price,
            "agreement": agreement,
            "numpy_random": [str(name), int(position), int(has_gauss), float(cached)],
            "curve": [asdict(each) for each in judge.curve],
            "best": None if best is None else {"index": best[0], "n_layers": len(best[1])},
        }
        content = save({key: np.asarray(value, order="C") for key, value in tensors.items()}, _text(header))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, content)

    def find(self) -> "LearnerState | None":
        """The state of this training; None: there is none, or one of another training or of other packages.

        Raises:
            UsageError: the file cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "numpy") as file:
                header = json.loads((file.metadata() or {})[_HEADER])
                told = (header["format"], header["version"], header["identity"], header["packages"])
                if told != (FORMAT, FORMAT_VERSION, self.identity, _packages()):
                    return None
                return LearnerState(header, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{self.path} cannot be read ({error!r}). Remove it: its seed then begins anew, to the same result."
            ) from error


@dataclass(frozen=True)
class LearnerState:
    """What a state file holds.

    Attributes:
        header: JSON.
        tensors: by name.
    """

    header: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray[Any, Any]]

    @property
    def n_updates(self) -> int:
        """Of the policy, when it was written."""
        return int(self.header["n_updates"])

    @property
    def agreement(self) -> float | None:
        """With the teacher."""
        return None if self.header["agreement"] is None else float(self.header["agreement"])

    def apply(self, model: Any, env: ServingVecEnv, judge: Judge) -> None:
        """Make a fresh training, of the same configuration, this one."""
        import torch

        header, reward = self.header, env.reward
        env.restore(self._part("env"))
        env.reward = type(reward)(**{**asdict(reward), "miss_price": float(header["miss_price"])})
        model.policy.load_state_dict({key: torch.from_numpy(value) for key, value in self._part("policy").items()})
        optimizer = model.policy.optimizer
        moments: dict[int, dict[str, Any]] = {}
        for key, value in self._part("optimizer").items():
            number, _, name = key.partition(".")
            moments.setdefault(int(number), {})[name] = torch.from_numpy(value)
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        model.num_timesteps = int(header["n_timesteps"])
        model._n_updates = int(header["n_gradient_epochs"])
        model._last_obs = self.tensors["last_observations"]
        model._last_episode_starts = self.tensors["last_episode_starts"]
        best = header["best"]
        layers = tuple(
            (self.tensors[f"best.{number}.weight"], self.tensors[f"best.{number}.bias"])
            for number in range(0 if best is None else int(best["n_layers"]))
        )
        judge.resume(
            [Checkpoint(**each) for each in header["curve"]], None if best is None else (int(best["index"]), layers)
        )
        name, position, has_gauss, cached = header["numpy_random"]
        np.random.set_state((name, self.tensors["random.numpy"], position, has_gauss, cached))
        torch.set_rng_state(torch.from_numpy(self.tensors["random.torch"]))

    def _part(self, name: str) -> dict[str, np.ndarray[Any, Any]]:
        return {
            key.removeprefix(f"{name}."): value for key, value in self.tensors.items() if key.startswith(f"{name}.")
        }


def _torch_random() -> Any:
    import torch

    return torch.get_rng_state()


def _packages() -> dict[str, str]:
    """Versions that the next bit depends on."""
    return {name: metadata.version(name) for name in ("torch", "numpy", "stable-baselines3", "sb3-contrib")}


def _text(header: Mapping[str, Any]) -> dict[str, str]:
    return {_HEADER: json.dumps(header, sort_keys=True)}
