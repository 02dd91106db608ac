"""The planning reference: the least energy at which a share of requests meets its deadline, and a policy that does it.

`control.plan_model` solves a case for a price of a miss. The price that keeps the wanted share is found on the true
simulation, by bisection over runs with seeds of the planner's own, and the plan is then checked on other seeds. What is
aimed at is the share and a margin: two standard errors of a mean over ten runs of the case's length, from the spread
between runs that is seen, so that runs on yet other seeds keep the share too. Price, margin and what the check
came to are stored with the plan.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from contract.errors import JouleBedError
from control.plan_model import PlanModel, Solution
from control.reference_simulation import simulate
from control.serving_case import ServingCase
from testbed.policies.plan import Plan
from testbed.policies.planned_policy import PlannedPolicy
from testbed.simulation.arrivals import ArrivalSpec

__all__ = ["InfeasibleSloError", "Plan", "PlannedPolicy", "plan", "plan_for_price"]

_FEWEST_RUNS, _MOST_RUNS = 6, 16
_CHECK_RUNS = 3
_RUNS_TO_KEEP = 10
_NEAR_ENOUGH = 1.04
_MOST_BRACKETS = 12
_NO_BETTER = 0.001
_CHEAP, _DEAR = 0.005, 20.0
_MOST_CORRECTIONS = 6
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


def plan(
    case: ServingCase,
    slo_share: float = 0.98,
    *,
    seed: int = 0,
    looks_ahead: bool = True,
    margin: float | None = None,
    n_requests: int = 20_000,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Plan for a share of met deadlines.

    Args:
        case: the problem. Planned for Poisson arrivals at its mean rate; the price is found on its own arrivals, but
            for a trace, which is not planned on: Poisson arrivals stand in for it.
        slo_share: of the requests, to be met; above 0 and below 1.
        seed: of the planner's own runs; none of them is a run with a seed that a person would choose.
        looks_ahead: decide with the waits of all that are queued; else by the head's wait alone.
        margin: aim at so much more than `slo_share`; None: see above.
        n_requests: simulated for each price, about; the check has three times as many.
        on_progress: is told each step in words.

    Raises:
        InfeasibleSloError: no price meets it; the message says what can be met at best.
        ValueError: the share is not between 0 and 1.
    """
    if not 0 < slo_share < 1:
        raise ValueError(f"slo_share is {slo_share}; give a share above 0 and below 1.")
    if case.slo_s < case.floor_latency_s:
        raise _infeasible(case, slo_share, 0.0, f"the fastest batch takes {case.floor_latency_s:.3g} s")
    search = _Search(case, seed, looks_ahead, n_requests, on_progress)
    first = search.trial(search.usual_price_j)
    if margin is None:
        standard_error = first.run_sd * math.sqrt(3600.0 / min(case.duration_s, 3600.0) / _RUNS_TO_KEEP)
        # Never more than half of what is left to all requests.
        margin = min(2 * standard_error, (1 - slo_share) / 2)
    found = search.cheapest(first, slo_share + margin, slo_share)
    price_j = found.price_j
    checked = search.check(price_j)
    for _ in range(_MOST_CORRECTIONS):
        if checked.slo_share >= slo_share + margin / 2 or found.slo_share < slo_share + margin:
            break
        price_j *= 1.1
        checked = search.check(price_j)
    about = {
        "slo_share": slo_share,
        "margin": margin,
        "found_by": asdict(found),
        "checked": asdict(checked),
        "is_kept": checked.slo_share >= slo_share,
        "seed": seed,
        "n_prices": len(search.trials),
    }
    return search.as_plan(search.solve(price_j), about)


def plan_for_price(case: ServingCase, price_j: float, *, looks_ahead: bool = True) -> Plan:
    """Plan with a given price of a miss; nothing is simulated.

    Args:
        case: the problem.
        price_j: joules that a miss is worth.
        looks_ahead: see `plan`.
    """
    search = _Search(case, 0, looks_ahead, 1, lambda _: None)
    return search.as_plan(search.solve(price_j), {})


