"""The planning reference: the least energy at which a share of requests meets its deadline, and a policy that does it.

`control.plan_model` solves a case for a price of a miss. The price that keeps the wanted share is found on the true
simulation, by bisection over runs with seeds of the planner's own, and the plan is then checked on other seeds. What is
aimed at is the share and a margin: two standard errors of a mean over ten runs of the case's length, from the spread
between runs that is seen, so that runs on yet other seeds keep the share too. Price, margin and what the check
came to are stored with the plan.
"""

from collections.abc import Callable
from dataclasses import asdict

from control.plan_search import InfeasibleSloError, Mixture, Search, Wanted, infeasible
from control.serving_case import ServingCase
from testbed.policies.plan import Plan
from testbed.policies.planned_policy import PlannedPolicy

__all__ = ["InfeasibleSloError", "Plan", "PlannedPolicy", "plan", "plan_for_price"]

_MOST_CORRECTIONS = 6
_NEAR_SHARE = 0.02


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
        raise infeasible(case, slo_share, 0.0, f"the fastest batch takes {case.floor_latency_s:.3g} s")
    search = Search(case, seed, looks_ahead, n_requests, on_progress)
    wanted = Wanted(slo_share, margin, case.duration_s)
    found = search.cheapest(search.trial(search.usual_price_j), wanted)
    checked = search.check(found)
    for _ in range(_MOST_CORRECTIONS):
        lacks = wanted.lack(checked)
        if -_NEAR_SHARE * (1 - slo_share) <= lacks <= 0 or not wanted.is_met(search.trial_of(found.price_j)):
            break
        corrected = found.corrected(lacks)
        if corrected == found:
            break
        found, checked = corrected, search.check(corrected)
    about = {
        "slo_share": slo_share,
        "margin": wanted.margin_of(checked),
        "found_by": asdict(search.trial_of(found.price_j)),
        "checked": asdict(checked),
        "is_kept": checked.slo_share >= slo_share,
        "mixed": asdict(found),
        "seed": seed,
        "n_prices": len(search.trials),
    }
    return search.as_plan(found, about)


def plan_for_price(case: ServingCase, price_j: float, *, looks_ahead: bool = True) -> Plan:
    """Plan with a given price of a miss; nothing is simulated.

    Args:
        case: the problem.
        price_j: joules that a miss is worth.
        looks_ahead: see `plan`.
    """
    search = Search(case, 0, looks_ahead, 1, lambda _: None)
    return search.as_plan(Mixture(price_j), {})
