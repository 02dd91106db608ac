"""The warnings at the top of a report, the gravest first."""

from collections.abc import Iterator, Sequence

from analysis.report.document import Caution, Level
from analysis.report.quantity import many
from analysis.summary import Summary
from contract.attempt_state import RunState
from contract.trial_result import EnergyMethod

_SHOWN = 4
_ORDER = ("wrong", "doubt", "note")


def cautions(summary: Summary, further: Sequence[Caution] = ()) -> tuple[Caution, ...]:
    """What a reader must know before the figures.

    Args:
        summary: of the experiment.
        further: of the audit, of the tests.
    """
    found = [*further, *_energy(summary), *_repetitions(summary), *_conditions(summary), *_accuracy(summary)]
    found += _excluded(summary)
    unique = list(dict.fromkeys(found))
    return tuple(sorted(unique, key=lambda each: _ORDER.index(each.level)))


def _energy(summary: Summary) -> Iterator[Caution]:
    runs = [run for row in summary.treatments for run in row.runs]
    estimates = sum(run["energy_method"] == EnergyMethod.ESTIMATE for run in runs)
    if estimates:
        which = "All energies are estimates" if estimates == len(runs) else f"{estimates} of {len(runs)} are estimates"
        said = sorted(
            {run["energy_notes"] for run in runs if run["energy_notes"] and run["energy_method"] == "estimate"}
        )
        why = f" ({said[0]})" if len(said) == 1 else ""
        yield Caution(
            "doubt", f"{which}{why}: computed from a model, not measured. No claim about energy rests on them."
        )
    without = sum(run["energy_j"] is None for run in runs)
    if without:
        yield Caution("doubt", f"{without} of {len(runs)} counted runs have no energy; they are in no energy figure.")
    if any(len(row.methods) > 1 for row in summary.treatments):
        yield Caution("doubt", "Some treatments mix energy methods: their means do not compare with the others.")
    gaps = sum(bool(run["n_gaps"]) for run in runs)
    if gaps:
        yield Caution("note", f"{many(gaps, 'run')} with gaps between samples longer than three periods.")


def _repetitions(summary: Summary) -> Iterator[Caution]:
    counted = [row.n_counted for row in summary.treatments]
    alone = sum(n == 1 for n in counted)
    if alone:
        where = "Every treatment has" if alone == len(counted) else f"{alone} of {len(counted)} treatments have"
        yield Caution(
            "doubt",
            f"{where} one counted run: no interval and no test of a difference. Plan three repetitions or more.",
        )
    if len(summary.treatments) == 1:
        yield Caution("note", "There is one treatment only: nothing is compared, and no test is made.")
    empty = [row.label for row in summary.treatments if row.n_counted == 0]
    if empty:
        yield Caution("doubt", f"No counted run: {_listed(empty)}.")


def _conditions(summary: Summary) -> Iterator[Caution]:
    runs = [run for row in summary.treatments for run in row.runs]
    if len({run["hardware_sha256"] for run in runs if run["hardware_sha256"]}) > 1:
        yield Caution(
            "doubt", "Runs come from different hardware: differences between treatments may be the machine's."
        )
    for row in summary.treatments:
        if row.n_treatments == 1 and len({(run["model_revision"], run["engine"]) for run in row.runs}) > 1:
            yield Caution("doubt", f"{row.label}: engine version or model revision differ between its runs.")
    suspects = sum(run["state"] == RunState.SUSPECT for run in runs)
    if suspects:
        yield Caution("doubt", f"{many(suspects, 'suspect run')} in the means, as asked by --include-suspect.")


def _accuracy(summary: Summary) -> Iterator[Caution]:
    scores = [row for row in summary.treatments if row.accuracy is not None]
    if not scores:
        yield Caution(
            "note",
            "No answers were scored: there were no gold labels to score them by. Accuracy, and the front of energy "
            "and accuracy, are left out.",
        )
        return
    chance = [row.label for row in scores if row.accuracy and row.accuracy.verdict == "not distinguishable from chance"]
    if chance:
        yield Caution(
            "doubt",
            f"Accuracy not distinguishable from chance: {len(chance)} of {len(scores)} treatments ({_listed(chance)}).",
        )


def _excluded(summary: Summary) -> Iterator[Caution]:
    grouped: dict[tuple[str, str], list[str]] = {}
    for each in summary.experiment.excluded:
        # A doubted run that was asked for is in the means.
        if each.is_decided or not (summary.include_suspect and each.state == RunState.SUSPECT):
            grouped.setdefault((each.state, each.why), []).append(each.run_id)
    for (state, why), run_ids in sorted(grouped.items(), key=lambda item: -len(item[1])):
        level: Level = "note" if state == RunState.TODO else "doubt"
        yield Caution(level, f"Not counted: {many(len(run_ids), 'run')} ({_listed(run_ids)}): {why.rstrip('.')}.")


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + rest
