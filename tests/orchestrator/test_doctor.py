"""`orchestrator doctor` finds who locks a run table, a full disk, a wrong clock, another's trial."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from contract.errors import JouleBedError, ProtocolMismatchError, TestbedUnreachableError
from contract.node_info import NodeInfo
from orchestrator import doctor
from orchestrator.clients.fake_client import FakeClient
from orchestrator.disk_space import DiskSpace
from orchestrator.doctor import Finding, look_at_experiment, look_at_testbed
from orchestrator.processes import ProcessState, holders, process_state, told_process
from orchestrator.store.owner import this_owner
from tests.orchestrator.campaigns import Campaign

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("DELETE FROM fact")
print("locked", flush=True)
sys.stdin.readline()
"""


@contextmanager
def locked_by_another(database: Path) -> Iterator[int]:
    """The database with its write lock held by another process, whose number it is."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == "locked\n"
        yield process.pid
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def finding(found: list[Finding], name: str) -> Finding:
    return next(each for each in found if each.name == name)


needs_lock_table = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this kernel lists no locks")


@needs_lock_table
def test_the_process_that_locks_a_run_table_is_named(campaign: Campaign) -> None:
    path = campaign.folder / "run_table.sqlite"
    assert holders(path) == []
    with locked_by_another(path) as pid:
        assert holders(path) == [pid]
        assert told_process(pid).startswith(f"process {pid} (")
        found, _ = look_at_experiment(campaign.folder)
        lock = finding(found, "lock")
        assert lock.is_fine is False
        assert f"locked by process {pid} (" in lock.message
        # Whoever only reads waits for nobody.
        assert finding(found, "run table").is_fine is True
    assert finding(look_at_experiment(campaign.folder)[0], "lock").is_fine is True


@needs_lock_table
def test_without_wal_too(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE fact (key TEXT)")
    connection.close()
    with locked_by_another(path) as pid:
        assert holders(path) == [pid]


def test_a_kernel_without_a_list_of_locks_names_nobody(tmp_path: Path) -> None:
    assert holders(tmp_path / "x.sqlite", proc=tmp_path) == []


def test_a_damaged_run_table_is_told(campaign: Campaign) -> None:
    campaign.store.close()
    for path in campaign.folder.glob("run_table.sqlite*"):
        path.write_bytes(b"this is no database at all" * 100)
    found, ours = look_at_experiment(campaign.folder)
    assert finding(found, "lock").is_fine is False and finding(found, "run table").is_fine is False
    assert ours == set()


def test_an_experiment_with_what_stands_in_its_way(campaign: Campaign) -> None:
    claim = campaign.store.claim_next("fake")
    assert claim is not None
    found, ours = look_at_experiment(campaign.folder)
    assert ours == {claim.attempt_id}
    assert finding(found, "undriven").is_fine is False
    assert finding(look_at_experiment(campaign.folder / "absent")[0], "run table").is_fine is False


class TestTestbed:
    def look(self, offset_s: float | None = 0.0, ours: set[str] | None = None, **values: object) -> list[Finding]:
        info = FakeClient().node().model_copy(update=values)
        return look_at_testbed(lambda: info, lambda: offset_s, ours)

    def test_clock(self) -> None:
        assert finding(self.look(), "clock").is_fine is True
        skewed = finding(self.look(3600.0), "clock")
        assert skewed.is_fine is False and "+3600 s against this machine" in skewed.message

    def test_disk(self) -> None:
        gib = 2**30
        scarce = finding(self.look(disk_free_bytes=2 * gib, disk_total_bytes=100 * gib), "disk")
        assert (scarce.is_fine, scarce.is_warning) == (True, True)
        assert "2.0 GiB free for attempts, 98 % full" in scarce.message
        full = finding(self.look(disk_free_bytes=gib // 2, disk_total_bytes=100 * gib), "disk")
        assert full.is_fine is False and "make room" in full.message

    def test_whose_trial_runs(self) -> None:
        assert finding(self.look(running_attempt_id="a1"), "at work").message == "on attempt a1"
        assert finding(self.look(running_attempt_id="a1", ours={"a1"}), "at work").message.endswith("this experiment's")
        assert finding(self.look(running_attempt_id="a1", ours={"a2"}), "at work").message.endswith("another's")

    @pytest.mark.parametrize(
        ("error", "name"),
        [
            (TestbedUnreachableError("No answer. Check it."), "reachable"),
            (ProtocolMismatchError("It speaks version 2, this one 3. Upgrade it."), "protocol"),
            (JouleBedError("It broke."), "answer"),
        ],
    )
    def test_errors(self, error: JouleBedError, name: str) -> None:
        def node() -> NodeInfo:
            raise error

        last = look_at_testbed(node, lambda: None)[-1]
        assert (last.name, last.is_fine, last.message) == (name, False, error.message)


def test_findings_are_shown_with_their_weight() -> None:
    text = StringIO()
    found = [Finding("here", "disk", True, "98 % full", True), Finding("here", "x[1]", False, "broken")]
    doctor.print_findings(Console(file=text, width=80), found)
    assert "so so  98 % full" in text.getvalue() and "x[1]" in text.getvalue()
    assert json.loads(json.dumps(doctor.findings_document(found)))[0]["is_warning"] is True


def test_disk_space_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    space = DiskSpace.of(tmp_path / "not" / "there")
    assert space.total_bytes == shutil.disk_usage(tmp_path).total
    assert 0 <= space.used <= 1


class TestProcessState:
    def test_of_this_process_and_of_others(self) -> None:
        assert process_state(this_owner()) is ProcessState.ALIVE
        host, pid, start = this_owner().split(":")
        assert process_state(f"{host}:{pid}:{int(start) + 1000}") is ProcessState.GONE
        assert process_state(f"not-{host}:{pid}:{start}") is ProcessState.ELSEWHERE
        assert process_state("nonsense") is ProcessState.ELSEWHERE
        assert host == socket.gethostname() and int(pid) == os.getpid()

    def test_of_one_that_is_suspended(self) -> None:
        import psutil

        child = psutil.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        owner = f"{socket.gethostname()}:{child.pid}:{child.create_time():.0f}"
        try:
            child.suspend()
            end_s = time.monotonic() + 30
            while process_state(owner) is not ProcessState.SUSPENDED:
                assert time.monotonic() < end_s
                time.sleep(0.01)
        finally:
            child.kill()
            child.wait()
        assert process_state(owner) is ProcessState.GONE
