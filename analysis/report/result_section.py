"""Tables of the measured quantities, and what is left out of them."""

from collections.abc import Iterator, Sequence

from analysis.report.document import Bullets, Section, Table, Text
from analysis.report.quantity import NOT_MEASURED, mean, p_value, share
from analysis.summary import Summary, TreatmentSummary
from contract.trial_result import EnergyMethod

_ENERGY_COLUMNS = (
    ("energy_j", "energy, J"),
    ("energy_net_j", "net of idle, J"),
    ("cpu_energy_j", "CPU, J"),
    ("gpu_energy_j", "GPU, J"),
    ("dram_energy_j", "DRAM, J"),
    ("load_energy_j", "loading, J"),
    ("energy_per_output_token_j", "per output token, J"),
)
_OTHER_COLUMNS = (
    ("mean_power_w", "power, W"),
    ("duration_s", "time, s"),
    ("tokens_per_s", "tokens/s"),
    ("edp_js", "EDP, J·s"),
    ("mean_exit_layer", "layers per token"),
    ("mean_entropy_nats", "entropy, nats"),
)
_FROM_ENERGY = {"mean_power_w", "edp_js", *(name for name, _ in _ENERGY_COLUMNS)}


def result_section(summary: Summary, phases: Table | None) -> Section:
    """The treatments in a table, with intervals, and the energy by phase and domain.

    Args:
        summary: of the experiment.
        phases: table of energy by phase and domain; None where that is not known.
    """
    blocks: list[Table | Text | Bullets] = [_energies(summary), _others(summary), *_accuracies(summary)]
    blocks.append(Bullets(summary.notes))
    if phases is not None:
        blocks.append(phases)
    else:
        blocks.append(Text("Energy by phase and domain is not known for this experiment."))
    return Section("results", "Results", tuple(blocks))


def excluded_section(summary: Summary) -> Section:
    """Runs that are not counted, each with its reason."""
    excluded = summary.experiment.excluded
    if not excluded:
        return Section("excluded", "Excluded runs", (Text("None: every planned run is counted."),))
    rows = tuple((each.run_id, each.state, each.why) for each in excluded)
    said = "in the means all the same, as asked by --include-suspect" if summary.include_suspect else "in no mean"
    is_decided = summary.include_suspect and any(each.is_decided for each in excluded)
    unless = ", unless a person excluded it" if is_decided else ""
    table = Table(
        f"Runs that are not counted; a SUSPECT run is {said}{unless}",
        ("run", "state", "why"),
        rows,
        n_label_columns=3,
        fold=len(rows) > 20,
    )
    return Section("excluded", "Excluded runs", (table,))


def _energies(summary: Summary) -> Table:
    mixed = summary.is_estimate and not _all_estimates(summary)
    shown = _shown(summary, _ENERGY_COLUMNS)
    rows = []
    for row in summary.treatments:
        cells = [*_levels(row), f"{row.n_counted}/{row.n_planned}", *_means(row, shown, mixed=mixed)]
        rows.append((*cells, ", ".join(row.methods)) if mixed else tuple(cells))
    header = (*_header(summary), "runs", *_titles(summary, shown), *(["method"] if mixed else []))
    return Table(
        "Energy of the measured phase: means over the counted runs ± half-width of the 95 % Student-t interval",
        header,
        tuple(rows),
        note="– is not measured, never zero. No ± where there is one run. CPU, GPU and DRAM add up to the energy; "
        "loading is beside it.",
        n_label_columns=len(_header(summary)),
    )


def _others(summary: Summary) -> Table:
    mixed = summary.is_estimate and not _all_estimates(summary)
    shown = _shown(summary, _OTHER_COLUMNS)
    return Table(
        "Power and speed: means over the counted runs ± half-width of the 95 % Student-t interval",
        (*_header(summary), *_titles(summary, shown)),
        tuple((*_levels(row), *_means(row, shown, mixed=mixed)) for row in summary.treatments),
        note="EDP: energy-delay product.",
        n_label_columns=len(_header(summary)),
    )


def _accuracies(summary: Summary) -> Iterator[Table]:
    scored = [(row, row.accuracy) for row in summary.treatments if row.accuracy is not None]
    if not scored:
        return
    rows = []
    for row, each in scored:
        low, high = each.interval
        chance = NOT_MEASURED if each.chance_accuracy is None else share(each.chance_accuracy)
        counts = (f"{each.n_correct} of {each.n_items}", str(each.n_abstained))
        interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
        rows.append(
            (*_levels(row), *counts, share(each.accuracy), interval, chance, p_value(each.chance_p_value), each.verdict)
        )
    header = ("right", "unread", "accuracy", "95 %", "guessing", "p", "verdict")
    yield Table(
        "Accuracy by gold label, with its 95 % Wilson interval and the exact binomial test against guessing",
        (*_header(summary), *header),
        tuple(rows),
        note="Unread: answers from which no label could be read; they count as wrong.",
        n_label_columns=len(_header(summary)),
    )


def _all_estimates(summary: Summary) -> bool:
    return set(summary.methods) == {EnergyMethod.ESTIMATE.value}


def _shown(summary: Summary, columns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that any treatment has a figure for."""
    return [each for each in columns if any(row.means[each[0]].mean is not None for row in summary.treatments)]


def _header(summary: Summary) -> list[str]:
    return list(summary.by) or ["treatment"]


def _levels(row: TreatmentSummary) -> list[str]:
    return [str(level) for level in row.treatment.values()] or ["all runs"]


def _titles(summary: Summary, columns: Sequence[tuple[str, str]]) -> list[str]:
    """Never an estimate without the word."""
    word = _all_estimates(summary)
    return [f"{title}, estimate" if word and name in _FROM_ENERGY else title for name, title in columns]


def _means(row: TreatmentSummary, columns: Sequence[tuple[str, str]], *, mixed: bool) -> list[str]:
    texts = []
    for name, _ in columns:
        text = mean(row.means[name])
        word = mixed and row.is_estimate and name in _FROM_ENERGY and text != NOT_MEASURED
        texts.append(f"{text} (estimate)" if word else text)
    return texts
