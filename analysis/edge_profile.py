"""The power profile of devices over w*, the number of tokens that they generate themselves."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.device_rows import WHOLE, device_frame
from analysis.experiment import Experiment, factor_column
from analysis.metrics import with_metrics
from analysis.statistics import MeanInterval, mean_interval
from contract.errors import MemoryExhaustedError, UsageError

W_STAR = "w_star"
ENERGY = "energy_per_output_token_j"
"""Gross: what a battery or a bill sees."""
TOLERANCE = 0.05
DOES_NOT_FIT = "does not fit"
THROTTLED_SHARE = 0.01
"""As the validity rule: what is throttled in more of the samples is not the device's own speed."""

MEANS = (
    "baseline_power_w",
    "mean_power_w",
    "mean_net_power_w",
    "energy_per_output_token_j",
    "energy_net_per_output_token_j",
    "tokens_per_s",
    "temp_rise_c",
    "duration_s",
    "steady_s",
)
MAXIMA = ("max_temp_c", "memory_peak_bytes", "gpu_memory_peak_bytes", "throttled_share")


@dataclass(frozen=True)
class Point:
    """One w* on one device.

    Attributes:
        w_star: tokens generated for each request.
        n_planned: runs of the plan.
        n_counted: runs in the figures.
        means: column of `MEANS` -> mean and interval over the counted runs.
        maxima: column of `MAXIMA` -> highest value over them; None: not measured.
        n_steady: counted runs that were steady before they were measured; None: nobody asked.
        problem: why there is no figure: `does not fit`, or the first failure; empty where there is one.
    """

    w_star: int
    n_planned: int
    n_counted: int
    means: dict[str, MeanInterval]
    maxima: dict[str, float | None]
    n_steady: int | None
    problem: str = ""

    def mean(self, name: str) -> float | None:
        """Mean of a column; None: not measured."""
        return self.means[name].mean


@dataclass(frozen=True)
class Efficient:
    """The w* at which a token is cheapest, as far as that can be told.

    Attributes:
        point: of the profile.
        reason: in sentences.
    """

    point: Point
    reason: str


@dataclass(frozen=True)
class DeviceProfile:
    """One device, or one variant on it (precision, memory profile); or several at the same time, as a whole.

    Attributes:
        device: its name, with the levels of the other factors.
        kind: what it is, where its name does not say so.
        points: by rising w*.
        efficient: None where no point has an energy.
        methods: energy methods of the counted runs.
        domains: what the meter covers.
        runs: all planned runs of it, with metrics.
    """

    device: str
    points: tuple[Point, ...]
    efficient: Efficient | None
    methods: tuple[str, ...]
    domains: tuple[str, ...]
    runs: pl.DataFrame
    kind: str = ""

    @property
    def is_estimate(self) -> bool:
        """Whether any energy in it was computed from a model instead of measured."""
        return "estimate" in self.methods


def device_profiles(experiment: Experiment, *, include_suspect: bool = False) -> list[DeviceProfile]:
    """The profile of every device and variant of an experiment.

    Args:
        experiment: from `load_runs`, with a factor `w_star`.
        include_suspect: also count results that are doubted.

    Raises:
        UsageError: there is no such factor.
    """
    if W_STAR not in experiment.factors:
        raise UsageError(
            f"{experiment.name} has no factor {W_STAR}, but {', '.join(experiment.factors) or 'none'}: it is no length "
            "sweep. Start from runnerconfig/edge_power_profile.py."
        )
    runs = with_metrics(experiment.runs)
    counted = set(experiment.counted(include_suspect=include_suspect)["run_id"])
    single = device_frame(experiment)
    if single is not None:
        alone = runs.filter(~pl.col("run_id").is_in(single["run_id"].implode()))
        runs = pl.concat([alone, with_metrics(single)], how="diagonal")
    known = runs["device"].drop_nulls().unique().to_list()
    # A run that failed has no result to name its device; where there is one device only, it was that.
    runs = runs.with_columns(pl.col("device").fill_null(known[0] if len(known) == 1 else "device not known"))
    others = [name for name in experiment.factors if name not in (W_STAR, factor_column("device"))]
    why = {each.run_id: each.why for each in experiment.excluded}
    profiles = []
    for key, group in runs.group_by(["device", *others], maintain_order=True):
        device = ", ".join([str(key[0]), *(f"{name}={level}" for name, level in zip(others, key[1:], strict=True))])
        profiles.append(
            _profile(device, group, counted, {run: _as_seen(text, str(key[0])) for run, text in why.items()})
        )
    return sorted(profiles, key=lambda profile: profile.device)


