"""An ablation of an engine's settings: which configuration is quickest, which is cheapest, and which is both.

A configuration is a combination of levels of the settings; the other factors (the prompt suite) are the work. Each
repetition does all of the work once, so that its joules and seconds may be added up and compared.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.statistics import CONFIDENCE, MeanInterval, mean_interval
from analysis.summary import Row, Summary
from contract.errors import UsageError
from contract.units import Scalar

SETTINGS = ("model", "n_gpu_layers", "n_threads", "n_threads_batch", "n_batch", "n_ubatch", "n_ctx", "flash_attn")
"""Factors that make a configuration, where an experiment has them; llama.cpp's names."""

N_RESAMPLES = 2000

Levels = tuple[Scalar | None, ...]


@dataclass(frozen=True)
class Configuration:
    """One combination of settings, over all of the work.

    Attributes:
        levels: setting -> level, of those that vary.
        n_runs: counted runs behind it.
        energy_j: of all the work, one value per repetition.
        duration_s: likewise.
        latency_s: mean seconds per request over all the work.
        edp_js: energy x duration, of each repetition.
        ed2p_js2: energy x duration squared.
        energies: joules of the complete repetitions, in order.
        durations: their seconds.
        rank: by mean EDP, from 1.
        rank_low: of the interval of the rank; None below two repetitions.
        rank_high: of it.
        is_tied: whether its EDP cannot be told from the best one's; the best itself is.
    """

    levels: dict[str, Scalar | None]
    n_runs: int
    energy_j: MeanInterval
    duration_s: MeanInterval
    latency_s: MeanInterval
    edp_js: MeanInterval
    ed2p_js2: MeanInterval
    energies: tuple[float, ...] = field(repr=False)
    durations: tuple[float, ...] = field(repr=False)
    rank: int = 0
    rank_low: int | None = None
    rank_high: int | None = None
    is_tied: bool = False

    @property
    def label(self) -> str:
        """The settings in words."""
        return ", ".join(_in_words(name, level) for name, level in self.levels.items()) or "the only configuration"


@dataclass(frozen=True)
class Ablation:
    """What an ablation found.

    Attributes:
        settings: that vary, in the order of the design.
        fixed: settings with one level -> it.
        work: the other factors.
        n_works: their combinations.
        configurations: the best EDP first.
        incomplete: configurations without a repetition that did all of the work, in words.
        n_rank_resamples: behind the ranks' intervals.
    """

    settings: tuple[str, ...]
    fixed: dict[str, Scalar | None]
    work: tuple[str, ...]
    n_works: int
    configurations: tuple[Configuration, ...]
    incomplete: tuple[str, ...]
    n_rank_resamples: int = N_RESAMPLES

    @property
    def reference(self) -> Configuration:
        """What the others are explained against: the first levels of the design, as a rule the smallest."""
        return min(self.configurations, key=lambda each: tuple(_order(level) for level in each.levels.values()))

    @property
    def sweet_spot(self) -> Configuration:
        """Of those whose EDP cannot be told from the best one's: the one that takes the least of the machine."""
        return min(
            (each for each in self.configurations if each.is_tied),
            key=lambda each: (tuple(_order(level) for level in each.levels.values()), each.rank),
        )


