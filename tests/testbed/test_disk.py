"""A testbed on a full or read-only disk, and on one that spoilt its files: it says so, and loses nothing it has."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.attempt_state import AttemptState
from contract.errors import (
    AttemptConflictError,
    AttemptNotFoundError,
    ChildDiedError,
    DiskFullError,
    EngineError,
    JouleBedError,
    StorageError,
    UsageError,
)
from contract.trial_result import TrialResult
from testbed import attempt_folder
from testbed.attempt_store import AttemptStore
from testbed.disk_reserve import RESERVE_BYTES, sharpen_by_disk
from testbed.node import TestbedNode
from tests.mounts import fill, make_room, read_only, small_disk
from tests.testbed.node_doubles import collect, make_node, measuring, spec, wait_final, wait_until


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 16 * 1024) as disk:
        yield disk


def ran(node: TestbedNode, attempt_id: str) -> TrialResult:
    node.submit(attempt_id, spec())
    assert wait_final(node, attempt_id).state is AttemptState.SUCCEEDED
    return node.result(attempt_id)


def folder(data_dir: Path, attempt_id: str) -> Path:
    return data_dir / "attempts" / attempt_id


class TestFullDisk:
    def test_a_submission_is_refused_and_what_is_stored_can_be_fetched(self, disk: Path) -> None:
        node = make_node(disk / "data")
        before = ran(node, "a1")
        evidence = node.artifact_path("a1", "data.bin").read_bytes()
        (disk / "data" / "reserve").unlink()
        fill(disk)
        with pytest.raises(DiskFullError, match=r"disk is full.*Make room there") as refused:
            node.submit("a2", spec())
        assert refused.value.body().retryable
        assert [path.name for path in (disk / "data" / "attempts").iterdir()] == ["a1"]
        assert node.result("a1") == before
        assert node.artifact_path("a1", "data.bin").read_bytes() == evidence
        assert node.acknowledge("a1").state is AttemptState.SUCCEEDED
        make_room(disk)
        ran(node, "a2")
        node.close()

    @pytest.mark.parametrize("left_kib", [4, 64, RESERVE_BYTES // 1024 - 4])
    def test_less_than_a_trial_needs_at_its_end_is_full(self, disk: Path, left_kib: int) -> None:
        node = make_node(disk / "data")
        fill(disk, left_kib)
        with pytest.raises(DiskFullError):
            node.submit("a1", spec())
        assert not list((disk / "data" / "attempts").iterdir())
        assert not (disk / "data" / "reserve").exists()
        make_room(disk)
        ran(node, "a1")
        node.close()

    def test_a_disk_that_fills_under_a_trial_is_what_it_failed_by(self, disk: Path) -> None:
        node = make_node(disk / "data")
        before = ran(node, "a1")
        node.submit("a2", spec(sleep_s=0.5))
        wait_until(node, "a2", measuring)
        fill(disk)
        status = wait_final(node, "a2")
        assert status.error is not None
        assert (status.state, status.error.code, status.error.retryable) == (AttemptState.FAILED, "disk_full", True)
        assert status.error.detail["was"] == "child_died"
        # While it is still full, and after a restart on it.
        assert node.result("a2").error == status.error
        assert node.result("a1") == before
        node.close()
        again = make_node(disk / "data")
        assert again.status("a2").state is AttemptState.FAILED
        assert again.result("a1") == before
        with pytest.raises(DiskFullError):
            again.submit("a3", spec())
        make_room(disk)
        ran(again, "a3")
        again.close()

    def test_what_was_measured_is_written_with_the_room_that_was_kept(self, disk: Path) -> None:
        calls: list[str] = []

        def collect_on_a_full_disk(attempt: Path, **what: Any) -> TrialResult:
            if not calls:
                fill(disk)
            calls.append(attempt.name)
            return collect(attempt, **what)

        node = make_node(disk / "data", collect=collect_on_a_full_disk)
        ran(node, "a1")
        assert calls == ["a1", "a1"]
        node.close()
        again = make_node(disk / "data")
        assert again.status("a1").state is AttemptState.SUCCEEDED
        assert again.artifact_path("a1", "data.bin").stat().st_size == 1024
        again.close()

    def test_a_result_that_finds_no_room_at_all_is_fetched_from_memory(self, disk: Path) -> None:
        def collect_and_fill(attempt: Path, **what: Any) -> TrialResult:
            result = collect(attempt, **what)
            (disk / "data" / "reserve").unlink()
            fill(disk)
            return result

        node = make_node(disk / "data", collect=collect_and_fill)
        result = ran(node, "a1")
        assert not (folder(disk / "data", "a1") / attempt_folder.RESULT).exists()
        assert node.result("a1") == result
        node.close()
        make_room(disk)
        again = make_node(disk / "data")  # its evidence is there: it is collected again
        assert again.result("a1").state is AttemptState.SUCCEEDED
        again.close()

    def test_what_is_acknowledged_makes_room_though_the_note_of_it_needs_some(self, disk: Path) -> None:
        node = make_node(disk / "data", keep=0)
        ran(node, "a1")
        (folder(disk / "data", "a1") / "data.bin").write_bytes(bytes(2**20))
        (disk / "data" / "pruned").write_text("long-ago\n" * 500)  # a page is full soon
        (disk / "data" / "reserve").unlink()
        fill(disk)
        node.acknowledge("a1")
        assert not folder(disk / "data", "a1").exists()
        node.close()
        again = make_node(disk / "data")
        make_room(disk)
        for attempt_id in ("a1", "long-ago"):
            with pytest.raises(AttemptConflictError, match="acknowledged"):
                again.submit(attempt_id, spec())
        again.close()


@pytest.mark.parametrize(
    ("failure", "is_full"),
    [
        (JouleBedError("OSError: [Errno 28] No space left on device. See child.log."), True),
        (ChildDiedError("It died.", log_tail=["OSError: [Errno 122] Disk quota exceeded"]), True),
        (EngineError("cannot write the cache: No space left on device"), True),
        (EngineError("The engine fell over."), False),
        (ChildDiedError("It died.", log_tail=["KeyError: 3"]), False),
    ],
)
def test_words_tell_a_full_disk(tmp_path: Path, failure: JouleBedError, is_full: bool) -> None:
    told = sharpen_by_disk(failure, tmp_path, reserve_bytes=0)
    assert (told.code == "disk_full") is is_full
    assert told is failure or told.detail["was"] == failure.code


class TestReadOnly:
    def test_a_data_folder_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        make_node(tmp_path / "data").close()
        with (
            read_only(tmp_path / "data"),
            pytest.raises(UsageError, match=r"cannot be written \(Read-only file system\).*--data-dir"),
        ):
            AttemptStore(tmp_path / "data")

    def test_a_submission_that_cannot_be_stored_is_refused(self, tmp_path: Path) -> None:
        node = make_node(tmp_path / "data")
        before = ran(node, "a1")
        with read_only(tmp_path / "data" / "attempts"):
            with pytest.raises(StorageError, match=r"Read-only file system.*Mend its permissions") as refused:
                node.submit("a2", spec())
            assert (refused.value.code, refused.value.retryable) == ("storage", True)
            assert node.result("a1") == before
        ran(node, "a2")
        node.close()


def half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    path.write_bytes(b"\xff\x00" * 100)


def unreadable(path: Path) -> None:
    """A folder in its place: root can read whatever has no permissions."""
    path.unlink()
    path.mkdir()


def of_another(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "attempt_id": "another"}))


SPOILS = [half, emptied, overwritten, unreadable]


class TestSpoiltFiles:
    @pytest.fixture
    def data_dir(self, tmp_path: Path) -> Path:
        node = make_node(tmp_path / "data")
        for attempt_id in ("a1", "a2"):
            ran(node, attempt_id)
        node.close()
        return tmp_path / "data"

    def test_an_end_is_told_from_its_result(self, data_dir: Path) -> None:
        (folder(data_dir, "a1") / attempt_folder.SPEC).unlink()
        node = make_node(data_dir)
        assert node.status("a1").state is AttemptState.SUCCEEDED
        assert node.result("a1").attempt_id == "a1"
        assert node.submit("a1", spec()).state is AttemptState.SUCCEEDED  # known: it is not run again
        node.close()

    @pytest.mark.parametrize("spoil", [*SPOILS, of_another])
    def test_a_result_is_made_again_from_its_evidence(self, data_dir: Path, spoil: Callable[[Path], None]) -> None:
        path = folder(data_dir, "a1") / attempt_folder.RESULT
        spoil(path)
        if spoil is unreadable:
            (path / "something").touch()
        node = make_node(data_dir)
        assert node.status("a1").state is AttemptState.SUCCEEDED
        assert node.result("a1").attempt_id == "a1"
        assert node.result("a2").attempt_id == "a2"
        node.close()

    @pytest.mark.parametrize("spoil", SPOILS)
    def test_without_result_and_spec_it_is_put_aside(
        self, data_dir: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        path = folder(data_dir, "a1")
        evidence = (path / "data.bin").read_bytes()
        spoil(path / attempt_folder.SPEC)
        spoil(path / attempt_folder.RESULT)
        node = make_node(data_dir)
        with pytest.raises(AttemptNotFoundError):
            node.status("a1")
        assert (data_dir / "damaged" / "a1.1" / "data.bin").read_bytes() == evidence
        assert "a1 has no readable spec.json" in caplog.text
        assert node.result("a2").attempt_id == "a2"
        ran(node, "a1")  # the name is free again
        node.close()

    def test_a_result_that_is_spoilt_later_is_not_there_any_more(self, data_dir: Path) -> None:
        node = make_node(data_dir)
        half(folder(data_dir, "a1") / attempt_folder.RESULT)
        with pytest.raises(AttemptNotFoundError, match=r"damaged or gone.*measured again"):
            node.result("a1")
        assert node.result("a2").attempt_id == "a2"
        node.close()

    @pytest.mark.parametrize("spoil", SPOILS)
    def test_process_and_record_may_be_spoilt_too(self, data_dir: Path, spoil: Callable[[Path], None]) -> None:
        path = folder(data_dir, "a1")
        for name in (attempt_folder.PROCESS, attempt_folder.RECORD, attempt_folder.RESULT):
            spoil(path / name)
        node = make_node(data_dir)
        status = node.status("a1")
        assert status.state is AttemptState.FAILED
        assert status.error is not None
        assert node.result("a2").attempt_id == "a2"
        node.close()

    def test_what_is_no_attempt_is_left_alone(self, data_dir: Path) -> None:
        (data_dir / "attempts" / "lost+found").mkdir()
        (data_dir / "attempts" / "a-file").write_text("x")
        node = make_node(data_dir)
        assert node.result("a1").attempt_id == "a1"
        assert (data_dir / "attempts" / "lost+found").is_dir()
        assert (data_dir / "attempts" / "a-file").read_text() == "x"
        node.close()

    def test_half_a_name_in_the_list_of_pruned_ones_swallows_no_other(self, data_dir: Path) -> None:
        (data_dir / "pruned").write_bytes(b"whole\nhal")
        node = make_node(data_dir, keep=0)
        node.acknowledge("a1")
        node.close()
        assert (data_dir / "pruned").read_bytes() == b"whole\na1\n"

    @pytest.mark.parametrize("content", [b"\xff\xfe\nwhole\n", None])
    def test_a_list_of_pruned_ones_that_cannot_be_read(self, data_dir: Path, content: bytes | None) -> None:
        if content is None:
            (data_dir / "pruned").mkdir()
        else:
            (data_dir / "pruned").write_bytes(content)
        node = make_node(data_dir, keep=0)
        node.acknowledge("a1")
        with pytest.raises(AttemptConflictError):
            node.submit("a1", spec())
        if content is None:
            assert (data_dir / "damaged" / "pruned.1").is_dir()
        else:
            with pytest.raises(AttemptConflictError):
                node.submit("whole", spec())
        node.close()
