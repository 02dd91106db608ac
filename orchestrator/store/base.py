"""The run table seam. One implementation over SQLAlchemy: SQLite by default, PostgreSQL by URL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import JsonValue

from contract.attempt_state import AttemptState, RunState
from contract.errors import ErrorBody
from contract.trial_result import TrialResult
from contract.trial_spec import TrialSpec
from contract.units import Scalar


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
    """One execution, as stored."""

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
    """A run reserved for this orchestrator, with the attempt that is to execute it."""

    attempt_id: str
    run_id: str
    number: int
    spec: TrialSpec
    state: AttemptState


@dataclass(frozen=True)
class EventRow:
    """One line of an attempt's story."""

    at: datetime
    attempt_id: str
    run_id: str
    state_before: AttemptState | None
    state_after: AttemptState
    message: str


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

    def claim_next(self, testbed: str) -> Claim | None:
        """The next attempt for this owner to drive; None when there is nothing to do now.

        First, an attempt without a final state that may be taken over: this owner's own, one of a process on this
        host that is gone, or one whose lease ran out; its lease is renewed, its state tells how far it came.
        Else the next run in order that is TODO, with a new attempt in state CLAIMED. Compare-and-set: two
        orchestrators never get the same attempt.
        """
        ...

    def record_state(self, attempt_id: str, state: AttemptState, message: str = "") -> None:
        """Note a transition and renew the lease. The same state again only renews the lease.

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
    ) -> RunState:
        """End an attempt, in one transaction; accepts it if the state is SUCCEEDED. Idempotent.

        Never makes a second accepted attempt of a run. Without a result from the testbed (LOST, CANCELLED by us,
        unreachable) the error says why.

        Returns:
            The run's state afterwards: TODO when it will be tried again.
        """
        ...

    def remember(self, key: str, value: JsonValue) -> None:
        """Keep a fact about the campaign, such as its idle temperature; replaces an older one."""
        ...

    def close(self) -> None:
        """Free connections. Idempotent."""
        ...


class RunReader(Protocol):
    """The run table as everyone else reads it."""

    def plan(self) -> Plan | None:
        """The stored plan, or None in an empty store."""
        ...

    def counts(self) -> dict[RunState, int]:
        """Runs per state, all states present; cheap at any size."""
        ...

    def runs(self) -> Sequence[RunRow]:
        """All runs in order, with attempts."""
        ...

    def events(self, run_id: str | None = None) -> Sequence[EventRow]:
        """The story, oldest first."""
        ...

    def recall(self, key: str) -> JsonValue:
        """A fact that was remembered, or None."""
        ...