@dataclass(frozen=True)
class Ratio:
    """A ratio of two means of positive values.

    Attributes:
        value: mean of the logarithms' difference, as a ratio.
        low: of its 95 % interval (Welch on the logarithms); None below two values a side.
        high: of it.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low is not None and self.high is not None and (self.low > 1 or self.high < 1)


def is_ablation(summary: Summary) -> bool:
    """Whether settings of an engine are among the factors."""
    return any(name in summary.by for name in SETTINGS if name != "model")


def ablate(
    summary: Summary, *, seed: int, settings: Sequence[str] | None = None, n_resamples: int = N_RESAMPLES
) -> Ablation:
    """Compare the configurations of an experiment.

    Args:
        summary: by all factors.
        seed: of the bootstrap of the ranks.
        settings: factors that make a configuration, the others being the work; None: the settings of an engine.
        n_resamples: of that bootstrap.

    Raises:
        UsageError: it has no such factor, or no repetition did all of the work with an energy.
    """
    if settings is None and not is_ablation(summary):
        raise UsageError(f"{summary.experiment.name} varies no setting of an engine: {', '.join(SETTINGS[1:])}.")
    making = SETTINGS if settings is None else tuple(settings)
    names = [name for name in summary.by if name in making]
    distinct = {
        name: list(dict.fromkeys(row.treatment[name] for row in summary.treatments if row.n_counted)) for name in names
    }
    varied = tuple(name for name in names if len(distinct[name]) > 1)
    work = tuple(name for name in summary.by if name not in making)
    works = {tuple(row.treatment[name] for name in work) for row in summary.treatments if row.n_counted}
    groups: dict[Levels, list[tuple[tuple[Scalar | None, ...], Row]]] = {}
    for row in summary.treatments:
        for run in row.runs:
            key = tuple(row.treatment[name] for name in varied)
            groups.setdefault(key, []).append((tuple(row.treatment[name] for name in work), run))
    found, incomplete = [], []
    for key, runs in groups.items():
        each = _configuration(dict(zip(varied, key, strict=True)), runs, len(works))
        if each.energies:
            found.append(each)
        else:
            incomplete.append(each.label)
    if not found:
        raise UsageError(
            f"No repetition of {summary.experiment.name} has the energy of all its {len(works)} workloads: "
            "configurations cannot be compared yet."
        )
    return Ablation(
        settings=varied,
        fixed={name: distinct[name][0] for name in names if name not in varied and distinct[name]},
        work=work,
        n_works=len(works),
        configurations=_ranked(found, seed, n_resamples),
        incomplete=tuple(incomplete),
        n_rank_resamples=n_resamples,
    )


def ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Geometric mean of the first over that of the second, with Welch's interval on the logarithms.

    Args:
        first: positive values, any unit.
        second: likewise.
    """
    from scipy.special import stdtrit

    a, b = np.log(np.asarray(first)), np.log(np.asarray(second))
    difference = float(a.mean() - b.mean())
    if a.size < 2 or b.size < 2:
        return Ratio(math.exp(difference), None, None)
    parts = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    error = math.sqrt(sum(parts))
    if error == 0:
        return Ratio(math.exp(difference), math.exp(difference), math.exp(difference))
    # Welch and Satterthwaite.
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (a.size - 1) + parts[1] ** 2 / (b.size - 1))
    half = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error
    return Ratio(math.exp(difference), math.exp(difference - half), math.exp(difference + half))


def explain(each: Configuration, reference: Configuration) -> str:
    """What a configuration does, in a sentence, against the reference.

    Args:
        each: the configuration.
        reference: the one that it is held against.
    """
    if each is reference:
        return "the reference that the others are held against"
    time, energy = ratio(each.durations, reference.durations), ratio(each.energies, reference.energies)
    power_w = [joules / seconds for joules, seconds in zip(each.energies, each.durations, strict=True)]
    reference_w = [j / s for j, s in zip(reference.energies, reference.durations, strict=True)]
    power = ratio(power_w, reference_w)
    if not time.is_clear and not energy.is_clear:
        return f"not distinguishable from the reference in time ({_change(time)}) or energy ({_change(energy)})"
    speed = f"{'faster' if time.value < 1 else 'slower'} ({_change(time)} time)" if time.is_clear else "as fast"
    cost = f"{'cheaper' if energy.value < 1 else 'dearer'} ({_change(energy)} energy)" if energy.is_clear else "as dear"
    why = f"mean power is {power.value:.2f} times the reference's"
    if time.is_clear and time.value < 1 and power.value > 1:
        paid = "the time saved pays for it" if energy.value < 1 else "the time saved does not pay for it"
        why += f": {paid}" if energy.is_clear else ": the time saved just about pays for it"
    elif time.is_clear and time.value > 1 and energy.is_clear and energy.value > 1:
        why += ": more time at no less energy, nothing speaks for it"
    return f"{speed}, {cost}; {why}"


def _change(value: Ratio) -> str:
    def percent(number: float) -> str:
        return f"{100 * (number - 1):+.0f}"

    if value.low is None or value.high is None:
        return f"{percent(value.value)} %"
    return f"{percent(value.value)} % [{percent(value.low)}, {percent(value.high)}]"


