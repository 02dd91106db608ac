"""Serves requests as they arrive: a policy chooses clock and batch at each boundary, or waits.

Latency is counted from the true arrival, not from when a request was picked up. Between boundaries the process sleeps,
or is inside the engine.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from contract.errors import InvalidOptionError
from contract.serving import ServingSpec
from testbed.clock import Clock
from testbed.engines.base import Completion, ContinuousEngine, Engine
from testbed.policies.base import Decision, Policy, Wait
from testbed.request_queue import OpenRequest, RequestQueue
from testbed.serving_record import BatchRecord, ServingRecord, SwitchRecord


class ClockDial(Protocol):
    """Sets the clock of a device: `testbed.device_settings.ClockDial`."""

    @property
    def clock_mhz(self) -> float:
        """What it is set to."""
        ...

    def turn(self, clock_mhz: float) -> None:
        """Set it, and read it back; blocking, until it has settled.

        Raises:
            InvalidOptionError: the device has no such clock.
            ActuatorError: it refused.
        """
        ...


@dataclass(frozen=True)
class Served:
    """What came of it.

    Attributes:
        completions: in the order of the requests; those that were not served are left out.
        arrival_s: request id -> its true arrival, monotonic seconds.
        batch_of: request id -> index of its batch; empty where batching was continuous.
        record: for the result.
    """

    completions: list[Completion]
    arrival_s: dict[str, float]
    batch_of: dict[str, int]
    record: ServingRecord


class OpenLoopDrive:
    """Drives an engine through one measured phase.

    Args:
        requests: by rising arrival.
        policy: decides; it is reset first.
        engine: loaded for `max_batch` requests.
        spec: of the trial.
        clock: of the measurement.
        dial: of the device that the policy sets; None: clocks are left alone.
        max_batch: the largest batch, or the most in flight.
        duration_s: requests arrive for so long.
        start_mhz: what the policy is told of the clock, where there is no dial, until it has chosen one.
        on_completion: called as answers complete.
        decision_ns: times decisions.
    """

    def __init__(
        self,
        requests: Sequence[OpenRequest],
        policy: Policy,
        engine: Engine,
        spec: ServingSpec,
        clock: Clock,
        dial: ClockDial | None,
        *,
        max_batch: int,
        duration_s: float,
        start_mhz: float = 0.0,
        on_completion: Callable[[Completion], None] = lambda done: None,
        decision_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._requests, self._policy, self._engine, self._spec = requests, policy, engine, spec
        self._clock, self._dial, self._max_batch = clock, dial, max_batch
        self._on_completion = on_completion
        self._clock_mhz = dial.clock_mhz if dial is not None else start_mhz
        self._batches: list[BatchRecord] = []
        self._batch_of: dict[str, int] = {}
        self._switches: list[SwitchRecord] = []
        self._done: dict[str, Completion] = {}
        self._is_given_up = False
        policy.reset()
        self._queue = RequestQueue(
            requests, policy, clock, limit=spec.queue_limit, max_batch=max_batch, decision_ns=decision_ns
        )
        self._end_ns = self._queue.origin_ns + round(duration_s * 1e9)

    def run(self) -> Served:
        """Serve to the end; blocking, for the whole of the measured phase.

        Raises:
            EngineError: generation failed.
            InvalidOptionError: the policy chose what is not possible.
        """
        if self._spec.continuous:
            self._run_continuous()
        else:
            self._run_batches()
        if not self._is_given_up:
            self._queue.sleep_until(self._end_ns)
            self._queue.admit()
        queue, end_ns = self._queue, self._clock.monotonic_ns()
        return Served(
            completions=[
                self._done[each.request.request_id] for each in self._requests if each.request.request_id in self._done
            ],
            arrival_s={each.request.request_id: queue.due_s(i) for i, each in enumerate(self._requests)},
            batch_of=self._batch_of,
            record=ServingRecord(
                policy=self._policy.name,
                policy_settings=dict(self._policy.settings()),
                start_s=queue.origin_ns / 1e9,
                end_s=end_ns / 1e9,
                n_arrived=queue.n_seen,
                lost_s=[queue.due_s(index) for index in queue.lost],
                unfinished_s=[queue.due_s(index) for index in queue.queued],
                is_given_up=self._is_given_up,
                batches=self._batches,
                switches=self._switches,
                n_decisions=queue.n_decisions,
                n_waits=queue.n_waits,
                decision_s=queue.decision_total_ns / 1e9,
                decision_max_s=queue.decision_max_ns / 1e9,
            ),
        )

    # As `control.reference_simulation` has it, which a test holds this to.
    def _run_batches(self) -> None:
        queue = self._queue
        while not self._is_over():
            queue.admit()
            if not len(queue):
                if queue.next_due_ns is None:
                    return
                queue.sleep_until(queue.next_due_ns)
                continue
            choice = queue.ask(self._clock_mhz)
            if isinstance(choice, Wait):
                if self._waits_for_nothing():
                    self._is_given_up = True
                    return
                self._clock.sleep(choice.seconds)
                continue
            n_queued = len(queue)
            batch = [self._requests[index].request for index in queue.take(choice.max_batch)]
            if choice.exit_layer is not None:
                batch = [replace(request, exit_layer=choice.exit_layer) for request in batch]
            self._turn(choice.clock_mhz)
            start_ns = self._clock.monotonic_ns()
            for done in self._engine.generate(batch, concurrency=len(batch), on_completion=self._on_completion):
                self._done[done.request_id] = done
                self._batch_of[done.request_id] = len(self._batches)
            self._batches.append(
                BatchRecord(
                    start_s=start_ns / 1e9,
                    end_s=self._clock.monotonic_ns() / 1e9,
                    n_requests=len(batch),
                    n_queued=n_queued,
                    clock_mhz=choice.clock_mhz if self._dial is not None else None,
                )
            )

    def _run_continuous(self) -> None:
        if not isinstance(self._engine, ContinuousEngine):
            raise refuse_continuous(self._engine.name)
        source = _Source(self)

        def keep(done: Completion) -> None:
            self._done[done.request_id] = done
            self._on_completion(done)

        self._engine.serve([each.request for each in self._requests], source, on_completion=keep)

    def _is_over(self) -> bool:
        return self._is_given_up or (not self._spec.drain and self._clock.monotonic_ns() >= self._end_ns)

    def _waits_for_nothing(self) -> bool:
        """Nothing can arrive any more, and the head's deadline is past: this policy is not going to serve."""
        is_after = self._clock.monotonic_ns() >= self._end_ns and self._queue.next_due_ns is None
        return is_after and self._queue.head_wait_s() > self._spec.slo_s

    def _turn(self, clock_mhz: float) -> None:
        if clock_mhz == self._clock_mhz:
            return
        if self._dial is not None:
            start_ns = self._clock.monotonic_ns()
            self._dial.turn(clock_mhz)
            end_ns = self._clock.monotonic_ns()
            self._switches.append(
                SwitchRecord(start_s=start_ns / 1e9, end_s=end_ns / 1e9, from_mhz=self._clock_mhz, to_mhz=clock_mhz)
            )
        self._clock_mhz = clock_mhz


