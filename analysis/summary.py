"""An experiment by treatment: means with intervals, accuracy with its test, and the notes that belong to them."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from analysis.load import Experiment
from analysis.metrics import with_metrics
from analysis.notes import notes_of
from analysis.statistics import MeanInterval, PooledAccuracy, RepetitionScore, mean_interval, pooled_accuracy
from contract.errors import UsageError
from contract.trial_result import EnergyMethod
from contract.units import Scalar

MEANS = (
    "energy_j",
    "energy_net_j",
    "cpu_energy_j",
    "gpu_energy_j",
    "dram_energy_j",
    "load_energy_j",
    "mean_power_w",
    "energy_per_output_token_j",
    "energy_per_request_j",
    "energy_per_correct_j",
    "edp_js",
    "ed2p_js2",
    "duration_s",
    "tokens_per_s",
    "n_output_tokens",
    "mean_exit_layer",
    "mean_entropy_nats",
    "load_s",
    "start_temp_c",
)
"""Columns that are averaged over the counted runs of a treatment; `analysis.columns` has their meaning."""

Row = dict[str, Any]


@dataclass(frozen=True)
class TreatmentSummary:
    """One row of the summary.

    Attributes:
        treatment: factor -> level, of the factors that group.
        n_planned: runs of the plan.
        n_counted: runs in the means.
        n_treatments: full treatments behind it; more than one when factors are averaged over.
        methods: energy methods among the counted runs.
        sources: meters among the counted runs.
        means: column -> mean and interval over the counted runs.
        accuracy: pooled over items; None without scores.
        runs: the counted runs themselves, with metrics.
    """

    treatment: dict[str, Scalar | None]
    n_planned: int
    n_counted: int
    n_treatments: int
    methods: tuple[str, ...]
    sources: tuple[str, ...]
    means: dict[str, MeanInterval]
    accuracy: PooledAccuracy | None
    runs: tuple[Row, ...] = field(repr=False)

    @property
    def label(self) -> str:
        """The levels in one line."""
        return ", ".join(f"{name}={level}" for name, level in self.treatment.items()) or "all runs"

    @property
    def is_estimate(self) -> bool:
        """Whether any energy in it was computed from a model instead of measured."""
        return EnergyMethod.ESTIMATE in self.methods


@dataclass(frozen=True)
class Summary:
    """What is known of an experiment, by treatment.

    Attributes:
        experiment: what was read.
        by: factors that group.
        include_suspect: whether doubted results are in the means.
        n_planned: runs of the plan.
        n_counted: runs in the means.
        treatments: in the order of the design.
        notes: what a reader must know, in words.
    """

    experiment: Experiment
    by: tuple[str, ...]
    include_suspect: bool
    n_planned: int
    n_counted: int
    treatments: tuple[TreatmentSummary, ...]
    notes: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Energy methods of all counted runs."""
        return tuple(sorted({method for row in self.treatments for method in row.methods}))

    @property
    def sources(self) -> tuple[str, ...]:
        """Meters of all counted runs."""
        return tuple(sorted({source for row in self.treatments for source in row.sources}))

    @property
    def is_estimate(self) -> bool:
        """Whether any energy in it was computed from a model instead of measured."""
        return EnergyMethod.ESTIMATE in self.methods


def summarise(experiment: Experiment, *, by: Sequence[str] | None = None, include_suspect: bool = False) -> Summary:
    """Summarise an experiment by treatment.

    Args:
        experiment: from `load_runs`.
        by: factors that make the rows; the others are averaged over. None: all factors.
        include_suspect: also count results that are doubted.

    Raises:
        UsageError: an unknown factor, or no run has a result yet.
    """
    factors = tuple(dict.fromkeys(by)) if by else experiment.factors
    unknown = [name for name in factors if name not in experiment.factors]
    if unknown:
        raise UsageError(f"{experiment.name} has no factor {unknown[0]!r}. Its factors: {list(experiment.factors)}.")
    if experiment.runs["attempt_id"].null_count() == experiment.runs.height:
        raise UsageError(_nothing_yet(experiment))
    counted = with_metrics(experiment.counted(include_suspect=include_suspect))
    groups: dict[tuple[Any, ...], list[Row]] = {}
    planned: dict[tuple[Any, ...], int] = {}
    for run in sorted(experiment.runs.iter_rows(named=True), key=_design_order):
        key = tuple(run[name] for name in factors)
        planned[key] = planned.get(key, 0) + 1
        groups.setdefault(key, [])
    for run in counted.iter_rows(named=True):
        groups[tuple(run[name] for name in factors)].append(run)
    treatments = tuple(
        _treatment(dict(zip(factors, key, strict=True)), planned[key], runs, experiment.factors)
        for key, runs in groups.items()
    )
    summary = Summary(
        experiment=experiment,
        by=factors,
        include_suspect=include_suspect,
        n_planned=experiment.runs.height,
        n_counted=counted.height,
        treatments=treatments,
    )
    return Summary(**{**vars(summary), "notes": tuple(notes_of(summary))})


