"""A configuration file is loaded, or refused with file and line."""

import sys
from pathlib import Path

import pytest

from contract.errors import ConfigError
from orchestrator.config_loader import load_config
from orchestrator.design import expand

GOOD = """
from dataclasses import dataclass
from contract.trial_spec import EngineSpec, ModelSpec, WorkloadSpec
from orchestrator.config import Factor, RunTableModel, Trial
from orchestrator.config import RunnerConfig as Base

@dataclass
class Choice:
    name: "str"

class RunnerConfig(Base):
    name = "loaded"
    def create_run_table_model(self):
        return RunTableModel([Factor("a", [1, 2])])
    def trial(self, treatment):
        return Trial(ModelSpec(name="m", source="fake:m"), EngineSpec(name="fake"), WorkloadSpec(name="fake"))
"""


def write(folder: Path, text: str, name: str = "config.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_becomes_a_configuration_with_its_text(tmp_path: Path) -> None:
    before = list(sys.path)
    config, text = load_config(write(tmp_path, GOOD))
    assert config.name == "loaded"
    assert text == GOOD
    assert len(expand(config, text).runs) == 2
    assert expand(config, text).config_text == GOOD
    assert sys.path == before
    assert not [name for name in sys.modules if name.startswith("joulebed_config")]


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    config, _ = load_config(write(tmp_path, "\ufeff" + GOOD))
    assert config.name == "loaded"


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, GOOD.replace("loaded", folder))
    first, _ = load_config(tmp_path / "one" / "config.py")
    second, _ = load_config(tmp_path / "two" / "config.py")
    assert (first.name, second.name) == ("one", "two")
    assert type(first) is not type(second)


def test_a_file_may_import_its_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "NAME = 'from-the-neighbour'\n", "neighbour_of_a_config.py")
    monkeypatch.delitem(sys.modules, "neighbour_of_a_config", raising=False)
    path = write(tmp_path, "from neighbour_of_a_config import NAME\n" + GOOD.replace('name = "loaded"', "name = NAME"))
    config, _ = load_config(path)
    monkeypatch.delitem(sys.modules, "neighbour_of_a_config")
    assert config.name == "from-the-neighbour"
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\nclass RunnerConfig(:\n    pass\n", r"config\.py, line 2: .*'class RunnerConfig\(:'.*Mend"),
        ("x = 1\ny = \\\n", r"config\.py, line \d"),
        ("x = '\0'\n", r"config\.py.*null bytes"),
        ("a = 1\nb = a / 0\n", r"config\.py, line 2: .*ZeroDivisionError: division by zero. Mend"),
        ("import json\n\njson.loads('nothing')\n", r"config\.py, line 3: .*JSONDecodeError"),
        ("import no_such_package_anywhere\n", r"config\.py, line 1: .*No module named 'no_such_package_anywhere'"),
        ("import sys\nsys.exit(3)\n", r"config\.py, line 2: .*SystemExit: 3"),
        ("x = 1\n", r"config\.py has no class RunnerConfig. Define one"),
        ("class RunnerConfig:\n    pass\n", r"does not derive from orchestrator.config.RunnerConfig"),
        ("RunnerConfig = 3\n", r"does not derive"),
        ("from orchestrator.config import RunnerConfig\n", r"does not derive"),
        (GOOD + "    def __init__(self):\n        raise OSError('no')\n", r"config\.py, line 18: .*OSError: no"),
        (GOOD + "    def __init__(self, needed):\n        pass\n", r"RunnerConfig\(\) failed with TypeError"),
    ],
)
def test_a_wrong_file_is_told_with_its_own_line(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path, text)
    before = list(sys.path)
    with pytest.raises(ConfigError, match=told):
        load_config(path)
    assert sys.path == before


def test_what_is_no_file_of_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no configuration .*Give the path"):
        load_config(tmp_path / "absent.py")
    with pytest.raises(ConfigError, match="is not a Python file"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="is not a Python file"):
        load_config(write(tmp_path, GOOD, "config.txt"))
    (tmp_path / "latin.py").write_bytes("x = 'é'\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "latin.py")
