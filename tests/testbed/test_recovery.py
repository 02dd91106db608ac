"""A testbed that is started on the folder of one that was killed, at every point of an attempt."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from contract.attempt_state import AttemptState
from contract.errors import (
    TestbedBusyError,
)
from testbed import attempt_folder
from testbed.attempt_folder import ChildRecord, write_atomic
from testbed.child_process import ProcessRecord, process_identity
from tests.testbed.node_doubles import make_node, measuring, spec, wait_final, wait_until


def folder(tmp_path: Path, attempt_id: str) -> Path:
    return tmp_path / "data" / "attempts" / attempt_id


class TestRecovery:
    """A second node on the folder of one that is abandoned as if it had been killed."""

    def left_behind(self, tmp_path: Path, attempt_id: str) -> Path:
        """An attempt as a killed testbed leaves it, its child not running."""
        node = make_node(tmp_path / "data")
        node.submit(attempt_id, spec(sleep_s=60.0))
        wait_until(node, attempt_id, measuring)
        node.close()
        path = folder(tmp_path, attempt_id)
        for name in (attempt_folder.RESULT, attempt_folder.RECORD):
            (path / name).unlink(missing_ok=True)
        return path

    def test_of_a_child_that_is_gone(self, tmp_path: Path) -> None:
        self.left_behind(tmp_path, "a1")
        node = make_node(tmp_path / "data")
        status = node.status("a1")
        node.close()
        assert status.state is AttemptState.FAILED
        assert status.error is not None
        assert status.error.code == "testbed_restarted"
        assert status.error.retryable
        assert status.version > 1_000_000, "past all that the killed one told"

    def test_of_a_child_that_finished_meanwhile(self, tmp_path: Path) -> None:
        path = self.left_behind(tmp_path, "a1")
        write_atomic(path / attempt_folder.RECORD, ChildRecord(origin_s=0.0, unix_minus_monotonic_s=0.0))
        node = make_node(tmp_path / "data")
        assert node.status("a1").state is AttemptState.SUCCEEDED
        node.close()

    def test_of_a_child_that_still_runs(self, tmp_path: Path) -> None:
        path = self.left_behind(tmp_path, "a1")
        code = (
            "import pathlib, sys, time; time.sleep(1.0);"
            'pathlib.Path(sys.argv[1]).write_text(\'{"origin_s": 0, "unix_minus_monotonic_s": 0}\')'
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(path / attempt_folder.RECORD)], start_new_session=True
        )
        self.record(path, child.pid, process_identity(child.pid) or "")
        node = make_node(tmp_path / "data")
        with pytest.raises(TestbedBusyError, match="a1"):
            node.submit("a2", spec())
        assert wait_final(node, "a1").state is AttemptState.SUCCEEDED
        assert child.wait(1) == 0
        node.submit("a2", spec())
        assert wait_final(node, "a2").state is AttemptState.SUCCEEDED
        node.close()

    def test_deadlines_hold_for_an_adopted_child(self, tmp_path: Path) -> None:
        path = self.left_behind(tmp_path, "a1")
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
        self.record(path, child.pid, process_identity(child.pid) or "", started_s=time.monotonic() - 59.0)
        node = make_node(tmp_path / "data")
        assert wait_final(node, "a1", limit_s=10.0).state is AttemptState.TIMED_OUT
        assert child.wait(5) < 0
        node.close()

    def test_a_process_that_got_the_same_pid_is_left_alone(self, tmp_path: Path) -> None:
        path = self.left_behind(tmp_path, "a1")
        self.record(path, os.getpid(), "another boot:1")
        node = make_node(tmp_path / "data")
        status = node.status("a1")
        node.close()
        assert status.error is not None
        assert status.error.code == "testbed_restarted"

    def test_of_a_submission_that_was_never_answered(self, tmp_path: Path) -> None:
        half = tmp_path / "data" / "attempts" / ".new-a1"
        half.mkdir(parents=True)
        (half / attempt_folder.SPEC).write_text("{")
        node = make_node(tmp_path / "data")
        assert not half.exists()
        node.submit("a1", spec())
        assert wait_final(node, "a1").state is AttemptState.SUCCEEDED
        node.close()

    def record(self, path: Path, pid: int, identity: str, started_s: float | None = None) -> None:
        record = ProcessRecord.model_validate(
            {
                "pid": pid,
                "identity": identity,
                "started_s": time.monotonic() if started_s is None else started_s,
                "started_at": "2026-01-01T00:00:00Z",
            }
        )
        (path / attempt_folder.PROCESS).write_text(record.model_dump_json())


def test_process_identity_tells_processes_apart() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine, other = process_identity(os.getpid()), process_identity(child.pid)
    assert mine is not None
    assert mine == process_identity(os.getpid())
    assert other is not None
    assert mine != other
    child.kill()
    end_s = time.monotonic() + 5.0
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert process_identity(child.pid) is None, "a zombie holds nothing"
    child.communicate()
    assert process_identity(child.pid) is None
