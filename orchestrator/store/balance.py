"""Spreads the runs of an experiment over the testbeds of a pool: each treatment's repetitions over all of its class.

A treatment that only one machine ran tells of the machine as much as of the treatment. So a testbed takes, among the
runs that come next, one of the treatment that it took least often; the first in order among equals. It is a preference
within what is left and never a wait: at the end of a campaign no testbed idles while there is a run that it could do.
How far ahead is looked is bounded, so that the plan's order, which was drawn at random, is bent and not broken.
"""

import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import select

from contract.attempt_state import AttemptState
from contract.units import Scalar, canonical_json
from orchestrator.store.schema import ATTEMPT, RUN
from orchestrator.store.sql_reader import SqlReader

MAX_WINDOW = 512
"""Runs that are looked at at once."""

_LOOK_AGAIN_S = 5.0
"""Another orchestrator may have given runs back that were passed over."""


class Balance:
    """What each testbed of a process has taken so far. Thread-safe.

    Args:
        treatments: number of the treatment of each run, by the run's position.
        allowed: kind of testbed -> numbers of the treatments that it may run; None: all, for every kind.
        taken: testbed -> number of a treatment -> runs of it that the testbed has taken.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        treatments: Sequence[int],
        *,
        allowed: Mapping[str, Collection[int]] | None = None,
        taken: Mapping[str, Mapping[int, int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.treatments = treatments
        self.n_treatments = max(treatments, default=0) + 1
        self._allowed = allowed
        self.taken = {testbed: Counter(counts) for testbed, counts in (taken or {}).items()}
        self._clock = clock
        self._lock = threading.Lock()
        self._begin: dict[str, int] = {}
        self._again_s: dict[str, float] = {}
        self._names: set[str] = set()
        self._orphaned: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, reader: SqlReader, allows: Callable[[str, Mapping[str, Scalar]], bool] | None, kinds: Collection[str]
    ) -> "Balance":
        """As the run table has it.

        Args:
            reader: the run table, with a plan.
            allows: whether a kind of testbed may run a treatment; None: each may run all.
            kinds: of testbeds.
        """
        numbers: dict[str, int] = {}
        by_treatment: dict[int, Mapping[str, Scalar]] = {}
        treatments = array("L")
        position_of: dict[str, int] = {}
        taken: dict[str, Counter[int]] = {}
        with reader.reading() as connection:
            for position, run_id, treatment in connection.execute(
                select(RUN.c.position, RUN.c.run_id, RUN.c.treatment).order_by(RUN.c.position)
            ):
                number = numbers.setdefault(canonical_json(treatment), len(numbers))
                by_treatment.setdefault(number, treatment)
                treatments.extend([number] * (position + 1 - len(treatments)))
                position_of[run_id] = position
            for run_id, testbed in connection.execute(
                select(ATTEMPT.c.run_id, ATTEMPT.c.testbed).where(
                    ATTEMPT.c.finished_at.is_(None) | ATTEMPT.c.accepted | (ATTEMPT.c.state == AttemptState.SUSPECT)
                )
            ):
                taken.setdefault(testbed, Counter())[treatments[position_of[run_id]]] += 1
        allowed = None
        if allows is not None:
            allowed = {kind: {n for n, each in by_treatment.items() if allows(kind, each)} for kind in kinds}
        return cls(treatments, allowed=allowed, taken=taken)

    def choice(self, testbed: str, kind: str = "") -> "Choice":
        """How one testbed chooses.

        Args:
            testbed: its name.
            kind: of it, where not every testbed may run every treatment.
        """
        with self._lock:
            self._names.add(testbed)
            return Choice(self, testbed, kind, self.taken.setdefault(testbed, Counter()))

    def left(self, testbed: str) -> None:
        """A testbed is driven no more: what it left open is anybody's."""
        with self._lock:
            self._names.discard(testbed)
            self._orphaned = (*self._orphaned, testbed)

    def back(self) -> None:
        """A run is to do again: look from the beginning."""
        with self._lock:
            self._again_s.clear()
            self._begin.clear()

    def has_taken(self, testbed: str) -> bool:
        """Whether a testbed has taken any run."""
        with self._lock:
            return self.taken.get(testbed, Counter()).total() > 0

    def is_member(self, testbed: str) -> bool:
        """Whether this process drives a testbed of that name."""
        with self._lock:
            return testbed in self._names

    @property
    def orphaned(self) -> tuple[str, ...]:
        """Testbeds that this process drove, and drives no more."""
        return self._orphaned

    def begin(self, kind: str) -> int | None:
        """See `ClaimChoice.begin`."""
        with self._lock:
            again_s = self._again_s.get(kind)
            if again_s is None:
                return self._begin.get(kind, -1)
            if self._clock() < again_s:
                return None
            del self._again_s[kind]
            self._begin[kind] = -1
            return -1

    def found_nothing(self, kind: str) -> None:
        """See `ClaimChoice.found_nothing`."""
        with self._lock:
            self._again_s[kind] = self._clock() + _LOOK_AGAIN_S

    def passed(self, kind: str, position: int) -> None:
        """Up to a position nothing is left for a kind of testbed."""
        with self._lock:
            self._begin[kind] = max(self._begin.get(kind, -1), position)

    def may_run(self, kind: str, position: int) -> bool:
        """Whether a kind of testbed may do a run."""
        return self._allowed is None or self.treatments[position] in self._allowed.get(kind, ())


class Choice:
    """`ClaimChoice` of one testbed; used by one thread at a time."""

    def __init__(self, balance: Balance, testbed: str, kind: str, taken: Counter[int]) -> None:
        self._balance = balance
        self._testbed = testbed
        self._kind = kind
        self._taken = taken
        self._tried: set[int] = set()
        self.window = min(MAX_WINDOW, balance.n_treatments + 1)

    def is_colleague(self, testbed: str) -> bool:
        """See `ClaimChoice`."""
        return testbed != self._testbed and self._balance.is_member(testbed)

    def open_on(self) -> Sequence[str]:
        """See `ClaimChoice`."""
        return (self._testbed, *self._balance.orphaned)

    def begin(self) -> int | None:
        """See `ClaimChoice`."""
        return self._balance.begin(self._kind)

    def best(self, positions: Sequence[int]) -> int | None:
        """See `ClaimChoice`."""
        treatments, taken, tried = self._balance.treatments, self._taken, self._tried
        allowed = [each for each in positions if self._balance.may_run(self._kind, each)]
        # A run that came back from here comes last: a broken testbed is not to use up all its tries.
        return min(
            allowed, key=lambda position: (position in tried, taken[treatments[position]], position), default=None
        )

    def took(self, position: int) -> None:
        """See `ClaimChoice`. An attempt that fails counts: another testbed is to try the run again, if there is one."""
        self._taken[self._balance.treatments[position]] += 1
        self._tried.add(position)

    def passed(self, position: int) -> None:
        """See `ClaimChoice`."""
        self._balance.passed(self._kind, position)

    def found_nothing(self) -> None:
        """See `ClaimChoice`."""
        self._balance.found_nothing(self._kind)

    def came_back(self) -> None:
        """See `ClaimChoice`."""
        self._balance.back()
