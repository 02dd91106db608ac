"""A study of Experiment Runner as a plan of ours, from its beginning or from where it was left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contract.errors import ConfigError
from contract.units import Scalar
from orchestrator.design import expand, plan_sha256
from orchestrator.experiment_runner.design_reader import ReadDesign, read_design, read_text
from orchestrator.experiment_runner.export_marks import measured_here
from orchestrator.experiment_runner.foreign_config import (
    ForeignConfig,
    design_notes,
    lost_treatments,
    order_notes,
)
from orchestrator.experiment_runner.run_table_file import RunTableFile, TableRow, read_run_table, read_sum
from orchestrator.experiment_runner.template import read_template
from orchestrator.store.base import Plan

DESIGN_KEY = "experiment_runner"
"""Where a plan's design tells that it comes from there."""


@dataclass(frozen=True)
class StudySource:
    """Where a study is.

    Attributes:
        config: Experiment Runner's configuration.
        template: how its levels become trials.
        continued: the folder of its campaign, to go on from there; None: from the beginning.
    """

    config: Path
    template: Path
    continued: Path | None = None


@dataclass(frozen=True)
class Study:
    """A study that was read.

    Attributes:
        config: as a configuration of ours.
        plan: the runs that are to be done here.
        notes: what a person should know about it, in words.
    """

    config: ForeignConfig
    plan: Plan
    notes: tuple[str, ...]


def load_study(source: StudySource) -> Study:
    """Read configuration, template, and the campaign that is continued; nothing is written anywhere.

    Raises:
        ConfigError: one of them is wrong; the message names file and line.
    """
    design = read_design(source.config)
    template, template_text = read_template(source.template)
    config_text = read_text(source.config)
    told: dict[str, Any] = {
        "config": source.config.name,
        "name": design.name,
        "data_columns": design.data_columns,
        "column_sources": {name: template.source_of(name) for name in design.data_columns},
        "template": template_text,
    }
    if source.continued is None:
        config = ForeignConfig(design, template)
        plan = expand(config, config_text)
        notes = [*order_notes(design, config), *design_notes(design, config)]
        told["lost_by_experiment_runner"] = lost_treatments(design)
        told["md5"] = None
    else:
        config, plan, notes = _continue(source, design, ForeignConfig(design, template), config_text, told)
    told["notes"] = notes
    return Study(config, replace(plan, design={**plan.design, DESIGN_KEY: told}), tuple(notes))


def _continue(
    source: StudySource, design: ReadDesign, config: ForeignConfig, config_text: str, told: dict[str, Any]
) -> tuple[ForeignConfig, Plan, list[str]]:
    """The rows that are still TODO, in their order; those that are DONE are told, and stay theirs."""
    assert source.continued is not None
    folder = source.continued
    table = read_run_table(folder, [factor.name for factor in design.factors], design.data_columns)
    told["md5"] = read_sum(folder)
    # Its run ids count what Experiment Runner kept, also where it lost some.
    theirs, all_rows = design.kept_by_experiment_runner, config.rows
    is_lossy = theirs is not None and len(theirs) * design.repetitions == len(table.rows) and theirs != all_rows
    config = ForeignConfig(design, config.template, theirs if is_lossy else None)
    whole = expand(config, config_text)
    by_id = {run.run_id: run for run in whole.runs}
    _check_rows(table, {run_id: run.treatment for run_id, run in by_id.items()})
    ours = measured_here(folder)
    done = [row for row in table.rows if row.is_done and row.run_id not in ours]
    todo = [by_id[row.run_id] for row in table.rows if not row.is_done or row.run_id in ours]
    if not todo:
        raise ConfigError(f"All {len(table.rows)} runs of {table.path} are DONE: there is nothing to continue.")
    runs = tuple(replace(run, position=position) for position, run in enumerate(todo))
    told["imported"] = {
        "folder": str(folder.resolve()),
        "rows": [_imported(row, design.data_columns, by_id[row.run_id].treatment) for row in done],
    }
    told["order"] = [row.run_id for row in table.rows]
    plan = replace(
        whole,
        runs=runs,
        design={**whole.design, "order": "as in the run table that is continued"},
        sha256=plan_sha256(config, whole.factors, runs),
    )
    notes = [
        f"{len(done)} runs are DONE in {table.path}: they stay Experiment Runner's own, are kept with their data "
        f"columns, and count in no figure of ours. {len(runs)} are to do, in that table's order."
    ]
    if is_lossy:
        notes.append(
            f"Experiment Runner lost {len(lost_treatments(design))} treatments of this design to overlapping "
            "exclusions: they are not in its table, and are not run."
        )
    notes += design_notes(design, config)
    return config, plan, notes


def _imported(row: TableRow, data_columns: Sequence[str], treatment: Mapping[str, Scalar]) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "treatment": dict(treatment),
        "data": {name: row.cells[name] for name in data_columns},
    }


def _check_rows(table: RunTableFile, treatments: Mapping[str, Mapping[str, Scalar]]) -> None:
    for row in table.rows:
        if row.run_id not in treatments:
            raise ConfigError(
                f"{table.path}, line {row.line}: the configuration has no {row.run_id}. Give the configuration that "
                "made this table."
            )
        for name, level in treatments[row.run_id].items():
            if row.cells[name] != str(level):
                raise ConfigError(
                    f"{table.path}, line {row.line}: {name} of {row.run_id} is {row.cells[name]!r}, and {level!r} in "
                    "the configuration. Give the configuration that made this table."
                )
    if len(table.rows) < len(treatments):
        missing = sorted(set(treatments) - {row.run_id for row in table.rows})
        raise ConfigError(
            f"{table.path}: {len(missing)} rows of the configuration are missing, such as {missing[0]}. Restore the "
            "file, or give the configuration that made it."
        )
