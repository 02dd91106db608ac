"""Energy by phase and domain, as means by treatment."""

from analysis.phases import energy_by_phase
from analysis.report.document import Table
from analysis.report.quantity import mean
from analysis.statistics import mean_interval
from analysis.summary import Summary
from contract.trial_result import EnergyMethod

_FOLD = 24
_SPLIT = ("prefill", "decode")
"""Of the measured phase, over all domains that are added."""

_ALL = "all that are added"
Key = tuple[str, str, str]
"""Treatment, domain, phase."""


def phase_table(summary: Summary) -> Table | None:
    """Mean joules of each domain in each phase, a row per treatment and domain.

    Args:
        summary: tells which runs count, and their treatment.

    Returns:
        None where nothing is known by phase.
    """
    treatment_of = {run["run_id"]: row.label for row in summary.treatments for run in row.runs}
    joules: dict[Key, list[float | None]] = {}
    methods: dict[str, set[str]] = {}
    phases: dict[str, None] = {}
    for reading in energy_by_phase(summary.experiment).iter_rows(named=True):
        treatment = treatment_of.get(reading["run_id"])
        # A second estimator of a domain would count it twice in one mean; parts and the whole system are kept.
        if treatment is None or not (reading["is_added"] or reading["component"] in ("part", "system")):
            continue
        kind = "" if reading["is_added"] else f" ({reading['component']}, not added)"
        domain = f"{reading['domain']}{kind}"
        phases[reading["phase"]] = None
        methods.setdefault(domain, set()).add(reading["method"])
        joules.setdefault((treatment, domain, reading["phase"]), []).append(reading["energy_j"])
    _add_split(summary, joules, methods, phases)
    domains = list(dict.fromkeys(domain for _, domain, _ in joules))
    rows = tuple(
        (
            row.label,
            _named(domain, methods[domain]),
            *(mean(mean_interval(joules.get((row.label, domain, phase), []))) for phase in phases),
        )
        for row in summary.treatments
        for domain in domains
        if any((row.label, domain, phase) in joules for phase in phases)
    )
    if not rows:
        return None
    return Table(
        "Energy by phase and domain, J: means over the counted runs ± half-width of the 95 % interval",
        ("treatment", "domain", *phases),
        rows,
        note="Only the measured phase is in the headline energy. Of Experiment Runner's runs, load is all before the "
        "first prompt, idling included, and after what follows the last one.",
        n_label_columns=2,
        fold=len(rows) > _FOLD,
    )


def _add_split(
    summary: Summary, joules: dict[Key, list[float | None]], methods: dict[str, set[str]], phases: dict[str, None]
) -> None:
    """Prefill and decode, where runs have them."""
    for phase in _SPLIT:
        column = f"{phase}_energy_j"
        for row in summary.treatments:
            for run in row.runs:
                if run.get(column) is not None:
                    phases[phase] = None
                    methods.setdefault(_ALL, set()).add(str(run["energy_method"]))
                    joules.setdefault((row.label, _ALL, phase), []).append(run[column])


def _named(domain: str, methods: set[str]) -> str:
    """Never an estimate without the word."""
    return f"{domain}, estimate" if EnergyMethod.ESTIMATE.value in methods else domain
