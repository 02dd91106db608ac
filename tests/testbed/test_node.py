"""The node with real child processes: what it promises while they behave, and while they do not."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState
from contract.errors import (
    AttemptConflictError,
    AttemptNotFinishedError,
    AttemptNotFoundError,
    ChildDiedError,
    InvalidRequestError,
    TestbedBusyError,
    UnknownNameError,
    UsageError,
)
from testbed import attempt_folder
from testbed.child_process import process_identity
from testbed.node import TestbedNode
from testbed.supervisor import Timing
from tests.testbed.node_doubles import aware, make_node, measuring, spec, wait_final, wait_until


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


class TestOneTrial:
    def test_runs_to_its_result(self, node: TestbedNode, tmp_path: Path) -> None:
        first = node.submit("a1", spec(meter="rapl"))
        assert first.state is AttemptState.SUBMITTED
        assert (folder(tmp_path, "a1") / attempt_folder.SPEC).exists(), "on disk before it is answered"
        final = wait_final(node, "a1")
        assert final.state is AttemptState.SUCCEEDED
        assert final.version > first.version
        result = node.result("a1")
        assert result.run_id == "run_0_repetition_0"
        assert aware(result.started_at)
        assert result.started_at <= result.finished_at
        arguments = json.loads((folder(tmp_path, "a1") / "arguments.json").read_text())
        assert arguments[2:] == ["--meter", "rapl"]
        assert "a line for the log" in (folder(tmp_path, "a1") / attempt_folder.CHILD_LOG).read_text()

    def test_progress_is_told_while_it_runs(self, node: TestbedNode) -> None:
        node.submit("a1", spec(sleep_s=5.0))
        status = wait_until(node, "a1", measuring)
        assert (status.n_requests_done, status.n_requests) == (3, 8)
        sample = node.telemetry()
        assert sample.attempt_id == "a1"
        assert sample.power_w == {"cpu": 7.0}
        assert node.info().running_attempt_id == "a1"

    def test_its_end_is_noticed_at_once(self, tmp_path: Path) -> None:
        node = make_node(tmp_path / "data", timing=Timing(poll_s=30.0))
        try:
            start_s = time.monotonic()
            node.submit("a1", spec())
            wait_final(node, "a1", limit_s=20.0)
            assert time.monotonic() - start_s < 15.0
        finally:
            node.close()

    def test_a_long_poll_waits_and_is_woken(self, node: TestbedNode) -> None:
        first = node.submit("a1", spec(sleep_s=0.5))
        start_s = time.monotonic()
        later = node.status("a1", after_version=first.version, wait_s=20.0)
        assert later.version > first.version
        assert time.monotonic() - start_s < 10.0
        final = wait_final(node, "a1")
        start_s = time.monotonic()
        assert node.status("a1", after_version=final.version, wait_s=20.0) == final
        assert time.monotonic() - start_s < 1.0

    def test_an_error_of_the_child_is_told(self, node: TestbedNode) -> None:
        node.submit("a1", spec(after="error"))
        final = wait_final(node, "a1")
        assert final.state is AttemptState.FAILED
        assert final.error is not None
        assert final.error.code == "model_not_found"


class TestSubmission:
    def test_is_idempotent(self, node: TestbedNode, tmp_path: Path) -> None:
        node.submit("a1", spec(sleep_s=1.0))
        pid = wait_until(node, "a1", measuring) and child_pid(tmp_path, "a1")
        assert node.submit("a1", spec(sleep_s=1.0)).state is AttemptState.MEASURING
        assert child_pid(tmp_path, "a1") == pid
        wait_final(node, "a1")
        assert node.submit("a1", spec(sleep_s=1.0)).state is AttemptState.SUCCEEDED

    def test_refuses_another_spec_under_the_same_id(self, node: TestbedNode) -> None:
        node.submit("a1", spec())
        wait_final(node, "a1")
        with pytest.raises(AttemptConflictError, match="new attempt id"):
            node.submit("a1", spec(sleep_s=1.0))

    def test_refuses_a_second_trial_and_names_the_first(self, node: TestbedNode, tmp_path: Path) -> None:
        node.submit("a1", spec(sleep_s=5.0))
        with pytest.raises(TestbedBusyError, match="a1") as caught:
            node.submit("a2", spec())
        assert caught.value.detail["running_attempt_id"] == "a1"
        assert not folder(tmp_path, "a2").exists()

    def test_of_many_at_once_one_runs(self, node: TestbedNode) -> None:
        outcomes: list[str] = []

        def submit(number: int) -> None:
            try:
                node.submit(f"a{number}", spec(sleep_s=1.0))
                outcomes.append("runs")
            except TestbedBusyError:
                outcomes.append("busy")

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["busy"] * 7 + ["runs"]

    def test_refuses_unknown_names_and_writes_nothing(self, node: TestbedNode, tmp_path: Path) -> None:
        wrong = spec()
        wrong = wrong.model_copy(update={"engine": wrong.engine.model_copy(update={"name": "steam"})})
        with pytest.raises(UnknownNameError):
            node.submit("a1", wrong)
        assert not folder(tmp_path, "a1").exists()
        with pytest.raises(AttemptNotFoundError):
            node.status("a1")

    @pytest.mark.parametrize("attempt_id", ["", "../a", ".a", "a/b", "a" * 129, "a\n"])
    def test_refuses_ids_that_are_no_file_names(self, node: TestbedNode, attempt_id: str) -> None:
        with pytest.raises(InvalidRequestError):
            node.submit(attempt_id, spec())


class TestChildFailures:
    def test_killed_child(self, node: TestbedNode, tmp_path: Path) -> None:
        node.submit("a1", spec(sleep_s=30.0))
        wait_until(node, "a1", measuring)
        os.kill(child_pid(tmp_path, "a1"), signal.SIGKILL)
        final = wait_final(node, "a1", limit_s=10.0)
        assert final.state is AttemptState.FAILED
        assert final.error is not None
        assert final.error.code == ChildDiedError.code
        assert final.error.detail["signal"] == "SIGKILL"
        assert final.error.detail["log_tail"] == ["a line for the log "]
        assert final.error.retryable

    def test_crashed_child(self, node: TestbedNode) -> None:
        node.submit("a1", spec(after="signal"))
        error = wait_final(node, "a1").error
        assert error is not None
        assert error.detail["signal"] == "SIGSEGV"

    @pytest.mark.parametrize("lifetime", ["trial", "block"])
    def test_child_that_leaves(self, node: TestbedNode, lifetime: str) -> None:
        node.submit("a1", spec(after="exit", lifetime=lifetime))
        error = wait_final(node, "a1").error
        assert error is not None
        assert error.code == ChildDiedError.code
        assert error.detail["exit_status"] == 3
        node.submit("a2", spec(lifetime=lifetime))
        assert wait_final(node, "a2").state is AttemptState.SUCCEEDED

    def test_child_that_cannot_be_started(self, tmp_path: Path) -> None:
        node = make_node(tmp_path / "data", runner_command=[str(tmp_path / "nothing")])
        try:
            node.submit("a1", spec())
            final = wait_final(node, "a1")
            assert final.state is AttemptState.FAILED
            assert final.error is not None
            assert final.error.code == "internal"
        finally:
            node.close()

    @pytest.mark.parametrize("lifetime", ["trial", "block"])
    def test_total_deadline_ends_even_a_stubborn_child(self, node: TestbedNode, tmp_path: Path, lifetime: str) -> None:
        node.submit("a1", spec(after="stubborn", sleep_s=60.0, total_s=3.0, lifetime=lifetime))
        wait_until(node, "a1", measuring)
        pid = child_pid(tmp_path, "a1")
        final = wait_final(node, "a1", limit_s=15.0)
        assert final.state is AttemptState.TIMED_OUT
        assert final.error is not None
        assert final.error.detail["deadline"] == "total_s"
        assert not is_alive(pid)

    def test_load_deadline(self, node: TestbedNode) -> None:
        node.submit("a1", spec(loading_s=60.0, load_s=0.7))
        final = wait_final(node, "a1", limit_s=15.0)
        assert final.state is AttemptState.TIMED_OUT
        assert final.error is not None
        assert final.error.detail["deadline"] == "load_s"

    def test_load_deadline_does_not_count_the_measured_phase(self, node: TestbedNode) -> None:
        node.submit("a1", spec(sleep_s=3.2, load_s=3.0))
        assert wait_final(node, "a1").state is AttemptState.SUCCEEDED

    def test_what_the_child_left_behind_is_ended(self, node: TestbedNode, tmp_path: Path) -> None:
        node.submit("a1", spec(after="orphan"))
        assert wait_final(node, "a1").state is AttemptState.SUCCEEDED
        assert not is_alive(int((folder(tmp_path, "a1") / "orphan.pid").read_text()))

    def test_a_complete_trial_whose_process_does_not_leave(self, tmp_path: Path) -> None:
        node = make_node(tmp_path / "data", timing=Timing(poll_s=0.05, grace_s=0.3, exit_s=0.3))
        try:
            node.submit("a1", spec(after="lingers"))
            assert wait_final(node, "a1", limit_s=10.0).state is AttemptState.SUCCEEDED
            assert not is_alive(child_pid(tmp_path, "a1"))
        finally:
            node.close()

    def test_collecting_that_fails_still_ends_the_attempt(self, tmp_path: Path) -> None:
        def collect(*_: object, **__: object) -> None:
            raise RuntimeError("broken")

        node = make_node(tmp_path / "data", collect=collect)
        try:
            node.submit("a1", spec())
            final = wait_final(node, "a1")
            assert final.state is AttemptState.FAILED
            assert node.result("a1").error == final.error
            assert final.error is not None
            assert "broken" in final.error.message
        finally:
            node.close()


class TestCancel:
    @pytest.mark.parametrize("lifetime", ["trial", "block"])
    def test_ends_the_child(self, node: TestbedNode, tmp_path: Path, lifetime: str) -> None:
        node.submit("a1", spec(sleep_s=60.0, lifetime=lifetime))
        wait_until(node, "a1", measuring)
        pid = child_pid(tmp_path, "a1")
        node.cancel("a1")
        assert wait_final(node, "a1", limit_s=10.0).state is AttemptState.CANCELLED
        assert not is_alive(pid)
        assert node.cancel("a1").state is AttemptState.CANCELLED
        node.submit("a2", spec(lifetime=lifetime))
        assert wait_final(node, "a2").state is AttemptState.SUCCEEDED

    def test_leaves_a_finished_attempt_alone(self, node: TestbedNode) -> None:
        node.submit("a1", spec())
        final = wait_final(node, "a1")
        assert node.cancel("a1") == final
        with pytest.raises(AttemptNotFoundError):
            node.cancel("a2")

    def test_close_cancels_and_says_so(self, tmp_path: Path) -> None:
        node = make_node(tmp_path / "data")
        node.submit("a1", spec(sleep_s=60.0))
        wait_until(node, "a1", measuring)
        pid = child_pid(tmp_path, "a1")
        node.close()
        assert not is_alive(pid)
        node = make_node(tmp_path / "data")
        assert node.status("a1").state is AttemptState.CANCELLED
        node.close()
        node.close()


class TestKeeping:
    def test_results_and_artifacts(self, node: TestbedNode) -> None:
        node.submit("a1", spec(sleep_s=0.5))
        with pytest.raises(AttemptNotFinishedError):
            node.result("a1")
        with pytest.raises(AttemptNotFinishedError):
            node.acknowledge("a1")
        wait_final(node, "a1")
        assert node.artifact_path("a1", "data.bin").stat().st_size == 1024
        for name in ("spec.json", "../a1/data.bin", "nothing"):
            with pytest.raises(AttemptNotFoundError):
                node.artifact_path("a1", name)

    def test_only_acknowledged_attempts_are_pruned(self, tmp_path: Path) -> None:
        node = make_node(tmp_path / "data", keep=1)
        for attempt_id in ("a1", "a2", "a3"):
            node.submit(attempt_id, spec(lifetime="block"))
            wait_final(node, attempt_id)
        node.acknowledge("a2")
        node.acknowledge("a2")
        node.acknowledge("a3")
        assert node.result("a1").state is AttemptState.SUCCEEDED
        with pytest.raises(AttemptNotFoundError):
            node.status("a2")
        node.close()
        assert sorted(path.name for path in (tmp_path / "data" / "attempts").iterdir()) == ["a1", "a3"]
        node = make_node(tmp_path / "data", keep=0)
        assert node.acknowledge("a1").state is AttemptState.SUCCEEDED
        assert not list((tmp_path / "data" / "attempts").iterdir())
        # The network may deliver a submission again, long after: it must not run a second time.
        with pytest.raises(AttemptConflictError, match="acknowledged"):
            node.submit("a2", spec(lifetime="block"))
        node.close()

    def test_one_data_folder_has_one_node(self, node: TestbedNode, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="Another testbed"):
            make_node(tmp_path / "data")

    def test_check_asks_a_process_of_its_own(self, node: TestbedNode) -> None:
        wrong = spec(run_id="run_7")
        wrong = wrong.model_copy(update={"engine": wrong.engine.model_copy(update={"name": "steam"})})
        problems = node.check([spec(), wrong]).problems
        assert [(each.run_id, each.error.code) for each in problems] == [("run_7", "unknown_name")]
        with pytest.raises(ChildDiedError) as caught:
            node.check([spec(after="exit")])
        assert caught.value.detail["log_tail"] == ["the check failed"]

    def test_what_a_check_that_died_printed_has_no_secret(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("A_TEST_TOKEN", "known-0123456789\n")
        command = [sys.executable, "-c", "raise SystemExit('refused known-0123456789')"]
        node = make_node(tmp_path / "other", runner_command=command)
        with pytest.raises(ChildDiedError) as caught:
            node.check([spec()])
        node.close()
        assert caught.value.detail["log_tail"] == ["refused [hidden]"]


def test_close_ends_a_check(tmp_path: Path) -> None:
    node = make_node(tmp_path / "data", runner_command=[sys.executable, "-c", "import time; time.sleep(60)"])
    outcome: list[str] = []

    def check() -> None:
        try:
            node.check([spec()])
        except ChildDiedError as error:
            outcome.append(error.code)

    thread = threading.Thread(target=check)
    thread.start()
    time.sleep(0.5)
    start_s = time.monotonic()
    node.close()
    thread.join(5)
    assert outcome == ["child_died"]
    assert time.monotonic() - start_s < 5.0
