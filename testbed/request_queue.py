"""The queue of an open loop: requests come at their due times, whoever looks, and wait for a policy."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contract.errors import InvalidOptionError
from testbed.clock import Clock
from testbed.engines.base import GenerationRequest
from testbed.policies.base import Decision, Observation, Policy, Wait
from testbed.policies.features import ArrivalRate

MIN_WAIT_S = 1e-3
"""A policy that waited less at a time would spin beside the measurement."""


@dataclass(frozen=True)
class OpenRequest:
    """A request with its arrival.

    Attributes:
        request: for the engine.
        arrival_s: after the start.
        n_input_tokens: None: not known.
        n_output_tokens: that it will get; None: not known.
    """

    request: GenerationRequest
    arrival_s: float
    n_input_tokens: int | None = None
    n_output_tokens: int | None = None


class RequestQueue:
    """Hands requests over at their due times, and asks the policy about those that are there.

    Args:
        requests: by rising arrival.
        policy: decides.
        clock: of the measurement.
        limit: requests that may wait.
        max_batch: the most that a policy may choose.
        decision_ns: times decisions: of this machine, also where the other clock is simulated.
    """

    def __init__(
        self,
        requests: Sequence[OpenRequest],
        policy: Policy,
        clock: Clock,
        *,
        limit: int,
        max_batch: int,
        decision_ns: Callable[[], int],
    ) -> None:
        self.requests = requests
        self._policy = policy
        self._clock = clock
        self._limit = limit
        self._max_batch = max_batch
        self._decision_ns = decision_ns
        self.origin_ns = clock.monotonic_ns()
        # Whole nanoseconds once: sums of rounded waits would drift from the arrivals.
        self._due_ns = [self.origin_ns + round(each.arrival_s * 1e9) for each in requests]
        self._n_seen = 0
        self._queue: deque[int] = deque()
        self.lost: list[int] = []
        self._rate = ArrivalRate()
        self._rate_until = (self.origin_ns, 0)
        self.n_decisions = self.n_waits = 0
        self.decision_total_ns = self.decision_max_ns = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def queued(self) -> tuple[int, ...]:
        """Indices of those that wait, head first."""
        return tuple(self._queue)

    @property
    def n_seen(self) -> int:
        """Requests that have arrived."""
        return self._n_seen

    @property
    def next_due_ns(self) -> int | None:
        """When the next one arrives; None: none will."""
        return self._due_ns[self._n_seen] if self._n_seen < len(self._due_ns) else None

    def due_s(self, index: int) -> float:
        """True arrival of a request, monotonic seconds."""
        return self._due_ns[index] / 1e9

    def elapsed_s(self) -> float:
        """Since the start."""
        return (self._clock.monotonic_ns() - self.origin_ns) / 1e9

    def admit(self) -> None:
        """Queue what has arrived by now; what found the queue full is lost."""
        now_ns = self._clock.monotonic_ns()
        while self._n_seen < len(self._due_ns) and self._due_ns[self._n_seen] <= now_ns:
            if len(self._queue) < self._limit:
                self._queue.append(self._n_seen)
            else:
                self.lost.append(self._n_seen)
            self._n_seen += 1

    def sleep_until(self, due_ns: int) -> None:
        """Sleep to a time; nothing spins."""
        while (left_ns := due_ns - self._clock.monotonic_ns()) > 0:
            self._clock.sleep(left_ns / 1e9)

    def head_wait_s(self) -> float:
        """How long the head has waited."""
        return (self._clock.monotonic_ns() - self._due_ns[self._queue[0]]) / 1e9

    def take(self, n_requests: int) -> list[int]:
        """The first ones, out of the queue."""
        return [self._queue.popleft() for _ in range(min(n_requests, len(self._queue)))]

    def ask(self, clock_mhz: float, n_in_service: int = 0) -> Decision | Wait:
        """The policy's choice for what is queued.

        Raises:
            InvalidOptionError: a batch or a wait that is not possible.
        """
        now_ns = self._clock.monotonic_ns()
        since_ns, n_then = self._rate_until
        self._rate.observe((now_ns - since_ns) / 1e9, self._n_seen - n_then)
        self._rate_until = now_ns, self._n_seen
        observation = Observation(
            waits_s=tuple((now_ns - self._due_ns[index]) / 1e9 for index in self._queue),
            clock_mhz=clock_mhz,
            n_input_tokens=self._lengths(lambda each: each.n_input_tokens),
            n_output_tokens=self._lengths(lambda each: each.n_output_tokens),
            arrival_rate_per_s=self._rate.per_s,
            n_in_service=n_in_service,
        )
        before_ns = self._decision_ns()
        choice = self._policy.decide(observation)
        took_ns = self._decision_ns() - before_ns
        self.n_decisions += 1
        self.decision_total_ns += took_ns
        self.decision_max_ns = max(self.decision_max_ns, took_ns)
        if isinstance(choice, Wait):
            self.n_waits += 1
        self._check(choice)
        return choice

    def _lengths(self, length: Callable[[OpenRequest], int | None]) -> tuple[int, ...] | None:
        known = [length(self.requests[index]) for index in self._queue]
        return None if None in known else tuple(each for each in known if each is not None)

    def _check(self, choice: Decision | Wait) -> None:
        who = f"The policy {self._policy.name!r}"
        if isinstance(choice, Wait):
            if not MIN_WAIT_S <= choice.seconds < float("inf"):
                raise InvalidOptionError(f"{who} waits {choice.seconds} s; {MIN_WAIT_S:g} s or more are possible.")
        elif not 1 <= choice.max_batch <= self._max_batch:
            raise InvalidOptionError(
                f"{who} chose a batch of {choice.max_batch}; 1 to {self._max_batch} are possible here: "
                "workload.concurrency of the trial."
            )
