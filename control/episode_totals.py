"""What the copies of a vectorised environment have added up in their running episodes."""

import numpy as np
import numpy.typing as npt

from control.outcome import ServingOutcome

Floats = npt.NDArray[np.float64]


class Total:
    """Rows of a step's figures, and of their sums. Plain numbers: an enumeration's cost a step of 64 copies a tenth."""

    SERVICE_J = 0
    STUDY_J = 1
    SWITCH_J = 2
    IDLE_J = 3
    BUSY_S = 4
    SERVED = 5
    LATE = 6
    LOST = 7
    WAITS = 8
    SWITCHES = 9
    STEPS = 10
    N = 11


class EpisodeTotals:
    """Sums of every figure, for each of N copies. They are added step by step, as the reference adds them.

    Args:
        n_copies: N.

    Attributes:
        sums: (Total.N, N).
    """

    def __init__(self, n_copies: int) -> None:
        self.sums: Floats = np.zeros((Total.N, n_copies))

    def add(self, figures: Floats) -> None:
        """Add (Total.N, N) of a step."""
        self.sums += figures

    def begin(self, copy: int, n_lost: int) -> None:
        """A new episode, with requests lost already before its first decision."""
        self.sums[:, copy] = 0.0
        self.sums[Total.LOST, copy] = n_lost

    def outcome(
        self, copy: int, *, seed: int, n_arrived: int, n_unfinished: int, n_left_missed: int, end_s: float
    ) -> ServingOutcome:
        """Of an episode that ended. Latencies and wall times are not measured, a policy is not known."""
        total = self.sums[:, copy].tolist()
        n_served = int(total[Total.SERVED])
        return ServingOutcome(
            policy="",
            seed=seed,
            n_arrived=n_arrived,
            n_served=n_served,
            n_met=n_served - int(total[Total.LATE]),
            n_lost=int(total[Total.LOST]),
            n_unfinished=n_unfinished,
            n_unfinished_missed=n_left_missed,
            service_energy_j=total[Total.SERVICE_J],
            study_energy_j=total[Total.STUDY_J],
            switch_energy_j=total[Total.SWITCH_J],
            idle_energy_j=total[Total.IDLE_J],
            latency_mean_s=None,
            latency_p50_s=None,
            latency_p99_s=None,
            end_s=end_s,
            busy_s=total[Total.BUSY_S],
            n_decisions=int(total[Total.STEPS]),
            n_waits=int(total[Total.WAITS]),
            n_switches=int(total[Total.SWITCHES]),
        )