def to_json(summary: Summary) -> dict[str, Any]:
    """The summary in full precision; None is "not measured". Units are in the names."""
    experiment = summary.experiment
    return {
        "experiment": experiment.name,
        "path": experiment.source,
        "software_version": experiment.software_version,
        "seed": experiment.seed,
        "factors": list(experiment.factors),
        "by": list(summary.by),
        "include_suspect": summary.include_suspect,
        "confidence": 0.95,
        "n_planned": summary.n_planned,
        "n_counted": summary.n_counted,
        "energy_methods": list(summary.methods),
        "energy_sources": list(summary.sources),
        "treatments": [
            {
                "treatment": row.treatment,
                "n_planned": row.n_planned,
                "n_counted": row.n_counted,
                "n_treatments": row.n_treatments,
                "energy_methods": list(row.methods),
                "energy_sources": list(row.sources),
                "is_estimate": row.is_estimate,
                **{name: asdict(interval) for name, interval in row.means.items()},
                "accuracy": {**asdict(row.accuracy), "verdict": row.accuracy.verdict} if row.accuracy else None,
            }
            for row in summary.treatments
        ],
        "excluded": [asdict(exclusion) for exclusion in experiment.excluded],
        "notes": list(summary.notes),
        "facts": experiment.facts,
    }


def _treatment(
    treatment: dict[str, Scalar | None], n_planned: int, runs: list[Row], factors: tuple[str, ...]
) -> TreatmentSummary:
    by_treatment: dict[tuple[Any, ...], list[Row]] = {}
    for run in runs:
        by_treatment.setdefault(tuple(run[name] for name in factors), []).append(run)
    measured = [run for run in runs if run["energy_j"] is not None]
    return TreatmentSummary(
        treatment=treatment,
        n_planned=n_planned,
        n_counted=len(runs),
        n_treatments=len(by_treatment),
        methods=tuple(sorted({run["energy_method"] for run in measured})),
        sources=tuple(sorted({run["energy_source"] for run in measured})),
        means={name: mean_interval(run[name] for run in runs) for name in MEANS},
        accuracy=pooled_accuracy([_scores(group) for group in by_treatment.values()]),
        runs=tuple(runs),
    )


def _scores(runs: list[Row]) -> list[RepetitionScore]:
    return [
        RepetitionScore(
            n_items=run["n_items"],
            n_correct=run["n_correct"],
            n_abstained=run["n_abstained"],
            chance_accuracy=run["chance_accuracy"],
            prompt_sha256=run["prompt_sha256"],
        )
        for run in runs
        if run["n_items"]
    ]


def _design_order(run: Row) -> tuple[list[int], str]:
    """Run ids are numbered in the order of the design; the execution order is shuffled."""
    return [int(digits) for digits in re.findall(r"\d+", run["run_id"])], run["run_id"]


def _nothing_yet(experiment: Experiment) -> str:
    states = experiment.runs["state"].value_counts(sort=True).iter_rows()
    counts = ", ".join(f"{count} {state}" for state, count in states)
    first = next((each for each in experiment.excluded if each.state == "FAILED"), experiment.excluded[0])
    return (
        f"No run of {experiment.name} has a result yet ({counts}). {first.run_id}: {first.why}. "
        f"Start or continue it with `orchestrator run CONFIG.py`."
    )