def _configuration(levels: dict[str, Scalar | None], runs: Sequence[tuple[Levels, Row]], n_works: int) -> Configuration:
    by_repetition: dict[int, dict[Levels, Row]] = {}
    for work, run in runs:
        if run["energy_j"] is not None and run["duration_s"]:
            by_repetition.setdefault(run["repetition"], {})[work] = run
    # A repetition that lacks a suite did less work: its joules are no total.
    complete = [list(each.values()) for _, each in sorted(by_repetition.items()) if len(each) == n_works]
    energies = tuple(math.fsum(run["energy_j"] for run in each) for each in complete)
    durations = tuple(math.fsum(run["duration_s"] for run in each) for each in complete)
    latencies = [
        seconds / sum(run["n_requests"] or 0 for run in each)
        for each, seconds in zip(complete, durations, strict=True)
        if all(run["n_requests"] for run in each)
    ]
    pairs = list(zip(energies, durations, strict=True))
    return Configuration(
        levels=levels,
        n_runs=sum(len(each) for each in complete),
        energy_j=mean_interval(energies),
        duration_s=mean_interval(durations),
        latency_s=mean_interval(latencies),
        edp_js=mean_interval(joules * seconds for joules, seconds in pairs),
        ed2p_js2=mean_interval(joules * seconds**2 for joules, seconds in pairs),
        energies=energies,
        durations=durations,
    )


def _ranked(found: Sequence[Configuration], seed: int, n_resamples: int) -> tuple[Configuration, ...]:
    """By mean EDP; the interval of each rank resamples the repetitions of each configuration."""
    ordered = sorted(found, key=lambda each: each.edp_js.mean or 0.0)
    products = [np.asarray(each.energies) * np.asarray(each.durations) for each in ordered]
    draw = np.random.default_rng(seed)
    means = np.stack([draw.choice(each, (n_resamples, each.size)).mean(axis=1) for each in products])
    ranks = means.argsort(axis=0).argsort(axis=0) + 1
    tail = (1 - CONFIDENCE) / 2
    low = np.quantile(ranks, tail, axis=1, method="lower").astype(int)
    high = np.quantile(ranks, 1 - tail, axis=1, method="higher").astype(int)
    has_interval = all(each.size > 1 for each in products)
    return tuple(
        Configuration(
            **{
                **vars(each),
                "rank": i + 1,
                "rank_low": int(low[i]) if has_interval else None,
                "rank_high": int(high[i]) if has_interval else None,
                "is_tied": i == 0 or not ratio(products[i].tolist(), products[0].tolist()).is_clear,
            }
        )
        for i, each in enumerate(ordered)
    )


def scaling(summary: Summary, setting: str, quantity: str) -> dict[str, list[tuple[float, MeanInterval]]]:
    """How a quantity goes with a numeric setting: a line per combination of the other factors.

    Args:
        summary: by all factors.
        setting: factor with numbers as levels.
        quantity: column of `TreatmentSummary.means`.

    Returns:
        Label of the line -> (level, mean), the levels rising; lines of one point are left out.
    """
    others = [name for name in summary.by if name != setting]
    varied = [name for name in others if len({row.treatment[name] for row in summary.treatments if row.n_counted}) > 1]
    lines: dict[str, list[tuple[float, MeanInterval]]] = {}
    for row in summary.treatments:
        level = row.treatment.get(setting)
        if isinstance(level, int | float) and row.means[quantity].mean is not None:
            label = ", ".join(
                f"{row.treatment[name]}" if name == "suite" else f"{name} {row.treatment[name]}" for name in varied
            )
            lines.setdefault(label, []).append((float(level), row.means[quantity]))
    return {label: sorted(points, key=lambda point: point[0]) for label, points in lines.items() if len(points) > 1}


def _in_words(name: str, level: Scalar | None) -> str:
    if name in ("n_threads", "n_threads_batch"):
        what = "thread" if name == "n_threads" else "thread for prompts"
        return f"{level} {what}" if level == 1 else f"{level} {what.replace('thread', 'threads', 1)}"
    if name == "n_gpu_layers":
        return "no layer on the GPU" if level == 0 else f"{level} layer{'' if level == 1 else 's'} on the GPU"
    return f"batch {level}" if name == "n_batch" else f"{name} {level}"


def _order(level: Scalar | None) -> tuple[int, float, str]:
    return (0, float(level), "") if isinstance(level, int | float) else (1, 0.0, str(level))


def chains(ablation: Ablation, setting: str) -> list[tuple[Configuration, Configuration]]:
    """Neighbours that differ in one setting alone, the lower level first.

    Args:
        ablation: from `ablate`.
        setting: which.
    """
    groups: dict[Levels, list[Configuration]] = {}
    for each in ablation.configurations:
        groups.setdefault(tuple(level for name, level in each.levels.items() if name != setting), []).append(each)
    found = []
    for group in groups.values():
        found += list(itertools.pairwise(sorted(group, key=lambda each: _order(each.levels.get(setting)))))
    return found
