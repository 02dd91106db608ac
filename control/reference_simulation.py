"""A server with a queue, event by event: slow, and plain enough to be read against the rules. The yardstick of others.

The rules, all of them:

- Requests arrive at their true times and queue in that order. At a full queue a request is lost.
- At a boundary with a queue, the policy serves a batch from the head or waits. A batch is min(chosen, queued)
  requests; it leaves the queue when it is chosen.
- Another clock than the one that is set is set first: `switch_s` without service. The first clock is the highest.
- A batch takes and draws what its row of the table says; all its requests end with it.
- With an empty queue, time goes to the next arrival.
- After the last arrival the queue is served to its end (`drain`). A policy that then waits though the head's
  deadline has passed is not going to serve: it ends there, and what is queued is unfinished.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from contract.errors import InvalidOptionError
from control.outcome import DecisionRecord, RequestRecord, ServingOutcome, latency_figures
from control.serving_case import MIN_WAIT_S, ServingCase
from testbed.policies.base import Decision, Observation, Policy, Wait
from testbed.policies.features import ArrivalRate
from testbed.simulation.arrivals import draw_arrivals


def simulate(
    case: ServingCase,
    policy: Policy,
    seed: int,
    *,
    keep_records: bool = False,
    clock: Callable[[], float] = time.perf_counter,
    on_progress: Callable[[float], None] | None = None,
) -> ServingOutcome:
    """Serve a case with a policy, once.

    Args:
        case: the problem.
        policy: is reset first.
        seed: of the arrivals, and of nothing else: there is no other chance in it.
        keep_records: keep a record of every request and every decision.
        clock: for the time that decisions take, seconds.
        on_progress: is told the simulated time now and then, seconds.

    Raises:
        InvalidOptionError: the policy chose a clock or a batch that there is not, or waits where that is not allowed.
    """
    began = clock()
    run = _Run(case, policy, draw_arrivals(case.arrivals, case.duration_s, seed).tolist(), clock)
    policy.reset()
    for n_steps, record in enumerate(run.steps()):
        run.decisions.append(record)
        if on_progress is not None and n_steps % 256 == 0:
            on_progress(run.time_s)
    return run.outcome(seed, keep_records=keep_records, wall_s=clock() - began)


@dataclass
class _Run:
    case: ServingCase
    policy: Policy
    arrivals_s: list[float]
    clock: Callable[[], float]
    time_s: float = 0.0
    n_seen: int = 0
    n_lost: int = 0
    is_given_up: bool = False
    queue: deque[int] = field(default_factory=deque)
    requests: dict[int, RequestRecord] = field(default_factory=dict)
    decisions: list[DecisionRecord] = field(default_factory=list)
    decision_s: list[float] = field(default_factory=list)
    n_switches: int = 0
    busy_s: float = 0.0
    study_j: float = 0.0
    leading_idle_j: float = 0.0
    rate: ArrivalRate = field(default_factory=ArrivalRate)
    rate_until: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        self.clock_mhz = float(self.case.table.clock_mhz[-1])
        self.clocks_mhz = set(self.case.table.clock_mhz.tolist())

    def steps(self) -> Iterator[DecisionRecord]:
        """Each decision with what follows from it, to the end."""
        self.leading_idle_j = idle_j = self._idle_to_next()
        while self.queue and not self._is_over():
            begin_s, n_queued, n_lost = self.time_s, len(self.queue), self.n_lost
            choice = self._decide()
            clock_mhz: float | None = None
            n_served, n_late, service_j, switch_j = 0, 0, 0.0, 0.0
            if isinstance(choice, Decision):
                clock_mhz = choice.clock_mhz
                if clock_mhz != self.clock_mhz:
                    self.n_switches += 1
                    self.time_s += self.case.switch_s
                    switch_j = self.case.joules_per_switch
                    self.clock_mhz = clock_mhz
                n_served, n_late, service_j = self._serve(choice)
            elif self._waits_for_nothing():
                self.is_given_up = True
            else:
                self.time_s += choice.seconds
                idle_j += self.case.idle_power_w * choice.seconds
            self._admit()
            idle_j += self._idle_to_next()
            yield DecisionRecord(
                time_s=begin_s,
                n_queued=n_queued,
                clock_mhz=clock_mhz,
                n_served=n_served,
                n_late=n_late,
                n_lost=self.n_lost - n_lost,
                n_unfinished_missed=self._unfinished_missed() if self._is_over() else 0,
                service_j=service_j,
                switch_j=switch_j,
                idle_j=idle_j,
                duration_s=self.time_s - begin_s,
            )
            idle_j = 0.0

    def _admit(self) -> None:
        """Queue the arrivals up to now."""
        while self.n_seen < len(self.arrivals_s) and self.arrivals_s[self.n_seen] <= self.time_s:
            if len(self.queue) < self.case.queue_limit:
                self.queue.append(self.n_seen)
            else:
                self.n_lost += 1
                self.requests[self.n_seen] = self._unserved(self.n_seen, is_lost=True)
            self.n_seen += 1

    def _idle_to_next(self) -> float:
        """With an empty queue go on to the next arrival, or to the end; joules on the way."""
        if self.queue:
            return 0.0
        begin_s = self.time_s
        if self.n_seen < len(self.arrivals_s):
            self.time_s = self.arrivals_s[self.n_seen]
            self._admit()
        else:
            self.time_s = max(self.time_s, self.case.duration_s)
        return self.case.idle_power_w * (self.time_s - begin_s)

    def _decide(self) -> Decision | Wait:
        since_s, n_then = self.rate_until
        self.rate.observe(self.time_s - since_s, self.n_seen - n_then)
        self.rate_until = self.time_s, self.n_seen
        observation = Observation(
            waits_s=tuple(self.time_s - self.arrivals_s[each] for each in self.queue),
            clock_mhz=self.clock_mhz,
            n_input_tokens=self._lengths(self.case.table.n_input_tokens),
            n_output_tokens=self._lengths(self.case.table.n_output_tokens),
            arrival_rate_per_s=self.rate.per_s,
        )
        began = self.clock()
        choice = self.policy.decide(observation)
        self.decision_s.append(self.clock() - began)
        self._check(choice)
        return choice

    def _lengths(self, n_tokens: int | None) -> tuple[int, ...] | None:
        return None if n_tokens is None else (n_tokens,) * len(self.queue)

    def _check(self, choice: Decision | Wait) -> None:
        who, limit = self.policy.name, self.case.batch_limit
        if isinstance(choice, Wait):
            if self.case.wait_s is None:
                raise InvalidOptionError(f"policy {who} waits, but this case has none: give the case a wait_s.")
            if not MIN_WAIT_S <= choice.seconds < math.inf:
                raise InvalidOptionError(f"policy {who} waits {choice.seconds} s; {MIN_WAIT_S} s or more are allowed.")
        elif choice.clock_mhz not in self.clocks_mhz:
            raise InvalidOptionError(
                f"policy {who} chose {choice.clock_mhz:g} MHz, which {self.case.table.source} does not have. "
                "Use the policy with the table that it was made for."
            )
        elif not 1 <= choice.max_batch <= limit:
            raise InvalidOptionError(f"policy {who} chose a batch of {choice.max_batch}; 1 to {limit} are allowed.")

    def _serve(self, choice: Decision) -> tuple[int, int, float]:
        """Serve a batch from the head; how many, how many of them late, joules."""
        table = self.case.table
        batch = [self.queue.popleft() for _ in range(min(choice.max_batch, len(self.queue)))]
        row, column = table.row(choice.clock_mhz), table.column(len(batch))
        start_s, latency_s = self.time_s, float(table.latency_s[row, column])
        energy_j = float(table.energy_j[row, column])
        self.time_s += latency_s
        self.busy_s += latency_s
        self.study_j += len(batch) * energy_j
        for each in batch:
            self.requests[each] = RequestRecord(
                arrival_s=self.arrivals_s[each],
                start_s=start_s,
                finish_s=self.time_s,
                batch_size=len(batch),
                clock_mhz=choice.clock_mhz,
                energy_j=energy_j / len(batch),
                is_lost=False,
                is_met=self.time_s - self.arrivals_s[each] <= self.case.slo_s,
            )
        n_late = sum(not self.requests[each].is_met for each in batch)
        return len(batch), n_late, energy_j

    def _waits_for_nothing(self) -> bool:
        """Nothing can arrive any more, and the head's deadline is past."""
        return self.time_s >= self.case.duration_s and self._head_wait_s() > self.case.slo_s

    def _head_wait_s(self) -> float:
        return self.time_s - self.arrivals_s[self.queue[0]]

    def _is_over(self) -> bool:
        return self.is_given_up or (not self.case.drain and self.time_s >= self.case.duration_s)

    def _unfinished_missed(self) -> int:
        """Of those queued at the end: given up, deadline past, or too late even for the fastest batch at once."""
        if self.is_given_up:
            return len(self.queue)
        soonest_s = self.time_s + self.case.floor_latency_s
        return sum(soonest_s - self.arrivals_s[each] > self.case.slo_s for each in self.queue)

    def _unserved(self, number: int, *, is_lost: bool) -> RequestRecord:
        return RequestRecord(self.arrivals_s[number], None, None, None, None, None, is_lost=is_lost, is_met=False)

    def outcome(self, seed: int, *, keep_records: bool, wall_s: float) -> ServingOutcome:
        """Everything added up, in the order of the decisions."""
        served = [each for each in self.requests.values() if each.finish_s is not None]
        latencies = np.array([each.finish_s - each.arrival_s for each in served if each.finish_s is not None])
        mean_s, p50_s, p99_s = latency_figures(latencies)
        for number in self.queue:
            self.requests[number] = self._unserved(number, is_lost=False)
        idle_j = sum(each.idle_j for each in self.decisions) if self.decisions else self.leading_idle_j
        return ServingOutcome(
            policy=self.policy.name,
            seed=seed,
            n_arrived=len(self.arrivals_s),
            n_served=len(served),
            n_met=sum(each.is_met for each in served),
            n_lost=self.n_lost,
            n_unfinished=len(self.queue),
            n_unfinished_missed=self._unfinished_missed() if self._is_over() else 0,
            service_energy_j=sum(each.service_j for each in self.decisions),
            study_energy_j=self.study_j,
            switch_energy_j=sum(each.switch_j for each in self.decisions),
            idle_energy_j=idle_j,
            latency_mean_s=mean_s,
            latency_p50_s=p50_s,
            latency_p99_s=p99_s,
            end_s=self.time_s,
            busy_s=self.busy_s,
            n_decisions=len(self.decision_s),
            n_waits=sum(each.clock_mhz is None for each in self.decisions),
            n_switches=self.n_switches,
            decision_mean_s=float(np.mean(self.decision_s)) if self.decision_s else None,
            decision_max_s=max(self.decision_s, default=None),
            wall_s=wall_s,
            requests=tuple(self.requests[each] for each in sorted(self.requests)) if keep_records else None,
            decisions=tuple(self.decisions) if keep_records else None,
        )