def _as_seen(why: str, device: str) -> str:
    """Why a run has no figure, as it concerns one of its devices: another one's failure is not its own."""
    culprits = re.findall(r"Device ((?:gpu|cores):[\d,-]+): ", why)
    if not culprits or device in culprits or device.startswith(f"{WHOLE}:"):
        return why
    return f"another device of the trial failed ({', '.join(culprits)})"


def _profile(device: str, runs: pl.DataFrame, counted: set[str], why: dict[str, str]) -> DeviceProfile:
    points = []
    for (w_star,), group in sorted(runs.group_by([W_STAR]), key=lambda pair: int(pair[0][0])):
        points.append(_point(int(w_star), group.rows(named=True), counted, why))
    kept = runs.filter(pl.col("run_id").is_in(counted))
    return DeviceProfile(
        device=device,
        points=tuple(points),
        efficient=efficient_point(points),
        methods=tuple(sorted(kept["energy_method"].drop_nulls().unique())),
        domains=tuple(sorted(kept["energy_domains"].drop_nulls().unique())),
        runs=runs.sort(W_STAR, "repetition"),
        kind=next(iter(runs["kind"].drop_nulls()), "") if "kind" in runs.columns else "",
    )


def _point(w_star: int, rows: Sequence[dict[str, Any]], counted: set[str], why: dict[str, str]) -> Point:
    kept = [row for row in rows if row["run_id"] in counted]
    steady = [row["is_steady"] for row in kept if row["is_steady"] is not None]
    problem = ""
    if not kept:
        told = [why[row["run_id"]] for row in rows if row["run_id"] in why]
        does_not_fit = any(f"{MemoryExhaustedError.code}:" in each for each in told)
        problem = DOES_NOT_FIT if does_not_fit else (told[0] if told else "not run yet")
    return Point(
        w_star=w_star,
        n_planned=len(rows),
        n_counted=len(kept),
        means={name: mean_interval([row[name] for row in kept if row[name] is not None]) for name in MEANS},
        maxima={name: max((row[name] for row in kept if row[name] is not None), default=None) for name in MAXIMA},
        n_steady=sum(steady) if steady else None,
        problem=problem,
    )


def efficient_point(points: Sequence[Point], tolerance: float = TOLERANCE) -> Efficient | None:
    """The shortest w* at which a token costs at most `tolerance` more than at the cheapest one.

    Energy per token mostly falls with w* and flattens out, because the prompt is read once: the cheapest point alone
    would be an accident of noise on the flat part. Throttled points are left out: they show the limit of the cooling
    and not of the device.

    Args:
        points: of one device.
        tolerance: share of the least energy per token.
    """
    with_energy = [point for point in points if point.mean(ENERGY) is not None]
    fair = [point for point in with_energy if (point.maxima["throttled_share"] or 0.0) <= THROTTLED_SHARE]
    if not fair:
        return None
    cheapest = min(fair, key=_energy_j)
    chosen = min(
        (point for point in fair if _energy_j(point) <= (1 + tolerance) * _energy_j(cheapest)),
        key=lambda point: point.w_star,
    )
    if chosen is cheapest:
        reason = f"It needs the least energy per token, {_energy_j(chosen):.4g} J, and no shorter one comes within "
        reason += f"{tolerance:.0%} of that."
    else:
        more = _energy_j(chosen) / _energy_j(cheapest) - 1
        told = "overlap" if _overlap(chosen.means[ENERGY], cheapest.means[ENERGY]) else "do not overlap"
        reason = (
            f"It is the shortest within {tolerance:.0%} of the least energy per token: {_energy_j(chosen):.4g} J, "
            f"{more:.1%} more than {_energy_j(cheapest):.4g} J at w* = {cheapest.w_star}; their 95 % intervals {told}."
        )
    if chosen.means[ENERGY].n < 3:
        reason += " Few runs: repeat each point at least three times before you rely on it."
    left_out = [str(point.w_star) for point in with_energy if point not in fair]
    if left_out:
        reason += f" Left out as throttled: w* = {', '.join(left_out)}."
    if cheapest.w_star == max(point.w_star for point in fair) and len(fair) > 1:
        reason += " The cheapest is the longest of the sweep: longer ones may be cheaper still."
    return Efficient(chosen, reason)


def _energy_j(point: Point) -> float:
    mean = point.mean(ENERGY)
    assert mean is not None
    return mean


def _overlap(one: MeanInterval, other: MeanInterval) -> bool:
    """Whether two intervals overlap; a mean without one is a point."""
    assert one.mean is not None and other.mean is not None
    return abs(one.mean - other.mean) <= (one.half_width or 0.0) + (other.half_width or 0.0)
