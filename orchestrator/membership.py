"""What one controller knows of the others that serve the same campaign in this process."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

from contract.attempt_state import RunState
from orchestrator.campaign_view import AttemptEnd
from orchestrator.store.balance import Balance
from orchestrator.store.base import ClaimChoice, RunReader
from orchestrator.store.control import Pause, paused

_FRESH_S = 1.0
_LOOK_AGAIN_S = 30.0


class Outlook(NamedTuple):
    """How the campaign stands.

    Attributes:
        counts: runs per state.
        pause: None while it is not paused.
    """

    counts: dict[RunState, int]
    pause: Pause | None


class Membership(Protocol):
    """Of one controller in the campaign."""

    choice: ClaimChoice | None
    """Which runs its testbed takes; None: the first one."""
    has_colleagues: bool
    """Whether other testbeds are driven by this process."""
    lock: AbstractContextManager[object]
    """Held while a fact that all share is read and written again."""

    def look(self) -> Outlook:
        """How the campaign stands."""
        ...

    def has_results(self, counts: dict[RunState, int]) -> bool:
        """Whether a trial is known to work here: then its failures are those of single treatments."""
        ...

    def is_worth_claiming(self) -> bool:
        """Whether there may be something to claim."""
        ...

    def may_give_back(self) -> bool:
        """Whether somebody else could take a run of this testbed."""
        ...

    def ended(self, end: AttemptEnd) -> None:
        """An attempt here is over."""
        ...


class Alone:
    """The `Membership` of a campaign on one testbed.

    Args:
        reader: the run table.
    """

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self.choice: ClaimChoice | None = None
        self.has_colleagues = False
        self.lock: AbstractContextManager[object] = nullcontext()

    def look(self) -> Outlook:
        """See `Membership`."""
        return Outlook(self._reader.counts(), paused(self._reader))

    def has_results(self, counts: dict[RunState, int]) -> bool:
        """See `Membership`."""
        return counts[RunState.DONE] + counts[RunState.SUSPECT] > 0

    def is_worth_claiming(self) -> bool:
        """See `Membership`."""
        return True

    def may_give_back(self) -> bool:
        """See `Membership`."""
        return False

    def ended(self, end: AttemptEnd) -> None:
        """See `Membership`."""


class Colleagues:
    """What the controllers of a pool share. Thread-safe.

    Args:
        reader: the run table.
        balance: who took what.
        clock: monotonic seconds.
    """

    def __init__(self, reader: RunReader, balance: Balance, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self.balance = balance
        self._clock = clock
        self._guard = threading.Lock()
        self._outlook: Outlook | None = None
        self._looked_s = float("-inf")
        self._away: set[str] = set()
        self._names: set[str] = set()
        self.lock = threading.Lock()

    def member(self, testbed: str, kind: str = "") -> "Member":
        """The membership of a testbed; see `Balance.choice`."""
        with self._guard:
            self._names.add(testbed)
        return Member(self, testbed, self.balance.choice(testbed, kind), self._clock)

    def left(self, testbed: str) -> None:
        """A testbed is driven no more."""
        with self._guard:
            self._names.discard(testbed)
        self.balance.left(testbed)

    def look(self) -> Outlook:
        """How the campaign stands; a second old at most, so that a thousand who ask are one query."""
        with self._guard:
            now_s = self._clock()
            if self._outlook is None or now_s - self._looked_s >= _FRESH_S:
                self._outlook, self._looked_s = Outlook(self._reader.counts(), paused(self._reader)), now_s
            return self._outlook

    def last_counts(self) -> dict[RunState, int]:
        """Runs per state, as of the last look; all 0 when there was none."""
        with self._guard:
            return self._outlook.counts if self._outlook is not None else dict.fromkeys(RunState, 0)

    def note_away(self, testbed: str, is_away: bool) -> None:
        """Whether a testbed answers."""
        with self._guard:
            if is_away:
                self._away.add(testbed)
            else:
                self._away.discard(testbed)

    def others_answer(self, testbed: str) -> bool:
        """Whether some other testbed answers: else it is this machine's network that is away."""
        with self._guard:
            return bool(self._names - self._away - {testbed})

    def went_back(self) -> None:
        """A run is to do again."""
        self.balance.back()
        with self._guard:
            self._looked_s = float("-inf")


class Member:
    """The `Membership` of one testbed of a pool.

    Args:
        colleagues: all of them.
        testbed: its name.
        choice: of its runs.
        clock: monotonic seconds.
    """

    def __init__(self, colleagues: Colleagues, testbed: str, choice: ClaimChoice, clock: Callable[[], float]) -> None:
        self._colleagues = colleagues
        self._testbed = testbed
        self.choice: ClaimChoice | None = choice
        self.has_colleagues = True
        self.lock: AbstractContextManager[object] = colleagues.lock
        self._clock = clock
        self._claimed_s = float("-inf")

    def look(self) -> Outlook:
        """See `Membership`."""
        return self._colleagues.look()

    def has_results(self, counts: dict[RunState, int]) -> bool:
        """See `Membership`: of this testbed, since another one may be broken where all others work."""
        return self._colleagues.balance.has_taken(self._testbed)

    def is_worth_claiming(self) -> bool:
        """See `Membership`. Now and then anyway: leases of other orchestrators run out."""
        counts, pause = self.look()
        now_s = self._clock()
        if (counts[RunState.TODO] and pause is None) or now_s - self._claimed_s >= _LOOK_AGAIN_S:
            self._claimed_s = now_s
            return True
        return False

    def may_give_back(self) -> bool:
        """See `Membership`."""
        return self._colleagues.others_answer(self._testbed)

    def ended(self, end: AttemptEnd) -> None:
        """See `Membership`."""
        if end.run_state is RunState.TODO:
            self._colleagues.went_back()
