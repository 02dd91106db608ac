"""The run table over SQLAlchemy: SQLite by default, PostgreSQL by URL."""

import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.engine import URL

from contract.attempt_state import AttemptState, RunState, may_follow
from contract.errors import ErrorBody, PlanChangedError, UsageError
from contract.trial_result import SuspectReason, TrialResult
from orchestrator.cooldown import CooldownOutcome
from orchestrator.processes import host_of, pid_of
from orchestrator.store import statement
from orchestrator.store.base import Claim, ClaimChoice, Plan, TakenOverError
from orchestrator.store.claiming import Seeker, next_run, open_attempt
from orchestrator.store.database import NOTE, LockWait, database_url, open_database, serialise, told
from orchestrator.store.decision import Decision
from orchestrator.store.outage import ServerWait, patient
from orchestrator.store.owner import this_owner
from orchestrator.store.schema import ATTEMPT, EXPERIMENT, FACT, RUN
from orchestrator.store.sql_reader import SqlReader, cooldown_of
from orchestrator.store.standing import standing

LEASE_S = 60.0
"""An attempt whose owner gives no sign for this long may be taken over."""

_AT_ONCE = 1000


class SqlStore(SqlReader):
    """`RunLedger` and `RunReader` over one database. Thread-safe as SQLAlchemy's engine is.

    Args:
        engine: of an open database with the current schema.
        url: where it is, for messages.
        owner: who claims; see `orchestrator.store.owner`.
        now: aware UTC; the database's own time by default.
        server: see `SqlReader`.
    """

    def __init__(
        self,
        engine: Engine,
        url: URL,
        *,
        owner: str,
        now: Callable[[], datetime] | None = None,
        server: ServerWait | None = None,
    ) -> None:
        super().__init__(engine, url, server)
        self._owner = owner
        self._now = now
        self._noting = engine.execution_options(**{NOTE: True})
        is_file = url.get_backend_name() == "sqlite"
        self._turn: AbstractContextManager[object] = threading.Lock() if is_file else nullcontext()

    @classmethod
    def open(
        cls,
        url_or_path: str | Path,
        *,
        owner: str | None = None,
        create: bool,
        now: Callable[[], datetime] | None = None,
        wait: LockWait | None = None,
        server: ServerWait | None = None,
    ) -> "SqlStore":
        """Open a run table.

        Args:
            url_or_path: a database URL, or the path of a SQLite file.
            owner: who claims; this process by default.
            create: make it where there is none.
            now: aware UTC; the database's own time by default.
            wait: how writers wait for locks of other programs; not longer than SQLite itself by default.
            server: how a server that goes away later is waited for; not at all by default.

        Raises:
            UsageError: it is not there, cannot be used, or is of a newer version.
        """
        url = database_url(url_or_path)
        engine = open_database(url, create=create, wait=wait)
        return cls(engine, url, owner=owner or this_owner(), now=now, server=server)

    @patient
    def create_experiment(self, plan: Plan) -> None:
        """See `RunLedger`."""
        with self._writing() as connection:
            serialise(connection)
            stored = connection.execute(select(EXPERIMENT.c.plan_sha256)).scalar()
            if stored == plan.sha256:
                return
            if stored is not None:
                raise PlanChangedError(
                    f"The experiment {plan.experiment!r} exists with another plan, and nothing was changed. "
                    "Give the configuration another `name`, or restore what was changed in it "
                    "(the old text is kept in the run table: SELECT config_text FROM experiment).",
                    stored_sha256=stored,
                    wanted_sha256=plan.sha256,
                )
            connection.execute(
                insert(EXPERIMENT).values(
                    id=1,
                    name=plan.experiment,
                    seed=plan.seed,
                    factors=list(plan.factors),
                    max_attempts=plan.max_attempts,
                    config_text=plan.config_text,
                    design=plan.design,
                    plan_sha256=plan.sha256,
                    created_at=self._time(connection),
                    software_version=metadata.version("joulebed"),
                )
            )
            for begin in range(0, len(plan.runs), _AT_ONCE):
                # All documents of a large plan at once are half a gigabyte, which the process would keep.
                runs = [
                    {
                        "position": run.position,
                        "run_id": run.run_id,
                        "treatment": run.treatment,
                        "repetition": run.repetition,
                        "spec": run.spec.model_dump(mode="json"),
                        "state": RunState.TODO,
                    }
                    for run in plan.runs[begin : begin + _AT_ONCE]
                ]
                connection.execute(insert(RUN), runs)

    @patient
    def claim_next(
        self, testbed: str, choice: ClaimChoice | None = None, *, besides: str | None = None
    ) -> Claim | None:
        """See `RunLedger`."""
        with self._writing() as connection:
            now = self._time(connection)
            seeker = Seeker(self._owner, testbed, choice, besides, lambda: self._was_away(connection, now))
            while (left := open_attempt(connection, seeker, now)) is not None:
                if left.state != AttemptState.CLAIMED or left.testbed == testbed:
                    return self._take_over(connection, left, now)
                self._give_up(connection, left)
                if choice is not None:
                    choice.came_back()
            run = next_run(connection, choice)
            if run is None:
                return None
            number = 1 + (connection.execute(statement.LAST_NUMBER, {"of_run": run.run_id}).scalar() or 0)
            attempt_id = f"{run.run_id}-a{number}-{uuid.uuid4().hex[:8]}"
            attempt = {
                "attempt_id": attempt_id,
                "run_id": run.run_id,
                "number": number,
                "state": AttemptState.CLAIMED,
                "accepted": False,
                "testbed": testbed,
                "owner": self._owner,
                "lease_until": now + timedelta(seconds=LEASE_S),
                "claimed_at": now,
                "updated_at": now,
            }
            connection.execute(statement.ADD_ATTEMPT, attempt)
            connection.execute(statement.SET_RUN_STATE, {"of_run": run.run_id, "state": RunState.RUNNING})
            self._tell(connection, now, attempt_id, run.run_id, None, AttemptState.CLAIMED, f"claimed for {testbed}")
            return Claim(attempt_id, run.run_id, number, self._spec(run.spec), AttemptState.CLAIMED)

    @patient
    def record_state(
        self, attempt_id: str, state: AttemptState, message: str = "", *, cooldown: CooldownOutcome | None = None
    ) -> None:
        """See `RunLedger`."""
        # Where an attempt is can be asked of its testbed again; how warm it began cannot.
        with self._writing(is_note=cooldown is None) as connection:
            row = self._own(connection, attempt_id)
            before = AttemptState(row.state)
            if state is not before and not may_follow(before, state):
                raise ValueError(f"Attempt {attempt_id} is {before}: {state} cannot follow.")
            if state.is_final:
                raise ValueError(f"{state} ends an attempt: use finish().")
            changed: dict[str, Any] = {"state": state}
            if cooldown is not None:
                changed["cooldown"] = asdict(cooldown)
            now = self._time(connection)
            self._renew(connection, attempt_id, now, **changed)
            if state is not before or message:
                self._tell(connection, now, attempt_id, row.run_id, before, state, message)

    @patient
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
        """See `RunLedger`.

        Raises:
            ValueError: the state does not end an attempt, or a success comes without a result.
        """
        if not state.is_final or (state.has_result and result is None):
            raise ValueError(f"{state} with{'' if result else 'out'} a result does not end an attempt.")
        error = error or (result.error if result else None)
        doubts = list(reasons) or (result.reasons if result else [])
        with self._writing() as connection:
            row = self._own(connection, attempt_id)
            if row.finished_at is None:
                others = connection.execute(statement.ACCEPTED, {"of_run": row.run_id}).first()
                ending = {
                    "accepted": state is AttemptState.SUCCEEDED and others is None,
                    "error": error.model_dump(mode="json") if error else None,
                    "result": result.model_dump(mode="json") if result else None,
                    "reasons": [reason.model_dump(mode="json") for reason in doubts],
                }
                story = message or (error.message if error else "")
                self._conclude(connection, attempt_id, row, state, ending, story)
            elif (row.owner, row.state) != (self._owner, state):
                raise TakenOverError(
                    f"Attempt {attempt_id} has ended as {row.state}, by {row.owner}: that stays.",
                    owner=row.owner,
                )
            return self._derive(connection, row.run_id)

    @patient
    def renew(self) -> int:
        """Renew the leases of all that this owner has open, in one write.

        Returns:
            How many there are.
        """
        with self._writing(is_note=True) as connection:
            now = self._time(connection)
            renewed = {"of_owner": self._owner, "lease_until": now + timedelta(seconds=LEASE_S), "updated_at": now}
            return connection.execute(statement.RENEW_OPEN, renewed).rowcount

    @patient
    def remember(
        self,
        key: str,
        value: JsonValue,
        message: str = "",
        *,
        attempt_id: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """See `RunLedger`."""
        with self._writing() as connection:
            serialise(connection)
            connection.execute(delete(FACT).where(FACT.c.key == key))
            connection.execute(insert(FACT).values(key=key, value=value))
            if message:
                self._tell(connection, self._time(connection), attempt_id, run_id, None, None, message)

    @patient
    def forget(self, key: str) -> None:
        """See `RunLedger`."""
        with self._writing() as connection:
            connection.execute(delete(FACT).where(FACT.c.key == key))

    @property
    def folder(self) -> Path | None:
        """Where the run table is, and the experiment's other files; None of a database server."""
        is_file = self._url.get_backend_name() == "sqlite" and self._url.database
        return Path(str(self._url.database)).parent if is_file else None

    @contextmanager
    def deciding(self) -> Iterator[Decision]:
        """One transaction for a person's decision; see `orchestrator.store.control`."""
        with self._writing() as connection:
            serialise(connection)
            yield Decision(connection, self._time(connection))

    def reopen(self, run_ids: Collection[str], *, by: str = "`orchestrator retry`") -> list[str]:
        """Make ended runs TODO again, with `max_attempts` new attempts each; what was measured stays as evidence.

        Args:
            run_ids: planned runs.
            by: who asked, for the story.

        Returns:
            Those that are to do again, in order. The others are to do, or running, already.

        Raises:
            UsageError: one is not planned, or has an accepted result; nothing was changed.
        """
        with self._writing() as connection:
            runs = connection.execute(
                select(RUN.c.run_id, RUN.c.state).where(RUN.c.run_id.in_(list(run_ids))).order_by(RUN.c.position)
            ).all()
            unknown = sorted(set(run_ids) - {run.run_id for run in runs})
            if unknown:
                raise UsageError(f"The run table has no run {unknown[0]}. See `__run_id` in run_table.csv.")
            done = [run.run_id for run in runs if run.state == RunState.DONE]
            if done:
                raise UsageError(
                    f"{done[0]} is done: a run has one accepted result. Raise `repetitions` under another `name` "
                    "to measure more."
                )
            reopened = [run.run_id for run in runs if run.state in (RunState.SUSPECT, RunState.FAILED)]
            for run_id in reopened:
                last = select(func.max(ATTEMPT.c.number)).where(ATTEMPT.c.run_id == run_id).scalar_subquery()
                connection.execute(update(RUN).where(RUN.c.run_id == run_id).values(reopened_after=last))
                self._derive(connection, run_id)
                story = f"to be tried again, as asked by {by}"
                self._tell(connection, self._time(connection), None, run_id, None, None, story)
            return reopened

    def close(self) -> None:
        """See `RunLedger`."""
        self._engine.dispose()

    @contextmanager
    def _writing(self, *, is_note: bool = False) -> Iterator[Connection]:
        """A transaction that writes.

        Args:
            is_note: what a power cut may undo: it is in the file before anything that is written later, and a kill
                does not touch it, but no write to the disk is waited for.
        """
        # A SQLite file has one writer at a time, and lets others look again after growing pauses: the threads of one
        # process wait here instead, where the next one goes on at once.
        engine = self._noting if is_note else self._engine
        with self._turn, told(self._url), engine.begin() as connection:
            yield connection

    def _look(self, message: str) -> None:
        """Whether a server is back: when the story can be written on, with what was the matter."""
        with self._writing() as connection:
            host, pid = host_of(self._owner), pid_of(self._owner)
            told = f"process {pid} on {host}: {message}" if pid else message
            self._tell(connection, self._time(connection), None, None, None, None, told)

    def _time(self, connection: Connection) -> datetime:
        """The database's: leases of several hosts must not depend on whose clock is right.

        A SQLite file's clock is that of its host, and every other database has its own.
        """
        if self._now is not None:
            return self._now()
        if connection.dialect.name == "sqlite":
            return datetime.now(UTC)
        at: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return at

    def _was_away(self, connection: Connection, now: datetime) -> bool:
        """Whether leases may have run out because the server was away: their owners get time to renew them."""
        if connection.dialect.name != "postgresql" or self._now is not None:
            return False
        if self._server.since_back_s < LEASE_S:
            return True
        started_at: datetime = connection.execute(select(func.pg_postmaster_start_time())).scalar_one()
        return now - started_at < timedelta(seconds=LEASE_S)

    def _take_over(self, connection: Connection, row: Any, now: datetime) -> Claim:
        state = AttemptState(row.state)
        self._renew(connection, row.attempt_id, now, owner=self._owner)
        if row.owner != self._owner:
            self._tell(connection, now, row.attempt_id, row.run_id, state, state, f"taken over from {row.owner}")
        return Claim(row.attempt_id, row.run_id, row.number, self._spec(row.spec), state, cooldown_of(row))

    def _give_up(self, connection: Connection, row: Any) -> None:
        """End an attempt that was claimed for another testbed, which may have it though nobody noted that.

        One attempt runs on one testbed at most: its run is claimed anew, and what the other one has is a leftover.
        """
        story = f"claimed for {row.testbed} by {row.owner}, which is gone; its run goes to another testbed"
        error = ErrorBody(code=TakenOverError.code, message=f"{story[0].upper()}{story[1:]}.").model_dump(mode="json")
        ending = {"accepted": False, "error": error, "result": None, "reasons": []}
        self._conclude(connection, row.attempt_id, row, AttemptState.CANCELLED, ending, story)
        self._derive(connection, row.run_id)

    def _conclude(
        self,
        connection: Connection,
        attempt_id: str,
        row: Any,
        state: AttemptState,
        ending: dict[str, Any],
        story: str,
    ) -> None:
        """Write an attempt's end; what becomes of its run is for `_derive`."""
        now = self._time(connection)
        ended = {"of_attempt": attempt_id, "state": state, "lease_until": None, "updated_at": now, "finished_at": now}
        connection.execute(statement.END_ATTEMPT, ended | ending)
        self._tell(connection, now, attempt_id, row.run_id, AttemptState(row.state), state, story)

    def _own(self, connection: Connection, attempt_id: str) -> Any:
        """The attempt, locked; it must be this owner's, unless it is over."""
        row = connection.execute(statement.ATTEMPT_HEAD, {"of_attempt": attempt_id}).first()
        if row is None:
            raise UsageError(f"The run table has no attempt {attempt_id}.")
        if row.finished_at is None and row.owner != self._owner:
            raise TakenOverError(
                f"Attempt {attempt_id} was taken over by {row.owner}: this orchestrator was silent for too long. "
                "It is left to the other one.",
                owner=row.owner,
            )
        return row

    def _renew(self, connection: Connection, attempt_id: str, now: datetime, **values: Any) -> None:
        connection.execute(
            update(ATTEMPT)
            .where(ATTEMPT.c.attempt_id == attempt_id, ATTEMPT.c.finished_at.is_(None))
            .values(lease_until=now + timedelta(seconds=LEASE_S), updated_at=now, **values)
        )

    def _tell(
        self,
        connection: Connection,
        now: datetime,
        attempt_id: str | None,
        run_id: str | None,
        before: AttemptState | None,
        after: AttemptState | None,
        message: str,
    ) -> None:
        event = {
            "at": now,
            "attempt_id": attempt_id,
            "run_id": run_id,
            "state_before": before,
            "state_after": after,
            "message": message,
        }
        connection.execute(statement.ADD_EVENT, event)

    def _derive(self, connection: Connection, run_id: str) -> RunState:
        """The run's state from its attempts, written beside them so that counting and claiming stay cheap."""
        attempts = connection.execute(statement.HISTORY, {"of_run": run_id}).all()
        state = standing(attempts, max_attempts=attempts[0].max_attempts, reopened_after=attempts[0].reopened_after)
        connection.execute(statement.SET_RUN_STATE, {"of_run": run_id, "state": state})
        return state
