"""The command line as a person uses it: processes, exit codes, and what they say."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end import nodes
from tests.end_to_end.nodes import ROOT, Testbed, environment, run_states, running_testbed

CONFIG = """
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, RunTableModel, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    name = "bad"
    cooldown = Cooldown(floor_s=0.0, max_wait_s=0.0)

    def create_run_table_model(self):
        return RunTableModel(factors=[Factor("a", {levels}), Factor("b", [1, 2])], exclude_combinations={excluded})

    def trial(self, treatment):
        return Trial(
            model=ModelSpec(name="m", source="{source}"),
            engine=EngineSpec(name="{engine}"),
            workload=WorkloadSpec(name="{workload}", options={options}),
            meter=MeterSpec(name="fake"),
        )
"""
GOOD = {
    "levels": "[1, 2]",
    "excluded": "()",
    "source": "fake:small",
    "engine": "fake",
    "workload": "fake",
    "options": "{}",
}


def write_config(folder: Path, **options: Any) -> Path:
    """The small experiment of the end-to-end tests."""
    path = nodes.write_config(folder, **options)
    path.write_text(path.read_text().replace('"words", [4, 8]', '"words", [8, 12]'))
    return path


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    with running_testbed(tmp_path_factory.mktemp("box")) as testbed:
        yield testbed


def command(*arguments: str | Path, timeout: float = 120, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, arguments)],
        env=environment(**extra),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def words(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


def run(config: Path, testbed: Testbed, results: Path) -> subprocess.CompletedProcess[str]:
    return command("run", config, "--testbed", testbed.url, "--results", results)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"levels": "[1, 2"}, ["line 12", "syntax"]),
        ({"levels": "[]"}, ["'a'", "level"]),
        ({"excluded": '({"a": [1, 2]},)'}, ["exclu"]),
        ({"excluded": '({"a": [1]}, {"a": [2], "b": [1]}, {"b": [2]})'}, ["exclu"]),
        ({"workload": "superglue", "options": '{"task": "Nope", "source": "sample"}'}, ["Nope", "BoolQ"]),
        ({"source": "fake:missing"}, ["missing"]),
        ({"options": '{"wrong": 1}'}, ["wrong"]),
        ({"engine": "steam"}, ["engine", "'steam'", "fake"]),
        ({"workload": "chess"}, ["workload", "'chess'", "superglue"]),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    tmp_path: Path, testbed: Testbed, changes: dict[str, str], expected: list[str]
) -> None:
    config = tmp_path / "bad.py"
    config.write_text(CONFIG.format(**(GOOD | changes)))
    done = run(config, testbed, tmp_path / "results")
    assert done.returncode == 2, words(done)
    for word in expected:
        assert word.lower() in words(done).lower()
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_bad_input_with_a_local_testbed_leaves_nothing_either(tmp_path: Path) -> None:
    config = tmp_path / "bad.py"
    config.write_text(CONFIG.format(**(GOOD | {"source": "fake:missing"})))
    done = command("run", config, "--local", "--results", tmp_path / "results")
    assert done.returncode == 2, words(done)
    assert "missing" in words(done)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "CONFIG"],
        ["run", "CONFIG", "--local", "--testbed", "http://127.0.0.1:9"],
        ["run", "CONFIG", "--testbed", "http://127.0.0.1:9", "--meter", "fake"],
        ["run", "CONFIG", "--testbed", "127.0.0.1:9"],
        ["run", "CONFIG", "--local", "--on-suspect", "shrug"],
        ["retry", "nowhere", "--suspect"],
        ["retry", "CONFIG"],
        ["run", "nowhere.py", "--local"],
        ["plan", "nowhere.py"],
        ["status", "nowhere"],
        ["export", "nowhere"],
        ["export", "nowhere", "--format", "xlsx"],
        ["sing"],
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str]) -> None:
    config = write_config(tmp_path)
    done = command(*[str(config) if each == "CONFIG" else each for each in arguments])
    assert done.returncode == 2, words(done)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


def test_a_campaign_from_plan_to_export(tmp_path: Path, testbed: Testbed) -> None:
    config, results = write_config(tmp_path, repetitions=2, tokens_per_s=0), tmp_path / "results"
    folder = results / "e2e"
    planned = command("plan", config, "--json", "--limit", "3")
    document = json.loads(planned.stdout)
    assert (document["n_runs"], document["n_treatments"], document["n_excluded"]) == (8, 4, 0)
    assert len(document["runs"]) == 3
    assert not results.exists()

    done = run(config, testbed, results)
    assert done.returncode == 0, words(done)
    lines = done.stdout.splitlines()
    assert [line.split("]")[0] for line in lines if line.startswith("[")] == [f"[{n}/8" for n in range(1, 9)]
    assert "8 runs: 8 done" in done.stdout
    assert f"python -m analysis summary {folder}" in words(done)
    assert set(run_states(folder / "run_table.sqlite").values()) == {"DONE"}
    with (folder / "run_table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["__done"] for row in rows] == ["DONE"] * 8

    again = run(config, testbed, results)
    assert again.returncode == 0
    assert "nothing was run" in words(again)

    for where in (folder, config):
        told = command("status", where, "--json", "--results", results)
        assert json.loads(told.stdout)["counts"]["DONE"] == 8
    (folder / "run_table.csv").unlink()
    assert command("export", folder, "--format", "csv").returncode == 0
    assert (folder / "run_table.csv").is_file()
    assert command("export", folder, "--format", "parquet").returncode == 0
    assert list(folder.glob("*.parquet"))

    text = config.read_text()
    config.write_text(text.replace("seed = 7", "seed = 8"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".csv", ".json")}
    changed = run(config, testbed, results)
    assert changed.returncode == 2
    assert "another plan" in words(changed) and "name" in words(changed)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(run_states(folder / "run_table.sqlite")) == 8


def test_runs_that_fail_make_exit_code_1_with_reasons(tmp_path: Path, testbed: Testbed) -> None:
    config = write_config(tmp_path, repetitions=1, tokens_per_s=0)
    text = config.read_text().replace('options={"tokens_per_s": 0}', 'options={"die": "exit"}')
    config.write_text(text.replace("max_attempts = 20", "max_attempts = 1"))
    assert '"die"' in config.read_text()
    results = tmp_path / "results"
    done = run(config, testbed, results)
    assert done.returncode == 1, words(done)
    assert "Every run fails with 'child_died'" in words(done)
    assert "3 failed, 1 to do" in words(done)
    told = command("status", results / "e2e")
    assert told.returncode == 0
    assert "Failed:" in told.stdout and "and 2 more" in told.stdout


def test_doubted_results_are_tried_again_kept_and_refused(tmp_path: Path, testbed: Testbed) -> None:
    """A power so small that the energy is 0: measured, and doubted."""
    config, results = write_config(tmp_path, repetitions=1, tokens_per_s=0), tmp_path / "results"
    folder = results / "e2e"
    text = config.read_text().replace("period_s=1.0)", 'period_s=1.0, options={"power_w": 5e-324})')
    config.write_text(text.replace("max_attempts = 20", "max_attempts = 2"))
    assert "5e-324" in config.read_text()
    tried = command("run", config, "--testbed", testbed.url, "--results", results, "--on-suspect", "retry")
    assert tried.returncode == 0, words(tried)
    assert "4 runs: 4 suspect" in tried.stdout
    assert "4 suspect runs (4 energy_not_positive)" in words(tried)
    assert "It will be tried again." in tried.stdout
    told = json.loads(command("status", folder, "--json").stdout)
    assert told["suspect_codes"] == {"energy_not_positive": 4}
    assert {each["n_attempts"] for each in told["suspects"]} == {2}
    assert "4 energy_not_positive" in command("status", folder).stdout

    again = command("retry", folder, "--run", "run_0_repetition_0")
    assert again.returncode == 0 and "1 run to do again" in again.stdout
    assert run_states(folder / "run_table.sqlite")["run_0_repetition_0"] == "TODO"
    refused = command("run", config, "--testbed", testbed.url, "--results", results, "--on-suspect", "fail")
    assert refused.returncode == 1, words(refused)
    assert "3 suspect, 1 failed" in refused.stdout
    assert run_states(folder / "run_table.sqlite")["run_0_repetition_0"] == "FAILED"
    with (folder / "run_table.csv").open() as file:
        rows = {row["__run_id"]: row for row in csv.DictReader(file)}
    failed = rows["run_0_repetition_0"]
    assert (failed["__done"], failed["energy_j"], failed["state"]) == ("TODO", "", "FAILED")
    assert failed["reasons"].startswith("energy_not_positive: ")
    assert {row["__done"] for row in rows.values()} == {"DONE", "TODO"}


def test_a_local_testbed_for_the_length_of_a_campaign(tmp_path: Path) -> None:
    config, results = write_config(tmp_path, repetitions=1, tokens_per_s=0), tmp_path / "results"
    done = command("run", config, "--local", "--meter", "fake", "--results", results)
    assert done.returncode == 0, words(done)
    folder = results / "e2e"
    assert set(run_states(folder / "run_table.sqlite").values()) == {"DONE"}
    assert (folder / "testbed.log").is_file()
    assert (folder / "testbed" / "token").stat().st_mode & 0o077 == 0
    assert not local_testbeds(folder)


def local_testbeds(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "testbed" in line and any(str(folder) in part for part in line):
            found.append(process)
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_local_campaign_that_is_stopped_goes_on_later(tmp_path: Path, how: signal.Signals) -> None:
    config, results = write_config(tmp_path, repetitions=2, tokens_per_s=100), tmp_path / "results"
    arguments = [sys.executable, "-m", "orchestrator", "run", str(config), "--local", "--results", str(results)]
    log = (tmp_path / "log").open("ab")
    process = subprocess.Popen(arguments, env=environment(), cwd=ROOT, stdout=log, stderr=log)
    log.close()
    table = results / "e2e" / "run_table.sqlite"
    deadline_s = time.monotonic() + 60
    while not (table.exists() and b"[1/8]" in (tmp_path / "log").read_bytes()):
        assert process.poll() is None and time.monotonic() < deadline_s, (tmp_path / "log").read_text()
        time.sleep(0.05)
    os.kill(process.pid, how)
    code = process.wait(timeout=60)
    assert code == (1 if how is not signal.SIGKILL else -signal.SIGKILL)
    deadline_s = time.monotonic() + 30
    while local_testbeds(results):
        assert time.monotonic() < deadline_s, "the local testbed outlived its campaign"
        time.sleep(0.1)
    states = list(run_states(table).values())
    assert "DONE" in states and "TODO" in states
    if how is not signal.SIGKILL:
        assert "same command again" in (tmp_path / "log").read_text()
    done = subprocess.run(
        arguments, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, words(done)
    assert set(run_states(table).values()) == {"DONE"}


def test_doctor_finds_what_is_wrong(testbed: Testbed) -> None:
    fine = command("doctor", "--testbed", testbed.url, "--json")
    findings = {(each["where"], each["name"]): each for each in json.loads(fine.stdout)}
    assert fine.returncode == 0, fine.stdout
    assert findings[("testbed", "token")]["is_fine"] is True
    assert findings[("testbed", "clock")]["is_fine"] is True
    assert findings[("testbed", "engine fake")]["is_fine"] is True
    assert "GiB free" in findings[("here", "disk")]["message"]

    wrong = command("doctor", "--testbed", testbed.url, JOULEBED_TOKEN="not-the-token-000")
    assert wrong.returncode == 1
    assert "token" in wrong.stdout and "not-the-token-000" not in wrong.stdout + wrong.stderr
    down = command("doctor", "--testbed", "http://127.0.0.1:9", "--json")
    assert down.returncode == 1
    assert "testbed serve" in down.stdout


def test_a_token_is_never_an_option() -> None:
    assert "--token-file" in command("run", "--help").stdout
    assert "--token " not in command("run", "--help").stdout
