from pathlib import Path

import pytest

from orchestrator.durable_file import DurableFile, write_durably


def test_the_old_content_stays_until_the_new_is_placed(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_durably(path, b"old")
    with DurableFile(path, b"new") as file:
        assert path.read_bytes() == b"old"
        file.place()
        assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]


def test_what_is_not_placed_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_durably(path, b"old")
    with pytest.raises(KeyError), DurableFile(path, b"new"):
        raise KeyError
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]
