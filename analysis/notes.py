"""What a reader of a summary must know and the table cannot hold, in sentences."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from contract.attempt_state import RunState
from contract.trial_result import EnergyMethod

if TYPE_CHECKING:
    from analysis.summary import Summary

_METHODS = {
    EnergyMethod.COUNTER: "counter: difference of a cumulative hardware counter.",
    EnergyMethod.SAMPLED: "sampled: power readings, integrated over time.",
    EnergyMethod.ESTIMATE: "estimate: not measured: to try things out, not for a claim.",
}

_SHOWN = 4
"""Names that are listed before the rest is only counted."""


def notes_of(summary: "Summary") -> Iterator[str]:
    """The notes below a summary, the most general first."""
    runs = [run for row in summary.treatments for run in row.runs]
    yield from _counting(summary)
    if runs:
        yield from _energy(summary, runs)
        yield from _accuracy(summary)
        yield from _conditions(summary, runs)
    yield from summary.experiment.notes
    yield from _excluded(summary)


def _counting(summary: "Summary") -> Iterator[str]:
    counts = sorted({row.n_planned for row in summary.treatments})
    repetitions = " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))
    per = "treatment" if summary.by == summary.experiment.factors else "row"
    plural = "" if counts == [1] else "s"
    yield f"{summary.n_counted} of {summary.n_planned} runs are counted; {repetitions} run{plural} planned per {per}."
    alone = sum(row.n_counted == 1 for row in summary.treatments)
    if alone:
        share = f"{alone} of {len(summary.treatments)} {per}s"
        yield f"With one counted run there is no interval ({share}). Plan more repetitions."
    merged = max((row.n_treatments for row in summary.treatments), default=1)
    if merged > 1:
        over = ", ".join(name for name in summary.experiment.factors if name not in summary.by)
        yield f"Rows average over {over}: their intervals hold differences between treatments, not only noise."


def _energy(summary: "Summary", runs: list[dict[str, Any]]) -> Iterator[str]:
    measured = [run for run in runs if run["energy_j"] is not None]
    if not measured:
        yield "No energy was measured. `testbed doctor` says which meters this machine has."
        return
    yield (
        "Energy is gross and of the measured phase alone: load, baseline and warm-up are not in it. "
        "± is the half-width of the 95 % t interval over runs."
    )
    for method in summary.methods:
        said = {run["energy_notes"] for run in measured if run["energy_method"] == method and run["energy_notes"]}
        meter = f" The meter says: {_listed(said)}." if said else ""
        yield _METHODS[EnergyMethod(method)] + meter
    if any(len(row.methods) > 1 for row in summary.treatments):
        yield "Some rows mix energy methods: their means are not comparable with the others."
    if len(measured) < len(runs):
        yield f"{len(runs) - len(measured)} counted runs have no energy; the other columns hold them."
    without_net = sum(run["energy_net_j"] is None for run in measured)
    if without_net:
        which = "" if without_net == len(measured) else f" in {without_net} of {len(measured)} runs"
        yield (
            f"Net energy is not given{which}: no idle baseline was measured (set `baseline_s`). "
            f"The joules hold what the idle machine draws."
        )
    else:
        yield "Energy net of the idle baseline is in --json, as energy_net_j."


def _accuracy(summary: "Summary") -> Iterator[str]:
    scores = [row.accuracy for row in summary.treatments if row.accuracy is not None]
    if not scores:
        return
    yield (
        "Accuracy is against gold labels, with its 95 % Wilson interval; the test against chance is the two-sided "
        "exact binomial, at 5 %."
    )
    if any(score.repetitions_identical for score in scores):
        yield (
            "Where all repetitions of the same items have the same number of right answers, as greedy decoding gives, "
            "they are not independent: accuracy interval and test use one repetition's items."
        )
    if any(score.same_prompts_pooled for score in scores):
        yield (
            "Where the number of right answers to the same items differs between runs of a row, the items of all "
            "are pooled: the interval holds for these items and is narrower than for new ones."
        )
    if any(score.chance_accuracy is None for score in scores):
        yield "No test against chance where its level is unknown, or differs between the tasks of a row."
    abstained, items = sum(score.n_abstained for score in scores), sum(score.n_items for score in scores)
    if abstained:
        yield f"From {abstained:,} of {items:,} answers no label could be read; they count as wrong."


def _conditions(summary: "Summary", runs: list[dict[str, Any]]) -> Iterator[str]:
    sources = {run["workload_source"] for run in runs if run["workload_source"]}
    if sources:
        yield f"Items: {_listed(sources)}."
    if len({run["hardware_sha256"] for run in runs}) > 1:
        yield "The runs come from machines with different hardware: differences between rows may be the machine's."
    by_treatment: dict[tuple[Any, ...], set[tuple[Any, Any]]] = {}
    for run in runs:
        key = tuple(run[name] for name in summary.experiment.factors)
        by_treatment.setdefault(key, set()).add((run["model_revision"], run["engine"]))
    if any(len(each) > 1 for each in by_treatment.values()):
        yield "Within a treatment, engine version or model revision differ between runs: they are not repetitions."
    if summary.include_suspect:
        suspects = [run for run in runs if run["state"] == RunState.SUSPECT]
        if suspects:
            yield f"SUSPECT runs in the means, as asked by --include-suspect: {len(suspects)}."


def _excluded(summary: "Summary") -> Iterator[str]:
    """Exclusions with equal reasons in one sentence."""
    grouped: dict[str, list[str]] = {}
    for each in summary.experiment.excluded:
        grouped.setdefault(each.why, []).append(each.run_id)
    for why, run_ids in sorted(grouped.items(), key=lambda item: -len(item[1])):
        # A doubted run that was asked for is shown with its reason, but was not left out.
        included = summary.include_suspect and why.startswith("suspect:")
        yield f"{'Doubted' if included else 'Not counted'}, {_counted_names(run_ids)}: {why.rstrip('.')}."
    if not summary.include_suspect and any(why.startswith("suspect:") for why in grouped):
        yield "Count the suspect runs as well with --include-suspect."


def _counted_names(names: list[str]) -> str:
    runs = "run" if len(names) == 1 else "runs"
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {runs} ({', '.join(names[:_SHOWN])}{rest})"


def _listed(words: Iterable[str]) -> str:
    every = sorted(word.strip().rstrip(".") for word in words)
    rest = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return "; ".join(every[:_SHOWN]) + rest