class _Source:
    """What a continuous engine asks at its own boundaries: `testbed.engines.base.RequestSource`."""

    def __init__(self, drive: OpenLoopDrive) -> None:
        self._drive = drive
        self._wait_until_ns = 0
        self._asked: tuple[int, int, int] | None = None

    def take(self, n_in_flight: int) -> list[int]:
        drive, queue = self._drive, self._drive._queue
        queue.admit()
        if not len(queue) or drive._is_over() or drive._clock.monotonic_ns() < self._wait_until_ns:
            return []
        # A boundary is an arrival, an end, or the end of a wait: not each token of those in flight.
        now = (queue.n_seen, len(queue), n_in_flight)
        if now == self._asked and n_in_flight and not self._wait_until_ns:
            return []
        self._asked, self._wait_until_ns = now, 0
        choice = queue.ask(drive._clock_mhz, n_in_flight)
        if isinstance(choice, Wait):
            drive._is_given_up = not n_in_flight and drive._waits_for_nothing()
            self._wait_until_ns = drive._clock.monotonic_ns() + round(choice.seconds * 1e9)
            return []
        return self._begin(choice, n_in_flight)

    def wait(self) -> bool:
        drive, queue = self._drive, self._drive._queue
        if drive._is_over():
            return False
        if len(queue):
            queue.sleep_until(self._wait_until_ns)
            return True
        due_ns = queue.next_due_ns
        if due_ns is None:
            return False
        queue.sleep_until(due_ns if drive._spec.drain else min(due_ns, drive._end_ns))
        return True

    def _begin(self, choice: Decision, n_in_flight: int) -> list[int]:
        if choice.exit_layer is not None:
            raise InvalidOptionError(
                f"The policy {self._drive._policy.name!r} chose exit layer {choice.exit_layer}, which only a whole "
                "batch can have: set serving.continuous to false.",
                policy=self._drive._policy.name,
            )
        room = min(choice.max_batch, self._drive._max_batch) - n_in_flight
        self._drive._turn(choice.clock_mhz)
        return self._drive._queue.take(room) if room > 0 else []


def refuse_continuous(engine: str) -> InvalidOptionError:
    """The error for `continuous` on an engine that cannot."""
    return InvalidOptionError(
        f"The engine {engine!r} serves a batch to its end: set serving.continuous to false, or take the engine vllm.",
        engine=engine,
    )
