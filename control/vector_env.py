"""Many copies of a serving case at once: the rules of `control.reference_simulation`, step by step, without a loop."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError
from control.arrival_rows import ArrivalRows
from control.episode_totals import EpisodeTotals, Total
from control.feature_rows import PADDING, FeatureRows
from control.outcome import ServingOutcome
from control.serving_case import ServingCase, ServingCaseError
from testbed.policies.actions import ActionSet
from testbed.policies.base import Observation
from testbed.policies.features import RATE_WINDOW_S, FeatureSpec
from testbed.simulation.arrivals import draw_arrivals

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_EMPTY_TRIES = 1000

_STATE = (
    "_time_s", "_head", "_tail", "_clock", "_rate_count", "_rate_seconds", "_leading_idle_j", "_n_arrived"
)  # fmt: skip


def default_batches(max_batch: int) -> tuple[int, ...]:
    """Powers of two, and the largest."""
    powers = [1 << power for power in range(max_batch.bit_length()) if 1 << power < max_batch]
    return (*powers, max_batch)


def episode_seed(seed: int, episode: int) -> int:
    """Seed of the arrivals of a copy's n-th episode: the copy's own seed first, then drawn from it."""
    if episode == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(episode,)).generate_state(1, np.uint64)[0])


class StepResult(NamedTuple):
    """What a step of all N copies did; every array is the caller's to keep.

    Attributes:
        observations: (N, N_FEATURES) float32, of the next decision; a finished copy's is of its new episode.
        energy_j: (N,), service, switching and idling until the next decision.
        n_served: (N,), requests.
        n_missed: (N,), late, lost, or left unserved at the end.
        n_lost: (N,), of these, arrived at a full queue.
        duration_s: (N,), until the next decision, or the end.
        done: (N,), the episode ended with this step.
        episodes: copy and outcome of each episode that ended, in the order of the copies. Latencies and wall times
            are not measured here.
    """

    observations: npt.NDArray[np.float32]
    energy_j: Floats
    n_served: Floats
    n_missed: Floats
    n_lost: Floats
    duration_s: Floats
    done: Bools
    episodes: list[tuple[int, ServingOutcome]]


class VectorEnv:
    """N copies of a case. A copy that ends begins its next episode by itself.

    A copy's seed determines its arrivals, and these are all the chance there is: neither the other copies nor the
    actions change them. Its later episodes have seeds drawn from it, see `episode_seed`. An episode in which nothing
    arrives is passed over.

    Args:
        case: the problem.
        n_copies: N.
        batches: batch choices of the actions; None: powers of two up to the largest.

    Raises:
        InvalidOptionError: no copies, or a batch choice that the case does not have.
    """

    def __init__(self, case: ServingCase, n_copies: int, batches: Sequence[int] | None = None) -> None:
        if n_copies < 1:
            raise InvalidOptionError(f"{n_copies} copies; give 1 or more.")
        chosen = default_batches(case.batch_limit) if batches is None else tuple(int(each) for each in batches)
        if chosen and chosen[-1] > case.batch_limit:
            raise InvalidOptionError(
                f"a batch choice of {chosen[-1]}; the case has batches of 1 to {case.batch_limit}."
            )
        self.case = case
        self.n_copies = n_copies
        self.actions = ActionSet(tuple(case.table.clock_mhz.tolist()), chosen, case.wait_s)
        self.features = FeatureSpec.of(case.table, case.slo_s, case.queue_limit, case.max_batch)
        self._feature_rows = FeatureRows(self.features, case.table.clock_mhz)
        self._masks = self.actions.masks(case.queue_limit)
        self._make_tables()
        n = n_copies
        self._time_s = np.zeros(n)
        self._head, self._tail = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._clock = np.zeros(n, np.int64)
        self._rate_count, self._rate_seconds = np.zeros(n), np.zeros(n)
        self._leading_idle_j = np.zeros(n)
        self._totals = EpisodeTotals(n)
        self._n_arrived = np.zeros(n, np.int64)
        self._seeds = [0] * n
        self._episodes = [0] * n
        mean = case.arrivals.mean_rate_per_s * case.duration_s
        self._rows = ArrivalRows(n, case.duration_s, int(mean + 6 * mean**0.5) + 16, max(PADDING, case.batch_limit))

    def _make_tables(self) -> None:
        """Look-ups by action, by cell and by queue length."""
        case, actions = self.case, self.actions
        n_clocks, width = case.table.n_clocks, case.batch_limit + 1
        choices = [divmod(index, len(actions.batches)) for index in range(n_clocks * len(actions.batches))]
        self._action_clock = np.array([clock for clock, _ in choices])
        self._action_batch = np.array([actions.batches[batch] for _, batch in choices])
        # Cell (clock, batch), batch 0 included; waiting is one more clock, with batch 0 only.
        latency_s, energy_j = np.zeros((n_clocks + 1, width)), np.zeros((n_clocks + 1, width))
        latency_s[:-1, 1:] = case.table.latency_s[:, : width - 1]
        energy_j[:-1, 1:] = case.table.energy_j[:, : width - 1]
        if case.wait_s is not None:
            self._action_clock = np.append(self._action_clock, n_clocks)
            self._action_batch = np.append(self._action_batch, 0)
            latency_s[-1, 0] = case.wait_s
        self._waiting = n_clocks
        self._width = width
        self._latency_s, self._energy_j = latency_s.ravel(), energy_j.ravel()

    def reset(self, seeds: Sequence[int] | int = 0) -> npt.NDArray[np.float32]:
        """Begin anew.

        Args:
            seeds: one for each copy; a single number s means s, s + 1, ...

        Returns:
            (N, N_FEATURES), of the first decisions.

        Raises:
            InvalidOptionError: as many seeds as copies are needed, none below 0.
        """
        given = [seeds + copy for copy in range(self.n_copies)] if isinstance(seeds, int) else [int(s) for s in seeds]
        if len(given) != self.n_copies:
            raise InvalidOptionError(f"{len(given)} seeds for {self.n_copies} copies; give one for each.")
        self._seeds, self._episodes = given, [0] * self.n_copies
        for copy in range(self.n_copies):
            self._begin(copy)
        return self._observe()

    def next_episode(self, copy: int) -> npt.NDArray[np.float32]:
        """Leave a copy's episode and begin its next one.

        Returns:
            (N_FEATURES,), of the copy's first decision.
        """
        self._episodes[copy] += 1
        self._begin(copy)
        seen: npt.NDArray[np.float32] = self._observe()[copy]
        return seen

    def step(self, actions: npt.NDArray[np.integer]) -> StepResult:
        """Decide in all copies, and go on to the next decision in each.

        Args:
            actions: (N,), indices into `self.actions`.
        """
        case = self.case
        time_s, head, tail = self._time_s, self._head, self._tail
        clock = self._action_clock[actions]
        batch = np.minimum(self._action_batch[actions], tail - head)
        cell = clock * self._width + batch
        latency_s, service_j = self._latency_s[cell], self._energy_j[cell]
        waits = clock == self._waiting
        clock = np.where(waits, self._clock, clock)
        switches = clock != self._clock
        end_s = time_s + switches * case.switch_s + latency_s

        gives_up = None
        if time_s.max() >= case.duration_s and waits.any():
            gives_up = waits & (time_s >= case.duration_s) & (time_s - self._rows.time_s[head] > case.slo_s)
            end_s = np.where(gives_up, time_s, end_s)

        n_late = self._rows.n_late(end_s, head, batch, case.slo_s)
        head = head + batch
        arrived = self._rows.arrived(end_s)
        next_s = self._rows.skip_empty(end_s, head, arrived)
        n_lost = np.maximum(arrived - head - case.queue_limit, 0)
        if n_lost.any():
            self._rows.drop_newest(head, n_lost, case.queue_limit)
        duration_s = next_s - time_s
        fade = RATE_WINDOW_S / (RATE_WINDOW_S + duration_s)
        self._rate_count = (self._rate_count + (arrived - tail)) * fade
        self._rate_seconds = (self._rate_seconds + duration_s) * fade

        done = arrived == head
        if gives_up is not None:
            done |= gives_up
        if not case.drain:
            done |= next_s >= case.duration_s
        self._time_s, self._head, self._tail, self._clock = next_s, head, arrived, clock

        out = np.zeros((Total.N, self.n_copies))
        out[Total.SERVICE_J], out[Total.STUDY_J], out[Total.BUSY_S] = service_j, service_j * batch, latency_s * ~waits
        out[Total.SERVED], out[Total.LATE], out[Total.LOST] = batch, n_late, n_lost
        out[Total.WAITS], out[Total.SWITCHES], out[Total.STEPS] = waits, switches, 1.0
        energy_j = service_j
        if case.joules_per_switch:
            out[Total.SWITCH_J] = switches * case.joules_per_switch
            energy_j = energy_j + out[Total.SWITCH_J]
        if case.idle_power_w:
            out[Total.IDLE_J] = self._idle(waits, gives_up, end_s, next_s)
            energy_j = energy_j + out[Total.IDLE_J]
        self._totals.add(out)
        n_missed = out[Total.LATE] + out[Total.LOST]
        episodes = []
        for copy in done.nonzero()[0].tolist():
            n_left_missed = self._left_missed(copy, gave_up=gives_up is not None and bool(gives_up[copy]))
            n_missed[copy] += n_left_missed
            episodes.append((copy, self._end(copy, n_left_missed)))
        return StepResult(
            observations=self._observe(),
            energy_j=energy_j,
            n_served=out[Total.SERVED],
            n_missed=n_missed,
            n_lost=out[Total.LOST],
            duration_s=duration_s,
            done=done,
            episodes=episodes,
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that steps change, as arrays of the caller's: another one of this case goes on from it as this one."""
        own = {name.lstrip("_"): np.copy(getattr(self, name)) for name in _STATE}
        rows = {f"rows.{name}": value for name, value in self._rows.state().items()}
        seeds, episodes = np.array(self._seeds, np.uint64), np.array(self._episodes, np.int64)
        return own | rows | {"totals": self._totals.sums.copy(), "seeds": seeds, "episodes": episodes}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from another one's `state`; of the same case, number of copies and batches."""
        for name in _STATE:
            setattr(self, name, np.copy(state[name.lstrip("_")]))
        self._rows.restore({key.removeprefix("rows."): value for key, value in state.items() if "rows." in key})
        self._totals.sums = np.copy(state["totals"])
        self._seeds, self._episodes = state["seeds"].tolist(), state["episodes"].tolist()

    def action_masks(self) -> Bools:
        """(N, number of actions): which are worth a thought now, see `ActionSet.masks`."""
        masks: Bools = self._masks[self._tail - self._head]
        return masks

    @property
    def clock_index(self) -> Ints:
        """(N,): row of the clock that is set in each copy."""
        return self._clock

    def waits_s(self, copy: int) -> Floats:
        """(n,): how long each queued request of a copy has waited, head first."""
        waits_s: Floats = self._time_s[copy] - self._rows.time_s[self._head[copy] : self._tail[copy]]
        return waits_s

    def observation(self, copy: int) -> Observation:
        """Of one copy, as a policy gets it."""
        table, n = self.case.table, int(self._tail[copy] - self._head[copy])
        seconds = float(self._rate_seconds[copy])
        return Observation(
            waits_s=tuple(self.waits_s(copy).tolist()),
            clock_mhz=float(table.clock_mhz[self._clock[copy]]),
            n_input_tokens=None if table.n_input_tokens is None else (table.n_input_tokens,) * n,
            n_output_tokens=None if table.n_output_tokens is None else (table.n_output_tokens,) * n,
            arrival_rate_per_s=float(self._rate_count[copy]) / seconds if seconds > 0 else None,
        )

    def _idle(self, waits: Bools, gives_up: Bools | None, end_s: Floats, next_s: Floats) -> Floats:
        """(N,): joules of waiting, then of the empty queue; of the first decision also of the time before it."""
        power_w = self.case.idle_power_w
        waited = waits if gives_up is None else waits & ~gives_up
        idle_j = self._leading_idle_j + waited * (power_w * (self.case.wait_s or 0.0)) + power_w * (next_s - end_s)
        self._leading_idle_j = np.zeros(self.n_copies)
        return idle_j

    def _left_missed(self, copy: int, *, gave_up: bool) -> int:
        queued_s = self._rows.time_s[self._head[copy] : self._tail[copy]]
        if gave_up:
            return queued_s.size
        return int(np.sum(self._time_s[copy] + self.case.floor_latency_s - queued_s > self.case.slo_s))

    def _end(self, copy: int, n_left_missed: int) -> ServingOutcome:
        """Of the episode that ended; the next one begins."""
        outcome = self._totals.outcome(
            copy,
            seed=episode_seed(self._seeds[copy], self._episodes[copy]),
            n_arrived=int(self._n_arrived[copy]),
            n_unfinished=int(self._tail[copy] - self._head[copy]),
            n_left_missed=n_left_missed,
            end_s=float(self._time_s[copy]),
        )
        self._episodes[copy] += 1
        self._begin(copy)
        return outcome

    def _begin(self, copy: int) -> None:
        """A new episode, up to its first decision."""
        for _ in range(_EMPTY_TRIES):
            seed = episode_seed(self._seeds[copy], self._episodes[copy])
            arrivals_s = draw_arrivals(self.case.arrivals, self.case.duration_s, seed)
            if arrivals_s.size:
                break
            self._episodes[copy] += 1
        else:
            raise ServingCaseError(
                f"nothing arrives within {self.case.duration_s:g} s, {_EMPTY_TRIES} times; give a longer duration_s."
            )
        self._n_arrived[copy] = arrivals_s.size
        first_s = float(arrivals_s[0])
        n_first = int(np.searchsorted(arrivals_s, first_s, side="right"))
        n_queued = min(n_first, self.case.queue_limit)
        arrivals_s = np.delete(arrivals_s, slice(n_queued, n_first))
        start, moved = self._rows.put(copy, arrivals_s)
        self._head += moved
        self._tail += moved
        self._totals.begin(copy, n_lost=n_first - n_queued)
        self._time_s[copy] = first_s
        self._head[copy], self._tail[copy] = start, start + n_queued
        self._clock[copy] = self.case.table.n_clocks - 1
        fade = RATE_WINDOW_S / (RATE_WINDOW_S + first_s)
        self._rate_count[copy], self._rate_seconds[copy] = n_first * fade, first_s * fade
        self._leading_idle_j[copy] = self.case.idle_power_w * first_s

    def _observe(self) -> npt.NDArray[np.float32]:
        return self._feature_rows.vectors(
            self._time_s,
            self._rows.time_s,
            self._head,
            self._tail,
            self._clock,
            self._rate_count,
            self._rate_seconds,
        )
