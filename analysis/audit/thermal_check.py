"""Thermal carry-over: what the previous run does to the start temperature, and that to the energy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.audit.run_audit import RunAudit

ALPHA = 0.05
_MIN_RUNS = 10


@dataclass(frozen=True)
class PreviousEffect:
    """Start temperature by a factor of the run before.

    Attributes:
        factor: its name.
        mean_temp_c: level of the previous run -> mean start temperature of the next one.
        n: runs.
        eta_squared: share of the variance of start temperatures that the levels explain.
        p_value: of the Kruskal-Wallis test that the levels do not matter.
    """

    factor: str
    mean_temp_c: dict[str, float]
    n: int
    eta_squared: float
    p_value: float


@dataclass(frozen=True)
class TemperatureEffect:
    """Energy by start temperature, within treatments.

    Attributes:
        percent_per_c: change of energy per degree, at equal tokens where tokens were counted.
        low: of the 95 % interval.
        high: of the 95 % interval.
        p_value: of the t test that it is 0.
        n: runs.
        at_equal_tokens: whether output tokens are in the model.
    """

    percent_per_c: float
    low: float
    high: float
    p_value: float
    n: int
    at_equal_tokens: bool


@dataclass(frozen=True)
class ThermalCheck:
    """What temperatures say.

    Attributes:
        order: how the execution order is known, in words.
        previous: one per factor, the strongest first.
        effect: None where it cannot be told.
        notes: what is missing, in words.
    """

    order: str
    previous: tuple[PreviousEffect, ...]
    effect: TemperatureEffect | None
    notes: tuple[str, ...]

    def sentences(self) -> list[str]:
        """The findings in words."""
        words = list(self.notes)
        strong = [each for each in self.previous if each.p_value < ALPHA]
        if strong:
            first = strong[0]
            levels = sorted(first.mean_temp_c.items(), key=lambda item: item[1])
            (low, low_c), (high, high_c) = levels[0], levels[-1]
            words.append(
                f"Thermal carry-over: the start temperature follows the {first.factor} of the previous run, from "
                f"{low_c:.1f} °C after {low} to {high_c:.1f} °C after {high} (Kruskal-Wallis p = {first.p_value:.2g}, "
                f"eta squared {first.eta_squared:.2f}, {first.n} runs): the cooldown was not long enough."
            )
        elif self.previous:
            words.append("The previous run's treatment leaves no mark on the start temperature that could be told.")
        effect = self.effect
        if effect is not None:
            at = " at equal tokens" if effect.at_equal_tokens else ""
            verdict = "" if effect.p_value < ALPHA else ": not distinguishable from none"
            words.append(
                f"Energy changes by {effect.percent_per_c:+.2f} % per degree of start temperature{at}, within "
                f"treatments (95 % interval {effect.low:+.2f} to {effect.high:+.2f}, {effect.n} runs){verdict}."
            )
        return words


def check_temperatures(
    runs: Mapping[str, RunAudit], order: Sequence[str], levels: Mapping[str, Mapping[str, str]]
) -> ThermalCheck:
    """Look for thermal carry-over.

    Args:
        runs: run id -> audited run.
        order: run ids as the run table has them, which Experiment Runner writes in execution order; runs without a
            log included. Empty without a run table.
        levels: run id -> factor -> level, of all runs of the table.
    """
    warm = {run_id: run for run_id, run in runs.items() if run.start_temp_c is not None and run.whole is not None}
    if len(warm) < _MIN_RUNS:
        note = f"Start temperatures of {len(warm)} runs only: thermal carry-over needs {_MIN_RUNS}."
        return ThermalCheck("unknown", (), None, (note,))
    words, sequence = _sequence(warm, order)
    before = dict(zip(sequence[1:], sequence, strict=False))
    previous = []
    factors = {factor for run_id in sequence for factor in levels.get(run_id, {})}
    for factor in sorted(factors):
        groups: dict[str, list[float]] = {}
        for run_id, run in warm.items():
            level = levels.get(before.get(run_id, ""), {}).get(factor)
            if level is not None and run.start_temp_c is not None:
                groups.setdefault(level, []).append(run.start_temp_c)
        effect = _previous_effect(factor, groups)
        if effect is not None:
            previous.append(effect)
    previous.sort(key=lambda each: each.p_value)
    return ThermalCheck(words, tuple(previous), _temperature_effect(warm, levels), ())


def _sequence(warm: Mapping[str, RunAudit], order: Sequence[str]) -> tuple[str, list[str]]:
    """The execution order: the table's where the logs' times bear it out, else that of the logs alone."""
    by_time = sorted(warm, key=lambda run_id: warm[run_id].started_unix_s or 0.0)
    in_table = [run_id for run_id in order if run_id in warm]
    if in_table and in_table == [run_id for run_id in by_time if run_id in set(in_table)]:
        return "rows of the run table, which the times of the logs bear out", list(order)
    return "times of the logs", by_time


def _previous_effect(factor: str, groups: Mapping[str, list[float]]) -> PreviousEffect | None:
    from scipy.stats import kruskal

    big = {level: np.array(values) for level, values in groups.items() if len(values) > 1}
    if len(big) < 2:
        return None
    everything = np.concatenate(list(big.values()))
    total = float(((everything - everything.mean()) ** 2).sum())
    if total == 0:
        return None
    between = sum(values.size * (values.mean() - everything.mean()) ** 2 for values in big.values())
    p_value = float(kruskal(*big.values()).pvalue)
    means = {level: float(values.mean()) for level, values in sorted(big.items())}
    return PreviousEffect(factor, means, int(everything.size), float(between) / total, p_value)


def _temperature_effect(
    warm: Mapping[str, RunAudit], levels: Mapping[str, Mapping[str, str]]
) -> TemperatureEffect | None:
    """Least squares of log energy on start temperature (and log tokens), each less its treatment's mean."""
    from scipy.stats import t as student

    rows: list[tuple[str, float, float, float]] = []
    for run_id, run in warm.items():
        energy = run.measured
        if energy is None or not energy.total_j or energy.total_j <= 0 or run.start_temp_c is None:
            continue
        treatment = " / ".join(levels.get(run_id, {}).values()) or run_id
        tokens = math.log(run.n_response_tokens) if run.n_response_tokens else math.nan
        rows.append((treatment, math.log(energy.total_j), run.start_temp_c, tokens))
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row[0], []).append(index)
    groups = {name: members for name, members in groups.items() if len(members) > 1}
    kept = [index for members in groups.values() for index in members]
    if len(kept) < _MIN_RUNS:
        return None
    data = np.array([row[1:] for row in rows])
    for members in groups.values():
        data[members] -= data[members].mean(axis=0)
    data = data[kept]
    has_tokens = bool(np.isfinite(data[:, 2]).all() and np.ptp(data[:, 2]) > 0)
    predictors = data[:, 1:3] if has_tokens else data[:, 1:2]
    degrees = len(kept) - len(groups) - predictors.shape[1]
    if degrees < 3 or np.ptp(predictors[:, 0]) == 0 or np.linalg.matrix_rank(predictors) < predictors.shape[1]:
        return None
    slopes, *_ = np.linalg.lstsq(predictors, data[:, 0], rcond=None)
    variance = float(((data[:, 0] - predictors @ slopes) ** 2).sum()) / degrees
    error = math.sqrt(variance * float(np.linalg.inv(predictors.T @ predictors)[0, 0]))
    slope, half = float(slopes[0]), float(student.ppf(0.975, degrees)) * error
    if error == 0:
        return None
    return TemperatureEffect(
        100 * slope,
        100 * (slope - half),
        100 * (slope + half),
        float(2 * student.sf(abs(slope / error), degrees)),
        len(kept),
        has_tokens,
    )
