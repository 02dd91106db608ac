"""The pool file: what it says, and where it is wrong."""

from pathlib import Path

import pytest

from contract.errors import ConfigError
from orchestrator.pool_file import PoolEntry, entries_of, read_pool

GOOD = """
# the lab
[[testbed]]
url = "http://gpu-1:8765"
name = "one"
token_file = "one.token"

[[testbed]]
url = "http://gpu-2:8765"
hardware = "a100"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "pool.toml"
    path.write_text(text)
    return path


def test_a_pool_file_names_testbeds(tmp_path: Path) -> None:
    first, second = read_pool(write(tmp_path, GOOD))
    assert first == PoolEntry("http://gpu-1:8765", tmp_path / "one.token", "one", "")
    assert (second.told, second.hardware, second.token_file) == ("gpu-2:8765", "a100", None)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("url = ", "ulr = ", ["line 4", "`ulr`", "url, token_file"]),
        ('name = "one"', 'nmae = "one"', ["line 5", "`nmae`"]),
        ('hardware = "a100"', "hardware = 100", ["line 10", "`hardware`", "100"]),
        ('"http://gpu-2:8765"', '"gpu-2:8765"', ["line 9", "'gpu-2:8765'", "http://gpu-box:8765"]),
        ('name = "one"', 'name = "a b"', ["line 5", "`name`"]),
        ("# the lab", "testbeds = 3", ["line 2", "`testbeds`", "[[testbed]]"]),
        ("# the lab", "[defaults]\nname = 1\n", ["line 2", "`defaults`"]),
        ('url = "http://gpu-2:8765"\n', "", ["line 8", "no `url`"]),
        ('name = "one"', 'name = "one', ["line 5"]),
        ("http://gpu-2:8765", "http://gpu-1:8765/", ["url", "'http://gpu-1:8765'", "Two"]),
        ('hardware = "a100"', 'name = "one"', ["name", "'one'", "Two"]),
        (GOOD, "", ["names no testbed"]),
    ],
)
def test_a_typo_is_refused_with_its_key_and_line(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        entries_of((), path)
    for word in expected:
        assert word in caught.value.message


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_pool(tmp_path / "none.toml")


def test_a_testbed_of_a_ray_cluster_has_no_address() -> None:
    with pytest.raises(ConfigError, match="--ray ADDRESS"):
        entries_of(["ray:testbed-gpu-0"], None)
