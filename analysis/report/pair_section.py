"""Pairs with effect sizes, and how many repetitions would do."""

import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from analysis.inference.dunn import DunnPair, dunn
from analysis.inference.effect_size import N_RESAMPLES, effect_size
from analysis.inference.power import coefficient_of_variation, repetitions_needed
from analysis.inference.sample import treatment_means
from analysis.report.document import Table, Text
from analysis.report.found import Found
from analysis.report.quantity import NOT_MEASURED, bracket, number, p_value

if TYPE_CHECKING:
    import polars as pl

_MAX_PAIRED = 8
"""Treatments up to which every pair is tested; beyond, the levels of each factor are."""

_DIFFERENCE = 0.05


def pair_tables(
    frame: "pl.DataFrame",
    response: str,
    treatment: str,
    factors: Sequence[str],
    found: Found,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> Iterator[Table]:
    """Every pair of treatments where they are few; else of the levels of each factor, over treatment means.

    Args:
        frame: one row per run.
        response: column of joules.
        treatment: column that names the treatment.
        factors: columns of levels.
        found: takes warnings and methods.
        seed: of the bootstrap.
        n_resamples: of the same.
    """
    if frame[treatment].n_unique() <= _MAX_PAIRED:
        yield from _table(frame, response, treatment, "treatments, over runs", found, seed, n_resamples)
        return
    means = found.attempt(treatment_means, frame, [response], list(factors))
    if means is None:
        return
    for name in factors:
        if means[name].n_unique() >= 2:
            yield from _table(
                means, response, name, f"levels of {name}, over treatment means", found, seed, n_resamples
            )


def _table(
    frame: "pl.DataFrame", response: str, factor: str, what: str, found: Found, seed: int, n_resamples: int
) -> Iterator[Table]:
    test = found.attempt(dunn, frame, response, factor)
    if test is None:
        return
    values: dict[str, list[float]] = {}
    for level, joules in zip(frame[factor].to_list(), frame[response].to_list(), strict=True):
        values.setdefault(str(level), []).append(joules)
    rows = tuple(_row(pair, values[pair.first], values[pair.second], found, seed, n_resamples) for pair in test.pairs)
    yield Table(
        f"Pairs of {what}: Dunn's test with effect sizes",
        ("first", "second", "ratio of means", "z", "p", "adjusted p", "Cliff's δ", "95 % of δ"),
        rows,
        note="Adjusted after Benjamini and Hochberg over all pairs of the table. δ: share of pairs of values in which "
        "the first is larger, less the share in which it is smaller; its interval is a bootstrap's. Where the two do "
        "not overlap (δ = ±1) resampling cannot give an interval.",
        n_label_columns=2,
        fold=len(rows) > 30,
    )


def _row(
    pair: DunnPair, first: list[float], second: list[float], found: Found, seed: int, n_resamples: int
) -> tuple[str, ...]:
    mean_first, mean_second = statistics.fmean(first), statistics.fmean(second)
    delta, interval = NOT_MEASURED, NOT_MEASURED
    if min(len(first), len(second)) >= 2:
        size = effect_size(first, second, names=(pair.first, pair.second), n_resamples=n_resamples, seed=seed)
        delta = f"{size.cliffs_delta:+.2f} {size.magnitude}"
        interval = bracket(size.delta_low, size.delta_high, 2)
        found.methods.append(size.method)
        # That two groups do not overlap is in the row; said of each pair it would bury the rest.
        found.warnings += [each for each in size.warnings if "overlap" not in each]
    return (
        pair.first,
        pair.second,
        number(mean_first / mean_second, 3) if mean_second > 0 else NOT_MEASURED,
        number(pair.z, 3),
        p_value(pair.p_value),
        p_value(pair.p_adjusted),
        delta,
        interval,
    )


def power_tables(frame: "pl.DataFrame", response: str, treatment: str, found: Found) -> Iterator[Table | Text]:
    """How many repetitions would show a difference of 5 %, from the spread of each treatment's own.

    Args:
        frame: one row per run.
        response: column of joules.
        treatment: column that names the treatment.
        found: takes warnings and methods.
    """
    rows = []
    needed: list[int] = []
    for (name,), part in frame.group_by([treatment], maintain_order=True):
        joules = part[response].to_list()
        cv = found.attempt(coefficient_of_variation, joules)
        if not cv:
            continue
        advice = found.attempt(repetitions_needed, cv, _DIFFERENCE, n_observed=len(joules))
        if advice is None:
            continue
        needed.append(advice.n)
        rows.append((str(name), str(len(joules)), f"{100 * cv:.2g} %", str(advice.n)))
    if not rows:
        return
    yield Text(
        f"To see a difference of {_DIFFERENCE:.0%} in energy between two treatments with 80 % power at 5 %, "
        f"{max(needed)} repetitions per treatment are enough for the noisiest one here, {statistics.median(needed):g} "
        f"for the median one, before any correction for several comparisons."
    )
    yield Table(
        "Repetitions",
        ("treatment", "runs", "CV", f"needed to see {_DIFFERENCE:.0%}"),
        tuple(rows),
        note="CV: standard deviation over mean. By ranks (Mann-Whitney), for two treatments of the same CV.",
        fold=len(rows) > 12,
    )
