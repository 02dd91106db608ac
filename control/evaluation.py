"""Policies side by side on the same arrivals: every figure with its interval over seeds."""

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import UsageError
from contract.units import sha256_of
from control.reference_simulation import simulate
from control.serving_case import ServingCase
from testbed.policies.base import Policy

FIGURES = (
    "energy_per_request_j",
    "study_energy_per_request_j",
    "slo_share",
    "latency_mean_s",
    "latency_p99_s",
    "throughput_per_s",
    "mean_batch",
    "n_switches",
    "decision_mean_s",
)
"""Of a `ServingOutcome`: what is summed up."""


@dataclass(frozen=True)
class Entrant:
    """One of the policies that are compared.

    Attributes:
        label: in tables and figures.
        role: `baseline`, `planner`, `learned` or `ablation`.
        policy: decides.
        key: tells apart what was evaluated: settings, or the hash of a policy file.
    """

    label: str
    role: str
    policy: Policy
    key: str = ""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % Student interval; None: one seed only.

    Attributes:
        mean: over the seeds.
        low: of the interval.
        high: of it.
    """

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Standing:
    """What one entrant did.

    Attributes:
        entrant: label.
        role: see `Entrant`.
        n_seeds: runs.
        figures: name -> interval; None: not measured in any run.
        slo_share_all: met over judged requests of all runs together.
        meets: whether that is the wanted share.
        n_unfinished: requests, of all runs.
        n_lost: of all runs.
    """

    entrant: str
    role: str
    n_seeds: int
    figures: dict[str, Interval | None]
    slo_share_all: float
    meets: bool
    n_unfinished: int
    n_lost: int


class EvaluationLog:
    """One JSON line for each run, so that what was evaluated is not evaluated again.

    Args:
        path: made with its first line; a half-written last line is dropped.

    Raises:
        UsageError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            if text and not text.endswith("\n"):
                text = text[: text.rfind("\n") + 1]
                path.write_text(text, encoding="utf-8")
            for line in text.splitlines():
                row = json.loads(line)
                self._known[row["id"]] = row
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} cannot be read ({error}). Remove it: the runs are evaluated anew.") from error

    def get(self, run_id: str) -> dict[str, Any] | None:
        """The row of a run; None: it was not evaluated yet."""
        return self._known.get(run_id)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self._known[row["id"]] = row
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def evaluate(
    case: ServingCase,
    entrants: Sequence[Entrant],
    seeds: Sequence[int],
    log: EvaluationLog,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[dict[str, Any]]:
    """Run every entrant on every seed, in the readable simulation.

    Args:
        case: the problem.
        entrants: the policies.
        seeds: of the arrivals, the same for all.
        log: has the runs that are done; takes the others.
        on_progress: told of runs done, and of how many there are.

    Returns:
        A row for each run: entrant, role, seed, and every figure of its outcome.
    """
    rows = []
    total = len(entrants) * len(seeds)
    for entrant, seed in _pairs(entrants, seeds):
        run_id = sha256_of([case.settings(), entrant.key, dict(entrant.policy.settings()), entrant.label, seed])
        row = log.get(run_id)
        if row is None:
            outcome = simulate(case, entrant.policy, seed)
            row = {"id": run_id, "entrant": entrant.label, "role": entrant.role, **outcome.figures()}
            log.add(row)
        rows.append(row)
        on_progress(len(rows), total)
    return rows


def standings(rows: Sequence[dict[str, Any]], wanted_share: float) -> list[Standing]:
    """Sum the runs of each entrant up, in their order.

    Args:
        rows: from `evaluate`.
        wanted_share: of requests within the SLO.
    """
    by_entrant: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_entrant.setdefault((row["entrant"], row["role"]), []).append(row)
    found = []
    for (label, role), mine in by_entrant.items():
        n_judged = sum(row["n_judged"] for row in mine)
        share = sum(row["n_met"] for row in mine) / n_judged if n_judged else float("nan")
        figures = {name: _interval([row[name] for row in mine if row[name] is not None]) for name in FIGURES}
        n_unfinished, n_lost = sum(row["n_unfinished"] for row in mine), sum(row["n_lost"] for row in mine)
        found.append(Standing(label, role, len(mine), figures, share, share >= wanted_share, n_unfinished, n_lost))
    return found


def _pairs(entrants: Sequence[Entrant], seeds: Sequence[int]) -> Iterator[tuple[Entrant, int]]:
    for entrant in entrants:
        for seed in seeds:
            yield entrant, seed


def _interval(values: Sequence[float]) -> Interval | None:
    from scipy.stats import t

    if not values:
        return None
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None)
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)