def _infeasible(case: ServingCase, wanted: float, best_share: float, why: str) -> InfeasibleSloError:
    return InfeasibleSloError(
        f"At best {best_share:.1%} of requests can be met within {case.slo_s:g} s at "
        f"{case.arrivals.mean_rate_per_s:g} requests per second, not {wanted:.1%}; {why}. Ask for "
        "less, for a longer SLO, or for fewer requests.",
        best_share=best_share,
    )


class _Search:
    def __init__(
        self, case: ServingCase, seed: int, looks_ahead: bool, n_requests: int, on_progress: Callable[[str], None]
    ) -> None:
        self.case, self.seed, self.looks_ahead, self.on_progress = case, seed, looks_ahead, on_progress
        self.model = PlanModel(case)
        self.last: Solution | None = None
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

    def solve(self, price_j: float) -> Solution:
        if self.last is None or self.last.price_j != price_j:
            self.last = self.model.solve(price_j, self.last)
        return self.last

    def trial(self, price_j: float) -> Trial:
        """Run the plan of a price on the searching seeds."""
        trial = self._run(price_j, self._seeds(_SEARCH_SEEDS, self.n_runs))
        self.trials.append(trial)
        return trial

    def check(self, price_j: float) -> Trial:
        """Run it on seeds that the search has not seen."""
        return self._run(price_j, self._seeds(_CHECK_SEEDS, _CHECK_RUNS * self.n_runs))

    def cheapest(self, first: Trial, target: float, least: float) -> Trial:
        """The lowest price found that meets the target; with none, the one that comes nearest and keeps `least`."""
        low, high = (None, first) if first.slo_share >= target else (first, None)
        factor = 2.0
        for _ in range(_MOST_BRACKETS):
            if low is not None and high is not None:
                break
            edge = high or low
            assert edge is not None
            if edge.price_j < _CHEAP * self.usual_price_j:
                return edge  # misses cost next to nothing, and there are hardly any all the same
            trial = self.trial(edge.price_j / factor if high is not None else edge.price_j * factor)
            if trial.slo_share >= target:
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
            if best.slo_share < least:
                raise _infeasible(
                    self.case, least, best.slo_share, f"and that for {best.energy_per_request_j:.4g} J a request"
                )
            return best
        while low is not None and high.price_j > low.price_j * _NEAR_ENOUGH:
            trial = self.trial(math.sqrt(low.price_j * high.price_j))
            if trial.slo_share >= target:
                high = trial
            else:
                low = trial
        return min(
            (each for each in self.trials if each.slo_share >= target), key=lambda each: each.energy_per_request_j
        )

    def as_plan(self, solution: Solution, about: dict[str, object]) -> Plan:
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
            idle_power_w=case.idle_power_w,
            price_j=solution.price_j,
            gain_w=solution.gain_w,
            step_s=self.model.step_s,
            grid_actions=solution.grid_actions,
            serve_value_j=solution.serve_value_j,
            latency_s=self.model.latency_s,
            longer_value_j=solution.values_j[:, self.model.latency_s.shape[0] :].astype(np.float32),
            looks_ahead=self.looks_ahead,
            about=stored | about,
        )

    def _seeds(self, purpose: int, n: int) -> Sequence[int]:
        drawn = np.random.SeedSequence(self.seed, spawn_key=(purpose,)).generate_state(n, np.uint64)
        return [int(each) for each in drawn]

    def _run(self, price_j: float, seeds: Sequence[int]) -> Trial:
        policy = PlannedPolicy(self.as_plan(self.solve(price_j), {}), self.case.table)
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
        self.on_progress(
            f"price {price_j:.4g} J: {trial.energy_per_request_j:.2f} J, {trial.slo_share:.2%} of {n_judged} in time"
        )
        return trial
