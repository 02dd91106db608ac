"""Hashes that are remembered, and GGUF weights that are unpacked once."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from contract.errors import MissingPackageError
from testbed.engines import weights_cache
from testbed.engines.model_source import ModelFiles
from testbed.engines.weights_cache import cache_root, file_sha256, unpacked_gguf, weights_revision


@pytest.fixture
def gguf(tmp_path) -> Path:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF and weights")
    return path


def test_the_cache_is_where_the_environment_says():
    assert cache_root({"JOULEBED_CACHE": "/srv/cache"}) == Path("/srv/cache")
    assert cache_root({}) == Path.home() / ".cache" / "joulebed"


def test_a_hash_is_right_and_remembered(gguf, tmp_path):
    cache = tmp_path / "cache"
    expected = hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert file_sha256(gguf, cache) == expected
    # Other content of the same size and time is not read again: that is what remembering means.
    status = gguf.stat()
    gguf.write_bytes(b"GGUF and WEIGHTS")
    os.utime(gguf, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_sha256(gguf, cache) == expected


def test_a_changed_file_is_hashed_again(gguf, tmp_path):
    before = file_sha256(gguf, tmp_path / "cache")
    gguf.write_bytes(b"GGUF and other weights")
    assert file_sha256(gguf, tmp_path / "cache") == hashlib.sha256(gguf.read_bytes()).hexdigest() != before


def test_a_damaged_note_is_written_anew(gguf, tmp_path):
    cache = tmp_path / "cache"
    expected = file_sha256(gguf, cache)
    (note,) = (cache / "sha256").iterdir()
    note.write_text("{half a no")
    assert file_sha256(gguf, cache) == expected
    assert [path.name for path in (cache / "sha256").iterdir()] == [note.name]
    assert expected in note.read_text()


def test_the_revision_is_the_commit_or_the_content(gguf, tmp_path):
    cache = tmp_path / "cache"
    assert weights_revision(ModelFiles("folder", tmp_path, revision="abc"), cache) == "abc"
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert weights_revision(ModelFiles("gguf", gguf), cache) == f"sha256:{digest}"


def test_the_revision_of_a_folder_follows_weights_and_tokenizer_only(tmp_path):
    folder, cache = tmp_path / "model", tmp_path / "cache"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    first = weights_revision(ModelFiles("folder", folder), cache)
    (folder / "README.md").write_text("words")
    assert weights_revision(ModelFiles("folder", folder), cache) == first
    (folder / "tokenizer.json").write_text('{"a": 1}')
    assert weights_revision(ModelFiles("folder", folder), cache) != first


def test_unpacking_at_the_same_time_gives_one_whole_folder(gguf, tmp_path, monkeypatch):
    both_build = threading.Barrier(2, timeout=30)

    def unpack(source: Path, target: Path) -> None:
        (target / "model.safetensors").write_bytes(source.read_bytes())
        both_build.wait()  # neither has the final name yet

    monkeypatch.setattr(weights_cache, "_unpack", unpack)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(unpacked_gguf(gguf, tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0] == found[1]
    assert (found[0] / "model.safetensors").read_bytes() == gguf.read_bytes()
    assert list((tmp_path / "unpacked").iterdir()) == [found[0]]
    assert unpacked_gguf(gguf, tmp_path) == found[0]  # a third build would wait at the barrier for ever


def test_a_build_that_fails_leaves_nothing(gguf, tmp_path, monkeypatch):
    def unpack(source: Path, target: Path) -> None:
        (target / "half").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(weights_cache, "_unpack", unpack)
    with pytest.raises(KeyboardInterrupt):
        unpacked_gguf(gguf, tmp_path)
    assert list((tmp_path / "unpacked").iterdir()) == []


def test_what_a_killed_build_left_is_removed_after_a_day(gguf, tmp_path, monkeypatch):
    old, new = (tmp_path / "unpacked" / f".building-{name}" for name in ("old", "new"))
    for path in (old, new):
        path.mkdir(parents=True)
    os.utime(old, (0, 0))
    monkeypatch.setattr(weights_cache, "_unpack", lambda source, target: None)
    unpacked_gguf(gguf, tmp_path)
    assert not old.exists() and new.exists()


def test_a_missing_package_is_named(gguf, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_cache, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="pip install accelerate gguf"):
        unpacked_gguf(gguf, tmp_path)
