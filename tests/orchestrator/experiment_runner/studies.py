"""Configurations of Experiment Runner's shape, a template, and a reader that follows its documented rules."""

import csv
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data" / "greenlab"

HEAD = """from EventManager.Models.RunnerEvents import RunnerEvents
from EventManager.EventSubscriptionController import EventSubscriptionController
from ConfigValidator.Config.Models.RunTableModel import RunTableModel
from ConfigValidator.Config.Models.FactorModel import FactorModel
from ConfigValidator.Config.Models.RunnerContext import RunnerContext
from ConfigValidator.Config.Models.OperationType import OperationType
from ExtendedTyping.Typing import SupportsStr
from ProgressManager.Output.OutputProcedure import OutputProcedure as output

from typing import Dict, Optional
from pathlib import Path
from os.path import dirname, realpath
"""

CONFIG = (
    HEAD
    + """{imports}

{decorator}
class RunnerConfig:
    ROOT_DIR = Path(dirname(realpath(__file__)))
    name: str = "{name}"
    results_output_path: Path = {results}
    operation_type: OperationType = OperationType.AUTO
    time_between_runs_in_ms: int = {pause_ms}
    {attributes}

    def __init__(self):
        EventSubscriptionController.subscribe_to_multiple_events([
            (RunnerEvents.BEFORE_EXPERIMENT, self.before_experiment),
            (RunnerEvents.POPULATE_RUN_DATA, self.populate_run_data),
        ])
        self.run_table_model = None
        output.console_log("Custom config loaded")

    def create_run_table_model(self) -> RunTableModel:
        {model}
        return self.run_table_model

    def before_experiment(self) -> None:
        {hook}

    def populate_run_data(self, context: RunnerContext) -> Optional[Dict[str, SupportsStr]]:
        return {data}

    experiment_path: Path = None
"""
)

ONE_FACTOR = """
        f = FactorModel("task", ["BoolQ", "RTE"])
        self.run_table_model = RunTableModel(factors=[f], repetitions=2, data_columns=["energy"])"""

OVERLAP = """
        a = FactorModel("a", [1, 2, 3])
        b = FactorModel("b", ["x", "y", "z"])
        self.run_table_model = RunTableModel(
            factors=[a, b], exclude_combinations=[{a: [1]}, {b: ["x"]}], data_columns=["energy"])"""

LLAMA = """
        generation = FactorModel("generation", ["2", "3", "3.1", "3.2"])
        model_size = FactorModel("model_size", ["1B", "3B", "7B", "8B"])
        task = FactorModel("task", ["BoolQ", "CB", "COPA", "RTE", "WiC", "WSC"])
        self.run_table_model = RunTableModel(
            factors=[generation, model_size, task],
            shuffle=True,
            repetitions=30,
            exclude_combinations=[
                {generation: ["2"], model_size: ["1B", "3B", "8B"]},
                {generation: ["3", "3.1"], model_size: ["1B", "3B", "7B"]},
                {generation: ["3.2"], model_size: ["7B", "8B"]},
            ],
            data_columns=["energy"],
        )"""
"""The shape of the LLaMA energy study: 5 models x 6 tasks x 30 repetitions."""

TEMPLATE = """
[experiment]
seed = 7
cooldown = { max_wait_s = 0 }

[trial.model]
name = "fake"
source = "fake:small"

[trial.engine]
name = "fake"

[trial.workload]
name = "fake"
options = { n_items = 4 }

[data_columns]
energy = "energy_j"
"""

LLAMA_TEMPLATE = """
[lookup.model]
key = "{generation}-{model_size}"
"2-7B" = "meta-llama/Llama-2-7b-chat-hf"
"3-8B" = "meta-llama/Meta-Llama-3-8B-Instruct"
"3.1-8B" = "meta-llama/Llama-3.1-8B-Instruct"
"3.2-1B" = "meta-llama/Llama-3.2-1B-Instruct"
"3.2-3B" = "meta-llama/Llama-3.2-3B-Instruct"

[trial.model]
name = "llama-{generation}-{model_size}"
source = "hf:{model}"

[trial.engine]
name = "vllm"

[trial.workload]
name = "superglue"
options = { task = "{task}", n_items = 80, template = "explain" }

[data_columns]
energy = "cpu_energy_j"
"""


def write_study(
    folder: Path,
    model: str = ONE_FACTOR,
    *,
    template: str = TEMPLATE,
    name: str = "study",
    imports: str = "",
    decorator: str = "",
    attributes: str = "",
    pause_ms: str = "0",
    hook: str = 'raise SystemExit("a hook was called")',
    data: str = "None",
    results: str = 'ROOT_DIR / "experiments"',
) -> tuple[Path, Path]:
    """A configuration and its template, in a folder."""
    text = CONFIG
    values = {
        "model": model,
        "name": name,
        "imports": imports,
        "decorator": decorator,
        "attributes": attributes,
        "pause_ms": pause_ms,
        "hook": hook,
        "data": data,
        "results": results,
    }
    for place, value in values.items():
        text = text.replace("{" + place + "}", value)
    config, spec = folder / "RunnerConfig.py", folder / "template.toml"
    config.write_text(text)
    spec.write_text(template)
    return config, spec


def line_of(path: Path, text: str) -> int:
    """The line of a file that holds a text, from 1."""
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def read_as_experiment_runner(path: Path) -> list[dict[str, Any]]:
    """A table as Experiment Runner reads it back: cells of digits are whole numbers, `__done` is TODO or DONE, and a
    row that lacks a cell fails."""
    rows: list[dict[str, Any]] = []
    with path.open() as file:
        for row in csv.DictReader(file):
            read: dict[str, Any] = {}
            for name, cell in row.items():
                assert isinstance(cell, str), f"{name} of {row} is {cell!r}"
                read[name] = int(cell) if cell.isnumeric() else cell
            assert read["__done"] in ("TODO", "DONE")
            rows.append(read)
    return rows


def written_by_experiment_runner(columns: list[str], rows: list[list[Any]]) -> bytes:
    """A table as Experiment Runner writes it."""
    path_text = [",".join(map(str, row)) for row in (columns, *rows)]
    return "".join(f"{line}\r\n" for line in path_text).encode()


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(Path(root, name).relative_to(folder)): Path(root, name).read_bytes()
        for root, _, names in os.walk(folder)
        for name in names
    }
