"""Configurations of Experiment Runner, read in a process of their own: their rows, and everything that can be wrong."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import ConfigError
from orchestrator.experiment_runner.design_reader import ReadDesign, read_design
from orchestrator.experiment_runner.foreign_config import lost_treatments
from orchestrator.experiment_runner.reading.read_config import _kept_by_experiment_runner
from orchestrator.experiment_runner.reading.stand_ins import FactorModel, RunTableModel
from tests.orchestrator.experiment_runner.studies import LLAMA, OVERLAP, line_of, snapshot, write_study


def treatments(design: ReadDesign) -> list[tuple[object, ...]]:
    excluded = set(design.excluded)
    return [tuple(design.treatment(row).values()) for row in range(len(design.rows)) if row not in excluded]


def test_a_design_is_read_and_no_hook_is_called(tmp_path: Path) -> None:
    config, _ = write_study(tmp_path, pause_ms="30_000")
    before = snapshot(tmp_path)
    design = read_design(config)
    assert treatments(design) == [("BoolQ",), ("RTE",)]
    assert (design.name, design.pause_ms, design.repetitions, design.shuffle) == ("study", 30_000, 2, False)
    assert (design.data_columns, design.keeps_model, design.stood_in) == (["energy"], True, [])
    assert design.results_output_path == str(tmp_path / "experiments")
    assert snapshot(tmp_path) == before  # no .pyc, no experiments folder


def test_overlapping_exclusions_exclude_their_union_and_the_row_that_is_lost_there_is_told(tmp_path: Path) -> None:
    design = read_design(write_study(tmp_path, OVERLAP)[0])
    assert treatments(design) == [(2, "y"), (2, "z"), (3, "y"), (3, "z")]
    assert design.kept_by_experiment_runner is not None
    assert len(design.kept_by_experiment_runner) == 3  # measured on the real one
    assert lost_treatments(design) == [{"a": 2, "b": "y"}]


def test_the_llama_study_has_thirty_treatments(tmp_path: Path) -> None:
    design = read_design(write_study(tmp_path, LLAMA)[0])
    assert len(treatments(design)) == 30
    assert {row[:2] for row in treatments(design)} == {
        ("2", "7B"),
        ("3", "8B"),
        ("3.1", "8B"),
        ("3.2", "1B"),
        ("3.2", "3B"),
    }
    assert lost_treatments(design) == []
    assert design.shuffle


_LEVELS = st.lists(st.integers(0, 3), unique=True, min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(_LEVELS, _LEVELS, st.lists(st.tuples(_LEVELS, _LEVELS | st.none()), max_size=3))
def test_rows_are_lost_exactly_where_marks_repeat(
    first: list[int], second: list[int], exclusions: list[tuple[list[int], list[int] | None]]
) -> None:
    a, b = FactorModel("a", first), FactorModel("b", second)
    model = RunTableModel([a, b], [{a: x} if y is None else {a: x, b: y} for x, y in exclusions])
    hits = model.hits()
    kept = _kept_by_experiment_runner(len(model.rows()), hits)
    union = [row for row in range(len(model.rows())) if row not in hits]
    for row in union:
        level_a, level_b = (factor.treatments[i] for factor, i in zip((a, b), model.rows()[row], strict=True))
        assert not any(level_a in x and (y is None or level_b in y) for x, y in exclusions)
    if len(hits) == len(set(hits)):
        assert kept == union
    else:
        assert kept is None or len(kept) < len(union) or len(kept) == len(model.rows()) - len(hits)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ('RunTableModel(factors=[], data_columns=["x"])', [()]),
        ("RunTableModel([FactorModel('p', [Path('/a'), Path('/b')])])", [("/a",), ("/b",)]),
        ("RunTableModel([FactorModel('b', [True, False])])", [(True,), (False,)]),
        ("RunTableModel([FactorModel('f', [0.1, 2.0])])", [(0.1,), (2.0,)]),
        ("RunTableModel([FactorModel('n', [None, 'a'])])", [("None",), ("a",)]),
    ],
)
def test_levels_keep_their_type_or_become_their_text(
    tmp_path: Path, model: str, expected: list[tuple[object, ...]]
) -> None:
    found = treatments(read_design(write_study(tmp_path, f"self.run_table_model = {model}")[0]))
    assert found == expected
    assert [[type(level) for level in row] for row in found] == [[type(level) for level in row] for row in expected]


def test_plugins_and_packages_that_are_not_installed_are_stood_in_for(tmp_path: Path) -> None:
    imports = """
from Plugins.Profilers.EnergiBridge import EnergiBridge
from Plugins.Profilers.NvidiaML import NVML_Field, NvidiaML
from Plugins import CodecarbonWrapper
from Plugins.CodecarbonWrapper import DataColumns as CCDataCols
from ConfigValidator.CustomErrors.BaseError import BaseError
import no_such_profiler.deep as nsp
from no_such_profiler import Sensor
from another_missing_one import measured
class Own(Sensor):
    field: "NVML_Field.NVML_FI_DEV_POWER_INSTANT | None" = NVML_Field.X
    @measured(rate=5)
    def read(self) -> Dict[str, nsp.Value]:
        raise BaseError("no")
