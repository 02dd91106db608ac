"""The design: factors, levels, repetitions, order, cooldown, seed."""

from typing import Any

from pydantic import JsonValue

from analysis.experiment import Experiment
from analysis.report.document import Section, Table, Text
from analysis.report.quantity import many

_NAMES = {
    "n_treatments": "treatments",
    "n_excluded": "excluded combinations of levels",
    "repetitions": "repetitions",
    "order": "order",
    "group_by": "grouped by",
    "max_attempts": "attempts per run at most",
    "floor_s": "cooldown, at least (s)",
    "max_wait_s": "cooldown, wait at most (s)",
    "delta_c": "cooldown, until within (°C of idle)",
    "slope_c_per_min": "cooldown, until slower than (°C/min)",
    "exclude_combinations": "excluded",
}


def design_section(experiment: Experiment) -> Section:
    """Factors with levels, and how the runs were laid out; what is not known is said.

    Args:
        experiment: that was read.
    """
    runs = experiment.runs
    factors = tuple(
        (name, str(runs[name].n_unique()), ", ".join(str(level) for level in _levels(experiment, name)))
        for name in experiment.factors
    )
    blocks: list[Table | Text] = []
    if factors:
        blocks.append(Table("Factors", ("factor", "levels", "which"), factors, n_label_columns=3))
    else:
        blocks.append(Text("No factor varies: all runs are of one treatment."))
    rows = [("planned runs", f"{runs.height:,}")]
    repetitions = runs["repetition"].drop_nulls()
    if "repetitions" not in experiment.design and repetitions.len():
        rows.append(("repetitions", str(repetitions.n_unique())))
    rows += _flat({name: value for name, value in experiment.design.items() if name != "factors"})
    if experiment.seed is not None:
        rows.append(("seed of the plan", str(experiment.seed)))
    rows += [(f"noted: {name}", _text(value)) for name, value in experiment.facts.items()]
    attempts = runs["n_attempts"].drop_nulls()
    if attempts.len():
        rows.append(("attempts", many(int(attempts.sum()), "attempt")))
    blocks.append(Table("Lay-out", ("what", "value"), tuple(rows), n_label_columns=2))
    missing = [
        word for word, known in (("order", "order" in experiment.design), ("seed", experiment.seed)) if not known
    ]
    missing += [] if "cooldown" in experiment.design else ["cooldown"]
    if missing:
        blocks.append(Text(f"Not recorded with these results: {', '.join(missing)}."))
    return Section("design", "Design", tuple(blocks))


def _levels(experiment: Experiment, name: str) -> list[Any]:
    levels = experiment.runs[name].unique().drop_nulls().to_list()
    declared = experiment.design.get("factors")
    order = declared.get(name) if isinstance(declared, dict) else None
    if isinstance(order, list) and set(map(str, levels)) <= set(map(str, order)):
        return [level for level in order if str(level) in set(map(str, levels))]
    return sorted(levels)


def _flat(design: dict[str, JsonValue]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in design.items():
        if isinstance(value, dict):
            rows += _flat(value)
        elif value not in ([], None):
            rows.append((_NAMES.get(name, name), _text(value)))
    return rows


def _text(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value)
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_text(each)}" for name, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
