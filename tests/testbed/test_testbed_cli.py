"""`testbed` as a person and a supervisor use it: real processes, the fake engine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from contract.attempt_state import AttemptState
from contract.node_info import NodeInfo
from contract.trial_result import AttemptStatus, TrialResult
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, TrialSpec, WorkloadSpec
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from testbed.child_process import process_identity
from testbed.doctor import is_disk_full, print_node

TOKEN = "a-token-for-tests-only"


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOULEBED_")}
    return {**kept, "COLUMNS": "200", **changes}


def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "testbed", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(**changes))


def fake_spec(tokens_per_s: float = 2000.0, lifetime: str = "trial") -> TrialSpec:
    return TrialSpec(
        experiment="test",
        run_id="run_0_repetition_0",
        repetition=0,
        treatment={},
        seed=1,
        model=ModelSpec(name="fake", source="fake:small"),
        engine=EngineSpec.model_validate(
            {"name": "fake", "lifetime": lifetime, "options": {"tokens_per_s": tokens_per_s}}
        ),
        sampling=SamplingSpec(max_tokens=16),
        workload=WorkloadSpec(name="fake", options={"n_items": 8}),
        meter=MeterSpec(name="fake", period_s=1.0),
    )


class Served:
    """A `testbed serve` process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ready = folder / "ready.json"
        self.client = httpx.Client()
        self.start()

    def start(self) -> None:
        self.ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "testbed", "serve", "--port", "0", "--data-dir", str(self.folder / "data")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--ready-file", str(self.ready)], stderr=log, env=environment(JOULEBED_TOKEN=TOKEN)
            )
        end_s = time.monotonic() + 30
        while not self.ready.exists():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end_s, "not ready"
            time.sleep(0.02)
        found = json.loads(self.ready.read_text())
        assert found["pid"] == self.process.pid
        self.client.close()
        headers = {"Authorization": f"Bearer {TOKEN}", PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
        headers["Content-Type"] = "application/json"
        self.client = httpx.Client(base_url=found["url"], headers=headers, timeout=40)

    def submit(self, attempt_id: str, spec: TrialSpec) -> AttemptStatus:
        answer = self.client.put(f"/v1/attempts/{attempt_id}", content=spec.model_dump_json())
        assert answer.status_code == 200, answer.text
        return AttemptStatus.model_validate_json(answer.content)

    def wait(self, attempt_id: str, *states: AttemptState) -> AttemptStatus:
        """Long poll to one of the states, or to a final one."""
        end_s = time.monotonic() + 60
        version = -1
        while True:
            query = {"wait_s": 10, "after_version": version}
            answer = self.client.get(f"/v1/attempts/{attempt_id}", params=query)
            status = AttemptStatus.model_validate_json(answer.content)
            if status.state in states or status.state.is_final:
                return status
            assert time.monotonic() < end_s, status
            version = status.version

    def result(self, attempt_id: str) -> TrialResult:
        return TrialResult.model_validate_json(self.client.get(f"/v1/attempts/{attempt_id}/result").content)

    def child(self, attempt_id: str) -> int:
        path = self.folder / "data" / "attempts" / attempt_id / "process.json"
        return int(json.loads(path.read_text())["pid"])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.client.close()
    served.process.terminate()
    served.process.wait(30)


class TestServe:
    def test_runs_a_trial_and_ends_orderly(self, served: Served) -> None:
        served.submit("a1", fake_spec())
        status = served.wait("a1")
        assert status.state.has_result, status
        result = served.result("a1")
        assert result.summary is not None
        assert result.workload is not None
        assert result.workload.n_requests == 8
        for artifact in result.artifacts:
            content = served.client.get(f"/v1/attempts/a1/artifacts/{artifact.name}").content
            assert len(content) == artifact.size_bytes
        assert NodeInfo.model_validate_json(served.client.get("/v1/node").content).running_attempt_id is None
        served.process.terminate()
        assert served.process.wait(15) == 0
        assert not served.ready.exists()

    @pytest.mark.parametrize("lifetime", ["trial", "block"])
    def test_killed_in_mid_trial_and_started_again_finishes_it_once(self, served: Served, lifetime: str) -> None:
        served.submit("a1", fake_spec(tokens_per_s=8.0, lifetime=lifetime))
        before = served.wait("a1", AttemptState.MEASURING)
        assert before.state is AttemptState.MEASURING
        child = served.child("a1")
        served.process.kill()
        served.process.wait()
        served.start()
        again = served.submit("a1", fake_spec(tokens_per_s=8.0, lifetime=lifetime))
        assert not again.state.is_final
        assert again.version > before.version
        final = served.wait("a1")
        assert final.state.has_result, final
        assert served.child("a1") == child, "it was run a second time"
        assert process_identity(child) is None
        log = (served.folder / "log").read_text()
        assert log.count("still running") == 1

    def test_killed_with_its_child_tells_what_happened(self, served: Served) -> None:
        served.submit("a1", fake_spec(tokens_per_s=10.0))
        served.wait("a1", AttemptState.MEASURING)
        served.process.kill()
        os.killpg(served.child("a1"), signal.SIGKILL)
        served.process.wait()
        served.start()
        final = served.wait("a1")
        assert final.state is AttemptState.FAILED
        assert final.error is not None
        assert final.error.code == "testbed_restarted"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_cancels_the_running_trial(self, served: Served, number: signal.Signals) -> None:
        served.submit("a1", fake_spec(tokens_per_s=10.0))
        served.wait("a1", AttemptState.MEASURING)
        child = served.child("a1")
        start_s = time.monotonic()
        served.process.send_signal(number)
        assert served.process.wait(20) == 0
        assert time.monotonic() - start_s < 12.0
        assert process_identity(child) is None
        served.start()
        assert served.wait("a1").state is AttemptState.CANCELLED

    def test_two_testbeds_do_not_share_a_folder(self, served: Served) -> None:
        answer = run("serve", "--port", "0", "--data-dir", str(served.folder / "data"), JOULEBED_TOKEN=TOKEN)
        assert answer.returncode == 2
        assert "Another testbed uses the data folder" in answer.stderr
        assert served.ready.exists()

    def test_the_port_is_taken(self, served: Served, tmp_path: Path) -> None:
        port = str(served.client.base_url.port)
        answer = run("serve", "--port", port, "--data-dir", str(tmp_path / "other"), JOULEBED_TOKEN=TOKEN)
        assert answer.returncode == 2
        assert "cannot listen" in answer.stderr

    def test_attempts_are_their_owners_alone(self, served: Served) -> None:
        served.submit("a1", fake_spec())
        served.wait("a1")
        for path in (served.folder / "data").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path


class TestUsage:
    def test_no_token_beyond_loopback(self, tmp_path: Path) -> None:
        answer = run("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path / "data"))
        assert answer.returncode == 2
        assert "--token-file" in answer.stderr
        assert not (tmp_path / "data").exists()

    def test_a_token_is_made_on_loopback(self, tmp_path: Path) -> None:
        ready = tmp_path / "ready.json"
        command = [sys.executable, "-m", "testbed", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready)], stderr=subprocess.PIPE, text=True, env=environment()
        )
        end_s = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.02)
        token = tmp_path / "data" / "token"
        assert token.stat().st_mode & 0o777 == 0o600
        headers = {"Authorization": f"Bearer {token.read_text().strip()}", PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
        url = json.loads(ready.read_text())["url"]
        assert httpx.get(f"{url}/v1/node", headers=headers, timeout=30).status_code == 200
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert str(token) in errors
        assert token.read_text().strip() not in errors

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--token-file", "missing"], "cannot be read"),
            (["--token-file", "short"], "does not hold a token"),
            (["--superglue-dir", "missing"], "There is no folder"),
            (["--meter", "steam"], "no meter named 'steam'"),
            (["--log-level", "loud"], "no log level"),
            (["--host", "no such host"], "no address"),
            (["--port", "99999"], "--port"),
            (["--token", "x"], "No such option"),
        ],
    )
    def test_wrong_arguments(self, tmp_path: Path, arguments: list[str], expected: str) -> None:
        (tmp_path / "short").write_text("short\n")
        known = {"missing": str(tmp_path / "missing"), "short": str(tmp_path / "short")}
        given = [known.get(argument, argument) for argument in arguments]
        answer = run("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), *given)
        assert answer.returncode == 2, answer.stderr
        assert expected in re.sub(r"\s+", " ", answer.stderr)
        assert "Traceback" not in answer.stderr

    def test_help_is_quick(self) -> None:
        start_s = time.monotonic()
        answer = run("--help")
        assert answer.returncode == 0
        assert "serve" in answer.stdout
        assert time.monotonic() - start_s < 5.0


class TestDoctor:
    def test_tells_what_there_is(self) -> None:
        answer = run("doctor", "--json")
        assert answer.returncode == 0, answer.stderr
        info = NodeInfo.model_validate_json(answer.stdout)
        assert {"engine", "meter", "workload", "actuator"} == {capability.seam for capability in info.capabilities}
        for capability in info.capabilities:
            assert capability.available or capability.message, f"{capability.name} does not say how to mend it"

    def test_as_a_table(self) -> None:
        answer = run("doctor")
        assert answer.returncode == 0, answer.stderr
        for word in ("fake", "superglue", "processor", "temperatures"):
            assert word in answer.stdout


def test_doctor_tells_of_the_disk(tmp_path: Path) -> None:
    answer = run("doctor", "--data-dir", str(tmp_path / "not-there-yet"), "--json")
    info = NodeInfo.model_validate_json(answer.stdout)
    assert info.disk_total_bytes == shutil.disk_usage(tmp_path).total
    full = info.model_copy(update={"disk_free_bytes": 2**29})
    assert is_disk_full(full) and not is_disk_full(info.model_copy(update={"disk_free_bytes": 2**31}))
    text = StringIO()
    print_node(Console(file=text, width=200), full, [])
    assert "0.5 GiB free for attempts" in text.getvalue() and "--data-dir" in text.getvalue()
