"""Edge control: every chooser of a study side by side, over seeds: reward, regret, violations, what choosing cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis.experiment import Experiment
from analysis.statistics import MeanInterval, mean_interval
from contract.edge import EdgeReport, EdgeStage
from contract.errors import UsageError

CHOOSER = "chooser"
FAN = "fan"
_SETTING = ("prefill_bin", "decode_bin", "batch", "exit_layer")

FIGURES: Mapping[str, Callable[[EdgeReport], float | None]] = {
    "regret": lambda report: report.regret,
    "throughput_per_s": lambda report: _of(_served(report), lambda stage: stage.throughput_per_s),
    "late_throughput_per_s": lambda report: _of(report.late, lambda stage: stage.throughput_per_s),
    "energy_per_token_j": lambda report: _of(_served(report), lambda stage: stage.energy_per_token_j),
    "reward_mean": lambda report: _of(_served(report), lambda stage: stage.reward_mean),
    "hottest_c": lambda report: _of(_served(report), lambda stage: stage.hottest_c),
    "longest_violation_s": lambda report: _of(_served(report), lambda stage: stage.longest_violation_s),
    "selection_mean_s": lambda report: _per(report.overhead.selection_s, report.overhead.n_selections),
    "update_mean_s": lambda report: _per(report.overhead.update_s, report.overhead.n_updates),
    "choosing_time_share": lambda report: report.overhead.time_share,
    "choosing_energy_share": lambda report: report.overhead.energy_share,
}
"""Name -> the figure of one run; None: not measured, or not so for this chooser."""


@dataclass(frozen=True)
class EdgeRow:
    """One treatment without its seed.

    Attributes:
        levels: factor -> level.
        n_planned: runs of the plan.
        reports: of the counted runs, by run id.
        means: of `FIGURES` -> mean over runs with its 95 % interval.
        is_simulated: a model's figures, and not a device's.
        problem: why there is nothing to show; empty where there is.
    """

    levels: Mapping[str, object]
    n_planned: int
    reports: Mapping[str, EdgeReport]
    means: Mapping[str, MeanInterval]
    is_simulated: bool
    problem: str

    @property
    def name(self) -> str:
        """Levels in a line."""
        return ", ".join(f"{name} {level}" for name, level in self.levels.items())


def edge_rows(experiment: Experiment, *, include_suspect: bool = False) -> list[EdgeRow]:
    """A row for each treatment; seeds are averaged over.

    Args:
        experiment: of `runnerconfig/edge_grid.py`, `edge_grpo.py` or alike.
        include_suspect: also count results that are doubted.

    Raises:
        UsageError: no run is one of edge control.
    """
    if not experiment.edge:
        raise UsageError(
            f"{experiment.name} has no result of edge control: plan one from runnerconfig/edge_grpo.py, or wait for it."
        )
    counted = set(experiment.counted(include_suspect=include_suspect)["run_id"].to_list())
    why = {each.run_id: each.why for each in experiment.excluded}
    factors = [name for name in experiment.factors if name != "seed"]
    groups: dict[tuple[object, ...], list[str]] = {}
    for run in experiment.runs.iter_rows(named=True):
        groups.setdefault(tuple(run[name] for name in factors), []).append(str(run["run_id"]))
    rows = []
    for levels, run_ids in groups.items():
        reports = {run_id: experiment.edge[run_id] for run_id in run_ids if run_id in counted & experiment.edge.keys()}
        means = {}
        for name, figure in FIGURES.items():
            values = [figure(report) for report in reports.values()]
            means[name] = mean_interval([value for value in values if value is not None])
        told = next((why[run_id] for run_id in run_ids if run_id in why), "not run yet")
        rows.append(
            EdgeRow(
                levels=dict(zip(factors, levels, strict=True)),
                n_planned=len(run_ids),
                reports=reports,
                means=means,
                is_simulated=any(report.is_simulated for report in reports.values()),
                problem="" if reports else told,
            )
        )
    return rows


def best_cell(rows: Sequence[EdgeRow]) -> EdgeRow | None:
    """Of a grid: the setting with the highest mean reward; None where the rows are of choosers."""
    cells = [row for row in rows if set(_SETTING) <= row.levels.keys() and row.means["reward_mean"].mean is not None]
    return max(cells, key=lambda row: row.means["reward_mean"].mean or 0.0, default=None)


def worst_violation_s(row: EdgeRow) -> float | None:
    """The longest stretch above the limit of any run."""
    values = [FIGURES["longest_violation_s"](report) for report in row.reports.values()]
    return max((value for value in values if value is not None), default=None)


def _served(report: EdgeReport) -> EdgeStage | None:
    """Without the fan where it stopped, else with it."""
    return report.fan_off or report.fan_on


def _of(stage: EdgeStage | None, figure: Callable[[EdgeStage], float | None]) -> float | None:
    return None if stage is None else figure(stage)


def _per(total: float, n: int) -> float | None:
    return total / n if n else None
