"""Somebody looks at a campaign in the morning: `status`, `doctor` and `story` say what happened to it in the night."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.end_to_end.nodes import ROOT, environment, running_testbed, start_orchestrator, write_config


def ask(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, arguments)],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def explanations(folder: Path) -> dict[str, dict[str, Any]]:
    done = ask("status", folder, "--json")
    if done.returncode != 0:  # not begun yet
        return {}
    return {each["code"]: each for each in json.loads(done.stdout)["explanations"]}


def wait_for(what: Callable[[], bool], limit_s: float = 90.0) -> None:
    end_s = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end_s
        time.sleep(0.2)


def test_from_an_outage_to_the_end(tmp_path: Path) -> None:
    results = tmp_path / "results"
    folder, log = results / "e2e", results / "e2e" / "orchestrator.log"
    config = write_config(tmp_path, repetitions=2, tokens_per_s=40.0)
    with running_testbed(tmp_path / "box") as testbed:
        process = start_orchestrator(config, testbed.url, results)
        try:
            wait_for(lambda: log.exists() and "SUCCEEDED" in log.read_text())
            assert set(explanations(folder)) == {"driven"}

            testbed.kill()
            wait_for(lambda: "testbed_unreachable" in explanations(folder))
            told = ask("status", folder)
            assert told.returncode == 0
            assert f"Problem: The testbed {os.uname().nodename} ({testbed.url}) is unreachable since " in told.stdout
            assert f"Process {process.pid} on this machine keeps trying until " in told.stdout
            looked = ask("doctor", folder, "--testbed", testbed.url, "--json")
            assert looked.returncode == 1
            wrong = {each["name"] for each in json.loads(looked.stdout) if each["is_fine"] is False}
            assert {"testbed unreachable", "reachable"} <= wrong

            testbed.start()
            wait_for(lambda: set(explanations(folder)) <= {"driven"})
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        gone = explanations(folder)["undriven"]
        assert f"process {process.pid} on this machine is gone without a word" in gone["message"]
        assert f"orchestrator run {config} --testbed {testbed.url}" in gone["advice"]

        again = start_orchestrator(config, testbed.url, results)
        assert again.wait(120) == 0, (results / "orchestrator.log").read_text()
        assert explanations(folder) == {}
        story = json.loads(ask("story", folder, "--json").stdout)["events"]
        told_events = [event["message"] for event in story]
        assert sum("began on" in message for message in told_events) == 2
        assert any(message.startswith("waiting: No answer") for message in told_events)
        assert any(message.startswith("the testbed answers again after") for message in told_events)
        assert told_events[-1] == "the campaign ended (finished), 0 runs left"
        hit = next(event["run_id"] for event in story if event["message"].startswith("waiting: "))
        attempts = json.loads(ask("story", folder, hit, "--json").stdout)["attempts"]
        assert attempts[-1]["accepted"] is True
        assert all("No answer" not in line or hit in line for line in log.read_text().splitlines())


def test_a_campaign_that_cannot_be_continued_leaves_word(tmp_path: Path) -> None:
    results = tmp_path / "results"
    config = write_config(tmp_path, repetitions=1, tokens_per_s=40.0)
    with running_testbed(tmp_path / "box") as testbed:
        process = start_orchestrator(config, testbed.url, results)
        wait_for(lambda: "driven" in explanations(results / "e2e"))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1
        stopped = explanations(results / "e2e")["stopped"]
        assert f"A person stopped process {process.pid} on this machine at " in stopped["message"]
        refused = start_orchestrator(config, testbed.url, results, token="not-the-right-token")
        assert refused.wait(60) == 2
        told = explanations(results / "e2e")["unauthorized"]
        assert "token is missing or wrong" in told["details"][0]
        assert "not-the-right-token" not in (results / "e2e" / "orchestrator.log").read_text()
