"""Serving under an objective: every policy of a case side by side, over seeds, in both definitions of energy.

A learned or planned policy is never shown without a constant setting and a deadline rule of the same case: a figure of
its own says nothing about what was learned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis.experiment import Experiment
from analysis.statistics import MeanInterval, mean_interval
from contract.errors import UsageError
from contract.serving import ServingReport

POLICY = "policy"
SEED = "arrival_seed"

CONSTANT, RULE, BASELINE, PLANNED, LEARNED, ABLATION = "constant", "rule", "baseline", "planned", "learned", "ablation"

_ROLES = {
    "static_high": CONSTANT,
    "fixed_clock": CONSTANT,
    "deadline": RULE,
    "deadline_energy": RULE,
    "planned": PLANNED,
    "learned": LEARNED,
}
_ORDER = (CONSTANT, RULE, BASELINE, PLANNED, LEARNED, ABLATION)
_REFERENCE = "static_high"

FIGURES: Mapping[str, Callable[[ServingReport], float | None]] = {
    "efficiency_per_kj": lambda report: _efficiency(report),
    "slo_share": lambda report: report.slo_share,
    "service_energy_per_request_j": lambda report: report.service_energy_per_request_j,
    "study_energy_per_request_j": lambda report: report.study_energy_per_request_j,
    "energy_per_request_j": lambda report: report.energy_per_request_j,
    "latency_mean_s": lambda report: report.latency.mean_s,
    "latency_p99_s": lambda report: report.latency.p99_s,
    "throughput_per_s": lambda report: report.throughput_per_s,
    "ttft_share": lambda report: report.ttft_share,
    "tpot_share": lambda report: report.tpot_share,
    "ttft_p99_s": lambda report: report.ttft.p99_s,
    "tpot_p99_s": lambda report: report.tpot.p99_s,
    "lost_share": lambda report: report.n_lost / report.n_arrived if report.n_arrived else None,
    "mean_batch": lambda report: report.n_served / report.n_batches if report.n_batches else None,
    "n_switches": lambda report: float(report.n_switches),
    "decision_mean_s": lambda report: report.decision_mean_s,
    "decision_max_s": lambda report: report.decision_max_s,
}
"""Name -> the figure of one run; None: not measured."""


def _efficiency(report: ServingReport) -> float | None:
    """Requests served within the objective for a kilojoule of all that flowed."""
    whole_j = report.energy_per_request_j
    return 1000 * report.n_met / (whole_j * report.n_served) if whole_j and report.n_served else None


@dataclass(frozen=True)
class PolicyRow:
    """One policy in one case.

    Attributes:
        policy: its level in the plan.
        role: constant, rule, baseline, planned, learned or ablation.
        n_planned: runs of the plan.
        seeds: of the arrivals, of the counted runs.
        means: of `FIGURES` -> mean over runs with its 95 % interval.
        by_seed: of `FIGURES` -> seed -> mean over its runs.
        n_requests: that arrived, over all counted runs.
        is_simulated: time and power come from a table.
        continuous: requests joined a running batch.
        saving: whole energy per request against `static_high`, paired by seed, as a share; None where there is none.
        settings: of the policy, of the first counted run.
        problem: why there is no figure; empty where there is one.
    """

    policy: str
    role: str
    n_planned: int
    seeds: tuple[int, ...]
    means: Mapping[str, MeanInterval]
    by_seed: Mapping[str, Mapping[int, float]]
    n_requests: int
    is_simulated: bool
    continuous: bool
    saving: MeanInterval | None
    settings: Mapping[str, object]
    problem: str = ""

    def mean(self, name: str) -> float | None:
        """Mean of a figure; None: not measured."""
        return self.means[name].mean


@dataclass(frozen=True)
class ServingCase:
    """One data set, objective and rate, with all its policies.

    Attributes:
        levels: factor -> level, without policy and seed.
        slo_s: of the counted runs; None without one.
        rows: constants first, then rules, baselines, planned, learned, ablations.
        withheld: learned or planned policies that are not shown, and why, in sentences.
    """

    levels: Mapping[str, object]
    slo_s: float | None
    rows: tuple[PolicyRow, ...]
    withheld: tuple[str, ...]

    @property
    def name(self) -> str:
        """For headings."""
        return ", ".join(f"{factor} {level}" for factor, level in self.levels.items()) or "all runs"


def serving_cases(experiment: Experiment, *, include_suspect: bool = False) -> list[ServingCase]:
    """Every case of an experiment.

    Args:
        experiment: from `load_runs`, with a factor `policy`.
        include_suspect: also count results that are doubted.

    Raises:
        UsageError: no such factor, or no run served anything.
    """
    if POLICY not in experiment.factors:
        raise UsageError(
            f"{experiment.name} has no factor {POLICY}, but {', '.join(experiment.factors) or 'none'}: it is no "
            "serving study. Start from runnerconfig/serving_policies.py."
        )
    if not experiment.serving:
        raise UsageError(f"No run of {experiment.name} has served anything yet: see `orchestrator status`.")
    counted = set(experiment.counted(include_suspect=include_suspect)["run_id"])
    why = {each.run_id: each.why for each in experiment.excluded}
    others = [name for name in experiment.factors if name not in (POLICY, SEED)]
    groups: dict[tuple[object, ...], dict[str, list[dict[str, object]]]] = {}
    for row in experiment.runs.iter_rows(named=True):
        case = groups.setdefault(tuple(row[name] for name in others), {})
        case.setdefault(str(row[POLICY]), []).append(row)
    return [
        _case(dict(zip(others, key, strict=True)), policies, experiment.serving, counted, why)
        for key, policies in groups.items()
    ]


def _case(
    levels: Mapping[str, object],
    policies: Mapping[str, Sequence[Mapping[str, object]]],
    reports: Mapping[str, ServingReport],
    counted: set[str],
    why: Mapping[str, str],
) -> ServingCase:
    rows = [_row(policy, runs, reports, counted, why) for policy, runs in policies.items()]
    # The plan's own static_high may be called otherwise; its level is what people compare with.
    reference = next((row for row in rows if row.policy == _REFERENCE), None)
    rows = [_with_saving(row, reference) for row in rows]
    known = {row.role for row in rows if row.seeds}
    lacking = [text for role, text in ((CONSTANT, "constant setting"), (RULE, "deadline rule")) if role not in known]
    withheld = [
        f"{row.policy} is not shown: this case has no {' and no '.join(lacking)} to set it against. Add "
        "static_high or fixed_clock, and deadline, to the plan."
        for row in rows
        if row.role in (PLANNED, LEARNED) and lacking
    ]
    shown = [row for row in rows if not (row.role in (PLANNED, LEARNED) and lacking)]
    run_ids = [str(run["run_id"]) for runs in policies.values() for run in runs]
    slo_s = next((reports[run_id].slo_s for run_id in run_ids if run_id in reports), None)
    return ServingCase(levels, slo_s, tuple(sorted(shown, key=lambda row: _ORDER.index(row.role))), tuple(withheld))


def _row(
    policy: str,
    runs: Sequence[Mapping[str, object]],
    reports: Mapping[str, ServingReport],
    counted: set[str],
    why: Mapping[str, str],
) -> PolicyRow:
    kept = [(run, reports[str(run["run_id"])]) for run in runs if run["run_id"] in counted and run["run_id"] in reports]
    first = kept[0][1] if kept else None
    seeds = [int(str(run.get(SEED, run["repetition"]))) for run, _ in kept]
    told = [why[str(run["run_id"])] for run in runs if str(run["run_id"]) in why]
    by_seed = {}
    means = {}
    for name, figure in FIGURES.items():
        values: dict[int, list[float]] = {}
        for seed, (_, report) in zip(seeds, kept, strict=True):
            value = figure(report)
            if value is not None:
                values.setdefault(seed, []).append(value)
        by_seed[name] = {seed: sum(each) / len(each) for seed, each in values.items()}
        # A seed that was run twice is no second draw of the arrivals.
        means[name] = mean_interval(by_seed[name].values())
    return PolicyRow(
        policy=policy,
        role=role_of(policy, first.policy if first else policy),
        n_planned=len(runs),
        seeds=tuple(sorted(set(seeds))),
        means=means,
        by_seed=by_seed,
        n_requests=sum(report.n_arrived for _, report in kept),
        is_simulated=any(report.is_simulated for _, report in kept),
        continuous=any(report.continuous for _, report in kept),
        saving=None,
        settings=first.policy_settings if first else {},
        problem="" if kept else (told[0] if told else "not run yet"),
    )


def role_of(level: str, policy: str) -> str:
    """What a policy is in a comparison.

    Args:
        level: in the plan; one that begins with `ablation` is one.
        policy: registry name.
    """
    return ABLATION if level.startswith(ABLATION) else _ROLES.get(policy, BASELINE)


def _with_saving(row: PolicyRow, reference: PolicyRow | None) -> PolicyRow:
    """Against `static_high` on the same arrivals: the difference of a seed has less noise than that of two means."""
    if reference is None or row is reference:
        return row
    name = "energy_per_request_j"
    own, other = row.by_seed[name], reference.by_seed[name]
    savings = [1 - own[seed] / other[seed] for seed in sorted(own.keys() & other.keys()) if other[seed] > 0]
    if not savings:
        return row
    return PolicyRow(**{**vars(row), "saving": mean_interval(savings)})
