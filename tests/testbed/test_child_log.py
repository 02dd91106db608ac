"""Logs of any length: the ends are kept, and little is read."""

import sys
from pathlib import Path

import pytest

from testbed.child_log import bound_log, hide_in_log, log_tail, spare_disk


def test_the_tail_of_a_long_log_is_short(tmp_path: Path) -> None:
    path = tmp_path / "child.log"
    path.write_bytes(b"x" * 10_000_000 + b"\n" + b"".join(b"line %d\n" % n for n in range(100)))
    assert log_tail(path) == [f"line {n}" for n in range(60, 100)]
    path.write_bytes(b"y" * 10_000_000)
    assert [len(line) for line in log_tail(path)] == [12_288]
    assert log_tail(tmp_path / "absent") == []


@pytest.mark.parametrize("line", ["{} " + "y" * 500, "{} ", "{} " + "y" * 16_350])
def test_a_secret_at_the_edge_of_what_is_read_is_not_shown_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    secret = "hf_abcdefghijklmnopqrstuvwxyz"
    monkeypatch.setenv("HF_TOKEN", secret)
    path = tmp_path / "child.log"
    for n_more in range(40):
        path.write_text((line.format(secret) + "\n") * (600_000 // len(line)) + "z" * n_more + "\n")
        shown = "\n".join(log_tail(path, n_lines=10_000))
        assert "rstuvwxyz" not in shown
        if "y" * 10_000 not in line:
            assert "[hidden]" in shown


@pytest.mark.parametrize("width", [0, 100, 70_000])
def test_a_secret_at_the_edges_of_what_is_cut_out_is_hidden_or_gone(tmp_path: Path, width: int) -> None:
    secret = "hf_abcdefghijklmnopqrstuvwxyz"
    path = tmp_path / "child.log"
    for n_more in range(0, 40, 3):
        path.write_text("z" * n_more + (secret + "y" * width + "\n") * (400_000 // (width + 30)))
        assert bound_log(path, 100_000)
        hide_in_log(path, [secret])
        kept = path.read_text()
        assert "hf_abc" not in kept and "uvwxyz" not in kept
        assert len(kept) < 101_000 and "[hidden]" in kept


def test_bytes_that_are_no_text_are_shown_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "child.log").write_bytes(b"a\xff\xfeb\x00c\n")
    assert log_tail(tmp_path / "child.log") == ["a\ufffd\ufffdb\x00c"]


def test_the_middle_of_a_log_beyond_the_limit_goes(tmp_path: Path) -> None:
    path = tmp_path / "child.log"
    first, last = b"the first line\n", b"\nthe last line\n"
    path.write_bytes(first + b"x" * 1_000_000 + last)
    writer = path.open("ab")
    assert bound_log(path, 100_000)
    writer.write(b"after that\n")
    writer.close()
    log = path.read_bytes()
    assert len(log) < 101_000
    assert log.startswith(first)
    assert log.endswith(last + b"after that\n")
    assert log.count(b"the middle of this log was left out") == 1
    path.write_bytes(log + b"y" * 1_000_000 + last)
    assert bound_log(path, 100_000)
    again = path.read_bytes()
    assert again.startswith(first)
    assert again.endswith(last)
    assert len(again) < 101_000
    assert again.count(b"the middle of this log was left out") == 2  # at both places


def test_a_log_within_the_limit_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "child.log"
    path.write_bytes(b"x" * 1000)
    assert not bound_log(path, 1000)
    assert path.read_bytes() == b"x" * 1000
    assert not bound_log(tmp_path / "absent", 1000)


@pytest.mark.skipif(sys.platform != "linux", reason="holes are made by Linux's fallocate")
def test_a_log_that_is_written_to_loses_blocks_and_no_line(tmp_path: Path) -> None:
    path = tmp_path / "child.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"first\n" + b"x" * 8_000_000)
        before = path.stat()
        freed = [spare_disk(path, 4_000_000), spare_disk(path, 4_000_000)]
        if not freed[0]:
            pytest.skip("this file system has no holes")
        assert freed == [True, False]
        after = path.stat()
        assert (after.st_size, after.st_blocks * 512 < 3_500_000) == (before.st_size, True)
        writer.write(b"\nlast\n")
    assert log_tail(path)[-1] == "last"
    assert bound_log(path, 4_000_000)
    log = path.read_bytes()
    assert log.startswith(b"first\nx")
    assert log.endswith(b"xx\nlast\n")
    assert b"\0" not in log


def test_a_log_within_the_limit_keeps_its_blocks(tmp_path: Path) -> None:
    (tmp_path / "child.log").write_bytes(b"x" * 1000)
    assert not spare_disk(tmp_path / "child.log", 1000)
    assert not spare_disk(tmp_path / "absent", 1000)
