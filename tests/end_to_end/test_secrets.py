"""A campaign with known secrets: they end in no file, no answer and no argument, and what it wrote is private."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import typer

from contract import routes
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from orchestrator.cli import app as orchestrator_app
from testbed.child_log import hide_in_log, log_tail
from testbed.cli import app as node_app
from tests.end_to_end import nodes
from tests.end_to_end.nodes import ROOT, Testbed, running_testbed, write_config
from tests.init_env.stand_in_hub import running_hub, small_model

TOKEN = "known-token-4f1d3c5e7a"
HUB_TOKEN = "hf_known0secret9value"
PASSWORD = "known-password-77"
SECRETS = (TOKEN, HUB_TOKEN, PASSWORD)
ENVIRONMENT = {"JOULEBED_TOKEN": TOKEN, "HF_TOKEN": f"{HUB_TOKEN}\n", "MY_DB_PASSWORD": PASSWORD, "COLUMNS": "200"}
"""The hub's token as files of variables and Kubernetes' secrets often have it: with a line break."""


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    with running_testbed(tmp_path / "box", "--log-level", "debug", extra_environment=ENVIRONMENT) as testbed:
        yield testbed


def orchestrator(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    before = os.umask(0o022)  # what most people have
    try:
        return subprocess.run(
            [sys.executable, "-m", "orchestrator", *map(str, arguments)],
            env={**nodes.environment(), **ENVIRONMENT, **changes},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.umask(before)


def start(config: Path, testbed: Testbed, results: Path) -> list[str]:
    command = [sys.executable, "-m", "orchestrator", "run", str(config)]
    return [*command, "--testbed", testbed.url, "--results", str(results)]


def files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def command_lines() -> str:
    """Of all processes of this machine: what `ps` shows to everybody."""
    lines = []
    for process in psutil.process_iter(["cmdline"]):
        lines += process.info["cmdline"] or []
    return "\n".join(lines)


def with_secrets(paths: list[Path]) -> dict[str, list[str]]:
    """Files that hold a secret, as text or inside a database."""
    found = {}
    for path in paths:
        content = path.read_bytes()
        leaked = [secret for secret in SECRETS if secret.encode() in content]
        if leaked:
            found[str(path)] = leaked
    return found


def test_no_secret_is_written_answered_or_shown(tmp_path: Path, testbed: Testbed) -> None:
    config = write_config(tmp_path, repetitions=1, tokens_per_s=50.0)
    results = tmp_path / "results"
    process = subprocess.Popen(
        [*start(config, testbed, results), "--log-level", "debug", "--log-format", "json"],
        env={**nodes.environment(), **ENVIRONMENT},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = ""
    while process.poll() is None:
        lines += command_lines()
        time.sleep(0.1)
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    assert process.returncode == 0, output
    assert "testbed.model_runner" in lines  # the children were seen too

    said = [output, lines]
    for arguments in (
        ["status", results / "e2e", "--json"],
        ["story", results / "e2e", "--json"],
        ["story", results / "e2e", "run_0_repetition_0", "--json"],
        ["export", results / "e2e"],
        ["doctor", results / "e2e", "--testbed", testbed.url],
        ["doctor", "--testbed", testbed.url, "--token-file", "/nowhere"],
        ["run", config, "--testbed", f"http://me:{PASSWORD}@127.0.0.1:9", "--results", tmp_path / "other"],
    ):
        done = orchestrator(*arguments)
        said.append(done.stdout + done.stderr)
    headers = {"Authorization": f"Bearer {TOKEN}", PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
    wrong = {"Authorization": f"Bearer {TOKEN}x"}
    for sent in (headers, wrong):
        for path in (routes.NODE, routes.METRICS, "/v1/openapi.json", "/v1/attempts/none", "/nowhere"):
            said.append(httpx.get(testbed.url + path, headers=sent).text)
    testbed.stop()
    assert [secret for secret in SECRETS for text in said if secret in text] == []

    written = files(tmp_path)
    names = {path.name for path in written}
    assert {"orchestrator.log", "testbed.log", "run_table.sqlite", "result.json", "child.log"} <= names
    assert with_secrets(written) == {}


def test_no_command_has_an_option_for_a_secret() -> None:
    for app in (orchestrator_app, node_app):
        commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
        assert len(commands) >= 2
        for name, command in commands.items():
            options = [option for each in command.params for option in each.opts if option.startswith("--")]
            suspicious = [
                each for each in options if any(word in each for word in ("token", "password", "secret", "key"))
            ]
            assert [each for each in suspicious if not each.endswith("file")] == [], name


def test_a_childs_own_secrets_are_taken_out_of_its_log(tmp_path: Path) -> None:
    path = tmp_path / "child.log"
    path.write_bytes(b"\xff before\nAuthorization: Bearer " + HUB_TOKEN.encode() + b"\nafter\n")
    assert hide_in_log(path, [HUB_TOKEN]) is True
    assert path.read_bytes() == b"\xff before\nAuthorization: Bearer [hidden]\nafter\n"
    assert hide_in_log(path, [HUB_TOKEN]) is False
    assert hide_in_log(tmp_path / "absent") is False
    path.write_text(f"token {HUB_TOKEN}\n")
    os.environ["A_TEST_TOKEN"] = HUB_TOKEN
    try:
        assert log_tail(path) == ["token [hidden]"]
    finally:
        del os.environ["A_TEST_TOKEN"]


def test_a_hub_that_refuses_makes_nobody_quote_the_token(tmp_path: Path) -> None:
    for package in ("huggingface_hub", "transformers"):
        pytest.importorskip(package)
    spec = {
        **{"experiment": "e", "run_id": "run_0_repetition_0", "repetition": 0, "treatment": {}, "seed": 0},
        **{"model": {"name": "m", "source": "hf:org/gated"}, "engine": {"name": "transformers"}},
        **{"workload": {"name": "fake"}, "meter": {"name": "fake"}},
    }
    headers = {"Authorization": f"Bearer {TOKEN}", PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
    with running_hub() as hub:
        hub.repositories["models/org/gated"] = small_model()
        online = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        with (
            running_testbed(tmp_path / "box", extra_environment={**ENVIRONMENT, **online}) as testbed,
            httpx.Client(base_url=testbed.url, headers=headers, timeout=120) as client,
        ):
            checked = client.post(routes.CHECK, json={"specs": [spec]})
            assert [each["error"]["code"] for each in checked.json()["problems"]] == ["model_not_found"]
            answer = client.put("/v1/attempts/a", json=spec)
            while answer.json()["state"] not in ("FAILED", "SUCCEEDED"):
                answer = client.get("/v1/attempts/a", params={"after_version": answer.json()["version"], "wait_s": 20})
            result = client.get("/v1/attempts/a/result")
            assert result.json()["error"]["code"] == "model_not_found"
    assert [each.text for each in (checked, answer, result) if HUB_TOKEN in each.text] == []
    assert with_secrets(files(tmp_path / "box")) == {}


def test_what_both_nodes_write_is_their_owners_alone(tmp_path: Path) -> None:
    config, results = write_config(tmp_path, repetitions=1, tokens_per_s=0), tmp_path / "results"
    done = orchestrator("run", config, "--local", "--meter", "fake", "--results", results)
    assert done.returncode == 0, done.stdout + done.stderr
    assert orchestrator("export", results / "e2e", "--format", "parquet").returncode == 0
    found = {path.relative_to(results): path.stat().st_mode & 0o777 for path in results.rglob("*")}
    names = {path.name for path in found}
    assert {"requests.jsonl", "token", "run_table.csv", "run_table.parquet", "orchestrator.log", "child.log"} <= names
    open_to_others = {str(path): oct(mode) for path, mode in found.items() if mode & 0o077}
    assert open_to_others == {}


def test_the_token_reaches_no_child(tmp_path: Path, testbed: Testbed) -> None:
    config = write_config(tmp_path, repetitions=1, tokens_per_s=5.0)
    process = subprocess.Popen(
        start(config, testbed, tmp_path / "results"),
        env={**nodes.environment(), **ENVIRONMENT},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end_s = time.monotonic() + 60
        while not (running := nodes.runners(testbed.folder / "testbed-data")):
            assert process.poll() is None and time.monotonic() < end_s
            time.sleep(0.05)
        for child in running:
            environment = child.environ()
            assert TOKEN not in json.dumps(environment)
            assert environment["HF_TOKEN"] == ENVIRONMENT["HF_TOKEN"]  # it may have to fetch a model
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
