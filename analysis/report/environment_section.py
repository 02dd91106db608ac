"""The environment: machines, software, models and meters, from what each result says of them."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from analysis.experiment import Experiment
from analysis.report.document import Section, Table, Text
from analysis.report.quantity import NOT_MEASURED, many, number
from analysis.summary import Summary

_GIB = 2**30


def environment_section(experiment: Experiment, summary: Summary, results: Sequence[dict[str, Any]]) -> Section:
    """What the runs ran on, and what measured them.

    Args:
        experiment: that was read.
        summary: of it.
        results: the results as documents; empty where the folder keeps none (Experiment Runner).
    """
    blocks: list[Table | Text] = []
    nodes = _distinct(result.get("node") for result in results)
    for node, count in nodes:
        blocks.append(_node(node, count))
    if not nodes:
        blocks.append(Text("No record of the machine or its software was kept with these results."))
    models = _distinct(result.get("load") for result in results)
    if models:
        blocks.append(_models(models))
        settings = _settings(models)
        if settings.rows:
            blocks.append(settings)
    else:
        blocks.append(Text("No record of the engine or of the models' revisions was kept: set them down beside this."))
    meters = _meters(summary)
    if meters.rows:
        blocks.append(meters)
    if experiment.software_version:
        blocks.append(Text(f"Planned with JouleBed {experiment.software_version}."))
    return Section("environment", "Environment", tuple(blocks))


def _distinct(documents: Any) -> list[tuple[dict[str, Any], int]]:
    """Equal documents once, with how many there were; times, which always differ, left out."""
    texts: Counter[str] = Counter()
    for each in documents:
        if isinstance(each, dict):
            texts[json.dumps({k: v for k, v in each.items() if k not in ("load_s", "reused")}, sort_keys=True)] += 1
    return [(json.loads(text), count) for text, count in texts.most_common()]


def _node(node: dict[str, Any], count: int) -> Table:
    packages = node.get("packages") or {}
    memory = node.get("memory_bytes")
    rows = [
        ("system", str(node.get("os", NOT_MEASURED))),
        ("processor", f"{node.get('cpu_model', NOT_MEASURED)}, {node.get('n_cpus', NOT_MEASURED)} logical CPUs"),
        ("memory", NOT_MEASURED if memory is None else f"{memory / _GIB:.1f} GiB"),
        ("GPUs", ", ".join(node.get("gpus") or []) or "none"),
        ("driver", str(node.get("driver_version") or NOT_MEASURED)),
        ("Python", str(node.get("python_version", NOT_MEASURED))),
        ("packages", ", ".join(f"{name} {which}" for name, which in packages.items()) or NOT_MEASURED),
        ("hardware SHA-256", str(node.get("hardware_sha256", NOT_MEASURED))),
    ]
    name = node.get("hostname", "?")
    return Table(f"Machine {name}, {many(count, 'run')}", ("what", "which"), tuple(rows), n_label_columns=2)


def _models(models: list[tuple[dict[str, Any], int]]) -> Table:
    counts: Counter[tuple[str, ...]] = Counter()
    for load, count in models:
        engine = f"{load.get('engine', '')} {load.get('engine_version', '')}".strip()
        names = ("model_name", "model_source", "model_revision")
        counts[(*(str(load.get(name, NOT_MEASURED)) for name in names), engine)] += count
    rows = tuple((*key, str(count)) for key, count in sorted(counts.items()))
    return Table("Models and engines", ("model", "from", "revision", "engine", "runs"), rows, n_label_columns=4)


def _settings(models: list[tuple[dict[str, Any], int]]) -> Table:
    """Settings read back from the engines: one row per name and value."""
    values: Counter[tuple[str, str]] = Counter()
    for load, count in models:
        for name, value in (load.get("settings") or {}).items():
            values[(name, value if isinstance(value, str) else json.dumps(value))] += count
    rows = tuple((name, value, str(count)) for (name, value), count in sorted(values.items()))
    return Table(
        "Settings, read back from the engine", ("setting", "value", "runs"), rows, n_label_columns=2, fold=True
    )


def _meters(summary: Summary) -> Table:
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in summary.treatments:
        for run in row.runs:
            if run["energy_j"] is not None:
                names = ("energy_source", "energy_method", "energy_domains", "energy_notes")
                groups.setdefault(tuple(str(run[name] or "") for name in names), []).append(run)
    rows = []
    for (source, method, domains, notes), runs in sorted(groups.items()):
        shares = [
            100 * run["uncertainty_j"] / run["energy_j"]
            for run in runs
            if run["uncertainty_j"] is not None and run["energy_j"]
        ]
        rows.append(
            (
                source,
                method,
                domains,
                notes or NOT_MEASURED,
                str(len(runs)),
                f"{number(max(shares), 2)} %" if shares else NOT_MEASURED,
                str(sum(run["n_gaps"] or 0 for run in runs)),
                str(sum(run["n_wraps"] or 0 for run in runs)),
            )
        )
    header = ("meter", "method", "domains in the sum", "notes", "runs", "sampling error at most", "gaps", "wraps")
    return Table(
        "Meters of the measured phase",
        header,
        tuple(rows),
        note="The sampling error bounds what was missed between samples; the sensor's own error comes on top.",
        n_label_columns=4,
    )
