"""Batch after batch on the simulated board with a chooser, and what happens when the fan stops."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contract.errors import UsageError
from testbed.edge_control.case import EdgeCase
from testbed.edge_control.choosers import Chooser
from testbed.simulation.orin import BatchRun, BoardState, OrinSetting

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stretch:
    """Some of the batches, summed up.

    Attributes:
        n_batches: how many.
        throughput_per_s: tokens over all time, gaps with it.
        energy_per_token_j: J.
        reward_mean: of the batches.
        hottest_c: at the end of a batch.
        violation_s: time above the temperature limit, all of it.
        longest_violation_s: without a break.
        slowest_s: longest latency of a batch.
    """

    n_batches: int
    throughput_per_s: float
    energy_per_token_j: float
    reward_mean: float
    hottest_c: float
    violation_s: float
    longest_violation_s: float
    slowest_s: float


@dataclass(frozen=True, eq=False)
class Drive:
    """What came of it.

    Attributes:
        before: the fan stopped; None: from the start.
        after: it stopped; None: it did not.
        late: the last third of what is after it, when the board is as warm as it gets; None: there is none.
        choices: (batches, heads).
        temps_c: at the end of each batch.
        choosing_s: time for all choices, on this machine.
        simulated_s: time of all batches.
    """

    before: Stretch | None
    after: Stretch | None
    late: Stretch | None
    choices: Ints
    temps_c: npt.NDArray[np.float64]
    choosing_s: float
    simulated_s: float

    @property
    def overhead(self) -> float:
        """Time of choosing over the time of the batches."""
        return self.choosing_s / self.simulated_s


def drive(
    case: EdgeCase,
    chooser: Chooser,
    n_batches: int,
    *,
    fan_off_at: int | None,
    seed: int,
    start_c: float = 60.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Drive:
    """Run batches, and stop the fan.

    Args:
        case: the problem.
        chooser: of settings.
        n_batches: in all.
        fan_off_at: number of the first batch without the fan; None: it runs on.
        seed: of the noise.
        start_c: temperature at the start.
        clock: for the time that choices take.

    Raises:
        UsageError: no batches, or a fan that stops when all is over.
    """
    if n_batches < 1 or (fan_off_at is not None and not 0 <= fan_off_at < n_batches):
        raise UsageError(f"the fan stops at batch {fan_off_at} of {n_batches}; give one of 0 to {n_batches - 1}.")
    rng, state = np.random.default_rng(seed), BoardState(start_c)
    runs: list[BatchRun] = []
    choices: list[Ints] = []
    choosing_s = 0.0
    for number in range(n_batches):
        state.is_fan_on = fan_off_at is None or number < fan_off_at
        began = clock()
        choice = chooser.choose(state)
        choosing_s += clock() - began
        choices.append(choice)
        runs.append(case.board.run(case.setting(choice), state, rng))
    settings = [case.setting(choice) for choice in choices]
    split = n_batches if fan_off_at is None else fan_off_at
    late = n_batches - (n_batches - split) // 3
    return Drive(
        _stretch(case, runs[:split], settings[:split]) if split else None,
        _stretch(case, runs[split:], settings[split:]) if split < n_batches else None,
        _stretch(case, runs[late:], settings[late:]) if late < n_batches else None,
        np.stack(choices),
        np.array([run.temp_c for run in runs]),
        choosing_s,
        state.time_s,
    )


def _stretch(case: EdgeCase, runs: list[BatchRun], settings: list[OrinSetting]) -> Stretch:
    limit_c = case.reward.limits.temp_c
    longest_s = current_s = total_s = 0.0
    for run in runs:
        # The whole batch counts, though the limit was passed somewhere within it.
        current_s = current_s + run.duration_s if run.temp_c > limit_c else 0.0
        total_s += run.duration_s if run.temp_c > limit_c else 0.0
        longest_s = max(longest_s, current_s)
    n_tokens = sum(float(run.service.n_prompt_tokens + run.service.n_output_tokens) for run in runs)
    rewards = [case.reward_of_run(run, setting.exit_layer) for run, setting in zip(runs, settings, strict=True)]
    return Stretch(
        len(runs),
        n_tokens / sum(run.duration_s for run in runs),
        sum(float(run.service.energy_j) for run in runs) / n_tokens,
        float(np.mean(rewards)),
        max(run.temp_c for run in runs),
        total_s,
        longest_s,
        max(float(run.service.latency_s) for run in runs),
    )
