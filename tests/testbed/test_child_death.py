"""Children that die, hang or leave others behind, each in its own way: the attempt ends, and says how."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.attempt_state import AttemptState
from contract.errors import ErrorBody, TestbedBusyError
from testbed import attempt_folder, deadline
from testbed.child_process import process_identity
from testbed.node import TestbedNode
from testbed.reclaim import Patience, Reclaimer
from testbed.supervisor import Timing
from tests.testbed.node_doubles import collect, make_node, measuring, spec, wait_final, wait_until
from tests.testbed.test_node import child_pid, folder, is_alive
from tests.testbed.test_reclaim import no_gpu

LIFETIMES = pytest.mark.parametrize("lifetime", ["trial", "block"])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[TestbedNode]:
    node = make_node(tmp_path / "data")
    yield node
    node.close()


def failure(node: TestbedNode, **options: Any) -> ErrorBody:
    """The error of a trial that goes wrong; the next one must succeed all the same."""
    node.submit("a1", spec(**options))
    final = wait_final(node, "a1")
    assert final.state in (AttemptState.FAILED, AttemptState.TIMED_OUT)
    assert final.error is not None
    assert node.result("a1").error == final.error
    node.submit("a2", spec())
    assert wait_final(node, "a2").state is AttemptState.SUCCEEDED
    return final.error


class TestDeath:
    @LIFETIMES
    @pytest.mark.parametrize(
        ("after", "how", "words"),
        [
            ("exit_0", {"exit_status": 0}, "exit status 0"),
            ("sys_exit", {"exit_status": 3}, "exit status 3"),
            ("segfault", {"signal": "SIGSEGV"}, "native code"),
            ("abort", {"signal": "SIGABRT"}, "native code"),
            ("raise", {"exit_status": 1}, "RuntimeError: it broke"),
        ],
    )
    def test_is_told_with_its_manner(
        self, node: TestbedNode, lifetime: str, after: str, how: dict[str, object], words: str
    ) -> None:
        error = failure(node, after=after, lifetime=lifetime)
        assert error.code == "child_died"
        assert error.retryable
        assert error.detail | how == error.detail
        assert words in error.message
        assert error.detail["log_tail"]

    def test_of_a_crash_leaves_the_python_lines_in_the_log(self, node: TestbedNode) -> None:
        tail = "\n".join(failure(node, after="segfault").detail["log_tail"])
        assert "Fatal Python error: Segmentation fault" in tail
        assert "misbehave" in tail

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            ("CUDA out of memory. Tried to allocate 20.00 GiB.", "out_of_memory"),
            ("CUDA error: device-side assert triggered", "device_error"),
        ],
    )
    @pytest.mark.parametrize("after", ["raise", "engine_error"])
    def test_and_recorded_errors_are_classed_alike(self, node: TestbedNode, after: str, words: str, code: str) -> None:
        error = failure(node, after=after, words=words)
        assert (error.code, error.retryable) == (code, code == "device_error")
        assert words in error.message

    def test_of_a_worker_for_want_of_memory_shows_in_the_log_only(self, node: TestbedNode) -> None:
        said = "ValueError: No available memory for the cache blocks."
        error = failure(node, after="engine_error", words="Engine core initialization failed.", says=said)
        assert error.code == "out_of_memory"
        assert said in error.message
        assert error.detail["was"] == "engine"

    @LIFETIMES
    def test_by_the_kernel_for_want_of_memory(self, tmp_path: Path, lifetime: str) -> None:
        counts = iter([5])
        node = make_node(tmp_path / "data", oom_kills=lambda: next(counts, 6))
        try:
            node.submit("a1", spec(sleep_s=30.0, lifetime=lifetime))
            wait_until(node, "a1", measuring)
            os.kill(child_pid(tmp_path, "a1"), signal.SIGKILL)
            error = wait_final(node, "a1").error
            assert error is not None
            assert (error.code, error.retryable, error.detail["signal"]) == ("out_of_memory", False, "SIGKILL")
        finally:
            node.close()

    def test_in_a_flood_of_words_leaves_a_log_of_bearable_length(self, tmp_path: Path) -> None:
        node = make_node(tmp_path / "data", timing=Timing(poll_s=0.05, grace_s=0.3, log_bytes=2**20))
        try:
            error = failure(node, after="flood", flood_mib=100)
            assert error.detail["exit_status"] == 4
            assert error.detail["log_tail"][-1] == "the last line"
            log = (folder(tmp_path, "a1") / attempt_folder.CHILD_LOG).read_bytes()
            assert len(log) < 2 * 2**20
            assert log.startswith(b"a line for the log")
        finally:
            node.close()

    @LIFETIMES
    def test_is_not_what_a_closed_output_means(self, tmp_path: Path, lifetime: str) -> None:
        node = make_node(tmp_path / "data", timing=Timing(poll_s=0.05, grace_s=0.3, exit_s=0.3))
        try:
            node.submit("a1", spec(after="closes_stdout", lifetime=lifetime))
            assert wait_final(node, "a1").state is AttemptState.SUCCEEDED
            node.submit("a2", spec(lifetime=lifetime))
            assert wait_final(node, "a2").state is AttemptState.SUCCEEDED
        finally:
            node.close()


class TestHang:
    @pytest.mark.parametrize(
        ("state", "limits", "name"),
        [
            ("LOADING", {"load_s": 1.5}, "load_s"),
            ("BASELINE", {}, "baseline"),
            ("WARMUP", {"warmup_s": 0.5}, "warmup_s"),
            ("MEASURING", {"measure_s": 0.5}, "measure_s"),
            ("MEASURING", {"stall_s": 0.5}, "stall_s"),
            ("COLLECTING", {"collect_s": 0.5}, "collect_s"),
            ("MEASURING", {"total_s": 2.0}, "total_s"),
        ],
    )
    @LIFETIMES
    def test_in_each_state_is_ended(
        self,
        node: TestbedNode,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        lifetime: str,
        state: str,
        limits: dict[str, float],
        name: str,
    ) -> None:
        monkeypatch.setattr(deadline, "BASELINE_SLACK_S", 0.5)
        error = failure(node, hang_in=state, lifetime=lifetime, **limits)
        assert (error.code, error.detail["deadline"]) == ("deadline_exceeded", name)
        assert error.retryable
        assert not is_alive(child_pid(tmp_path, "a1"))
        if name != "load_s":  # which may be over before the child has imported what it needs to say so
            assert error.detail["state"] == state
            assert any("hang_here" in line for line in error.detail["log_tail"]), "where it hangs is in its log"

    def test_in_collecting_ends_the_attempt_and_keeps_the_next_one_out(self, tmp_path: Path) -> None:
        goes_on: list[float] = [time.monotonic() + 3600]

        def hang(*arguments: Any, **terms: Any) -> Any:
            while time.monotonic() < goes_on[0]:
                time.sleep(0.02)
            return collect(*arguments, **terms)

        node = make_node(tmp_path / "data", collect=hang)
        try:
            node.submit("a1", spec(collect_s=0.3))
            final = wait_final(node, "a1")
            assert final.state is AttemptState.TIMED_OUT
            assert final.error is not None
            assert final.error.detail["deadline"] == "collect_s"
            with pytest.raises(TestbedBusyError, match="a1"):
                node.submit("a2", spec())
            told = node.result("a1")
            goes_on[0] = 0.0
            eventually(lambda: node.submit("a2", spec()) is not None)
            wait_final(node, "a2")
            assert node.result("a1") == told, "a result that was told does not change"
        finally:
            goes_on[0] = 0.0
            node.close()


class TestLeftBehind:
    @LIFETIMES
    @pytest.mark.parametrize("after", ["orphan_of_its_own", "orphan_and_death"])
    def test_in_a_session_of_its_own(self, node: TestbedNode, tmp_path: Path, after: str, lifetime: str) -> None:
        node.submit("a1", spec(after=after, lifetime=lifetime))
        wait_final(node, "a1")
        orphan = int((folder(tmp_path, "a1") / "orphan.pid").read_text())
        # A warm engine that lives keeps its helpers: they may be its workers.
        assert is_alive(orphan) is (lifetime == "block" and after == "orphan_of_its_own")
        node.submit("a2", spec())
        assert wait_final(node, "a2").state is AttemptState.SUCCEEDED
        assert not is_alive(orphan)

    @LIFETIMES
    def test_and_found_by_the_next_testbed(self, tmp_path: Path, lifetime: str) -> None:
        node = make_node(tmp_path / "data")
        try:
            node.submit("a1", spec(after="orphan_of_its_own", lifetime=lifetime))
            wait_final(node, "a1")
        finally:
            node.close()
        orphan = int((folder(tmp_path, "a1") / "orphan.pid").read_text())
        assert not is_alive(orphan)

    def test_by_a_testbed_that_was_killed(self, tmp_path: Path) -> None:
        class Blind(Reclaimer):
            """Ends nothing: what a testbed does that is killed first."""

            def end_all(self) -> str:
                return ""

        data_dir = tmp_path / "data"
        data_dir.mkdir()
        node = make_node(data_dir, reclaimer=Blind(data_dir, no_gpu()))
        node.submit("a1", spec(after="orphan_of_its_own"))
        wait_final(node, "a1")
        node.close()
        orphan = int((folder(tmp_path, "a1") / "orphan.pid").read_text())
        assert is_alive(orphan)
        make_node(data_dir).close()
        assert not is_alive(orphan)

    def test_and_not_to_be_ended_keeps_the_next_trial_out(self, tmp_path: Path) -> None:
        class Stuck(Reclaimer):
            """Its signals do not arrive: a process that waits in the kernel for a hung driver."""

            def _kill(self, pid: int, *, is_new: bool) -> None:
                assert pid

        data_dir = tmp_path / "data"
        data_dir.mkdir()
        reclaimer = Stuck(data_dir, no_gpu(), Patience(process_s=0.2))
        node = make_node(data_dir, reclaimer=reclaimer)
        try:
            node.submit("a1", spec(after="orphan_of_its_own"))
            assert wait_final(node, "a1").state is AttemptState.SUCCEEDED, "what was measured stands"
            orphan = int((folder(tmp_path, "a1") / "orphan.pid").read_text())
            with pytest.raises(TestbedBusyError, match=f"process {orphan} does not end"):
                node.submit("a2", spec())
            assert not folder(tmp_path, "a2").exists()
            os.kill(orphan, signal.SIGKILL)
            eventually(lambda: process_identity(orphan) is None)
            node.submit("a2", spec())
            assert wait_final(node, "a2").state is AttemptState.SUCCEEDED
        finally:
            node.close()


def eventually(is_so: Callable[[], bool], limit_s: float = 10.0) -> None:
    end_s = time.monotonic() + limit_s
    while True:
        try:
            if is_so():
                return
        except TestbedBusyError:
            pass
        assert time.monotonic() < end_s
        time.sleep(0.02)
