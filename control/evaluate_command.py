"""What `python -m control evaluate` does: everything learned beside the constant and the rules, on new arrivals."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from contract.errors import UsageError
from control.entrants import CONSTANT, baselines, from_file, learned
from control.evaluation import EvaluationLog, Interval, Standing, evaluate, standings
from control.feasibility import feasibility
from control.serving_case import ServingCase

_LOG = "runs.jsonl"


def evaluate_command(
    case: ServingCase,
    slo_share: float,
    folder: Path,
    seeds: Sequence[int],
    out: Path,
    *,
    ablations: Mapping[str, Path],
    as_json: bool,
) -> None:
    """Evaluate, write the table and the figure, and print.

    Args:
        case: the problem; its table may be another than the training's.
        slo_share: of requests within the SLO that is wanted.
        folder: of the training.
        seeds: of the arrivals.
        out: folder for the results; runs that it has are not done again.
        ablations: label -> policy file, compared as well.
        as_json: print JSON.

    Raises:
        UsageError: the results cannot be written.
    """
    possible = feasibility(case, slo_share)
    entrants = [
        *baselines(case, slo_share),
        *learned(case, folder),
        *(from_file(case, path, "learned", label, "ablation") for label, path in ablations.items()),
    ]
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("runs", total=len(entrants) * len(seeds))
        log = EvaluationLog(out / _LOG)
        rows = evaluate(case, entrants, seeds, log, lambda done, of: bar.update(task, completed=done, total=of))
    found = standings(rows, slo_share)
    notes = notes_of(found, case, slo_share, possible.message if not possible.is_possible else "")
    try:
        _write(found, out / "evaluation.csv")
        _draw(found, slo_share, out / "evaluation")
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}). Give another folder: --out.") from error
    if as_json:
        told = {"case": case.settings(), "slo_share": slo_share, "seeds": list(seeds), "notes": notes}
        print(json.dumps({**told, "standings": [asdict(each) for each in found]}, indent=1, allow_nan=False))
        return
    _print(found, case, slo_share, len(seeds), notes)


def notes_of(found: Sequence[Standing], case: ServingCase, slo_share: float, impossible: str) -> list[str]:
    """What a reader must know, in sentences.

    Args:
        found: the standings.
        case: the problem.
        slo_share: that is wanted.
        impossible: why it cannot be met; empty: it can, or that is open.
    """
    notes = ["Simulated from a service table: no device was measured here. Intervals are over seeds of arrivals."]
    if impossible:
        notes.append(impossible)
    by_label = {each.entrant: each for each in found}
    mine = [each for each in found if each.role == "learned"]
    constant = next((each for label, each in by_label.items() if label.startswith(CONSTANT)), None)
    if mine and constant is not None:
        energies = sorted(_mean(each, "energy_per_request_j") for each in mine)
        n_meeting = sum(each.meets for each in mine)
        change = energies[len(energies) // 2] / _mean(constant, "energy_per_request_j") - 1
        text = (
            f"Learned, {len(mine)} learner seeds: {energies[0]:.1f} to {energies[-1]:.1f} J a request, {n_meeting} of "
            f"{len(mine)} with the wanted share; the median takes {abs(change):.1%} {'less' if change < 0 else 'more'} "
            f"than the best constant ({_mean(constant, 'energy_per_request_j'):.1f} J at {constant.slo_share_all:.2%})"
        )
        planned = by_label.get("planned")
        if planned is not None:
            gap = energies[len(energies) // 2] / _mean(planned, "energy_per_request_j") - 1
            text += f" and {gap:+.2%} against the planner ({_mean(planned, 'energy_per_request_j'):.1f} J)"
        notes.append(text + ".")
    if case.idle_power_w == 0:
        notes.append("Idle power is 0 W here, as in the reference figures: waiting costs nothing. Give --idle-power-w.")
    if any(each.n_lost for each in found):
        notes.append("Requests that came to a full queue were lost; they count as missed.")
    return notes


def _mean(each: Standing, name: str) -> float:
    interval = each.figures[name]
    return interval.mean if interval is not None else float("nan")


def _write(found: Sequence[Standing], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(found[0].figures)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["policy", "role", "n_seeds", "slo_share_all", "meets_slo_share", "n_lost", "n_unfinished"]
            + [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
        )
        for each in found:
            cells: list[Any] = [each.entrant, each.role, each.n_seeds, each.slo_share_all, each.meets]
            cells += [each.n_lost, each.n_unfinished]
            for name in names:
                interval = each.figures[name]
                cells += [interval.mean, interval.low, interval.high] if interval is not None else [None] * 3
            writer.writerow(cells)


def _draw(found: Sequence[Standing], slo_share: float, path: Path) -> None:
    """Energy against the share within the SLO: a point for each policy with its intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axis = figure.subplots()
    styles = {
        "baseline": ("#0072B2", "o"),
        "rule": ("#009E73", "s"),
        "ablation": ("#999999", "v"),
        "planner": ("black", "D"),
        "learned": ("#D55E00", "*"),
    }
    seen = set()
    points: list[tuple[float, float, str]] = []
    for each in found:
        colour, marker = styles.get(each.role, ("#CC79A7", "x"))
        energy, share = each.figures["energy_per_request_j"], each.figures["slo_share"]
        if energy is None or share is None:
            continue
        axis.errorbar(
            100 * share.mean,
            energy.mean,
            xerr=_error(share, 100),
            yerr=_error(energy, 1),
            color=colour,
            marker=marker,
            ms=9 if marker == "*" else 6,
            lw=1,
            label=None if each.role in seen else each.role,
        )
        if each.role != "learned":
            points.append((100 * share.mean, energy.mean, each.entrant))
        seen.add(each.role)
    _name_points(axis, points)
    axis.axvline(100 * slo_share, color="0.4", lw=1, ls="--")
    axis.set_xlabel("requests within the SLO (%), dashed: wanted")
    axis.set_ylabel("energy per request (J), simulated")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=160, facecolor="white")


