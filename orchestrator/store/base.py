"""The run table seam. One implementation over SQLAlchemy: SQLite by default, PostgreSQL by URL."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import JsonValue

from contract.attempt_state import AttemptState, RunState
from contract.errors import ErrorBody, JouleBedError, UsageError
from contract.trial_result import SuspectReason, TrialResult
from contract.trial_spec import TrialSpec
from contract.units import Scalar
from orchestrator.cooldown import CooldownOutcome

SETTLED_PREFIX = "settled/"
"""Beginning of the facts' keys of attempts that were given up, and about which their testbeds were asked since."""


@dataclass(frozen=True)
class PlannedRun:
    """One row of the plan; immutable.

    Attributes:
        position: execution order, from 0.
        run_id: `run_{i}_repetition_{j}`, numbered in design order after exclusions.
        treatment: factor -> level.
        repetition: 0-based.
        spec: what is executed.
    """

    position: int
    run_id: str
    treatment: dict[str, Scalar]
    repetition: int
    spec: TrialSpec


@dataclass(frozen=True)
class Plan:
    """A whole experiment, before anything ran.

    Attributes:
        experiment: name.
        seed: of the plan.
        factors: column order of the run table.
        runs: in execution order.
        max_attempts: per run.
        config_text: source of the configuration, for the record.
        design: order, cooldown and so on, for the record; JSON.
        sha256: identity of runs, specs and order.
    """

    experiment: str
    seed: int
    factors: tuple[str, ...]
    runs: tuple[PlannedRun, ...]
    max_attempts: int
    config_text: str
    design: dict[str, object]
    sha256: str


@dataclass(frozen=True)
class AttemptRow:
    """One execution, as stored.

    Attributes:
        error: why it has no result, or why its doubted result is not accepted.
        result: as the testbed sent it.
        reasons: why the result is doubted: the testbed's reasons and the orchestrator's own.
        cooldown: the pause before it; None where none was recorded.
        owner: the process that drives it, or drove it last; see `orchestrator.store.owner`.
        lease_until: until then nobody on another machine takes it over; None: it has ended.
    """

    attempt_id: str
    run_id: str
    number: int
    state: AttemptState
    accepted: bool
    testbed: str
    claimed_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    error: ErrorBody | None
    result: TrialResult | None
    reasons: tuple[SuspectReason, ...] = ()
    cooldown: CooldownOutcome | None = None
    owner: str = ""
    lease_until: datetime | None = None


@dataclass(frozen=True)
class RunRow:
    """One planned run with its derived state and its attempts, oldest first."""

    position: int
    run_id: str
    treatment: dict[str, Scalar]
    repetition: int
    state: RunState
    attempts: tuple[AttemptRow, ...]


@dataclass(frozen=True)
class Claim:
    """A run reserved for this orchestrator, with the attempt that is to execute it.

    Attributes:
        cooldown: the pause before it, when it was recorded already.
    """

    attempt_id: str
    run_id: str
    number: int
    spec: TrialSpec
    state: AttemptState
    cooldown: CooldownOutcome | None = None


@dataclass(frozen=True)
class EventRow:
    """One line of the story: of an attempt, without states where none changed; of a run, without attempt and states;
    of the campaign, with none."""

    at: datetime
    attempt_id: str | None
    run_id: str | None
    state_before: AttemptState | None
    state_after: AttemptState | None
    message: str


@dataclass(frozen=True)
class Leftover:
    """An attempt that ended here without a result, of which its testbed may hold one.

    Attributes:
        attempt_id: the attempt.
        run_id: its run.
    """

    attempt_id: str
    run_id: str

    @property
    def settled_key(self) -> str:
        """Key of the fact that says that the testbed was asked about it; of a bounded length, as keys must be."""
        return f"{SETTLED_PREFIX}{hashlib.sha256(self.attempt_id.encode()).hexdigest()[:32]}"


class TakenOverError(JouleBedError):
    """Another orchestrator drives this attempt now."""

    code = "taken_over"


class RunTableError(UsageError):
    """The run table cannot be read or written now; what it holds is untouched."""

    code = "run_table"


class RunTableAwayError(RunTableError):
    """The run table's server does not answer: it may be back soon, and whatever was asked may be asked again."""

    code = "run_table_away"


class RunTableDamagedError(RunTableError):
    """The run table's file is damaged, or older than the files beside it."""

    code = "run_table_damaged"


class ClaimChoice(Protocol):
    """Which of the runs that are to do a testbed of a pool takes; see `orchestrator.store.balance`. Thread-safe."""

    window: int
    """How many runs are looked at at once."""

    def is_colleague(self, testbed: str) -> bool:
        """Whether this process drives another testbed of that name: open attempts there are left to it."""
        ...

    def open_on(self) -> Sequence[str]:
        """This testbed, and those that this process drove and drives no more: whose open attempts are this one's."""
        ...

    def begin(self) -> int | None:
        """The position after which there may be something to do; None: there is nothing for now."""
        ...

    def best(self, positions: Sequence[int]) -> int | None:
        """The one of these to take; None: none of them is for this testbed."""
        ...

    def took(self, position: int) -> None:
        """It was taken."""
        ...

    def passed(self, position: int) -> None:
        """Of a whole window up to that position nothing was for this testbed."""
        ...

    def found_nothing(self) -> None:
        """Nothing was for this testbed at all."""
        ...

    def came_back(self) -> None:
        """A run that was taken is to do again."""
        ...


