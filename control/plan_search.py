"""The search for the price of a miss: plans of many prices, run on the true simulation, and mixtures of two of them.

Energy and share go by steps with the price, so that no single price may come near a wanted share. Between two of them
lies what mixes them, decision by decision: where a price makes two actions equally good, either is optimal for it, and
so is any mixture.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from contract.errors import JouleBedError
from control.plan_model import PlanModel, Solution
from control.reference_simulation import simulate
from control.serving_case import ServingCase
from testbed.policies.plan import Plan
from testbed.policies.planned_policy import PlannedPolicy
from testbed.simulation.arrivals import ArrivalSpec

_FEWEST_RUNS, _MOST_RUNS = 6, 16
_CHECK_RUNS = 3
_RUNS_TO_KEEP = 10
_NEAR_ENOUGH = 1.04
_MOST_BRACKETS = 12
_NO_BETTER = 0.001
_CHEAP, _DEAR = 0.005, 20.0
_DEARER = 1.1
_CHECK_SEEDS, _SEARCH_SEEDS = 1, 0


class InfeasibleSloError(JouleBedError):
    """No plan meets the objective for the wanted share of requests; the message says which share can be had."""

    code = "infeasible_slo"
    http_status = 422


@dataclass(frozen=True)
class Trial:
    """What a plan came to on the true simulation.

    Attributes:
        price_j: of a miss.
        slo_share: met over judged requests of all runs together.
        energy_per_request_j: all energy over served requests, of all runs together.
        run_sd: standard deviation of the share between runs.
        n_runs: how many.
        n_requests: judged, of all runs.
    """

    price_j: float
    slo_share: float
    energy_per_request_j: float
    run_sd: float
    n_runs: int
    n_requests: int


@dataclass(frozen=True)
class Mixture:
    """Prices of a plan, and how they are mixed.

    Attributes:
        price_j: of a miss; alone it meets what is wanted.
        lower_price_j: of a plan that is cheaper and does not; None: there is none in it.
        lower_part: of the decisions that are the lower one's, 0 to 1.
        share_gap: what the share differs by between the two, as far as the search saw.
    """

    price_j: float
    lower_price_j: float | None = None
    lower_part: float = 0.0
    share_gap: float = 0.0

    def corrected(self, lacks: float) -> "Mixture":
        """A share larger by `lacks`, as far as it goes with the part; where nothing is mixed, a dearer miss."""
        if self.lower_price_j is None or (self.lower_part <= 0 and lacks > 0):
            return Mixture(self.price_j * _DEARER) if lacks > 0 else self
        part = min(max(self.lower_part - lacks / self.share_gap, 0.0), 1.0)
        return replace(self, lower_part=part)


@dataclass(frozen=True)
class Wanted:
    """A share that is to be kept on any ten runs.

    Attributes:
        slo_share: of the requests.
        margin: that is aimed at above it; None: two standard errors of a mean over ten runs.
        duration_s: of a run.
    """

    slo_share: float
    margin: float | None
    duration_s: float

    def margin_of(self, trial: Trial) -> float:
        """Aimed at above the share, by the spread between the trial's runs."""
        if self.margin is not None:
            return self.margin
        standard_error = trial.run_sd * math.sqrt(3600.0 / min(self.duration_s, 3600.0) / _RUNS_TO_KEEP)
        # Never more than half of what is left to all requests.
        return min(2 * standard_error, (1 - self.slo_share) / 2)

    def lack(self, trial: Trial) -> float:
        """By how much its share is too small; below 0: larger than is wanted."""
        return self.slo_share + self.margin_of(trial) - trial.slo_share

    def is_met(self, trial: Trial) -> bool:
        """Whether the trial has the share and the margin."""
        return self.lack(trial) <= 0


def infeasible(case: ServingCase, wanted: float, best_share: float, why: str) -> InfeasibleSloError:
    """What is told of a case that cannot be met, and why."""
    return InfeasibleSloError(
        f"At best {best_share:.1%} of requests can be met within {case.slo_s:g} s at "
        f"{case.arrivals.mean_rate_per_s:g} requests per second, not {wanted:.1%}; {why}. Ask for "
        "less, for a longer SLO, or for fewer requests.",
        best_share=best_share,
    )


