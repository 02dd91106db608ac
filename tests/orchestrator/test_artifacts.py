import hashlib
from pathlib import Path

import pytest

from contract.errors import ArtifactCorruptError, JouleBedError
from contract.trial_result import ArtifactRef, TrialResult
from orchestrator.artifacts import ArtifactFolder
from orchestrator.clients.artifact_file import ArtifactFile, holds
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from tests.orchestrator.doubles import finished_attempt, spec


def ref(content: bytes, name: str = "data.bin") -> ArtifactRef:
    return ArtifactRef(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    content = b"0123456789"
    destination = tmp_path / "data.bin"
    with ArtifactFile(destination, ref(content)) as file:
        file.write(content[:4])
        assert not file.is_complete
    assert not destination.exists()
    with ArtifactFile(destination, ref(content)) as file:
        assert file.n_bytes == 4
        file.write(content[4:])
        assert file.place()
    assert destination.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]


@pytest.mark.parametrize("wrong", [b"0123456780", b"01234567890", b"012345678"])
def test_a_wrong_file_is_thrown_away(tmp_path: Path, wrong: bytes) -> None:
    destination = tmp_path / "data.bin"
    with ArtifactFile(destination, ref(b"0123456789")) as file:
        file.write(wrong)
        assert not file.place()
        assert file.n_bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file(tmp_path: Path) -> None:
    with ArtifactFile(tmp_path / "empty", ref(b"")) as file:
        assert file.is_complete
        assert file.place()
    assert holds(tmp_path / "empty", ref(b""))


def test_a_part_that_is_too_long_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"0123456789 and more")
    with ArtifactFile(tmp_path / "data.bin", ref(b"0123456789")) as file:
        assert file.n_bytes == 0


def test_holds_compares_size_and_content(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    assert not holds(path, ref(b"abc"))
    path.write_bytes(b"abd")
    assert not holds(path, ref(b"abc"))
    assert holds(path, ref(b"abd"))


def test_collect_puts_the_result_beside_its_files(tmp_path: Path) -> None:
    client = FakeClient()
    result = finished_attempt(client, "a1", spec(0))
    folder = ArtifactFolder(tmp_path).collect(client, result)
    assert folder == tmp_path / "runs" / "run_0_repetition_0" / "a1"
    assert sorted(path.name for path in folder.iterdir()) == ["requests.jsonl", "result.json"]
    assert TrialResult.model_validate_json((folder / "result.json").read_bytes()) == result
    assert ArtifactFolder(tmp_path).collect(client, result) == folder


def test_files_that_do_not_verify_leave_no_result(tmp_path: Path) -> None:
    client = FakeClient(lambda spec, n_before: FakeTrial(is_corrupt=True))
    result = finished_attempt(client, "a1", spec(0))
    with pytest.raises(ArtifactCorruptError):
        ArtifactFolder(tmp_path).collect(client, result)
    assert list((tmp_path / "runs" / "run_0_repetition_0" / "a1").iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    client = FakeClient()
    result = finished_attempt(client, "a1", spec(0))
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(JouleBedError, match=r"cannot be written to .*runs") as caught:
        ArtifactFolder(tmp_path).collect(client, result)
    assert "same command" in caught.value.message


def test_an_artifact_may_not_pass_for_the_result(tmp_path: Path) -> None:
    client = FakeClient()
    result = finished_attempt(client, "a1", spec(0)).model_copy(update={"artifacts": [ref(b"x", "result.json")]})
    with pytest.raises(ArtifactCorruptError, match=r"result\.json"):
        ArtifactFolder(tmp_path).collect(client, result)
