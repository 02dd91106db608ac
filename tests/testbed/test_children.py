"""The warm child of block mode, and the child inside EnergiBridge."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState
from contract.errors import (
    JouleBedError,
    MeterError,
)
from testbed import attempt_folder, child_process
from testbed.child_process import kill_group, process_identity, run_bounded
from testbed.node import TestbedNode
from tests.testbed.node_doubles import make_node, measuring, spec, wait_final, wait_until


@pytest.fixture
def node(tmp_path: Path) -> Iterator[TestbedNode]:
    node = make_node(tmp_path / "data")
    yield node
    node.close()


def folder(tmp_path: Path, attempt_id: str) -> Path:
    return tmp_path / "data" / "attempts" / attempt_id


def child_pid(tmp_path: Path, attempt_id: str) -> int:
    return int(json.loads((folder(tmp_path, attempt_id) / attempt_folder.PROCESS).read_text())["pid"])


def is_alive(pid: int) -> bool:
    return process_identity(pid) is not None


class TestWarmChild:
    def test_is_reused_for_the_same_key(self, node: TestbedNode, tmp_path: Path) -> None:
        for attempt_id in ("a1", "a2", "a3"):
            node.submit(attempt_id, spec(lifetime="block"))
            assert wait_final(node, attempt_id).state is AttemptState.SUCCEEDED
        assert child_pid(tmp_path, "a1") == child_pid(tmp_path, "a2") == child_pid(tmp_path, "a3")

    @pytest.mark.parametrize("other", [{"lifetime": "block", "model": "other"}, {"lifetime": "trial"}])
    def test_is_gone_before_another_key_starts(self, node: TestbedNode, tmp_path: Path, other: dict[str, str]) -> None:
        node.submit("a1", spec(lifetime="block"))
        wait_final(node, "a1")
        assert is_alive(child_pid(tmp_path, "a1"))
        node.submit("a2", spec(sleep_s=5.0, **other))
        wait_until(node, "a2", measuring)
        assert not is_alive(child_pid(tmp_path, "a1"))

    def test_is_closed_when_idle_and_at_the_end(self, tmp_path: Path) -> None:
        node = make_node(tmp_path / "data", idle_s=0.2)
        node.submit("a1", spec(lifetime="block"))
        wait_final(node, "a1")
        pid = child_pid(tmp_path, "a1")
        end_s = time.monotonic() + 10.0
        while is_alive(pid):
            assert time.monotonic() < end_s, "the idle child was not closed"
            time.sleep(0.05)
        node.submit("a2", spec(lifetime="block"))
        wait_final(node, "a2")
        pid = child_pid(tmp_path, "a2")
        node.close()
        assert not is_alive(pid)
        assert not (tmp_path / "data" / "warm_child.json").exists()

    def test_that_died_between_trials_is_replaced(self, node: TestbedNode, tmp_path: Path) -> None:
        node.submit("a1", spec(lifetime="block"))
        wait_final(node, "a1")
        kill_group(child_pid(tmp_path, "a1"), 0.0)
        node.submit("a2", spec(lifetime="block"))
        assert wait_final(node, "a2").state is AttemptState.SUCCEEDED

    def test_left_over_by_a_killed_testbed_is_ended(self, tmp_path: Path) -> None:
        stray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
        record = {"pid": stray.pid, "identity": process_identity(stray.pid), "started_s": 0}
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "warm_child.json").write_text(json.dumps({**record, "started_at": "2026-01-01T00:00:00Z"}))
        node = make_node(tmp_path / "data")
        node.close()
        assert stray.wait(5) < 0


class TestWrappedChild:
    class Wrapper:
        """Stands for EnergiBridge: runs the command, and leaves with a status of its own."""

        def __init__(self, exit_status: int) -> None:
            self.exit_status = exit_status

        def wrap(self, command: list[str], out_dir: Path) -> list[str]:
            code = "import subprocess, sys; subprocess.run(sys.argv[2:]); sys.exit(int(sys.argv[1]))"
            return [sys.executable, "-c", code, str(self.exit_status), *command]

        def explain_exit(self, returncode: int, out_dir: Path) -> JouleBedError | None:
            return MeterError(f"it left with {returncode}")

    def test_runs_inside_the_meter(self, tmp_path: Path) -> None:
        node = make_node(tmp_path / "data", wrapping_meter=lambda spec: self.Wrapper(0))
        try:
            node.submit("a1", spec(meter="energibridge"))
            assert wait_final(node, "a1").state is AttemptState.SUCCEEDED
            arguments = json.loads((folder(tmp_path, "a1") / "arguments.json").read_text())
            assert arguments[2:] == ["--wrapped", "energibridge"]
        finally:
            node.close()

    def test_complaint_of_the_meter_fails_the_trial(self, tmp_path: Path) -> None:
        node = make_node(tmp_path / "data", wrapping_meter=lambda spec: self.Wrapper(101))
        try:
            node.submit("a1", spec(meter="energibridge"))
            error = wait_final(node, "a1").error
            assert error is not None
            assert (error.code, error.message) == ("meter", "it left with 101")
        finally:
            node.close()


class TestRunBounded:
    def test_what_it_said_and_how_it_ended(self) -> None:
        code = r"import sys; print('out'); print('err\xff', file=sys.stderr); sys.exit(3)"
        done = run_bounded([sys.executable, "-c", code], 60.0)
        assert (done.returncode, done.stdout, done.stderr.startswith("err")) == (3, "out\n", True)

    def test_overdue_it_is_ended_with_all_that_it_started(self, tmp_path: Path) -> None:
        told = tmp_path / "pid"
        code = (
            "import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            f"open({str(told)!r}, 'w').write(str(child.pid))\n"
            "time.sleep(600)\n"
        )
        with pytest.raises(subprocess.TimeoutExpired):
            run_bounded([sys.executable, "-c", code], 5.0)
        assert process_identity(int(told.read_text())) is None

    def test_one_that_cannot_be_ended_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As where it waits in the kernel for a hung driver: a signal does nothing."""
        monkeypatch.setattr(child_process, "_KILL_LIMIT_S", 0.1)
        started: list[int] = []
        kill = os.killpg
        monkeypatch.setattr(os, "killpg", lambda group, number: started.append(group))
        with pytest.raises(subprocess.TimeoutExpired):
            run_bounded([sys.executable, "-c", "import time; time.sleep(600)"], 0.1)
        kill(started[0], signal.SIGKILL)