def _name_points(axis: Any, points: Sequence[tuple[float, float, str]]) -> None:
    """One label for points that lie on each other."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    groups: list[tuple[float, float, list[str]]] = []
    for x, y, name in points:
        near = (
            each[2]
            for each in groups
            if abs(each[0] - x) < (right - left) / 50 and abs(each[1] - y) < (high - low) / 50
        )
        names = next(near, None)
        if names is None:
            groups.append((x, y, [name]))
        else:
            names.append(name)
    for x, y, names in groups:
        is_right = x > left + 0.75 * (right - left)
        axis.annotate(
            ", ".join(names),
            (x, y),
            xytext=(-6 if is_right else 6, -11 if names[0].startswith(CONSTANT) else 5),
            textcoords="offset points",
            fontsize=7,
            ha="right" if is_right else "left",
        )


def _error(interval: Interval, scale: float) -> list[list[float]] | None:
    if interval.low is None or interval.high is None:
        return None
    return [[scale * (interval.mean - interval.low)], [scale * (interval.high - interval.mean)]]


def _print(found: Sequence[Standing], case: ServingCase, slo_share: float, n_seeds: int, notes: Sequence[str]) -> None:
    """In 80 columns: everything else is in the CSV."""
    console = Console()
    console.print(
        f"{case.table.source}: SLO {case.slo_s:g} s for {slo_share:.1%} of the requests, "
        f"{case.arrivals.mean_rate_per_s:g} requests/s, {n_seeds} runs of {case.duration_s:g} s, 95 % intervals "
        "(simulated)",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("policy", "J/request", "study's J", "in SLO", "mean s", "P99 s", "req/s"):
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    order = sorted(found, key=lambda one: (-min(one.slo_share_all, slo_share), _mean(one, "energy_per_request_j")))
    for each in order:
        table.add_row(
            each.entrant if each.meets else f"{each.entrant} (missed)",
            _cell(each.figures["energy_per_request_j"], 1),
            f"{_mean(each, 'study_energy_per_request_j'):.0f}",
            f"{each.slo_share_all:.2%}",
            f"{_mean(each, 'latency_mean_s'):.2f}",
            f"{_mean(each, 'latency_p99_s'):.2f}",
            f"{_mean(each, 'throughput_per_s'):.3f}",
        )
    console.print(table)
    for note in notes:
        console.print(f"- {note}", highlight=False, markup=False, soft_wrap=True)


def _cell(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return ""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.{digits}f}"
    return f"{interval.mean:.{digits}f} ± {(interval.high - interval.low) / 2:.{digits}f}"
