"""What `python -m control train` does: plan, imitate, learn, for several seeds; what is done is not done again."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from contract.errors import UsageError
from contract.units import sha256_of
from control.case_options import keep_case
from control.feasibility import feasibility
from control.imitation import PlanTeacher
from control.judge import Checkpoint, Learned
from control.learner import LearnerConfig, learn
from control.learner_state import StateFile
from control.planner import plan
from control.serving_case import ServingCase
from testbed.attempt_folder import write_atomic
from testbed.policies.learned_policy import PolicyNetwork
from testbed.policies.plan import Plan

PLAN = "plan.safetensors"
STATE = "state.safetensors"
"""In the folder of a seed's checkpoints, until it is done."""


def train_command(
    case: ServingCase, slo_share: float, out: Path, config: LearnerConfig, seeds: Sequence[int], *, as_json: bool
) -> None:
    """Learn one policy for each seed, and tell how each did on the validation arrivals.

    Args:
        case: the problem.
        slo_share: of requests within the SLO that is wanted, 0 to 1.
        out: folder; what is there of the same case is kept and used.
        config: of the learners, whatever its seed.
        seeds: of the learners.
        as_json: print JSON.

    Raises:
        UsageError: the objective cannot be met, or the folder has another training.
    """
    console = Console(stderr=True)
    possible = feasibility(case, slo_share)
    if not possible.is_possible:
        raise UsageError(possible.message)
    keep_case(out, case, slo_share)
    console.print(possible.message, highlight=False, markup=False)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console
    )
    with bar:
        planned = _plan(case, slo_share, out / PLAN, bar) if config.imitation is not None else None
        for seed in seeds:
            _learn(case, slo_share, out, replace(config, seed=seed), planned, bar)
    rows = [json.loads((out / f"seed_{seed}.json").read_text(encoding="utf-8")) for seed in seeds]
    figure = out / "learning_curve"
    _draw(rows, slo_share, figure)
    if as_json:
        print(json.dumps({"folder": str(out), "slo_share": slo_share, "learners": rows}, indent=1, allow_nan=False))
        return
    _print(rows, slo_share, out)


def _plan(case: ServingCase, slo_share: float, path: Path, bar: Progress) -> Plan:
    if path.exists():
        found = Plan.load(path)
        found.check_table(case.table)
        return found
    task = bar.add_task("plan", total=None)
    found = plan(case, slo_share, on_progress=lambda said: bar.update(task, description=f"plan: {said}"))
    # A kill while it is written leaves no half of one.
    part = path.with_name(f"{path.name}.part")
    found.save(part)
    part.replace(path)
    bar.update(task, total=1, completed=1)
    return found


def _learn(
    case: ServingCase, slo_share: float, out: Path, config: LearnerConfig, planned: Plan | None, bar: Progress
) -> None:
    """One learner, from its state where it was stopped; its JSON is written last, so what has one is done."""
    told = out / f"seed_{config.seed}.json"
    identity = sha256_of(asdict(config))
    if told.exists() and json.loads(told.read_text(encoding="utf-8")).get("config_sha256") == identity:
        return
    file = out / f"seed_{config.seed}.safetensors"
    task = bar.add_task(f"seed {config.seed}", total=None)

    def progress(stage: str, done: int, of: int) -> None:
        bar.update(task, description=f"seed {config.seed}, {stage}", completed=done, total=of)

    folder = out / "checkpoints" / f"seed_{config.seed}"
    state_file = StateFile(folder / STATE, sha256_of({"config": identity, "slo_share": slo_share}))

    def keep(checkpoint: Checkpoint, network: PolicyNetwork) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        network.save(folder / f"{checkpoint.stage}_{checkpoint.n_steps:09d}.safetensors")

    found = learn(
        case,
        slo_share,
        config,
        batches=planned.action_set.batches if planned is not None else None,
        teacher=PlanTeacher(planned) if planned is not None else None,
        on_progress=progress,
        on_checkpoint=keep,
        state_file=state_file,
    )
    found.network.save(file)
    write_atomic(told, json.dumps(_told(found, config, identity), indent=1) + "\n")
    state_file.path.unlink(missing_ok=True)


def _told(found: Learned, config: LearnerConfig, identity: str) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "config_sha256": identity,
        "config": asdict(config),
        "agreement_with_plan": found.agreement,
        "best": asdict(found.best),
        "curve": [asdict(each) for each in found.curve],
    }


def _draw(rows: Sequence[dict[str, Any]], slo_share: float, path: Path) -> None:
    """Energy and share of every checkpoint, a line for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    energy, share = figure.subplots(2, sharex=True)
    for row in rows:
        steps = [each["n_steps"] for each in row["curve"]]
        energy.plot(steps, [each["energy_per_request_j"] for each in row["curve"]], "o-", ms=3, label=row["seed"])
        share.plot(steps, [100 * each["slo_share"] for each in row["curve"]], "o-", ms=3)
        best = row["best"]
        energy.plot(best["n_steps"], best["energy_per_request_j"], "*", ms=11, color=energy.lines[-1].get_color())
    share.axhline(100 * slo_share, color="0.4", lw=1, ls="--")
    energy.set_ylabel("energy per request (J)")
    share.set_ylabel("within the SLO (%)")
    share.set_xlabel("decisions seen by PPO (0: after imitation); simulated, validation seeds; star: chosen")
    energy.legend(title="seed", fontsize="small", ncols=2)
    for axis in (energy, share):
        axis.grid(alpha=0.3)
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=160, facecolor="white")


def _print(rows: Sequence[dict[str, Any]], slo_share: float, out: Path) -> None:
    table = Table(title=f"Learned, on validation arrivals (simulated; wanted: {slo_share:.1%} within the SLO)")
    for name in ("seed", "chosen", "J per request", "within SLO", "agreement with the plan"):
        table.add_column(name, justify="right" if name != "chosen" else "left")
    for row in rows:
        best = row["best"]
        stage = best["stage"] if best["stage"] == "imitation" else f"ppo, {best['n_steps']:,} decisions"
        agreement = row["agreement_with_plan"]
        table.add_row(
            str(row["seed"]),
            stage,
            f"{best['energy_per_request_j']:.2f}",
            f"{best['slo_share']:.2%}" + ("" if best["slo_share"] >= slo_share else " (missed)"),
            "" if agreement is None else f"{agreement:.1%}",
        )
    console = Console()
    console.print(table)
    console.print(
        "These figures chose among checkpoints, so they flatter. Compare with the constant and the rules on other "
        f"arrivals: python -m control evaluate {out}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
