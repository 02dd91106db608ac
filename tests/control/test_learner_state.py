"""A training that is killed goes on in another process, and ends as if nothing had been."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.errors import UsageError
from control.judge import Checkpoint
from control.vector_env import VectorEnv
from testbed.policies.learned_policy import PolicyNetwork
from tests.control.scripted import small_case

pytest.importorskip("torch")
pytest.importorskip("sb3_contrib")

from control.imitation import ImitationConfig, PlanTeacher
from control.learner import LearnerConfig, learn
from control.learner_state import StateFile
from control.planner import plan_for_price

CASE = small_case(duration_s=300.0)
PLAN = plan_for_price(CASE, 500.0)
CONFIG = LearnerConfig(
    n_steps=4096,
    n_copies=8,
    n_rollout=64,
    batch_size=128,
    n_validation=4,
    hidden=(16,),
    check_every=2,
    imitation=ImitationConfig(2, 50, 2, 128),
)
ROOT = Path(__file__).parents[2]


def learned(state_file: StateFile | None, kill_at: int | None = None, config: LearnerConfig = CONFIG):
    """Learns; this process is killed when it is told of the n-th checkpoint."""
    stages: list[str] = []
    seen: list[int] = []

    def look(checkpoint: Checkpoint, network: PolicyNetwork) -> None:
        seen.append(checkpoint.n_steps)
        if len(seen) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    found = learn(
        CASE,
        0.5,
        config,
        batches=PLAN.action_set.batches,
        teacher=PlanTeacher(PLAN),
        on_progress=lambda stage, done, of: stages.append(stage),
        on_checkpoint=look,
        state_file=state_file,
    )
    return found, stages, seen


def killed(path: Path, kill_at: int) -> int:
    code = (
        "from pathlib import Path\n"
        "from tests.control.test_learner_state import StateFile, learned\n"
        f"learned(StateFile(Path({str(path)!r}), 'mine'), {kill_at})\n"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=400).returncode


def test_a_killed_training_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole, _, all_seen = learned(None)
    state_file = StateFile(tmp_path / "state.safetensors", "mine")
    # Looks are at 0 (imitation), 1024, 2048, ...: killed at 3072, inside an update, with the state of 2048.
    assert killed(state_file.path, 4) == -signal.SIGKILL
    state = state_file.find()
    assert state is not None and state.n_updates == 4
    found, stages, seen = learned(state_file)
    assert "imitation" not in stages and seen == all_seen[-len(seen) :] and 0 < len(seen) < len(all_seen) - 2
    assert (found.curve, found.best, found.agreement) == (whole.curve, whole.best, whole.agreement)
    assert found.network.about == whole.network.about
    for one, other in zip(found.network.layers, whole.network.layers, strict=True):
        assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
    assert list(tmp_path.iterdir()) == [state_file.path]


def test_a_state_of_another_training_is_not_gone_on_from_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    state_file = StateFile(tmp_path / "state.safetensors", "mine")
    few = replace(CONFIG, n_steps=1024, n_rollout=32, imitation=None)
    assert state_file.find() is None
    learned(state_file, config=few)
    assert state_file.find() is not None
    assert replace(state_file, identity="another's").find() is None
    state_file.path.write_bytes(state_file.path.read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"state\.safetensors.*Remove it"):
        state_file.find()


def test_an_environment_goes_on_from_the_state_of_another() -> None:
    one, other = VectorEnv(CASE, 3), VectorEnv(CASE, 3)
    draw = np.random.default_rng(1)

    def step(env: VectorEnv, chosen: np.ndarray):
        return env.step((env.action_masks() * (1 + chosen)).argmax(axis=1))

    one.reset(5)
    for _ in range(200):
        step(one, draw.random((3, len(one.actions))))
    other.restore(one.state())
    n_episodes = 0
    for _ in range(800):
        chosen = draw.random((3, len(one.actions)))
        mine, its = step(one, chosen), step(other, chosen)
        for a, b in zip(mine[:-1], its[:-1], strict=True):
            assert np.array_equal(a, b)
        assert mine.episodes == its.episodes
        n_episodes += len(mine.episodes)
    assert n_episodes > 3
