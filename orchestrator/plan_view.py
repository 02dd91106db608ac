"""Shows a design before it runs."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.config import RunnerConfig
from orchestrator.store.base import Plan


def plan_document(config: RunnerConfig, plan: Plan, limit: int) -> dict[str, Any]:
    """A plan as JSON.

    Args:
        config: declares it.
        plan: what came of it.
        limit: how many rows are told, from the first to run.
    """
    model = config.create_run_table_model()
    n_treatments = int(str(plan.design["n_treatments"]))  # not by the runs: a continued campaign has some of them
    origin = plan.design.get("experiment_runner")
    study: dict[str, Any] = origin if isinstance(origin, dict) else {}
    cooldown = config.cooldown
    idle_s = sum(run.spec.baseline_s for run in plan.runs) + cooldown.floor_s * max(len(plan.runs) - 1, 0)
    return {
        "experiment": plan.experiment,
        "seed": plan.seed,
        "order": str(plan.design["order"]),
        "group_by": list(config.group_by),
        "factors": {factor.name: list(factor.levels) for factor in model.factors},
        "devices": sorted({", ".join(each.name for each in run.spec.devices) for run in plan.runs} - {""}),
        "n_treatments": n_treatments,
        "n_excluded": math.prod(len(factor.levels) for factor in model.factors) - n_treatments,
        "unavailable": plan.design["unavailable"],
        "repetitions": model.repetitions,
        "n_runs": len(plan.runs),
        "max_attempts": plan.max_attempts,
        "on_suspect": plan.design["on_suspect"],
        "cooldown": {"floor_s": cooldown.floor_s, "max_wait_s": cooldown.max_wait_s, "delta_c": cooldown.delta_c},
        "least_duration_s": idle_s,
        "notes": study.get("notes", []),
        "imported": [row["run_id"] for row in study.get("imported", {}).get("rows", ())],
        "sha256": plan.sha256,
        "runs": [
            {"run_id": run.run_id, "repetition": run.repetition, "seed": run.spec.seed, **run.treatment}
            for run in plan.runs[:limit]
        ],
    }


def print_plan(console: Console, document: dict[str, Any]) -> None:
    """The same for people."""
    facts = Table("", "", box=None, show_header=False, pad_edge=False)
    facts.add_row("experiment", document["experiment"])
    for name, levels in document["factors"].items():
        facts.add_row(f"factor {name}", ", ".join(str(level) for level in levels))
    for names in document["devices"]:
        facts.add_row("devices", f"{names}, at the same time")
    excluded = f" ({document['n_excluded']} excluded)" if document["n_excluded"] else ""
    facts.add_row("treatments", f"{document['n_treatments']}{excluded}")
    for each in document["unavailable"]:
        cells = ", ".join(f"{name} {'/'.join(map(str, levels))}" for name, levels in each["cells"].items())
        facts.add_row("excluded", f"{cells}: {each['reason']}")
    facts.add_row("repetitions", str(document["repetitions"]))
    facts.add_row("runs", str(document["n_runs"]))
    grouped = f" by {', '.join(document['group_by'])}" if document["group_by"] else ""
    facts.add_row("order", f"{document['order']}{grouped}, seed {document['seed']}")
    cooldown = document["cooldown"]
    gate = (
        f"thermal gate within {cooldown['delta_c']:g} °C of idle, at most {cooldown['max_wait_s']:g} s more"
        if cooldown["max_wait_s"] > 0
        else "no thermal gate"
    )
    facts.add_row("cooldown", f"{cooldown['floor_s']:g} s, {gate}")
    facts.add_row("doubted results", document["on_suspect"])
    facts.add_row("takes", f"at least {_duration(document['least_duration_s'])}, by cooldown and baseline alone")
    if document["imported"]:
        facts.add_row("imported", f"{len(document['imported'])} runs of Experiment Runner, which are not run here")
    console.print(facts, highlight=False)
    for note in document["notes"]:
        console.print(f"Note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print()
    columns = ["run_id", "repetition", *document["factors"]]
    rows = Table(*columns, box=None, pad_edge=False, title="first to run", title_justify="left")
    for run in document["runs"]:
        rows.add_row(*(str(run[column]) for column in columns))
    console.print(rows, highlight=False)
    n_more = document["n_runs"] - len(document["runs"])
    if n_more > 0:
        console.print(f"... and {n_more} more (--limit N)", highlight=False)


def _duration(duration_s: float) -> str:
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
