"""Experiments on fakes for the browser to look at: one that runs all the while, one that has ended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-for-the-browser-tests"
_READY_S = 60.0

CONFIG = """
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, Order, RunTableModel, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    name = "{name}"
    seed = 7
    order = Order.DECLARED
    cooldown = Cooldown(floor_s={floor_s}, max_wait_s=0.0)
    max_attempts = 1

    def create_run_table_model(self):
        return RunTableModel(
            factors=[Factor("model", ["small", "large"]), Factor("concurrency", [1, 4, 8])],
            repetitions={repetitions},
        )

    def trial(self, treatment):
        # The large model's answers fail at eight at once, where something has to.
        is_broken = {breaks} and treatment["model"] == "large" and treatment["concurrency"] == 8
        speed = {tokens_per_s} * (1.0 if treatment["model"] == "small" else 0.6) if {breaks} else {tokens_per_s}
        return Trial(
            # One name for both, so that one engine serves all trials: it is the page that is looked at.
            model=ModelSpec(name="fake", source="fake:fake"),
            engine=EngineSpec(
                name="fake",
                lifetime="block",
                max_concurrency=8,
                options={{"tokens_per_s": speed, "fail_on": 3 if is_broken else None}},
            ),
            sampling=SamplingSpec(max_tokens=16),
            workload=WorkloadSpec(
                name="fake", concurrency=treatment["concurrency"], options={{"n_items": {n_items}}}
            ),
            meter=MeterSpec(name="estimate" if {breaks} else "fake", period_s=0.1),
            baseline_s=0.2,
        )
"""


@dataclass(frozen=True)
class Served:
    """A page that answers.

    Attributes:
        url: of it, without a slash at the end.
        folder: of the experiment.
    """

    url: str
    folder: Path


def write_config(
    folder: Path, name: str, *, repetitions: int, tokens_per_s: float, n_items: int, floor_s: float, breaks: bool
) -> Path:
    path = folder / f"{name}.py"
    path.write_text(
        CONFIG.format(
            name=name,
            repetitions=repetitions,
            tokens_per_s=tokens_per_s,
            n_items=n_items,
            floor_s=floor_s,
            breaks=breaks,
        )
    )
    return path


def environment(**extra: str) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name != "JOULEBED_TOKEN"}
    return {**found, **extra, "JOULEBED_DASHBOARD_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def begin(config: Path, results: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """`orchestrator run CONFIG --local`, as a process."""
    command = [sys.executable, "-m", "orchestrator", "run", str(config), "--local", "--no-progress"]
    with (config.parent / f"{config.stem}.out").open("wb") as log:
        return subprocess.Popen(
            [*command, "--results", str(results), *arguments], stdout=log, stderr=log, env=environment(), cwd=ROOT
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    for number, patience_s in ((signal.SIGINT, 0.2), (signal.SIGINT, 20.0), (signal.SIGKILL, 10.0)):
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            continue


def ready(path: Path, process: "subprocess.Popen[bytes]", output: Path) -> str:
    """The URL in a ready file, once it is there."""
    deadline_s = time.monotonic() + _READY_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise AssertionError(f"no page: {output.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)
    return str(json.loads(path.read_text())["url"])


@contextmanager
def running_campaign(folder: Path) -> Iterator[Served]:
    """A campaign that outlasts the tests, with the page that it serves itself."""
    config = write_config(folder, "running", repetitions=200, tokens_per_s=40.0, n_items=6, floor_s=0.2, breaks=True)
    process = begin(config, folder / "results", "--dashboard")
    try:
        experiment = folder / "results" / "running"
        yield Served(ready(experiment / "dashboard.json", process, folder / "running.out"), experiment)
    finally:
        end(process)


@contextmanager
def served(experiment: Path, scratch: Path, *arguments: str, token_of_testbed: str = "") -> Iterator[Served]:
    """`orchestrator dashboard` on a folder."""
    ready_file, output = scratch / "page.json", scratch / "page.out"
    ready_file.unlink(missing_ok=True)
    extra = {"JOULEBED_TOKEN": token_of_testbed} if token_of_testbed else {}
    command = [sys.executable, "-m", "orchestrator", "dashboard", str(experiment), "--port", "0"]
    with output.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready_file), *arguments],
            stdout=log,
            stderr=log,
            env=environment(**extra),
            cwd=ROOT,
        )
    try:
        yield Served(ready(ready_file, process, output), experiment)
    finally:
        end(process)