class Search:
    """Of one case. Arguments as of `control.planner.plan`."""

    def __init__(
        self, case: ServingCase, seed: int, looks_ahead: bool, n_requests: int, on_progress: Callable[[str], None]
    ) -> None:
        self.case, self.seed, self.looks_ahead, self.on_progress = case, seed, looks_ahead, on_progress
        self.model = PlanModel(case)
        self.last: Solution | None = None
        self.plans: dict[float, Plan] = {}
        self.trials: list[Trial] = []
        arrivals = case.arrivals
        if arrivals.kind == "trace":
            arrivals = ArrivalSpec(rate_per_s=arrivals.mean_rate_per_s)
        # An hour at most: longer runs say no more than more of them.
        self.true_case = replace(case, arrivals=arrivals, duration_s=min(case.duration_s, 3600.0))
        per_run = self.model.rate_per_s * self.true_case.duration_s
        self.n_runs = min(max(math.ceil(n_requests / per_run), _FEWEST_RUNS), _MOST_RUNS)

    @property
    def usual_price_j(self) -> float:
        """Twice the energy of a request where each batch takes what arrives in half an SLO."""
        batch = min(max(1, round(self.model.rate_per_s * self.case.slo_s / 2)), self.case.batch_limit)
        return 2 * float(self.case.table.energy_j[:, batch - 1].min()) / batch

    def plan_of(self, price_j: float) -> Plan:
        """The plan of a price, solved once."""
        if price_j not in self.plans:
            # From the price before: it settles in fewer sweeps.
            self.last = self.model.solve(price_j, self.last)
            self.plans[price_j] = self._plan_of(self.last)
        return self.plans[price_j]

    def trial(self, price_j: float) -> Trial:
        """Run the plan of a price on the searching seeds."""
        trial = self._run(Mixture(price_j), self._seeds(_SEARCH_SEEDS, self.n_runs))
        self.trials.append(trial)
        return trial

    def trial_of(self, price_j: float) -> Trial:
        """The trial of a price, of the nearest where there was none."""
        return min(self.trials, key=lambda each: abs(each.price_j - price_j))

    def check(self, mixture: Mixture) -> Trial:
        """Run it on seeds that the search has not seen."""
        return self._run(mixture, self._seeds(_CHECK_SEEDS, _CHECK_RUNS * self.n_runs))

    def cheapest(self, first: Trial, wanted: Wanted) -> Mixture:
        """What meets what is wanted for the least energy; else the nearest to it that keeps the share."""
        low, high = (None, first) if wanted.is_met(first) else (first, None)
        factor = 2.0
        for _ in range(_MOST_BRACKETS):
            if low is not None and high is not None:
                break
            edge = high or low
            assert edge is not None
            if edge.price_j < _CHEAP * self.usual_price_j:
                return Mixture(edge.price_j)  # misses cost next to nothing, and there are hardly any all the same
            trial = self.trial(edge.price_j / factor if high is not None else edge.price_j * factor)
            if wanted.is_met(trial):
                high = trial
            else:
                is_at_best = (
                    trial.price_j > _DEAR * self.usual_price_j and trial.slo_share < edge.slo_share + _NO_BETTER
                )
                low = trial
                if is_at_best and high is None:
                    break
            factor = min(factor * 2, 16.0)
        if high is None:
            best = max(self.trials, key=lambda each: each.slo_share)
            if best.slo_share < wanted.slo_share:
                raise infeasible(
                    self.case,
                    wanted.slo_share,
                    best.slo_share,
                    f"and that for {best.energy_per_request_j:.4g} J a request",
                )
            return Mixture(best.price_j)
        while low is not None and high.price_j > low.price_j * _NEAR_ENOUGH:
            trial = self.trial(math.sqrt(low.price_j * high.price_j))
            if wanted.is_met(trial):
                high = trial
            else:
                low = trial
        return self._least(wanted)

    def _least(self, wanted: Wanted) -> Mixture:
        """Of all trials and of the mixtures of two: the lower hull of energy over the share, where it is wanted."""
        meeting = [each for each in self.trials if wanted.is_met(each)]
        best = min(meeting, key=lambda each: each.energy_per_request_j)
        least_j, found = best.energy_per_request_j, Mixture(best.price_j)
        for upper in meeting:
            for lower in self.trials:
                gap = upper.slo_share - lower.slo_share
                if wanted.is_met(lower) or gap <= 0 or lower.energy_per_request_j >= upper.energy_per_request_j:
                    continue
                part = min(-wanted.lack(upper) / gap, 1.0)
                energy_j = upper.energy_per_request_j + part * (lower.energy_per_request_j - upper.energy_per_request_j)
                if energy_j < least_j:
                    least_j, found = energy_j, Mixture(upper.price_j, lower.price_j, part, gap)
        return found

    def as_plan(self, mixture: Mixture, about: dict[str, object]) -> Plan:
        """The plan of a mixture, with more about it."""
        plan = self.plan_of(mixture.price_j)
        plan = replace(plan, about={**plan.about, **about})
        if mixture.lower_price_j is None or mixture.lower_part <= 0:
            return plan
        return replace(plan, other=self.plan_of(mixture.lower_price_j), other_part=mixture.lower_part)

    def _plan_of(self, solution: Solution) -> Plan:
        case, table = self.case, self.case.table
        arrivals = case.arrivals
        stored = {
            "table": table.source,
            "arrivals": f"planned for Poisson at {self.model.rate_per_s:g} per second; the case's are {arrivals.kind}",
            "wait_s": case.wait_s,
            "queue_limit": case.queue_limit,
            "switch_energy_j": case.joules_per_switch,
            "model_cost_per_request_j": solution.gain_w / self.model.rate_per_s,
            "n_sweeps": solution.n_sweeps,
            "residual_j": solution.residual_j,
        }
        return Plan(
            action_set=self.model.action_set,
            table_sha256=table.sha256,
            slo_s=case.slo_s,
            rate_per_s=self.model.rate_per_s,
            switch_s=case.switch_s,
            switch_energy_j=case.joules_per_switch,
            idle_power_w=case.idle_power_w,
            price_j=solution.price_j,
            gain_w=solution.gain_w,
            step_s=self.model.step_s,
            grid_actions=solution.grid_actions,
            serve_value_j=solution.serve_value_j,
            latency_s=self.model.latency_s,
            longer_value_j=solution.values_j[:, self.model.latency_s.shape[0] :].astype(np.float32),
            part_energy_j=self.model.part_energy_j,
            looks_ahead=self.looks_ahead,
            about=stored,
        )

    def _seeds(self, purpose: int, n: int) -> Sequence[int]:
        drawn = np.random.SeedSequence(self.seed, spawn_key=(purpose,)).generate_state(n, np.uint64)
        return [int(each) for each in drawn]

    def _run(self, mixture: Mixture, seeds: Sequence[int]) -> Trial:
        price_j = mixture.price_j
        policy = PlannedPolicy(self.as_plan(mixture, {}), self.case.table)
        outcomes = [simulate(self.true_case, policy, seed) for seed in seeds]
        n_judged = sum(each.n_judged for each in outcomes)
        n_served = sum(each.n_served for each in outcomes)
        shares = [each.slo_share for each in outcomes if each.slo_share is not None]
        trial = Trial(
            price_j=price_j,
            slo_share=sum(each.n_met for each in outcomes) / max(n_judged, 1),
            energy_per_request_j=sum(each.energy_j for each in outcomes) / max(n_served, 1),
            run_sd=statistics.stdev(shares) if len(shares) > 1 else 0.0,
            n_runs=len(outcomes),
            n_requests=n_judged,
        )
        mixed = f", {mixture.lower_part:.0%} at {mixture.lower_price_j:.4g} J" if mixture.lower_price_j else ""
        self.on_progress(
            f"price {price_j:.4g} J{mixed}: {trial.energy_per_request_j:.2f} J, {trial.slo_share:.2%} of {n_judged} "
            "in time"
        )
        return trial
