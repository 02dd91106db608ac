"""What a learned policy sees: an `Observation` as a short vector, the same in the simulator and on the testbed."""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError
from testbed.policies.base import Observation
from testbed.simulation.service_table import ServiceTable

FEATURES_VERSION = 1
"""Rises with every change of meaning: a policy file of another version is refused."""

RATE_WINDOW_S = 60.0

POSITIONS = (1, 2, 4, 8, 16, 32)
"""Queue positions whose waits are told, the head being 0. A batch is cut at its tail, so the later ones matter too."""

FEATURE_NAMES = (
    "queue_log",
    "queue_share",
    "clock",
    "head_wait",
    "slack_slowest",
    "slack_cheapest",
    "slack_fastest",
    *(f"wait_{position}" for position in POSITIONS),
    "newest_wait",
    "arrival_rate",
)
N_FEATURES = len(FEATURE_NAMES)

MOST_WAIT = 2.0
"""Waits are told in SLOs, up to this many."""


class ArrivalRate:
    """Recent arrivals per second: counts and seconds, both fading, one over the other.

    Each boundary fades what was before it by window / (window + elapsed): an exponential average without the
    exponential, so that two implementations agree to the last bit.

    Args:
        window_s: how far back it looks, roughly.
    """

    def __init__(self, window_s: float = RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._count = 0.0
        self._seconds = 0.0

    def observe(self, elapsed_s: float, n_arrived: int) -> None:
        """So many arrived, the lost ones too, in so long since the last call."""
        fade = self._window_s / (self._window_s + elapsed_s)
        self._count = (self._count + n_arrived) * fade
        self._seconds = (self._seconds + elapsed_s) * fade

    @property
    def per_s(self) -> float | None:
        """None before any time has passed."""
        return self._count / self._seconds if self._seconds > 0 else None


@dataclass(frozen=True)
class FeatureSpec:
    """What the vector is taken relative to. A policy file carries it.

    Attributes:
        slo_s: the objective.
        queue_limit: requests that may be queued.
        lowest_mhz: lowest clock of the table.
        highest_mhz: highest clock of the table.
        slowest_s: latency of a batch of 1, 2, ... at the lowest clock.
        cheapest_s: latency of a batch of 1, 2, ... at the clock that needs least energy for it.
        fastest_s: latency of a batch of 1, 2, ... at the clock that is fastest for it.
    """

    slo_s: float
    queue_limit: int
    lowest_mhz: float
    highest_mhz: float
    slowest_s: tuple[float, ...]
    cheapest_s: tuple[float, ...]
    fastest_s: tuple[float, ...]

    @classmethod
    def of(cls, table: ServiceTable, slo_s: float, queue_limit: int, max_batch: int | None = None) -> Self:
        """The spec of a case.

        Args:
            table: of the device.
            slo_s: the objective, seconds.
            queue_limit: requests that may be queued.
            max_batch: largest batch allowed; None: the table's.
        """
        latency = table.latency_s[:, :max_batch]
        cheapest = table.energy_j[:, :max_batch].argmin(axis=0)
        return cls(
            slo_s=slo_s,
            queue_limit=queue_limit,
            lowest_mhz=float(table.clock_mhz[0]),
            highest_mhz=float(table.clock_mhz[-1]),
            slowest_s=tuple(latency[0].tolist()),
            cheapest_s=tuple(latency[cheapest, np.arange(latency.shape[1])].tolist()),
            fastest_s=tuple(latency.min(axis=0).tolist()),
        )

    def to_json(self) -> dict[str, Any]:
        """For a policy file."""
        return {
            "version": FEATURES_VERSION,
            "slo_s": self.slo_s,
            "queue_limit": self.queue_limit,
            "lowest_mhz": self.lowest_mhz,
            "highest_mhz": self.highest_mhz,
            "slowest_s": list(self.slowest_s),
            "cheapest_s": list(self.cheapest_s),
            "fastest_s": list(self.fastest_s),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """Back from `to_json`.

        Raises:
            InvalidOptionError: another version, or a value is missing.
        """
        if stored.get("version") != FEATURES_VERSION:
            raise InvalidOptionError(
                f"the policy sees features of version {stored.get('version')!r}, this program makes version "
                f"{FEATURES_VERSION}. Train it again."
            )
        try:
            return cls(
                slo_s=float(stored["slo_s"]),
                queue_limit=int(stored["queue_limit"]),
                lowest_mhz=float(stored["lowest_mhz"]),
                highest_mhz=float(stored["highest_mhz"]),
                slowest_s=tuple(map(float, stored["slowest_s"])),
                cheapest_s=tuple(map(float, stored["cheapest_s"])),
                fastest_s=tuple(map(float, stored["fastest_s"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidOptionError(f"the policy's features cannot be read ({error!r}). Train it again.") from error


def features(observation: Observation, spec: FeatureSpec) -> npt.NDArray[np.float32]:
    """The vector of an observation.

    All are relative to the SLO or to a limit, so that a network sees numbers near 1: `queue_log` and `queue_share` are
    the queue's length over its limit (logarithmic, linear), 0 to 1; `clock` is 0 at the lowest, 1 at the highest;
    `slack_*` is what is left of the head's SLO if all queued, as far as one batch takes them, were served now at the
    lowest, the cheapest or the fastest clock, -1 to 1, a change of the clock not counted; `wait_k` is the wait of
    queue position k over the SLO, 0 to 2, and 0 where the queue is shorter; `newest_wait` that of the last one;
    `arrival_rate` is expected arrivals in one SLO over the queue's limit (logarithmic), 0 to 1, and 0 where not known.

    Returns:
        (N_FEATURES,), in the order of `FEATURE_NAMES`. All 0 but for the clock and rate where the queue is empty.
    """
    waits, slo_s = observation.waits_s, spec.slo_s
    n = len(waits)
    most = math.log1p(spec.queue_limit)
    rate = observation.arrival_rate_per_s or 0.0
    vector = np.zeros(N_FEATURES)
    vector[0] = min(math.log1p(n) / most, 1.0)
    vector[1] = min(n / spec.queue_limit, 1.0)
    vector[2] = (observation.clock_mhz - spec.lowest_mhz) / (spec.highest_mhz - spec.lowest_mhz)
    vector[-1] = min(math.log1p(rate * slo_s) / most, 1.0)
    if n:
        batch = min(n, len(spec.fastest_s)) - 1
        latencies = (spec.slowest_s[batch], spec.cheapest_s[batch], spec.fastest_s[batch])
        vector[3] = min(waits[0] / slo_s, MOST_WAIT)
        vector[4:7] = [max(-1.0, 1 - (waits[0] + latency) / slo_s) for latency in latencies]
        vector[7:-2] = [min(waits[each] / slo_s, MOST_WAIT) if each < n else 0.0 for each in POSITIONS]
        vector[-2] = min(waits[-1] / slo_s, MOST_WAIT)
    return vector.astype(np.float32)
