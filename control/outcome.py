"""What came of serving a case with a policy: energy in three definitions, the SLO, latencies, with denominators."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RequestRecord:
    """One request.

    Attributes:
        arrival_s: when it arrived.
        start_s: when the service of its batch began, after a change of the clock; None: lost, or unfinished.
        finish_s: when its batch ended; None: lost, or unfinished.
        batch_size: requests served with it; None: lost, or unfinished.
        clock_mhz: of its service; None: lost, or unfinished.
        energy_j: of its batch, divided by its size; None: lost, or unfinished.
        is_lost: it arrived at a full queue.
        is_met: finished within the SLO.
    """

    arrival_s: float
    start_s: float | None
    finish_s: float | None
    batch_size: int | None
    clock_mhz: float | None
    energy_j: float | None
    is_lost: bool
    is_met: bool


@dataclass(frozen=True)
class DecisionRecord:
    """One decision, and what happened until the next one; the vectorised environment tells the same for a step.

    Attributes:
        time_s: when it was made.
        n_queued: requests queued then.
        clock_mhz: chosen; None: it waited.
        n_served: requests served, 0 where it waited.
        n_late: of these, finished after the SLO.
        n_lost: requests that arrived at a full queue until the next decision.
        n_unfinished_missed: requests that the end left unserved, whose deadline is past or can no longer be met.
        service_j: of the batch.
        switch_j: of the change of the clock.
        idle_j: of waiting, and of the empty queue until the next decision. The first has the time before it too.
        duration_s: until the next decision, or the end.
    """

    time_s: float
    n_queued: int
    clock_mhz: float | None
    n_served: int
    n_late: int
    n_lost: int
    n_unfinished_missed: int
    service_j: float
    switch_j: float
    idle_j: float
    duration_s: float

    @property
    def energy_j(self) -> float:
        """All of it."""
        return self.service_j + self.switch_j + self.idle_j

    @property
    def n_missed(self) -> int:
        """Late, lost, and left unserved beyond their deadline."""
        return self.n_late + self.n_lost + self.n_unfinished_missed


@dataclass(frozen=True)
class ServingOutcome:
    """Of one run of a policy. `None`: there was nothing to take it of.

    Every request that arrived is served, lost or unfinished: `n_arrived = n_served + n_lost + n_unfinished`.

    Attributes:
        policy: its name.
        seed: of the arrivals.
        n_arrived: requests that arrived.
        n_served: requests whose batch ended.
        n_met: of these, finished within the SLO.
        n_lost: arrived at a full queue.
        n_unfinished: queued at the end.
        n_unfinished_missed: of these, deadline past, or not to be met even by the fastest batch at once.
        service_energy_j: of all batches.
        study_energy_j: sum over requests of the *whole* energy of their batch, as the study counts.
        switch_energy_j: of all changes of the clock.
        idle_energy_j: of waiting, and of the empty queue from 0 to `end_s`.
        latency_mean_s: completion minus arrival, over the served.
        latency_p50_s: median of it.
        latency_p99_s: 99th percentile of it, linear between neighbours.
        end_s: the end of the last batch, but `duration_s` at least.
        busy_s: time in service.
        n_decisions: of all kinds.
        n_waits: of these, waiting.
        n_switches: changes of the clock.
        decision_mean_s: wall time of one decision; None: not measured.
        decision_max_s: the longest; None: not measured.
        wall_s: wall time of the simulation; None: not measured.
        requests: in the order of arrival; None: not asked for.
        decisions: in order; None: not asked for.
    """

    policy: str
    seed: int
    n_arrived: int
    n_served: int
    n_met: int
    n_lost: int
    n_unfinished: int
    n_unfinished_missed: int
    service_energy_j: float
    study_energy_j: float
    switch_energy_j: float
    idle_energy_j: float
    latency_mean_s: float | None
    latency_p50_s: float | None
    latency_p99_s: float | None
    end_s: float
    busy_s: float
    n_decisions: int
    n_waits: int
    n_switches: int
    decision_mean_s: float | None = None
    decision_max_s: float | None = None
    wall_s: float | None = None
    requests: tuple[RequestRecord, ...] | None = None
    decisions: tuple[DecisionRecord, ...] | None = None

    @property
    def energy_j(self) -> float:
        """Service, switching and idling."""
        return self.service_energy_j + self.switch_energy_j + self.idle_energy_j

    @property
    def energy_per_request_j(self) -> float | None:
        """All energy over served requests. With idle power 0 it is batch energy / batch size, over the served."""
        return self._per_served(self.energy_j)

    @property
    def service_energy_per_request_j(self) -> float | None:
        """Batch energy / batch size, over served requests: without switching and idling."""
        return self._per_served(self.service_energy_j)

    @property
    def study_energy_per_request_j(self) -> float | None:
        """The study's own: each request is charged with its batch's whole energy, over served requests."""
        return self._per_served(self.study_energy_j)

    @property
    def n_judged(self) -> int:
        """Denominator of the SLO share: served, lost, and unfinished beyond their deadline."""
        return self.n_served + self.n_lost + self.n_unfinished_missed

    @property
    def slo_share(self) -> float | None:
        """Met over `n_judged`, 0 to 1."""
        return self.n_met / self.n_judged if self.n_judged else None

    @property
    def n_missed(self) -> int:
        """Judged and not met."""
        return self.n_judged - self.n_met

    @property
    def mean_batch(self) -> float | None:
        """Requests served over batches served."""
        n_batches = self.n_decisions - self.n_waits
        return self.n_served / n_batches if n_batches else None

    @property
    def throughput_per_s(self) -> float:
        """Served requests over `end_s`."""
        return self.n_served / self.end_s

    def figures(self) -> Mapping[str, str | int | float | None]:
        """Every figure by its name, without the records: a row of a table."""
        stored = {name: value for name, value in asdict(self).items() if name not in ("requests", "decisions")}
        return stored | {name: getattr(self, name) for name in _DERIVED}

    def _per_served(self, energy_j: float) -> float | None:
        return energy_j / self.n_served if self.n_served else None


_DERIVED = (
    "energy_j",
    "energy_per_request_j",
    "service_energy_per_request_j",
    "study_energy_per_request_j",
    "n_judged",
    "slo_share",
    "n_missed",
    "mean_batch",
    "throughput_per_s",
)


def latency_figures(latencies_s: Floats) -> tuple[float | None, float | None, float | None]:
    """Mean, median and 99th percentile, seconds; None each where there is none."""
    if not latencies_s.size:
        return None, None, None
    p50, p99 = np.percentile(latencies_s, [50, 99])
    return float(latencies_s.mean()), float(p50), float(p99)