PROFILER = EnergiBridge(target_program="sleep 1", out_file=None)
"""
    decorator = (
        "@CodecarbonWrapper.emission_tracker("
        'data_columns=[CCDataCols.EMISSIONS, CCDataCols.ENERGY_CONSUMED], country_iso_code="NLD")'
    )
    config, _ = write_study(tmp_path, imports=imports, decorator=decorator, attributes="self_measure = True")
    design = read_design(config)
    assert design.data_columns == ["energy", "codecarbon__emissions", "codecarbon__energy_consumed", "self-measure"]
    assert design.stood_in == ["another_missing_one", "no_such_profiler"]


def test_a_neighbour_of_the_configuration_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "my_levels.py").write_text("TASKS = ['a', 'b', 'c']\n")
    model = 'self.run_table_model = RunTableModel([FactorModel("task", my_levels.TASKS)])'
    assert len(treatments(read_design(write_study(tmp_path, model, imports="import my_levels")[0]))) == 3


BAD = [
    ({"imports": "1 / 0  # here"}, "# here", "the import failed with ZeroDivisionError: division by zero"),
    ({"imports": "import sys; sys.exit(3)  # here"}, "# here", r"ended the program with sys.exit\(3\). Move"),
    ({"imports": "exit()  # here"}, "# here", r"sys.exit\(None\)"),
    ({"imports": "input('go on?')  # here"}, "# here", "EOFError"),
    ({"imports": "from os import no_such_name  # here"}, "# here", "ImportError"),
    ({"model": "raise KeyError('task')  # here"}, "# here", r"create_run_table_model\(\) failed with KeyError: 'task'"),
    (
        {"model": "self.run_table_model = RunTableModel([FactorModel('a', [1]), FactorModel('a', [2])])  # here"},
        "# here",
        "Two factors are named 'a'",
    ),
    ({"model": "x = RunTableModel([FactorModel('a', [1, 1])])  # here"}, "# here", "'a' are not unique"),
    ({"model": "x = RunTableModel([], data_columns=['e', 'e'])  # here"}, "# here", "Two data columns are named 'e'"),
    ({"model": "x = RunTableModel([], repetitions=0)  # here"}, "# here", "repetitions is 0"),
    (
        {"model": "x = RunTableModel([FactorModel('a', [1])], [{FactorModel('b', [1]): [1]}])  # here"},
        "# here",
        "names 'b', which is none",
    ),
    ({"model": "x = RunTableModel([], no_such_word=1)  # here"}, "# here", "unexpected keyword argument"),
    ({"imports": "import subprocess; subprocess.run(['true'])  # here"}, "# here", "it would start a program"),
    ({"imports": "import os; os.system('true')  # here"}, "# here", "it would start a program"),
    ({"imports": "import os; os.kill(os.getppid(), 15)  # here"}, "# here", "it would send a signal to process"),
    ({"imports": "open('/tmp/never-written', 'w')  # here"}, "# here", "it would write to '/tmp/never-written'"),
    ({"imports": "Path('never-made').mkdir()  # here"}, "# here", "it would make the folder"),
    ({"imports": "Path('never-there').unlink()  # here"}, "# here", "it would change 'never-there'"),
    (
        {"imports": "import socket; socket.create_connection(('127.0.0.1', 9))  # here"},
        "# here",
        "it would use the network",
    ),
]


@pytest.mark.parametrize(("options", "mark", "message"), BAD)
def test_what_is_wrong_is_told_with_file_and_line(
    tmp_path: Path, options: dict[str, str], mark: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, _ = write_study(tmp_path, **options)  # type: ignore[arg-type]
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match=message) as told:
        read_design(config)
    assert str(told.value).startswith(f"{config}, line {line_of(config, mark)}: ")
    assert snapshot(tmp_path) == before


def test_syntax_errors_name_their_line(tmp_path: Path) -> None:
    config, _ = write_study(tmp_path, imports="def broken(:")
    with pytest.raises(ConfigError, match=f"line {line_of(config, 'broken')}: .*Mend the syntax"):
        read_design(config)


def test_a_configuration_that_hangs_is_ended_and_its_line_told(tmp_path: Path) -> None:
    config, _ = write_study(tmp_path, imports="import time; time.sleep(600)  # here")
    with pytest.raises(ConfigError, match=rf"line {line_of(config, '# here')}: .* not read after 3 s: it hangs"):
        read_design(config, read_s=3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "no class RunnerConfig"),
        ("import os\nos._exit(7)\n", "exit code 7 and told nothing"),
        ("import ctypes\nctypes.string_at(0)\n", "exit code -11 and told nothing"),
        (
            "class RunnerConfig:\n    def create_run_table_model(self):\n        pass\n",
            r"create_run_table_model\(\) returned NoneType",
        ),
    ],
)
def test_what_is_no_configuration_is_told(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "RunnerConfig.py"
    config.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_design(config)


def test_levels_of_a_package_that_is_not_installed_are_refused(tmp_path: Path) -> None:
    model = "self.run_table_model = RunTableModel([FactorModel('a', [levels.small, levels.large])])"
    config, _ = write_study(tmp_path, model, imports="import no_such_levels as levels")
    with pytest.raises(ConfigError, match=r"a level of the factor 'a' comes from no_such_levels.small, .*Install"):
        read_design(config)


@pytest.mark.parametrize("name", ["absent.py", "RunnerConfig.txt"])
def test_a_file_that_is_none_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "RunnerConfig.txt").write_text("")
    with pytest.raises(ConfigError, match=r"There is no configuration|is not a Python file"):
        read_design(tmp_path / name)


def test_nothing_is_left_in_this_process(tmp_path: Path) -> None:
    config, _ = write_study(tmp_path, imports="import os; os.environ['LEAKED'] = '1'")
    read_design(config)
    assert "LEAKED" not in os.environ
    assert not [name for name in sys.modules if name.startswith(("ConfigValidator", "EventManager", "Plugins"))]
