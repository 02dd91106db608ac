"""Starts real orchestrators and testbeds as processes, and kills them."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "end-to-end-token"
READY_S = 120.0
"""For a testbed to start: it first ends what an earlier one left, on a machine that may be busy."""

CONFIG = """
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, RunTableModel, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    name = "{name}"
    seed = 7
    cooldown = Cooldown(floor_s=0.0, max_wait_s=0.0)
    max_attempts = 20

    def create_run_table_model(self):
        return RunTableModel(
            factors=[Factor("words", [8, 12]), Factor("concurrency", [1, 4])], repetitions={repetitions}
        )

    def trial(self, treatment):
        return Trial(
            model=ModelSpec(name="fake", source="fake:small"),
            engine=EngineSpec(
                name="fake", lifetime="{lifetime}", max_concurrency=4, options={{"tokens_per_s": {tokens_per_s}}}
            ),
            sampling=SamplingSpec(max_tokens=16),
            workload=WorkloadSpec(
                name="fake",
                concurrency=treatment["concurrency"],
                options={{"n_items": 8, "prompt_words": treatment["words"]}},
            ),
            # Long, so that a busy machine makes no gaps, which would doubt the runs.
            meter=MeterSpec(name="{meter}", period_s=1.0),
        )
"""


def write_config(
    folder: Path,
    *,
    name: str = "e2e",
    repetitions: int = 3,
    lifetime: str = "trial",
    tokens_per_s: float = 200.0,
    meter: str = "fake",
) -> Path:
    """A small experiment on fakes: 4 treatments x repetitions."""
    path = folder / f"{name}.py"
    path.write_text(
        CONFIG.format(name=name, repetitions=repetitions, lifetime=lifetime, tokens_per_s=tokens_per_s, meter=meter)
    )
    return path


def environment(**extra: str) -> dict[str, str]:
    """The environment of both nodes."""
    return {**os.environ, "JOULEBED_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **extra}


class Testbed:
    """A testbed process on a fixed loopback port, which may be killed and started again."""

    __test__ = False

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        extra_environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.host = host
        self._prefix = prefix
        self._arguments = arguments
        self._environment = environment(**extra_environment)
        self._port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self._port}"

    def start(self) -> None:
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        command = [
            *self._prefix,
            sys.executable,
            "-m",
            "testbed",
            "serve",
            "--host",
            self.host,
            "--port",
            str(self._port),
        ]
        command += ["--data-dir", str(self.folder / "testbed-data"), "--ready-file", str(ready), *self._arguments]
        with (self.folder / "testbed.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_S
        while not ready.exists():
            assert self.process.poll() is None, (self.folder / "testbed.log").read_text()
            assert time.monotonic() < deadline, "the testbed did not get ready"
            time.sleep(0.05)
        self._port = int(json.loads(ready.read_text())["url"].rsplit(":", 1)[1])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)


@contextmanager
def running_testbed(folder: Path, *arguments: str, **options: Any) -> Iterator[Testbed]:
    """A testbed for the length of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    testbed = Testbed(folder, *arguments, **options)
    testbed.start()
    try:
        yield testbed
    finally:
        testbed.stop()


def start_orchestrator(
    config: Path,
    testbed_url: str,
    results: Path,
    *,
    prefix: Sequence[str] = (),
    token: str = TOKEN,
    extra_environment: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.Popen[bytes]:
    """`orchestrator run` as a process; its output goes to orchestrator.log beside the experiment's folder."""
    results.mkdir(parents=True, exist_ok=True)
    command = [*prefix, sys.executable, "-m", "orchestrator", "run", str(config), "--testbed", testbed_url]
    command += ["--results", str(results)]
    with (results / "orchestrator.log").open("ab") as log:
        env = environment(**{"JOULEBED_TOKEN": token, **extra_environment})
        return subprocess.Popen(command, env=env, stdout=log, stderr=log)


def runners(testbed_data: Path) -> list[psutil.Process]:
    """Processes that run a trial of this testbed: one-shot children (their command line names its folder)."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "testbed.model_runner" in line and any(str(testbed_data) in part for part in line):
            found.append(process)
    return found


def run_states(run_table: Path) -> dict[str, str]:
    """run_id -> state."""
    with sqlite3.connect(run_table) as connection:
        return dict(connection.execute("SELECT run_id, state FROM run").fetchall())


def accepted_attempts(run_table: Path) -> dict[str, int]:
    """run_id -> number of accepted attempts."""
    with sqlite3.connect(run_table) as connection:
        rows = connection.execute("SELECT run_id, SUM(accepted) FROM attempt GROUP BY run_id").fetchall()
    return dict(rows)