class RunLedger(Protocol):
    """The run table as the controller writes it: durable, transactional, safe for several processes.

    One experiment per store.
    """

    def create_experiment(self, plan: Plan) -> None:
        """Write the plan; nothing if the same plan is there already.

        Raises:
            PlanChangedError: another plan is there; nothing was written.
        """
        ...

    def claim_next(
        self, testbed: str, choice: ClaimChoice | None = None, *, besides: str | None = None
    ) -> Claim | None:
        """The next attempt for this owner to drive; None when there is nothing to do now.

        First, an attempt without a final state that may be taken over: this owner's own, one of a process on this
        host that is gone, or one whose lease ran out; its lease is renewed, its state tells how far it came. One that
        was claimed for another testbed is ended instead, and its run claimed anew.
        Else the next run in order that is TODO, with a new attempt in state CLAIMED. Compare-and-set: two
        orchestrators never get the same attempt.

        Args:
            testbed: name of the machine.
            choice: of one testbed of a pool: of this owner's open attempts only those on this testbed are taken up, of
                other owners' none that is on a colleague, and of the runs the one that suits; None: the first one.
            besides: an open attempt that this owner has in hand.
        """
        ...

    def record_state(
        self, attempt_id: str, state: AttemptState, message: str = "", *, cooldown: CooldownOutcome | None = None
    ) -> None:
        """Note a transition and renew the lease. The same state again only renews the lease.

        A cooldown is kept with the attempt, in the same transaction; None leaves what is there.

        Raises:
            ValueError: the transition table forbids it.
        """
        ...

    def finish(
        self,
        attempt_id: str,
        state: AttemptState,
        *,
        result: TrialResult | None = None,
        error: ErrorBody | None = None,
        message: str = "",
        reasons: Sequence[SuspectReason] = (),
    ) -> RunState:
        """End an attempt, in one transaction; accepts it if the state is SUCCEEDED. Idempotent for its owner.

        Never makes a second accepted attempt of a run. Without a result from the testbed (LOST, CANCELLED by us,
        unreachable) the error says why. A SUSPECT attempt with an error is not kept as the run's result: the run is
        tried again if the error is retryable and attempts are left, and FAILED if the error is not retryable.

        Args:
            attempt_id: the attempt.
            state: its last; it may differ from the result's own, which is stored as it was received.
            result: from the testbed.
            error: why there is no result to accept.
            message: for the story.
            reasons: why the result is doubted, the result's own included.

        Returns:
            The run's state afterwards: TODO when it will be tried again.

        Raises:
            TakenOverError: it is another orchestrator's now, or has ended otherwise.
        """
        ...

    def remember(
        self,
        key: str,
        value: JsonValue,
        message: str = "",
        *,
        attempt_id: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Keep a fact about the campaign, such as its idle temperature; replaces an older one.

        With a message, an event tells it too: of the campaign, or of the attempt and the run that are named.
        """
        ...

    def forget(self, key: str) -> None:
        """Remove a fact. Idempotent."""
        ...

    def close(self) -> None:
        """Free connections. Idempotent."""
        ...


class RunReader(Protocol):
    """The run table as everyone else reads it."""

    def plan(self, *, with_runs: bool = True) -> Plan | None:
        """The stored plan, or None in an empty store; without its runs, it is cheap at any size."""
        ...

    def counts(self) -> dict[RunState, int]:
        """Runs per state, all states present; cheap at any size."""
        ...

    def runs(self, *, with_results: bool = True) -> Sequence[RunRow]:
        """All runs in order, with attempts; without their results, which are large, it is ten times as quick."""
        ...

    def each_run(self) -> Iterator[RunRow]:
        """The same, a few at a time in memory; to be read to the end."""
        ...

    def events(self, run_id: str | None = None) -> Sequence[EventRow]:
        """The story, oldest first."""
        ...

    def recall(self, key: str) -> JsonValue:
        """A fact that was remembered, or None."""
        ...

    def leftovers(self) -> dict[str, list[Leftover]]:
        """Testbed -> attempts there that were given up, and about which it was not asked since."""
        ...

    def last_results(self, n: int) -> dict[str, list[str]]:
        """Testbed -> its last `n` attempts that ended with a result of its own, newest first.

        Nobody may have told it that they are safe here.
        """
        ...

    def facts(self, prefix: str) -> dict[str, JsonValue]:
        """The facts whose key begins with a prefix, in order of their keys."""
        ...


class RunStore(RunLedger, RunReader, Protocol):
    """The run table, to write and to read."""
