"""The run table as it is read, over SQLAlchemy."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import JsonValue
from sqlalchemy import Connection, Engine, bindparam, case, func, select
from sqlalchemy.engine import URL

from contract.attempt_state import AttemptState, RunState
from contract.errors import ErrorBody
from contract.trial_result import SuspectReason, TrialResult
from contract.trial_spec import TrialSpec
from orchestrator.cooldown import CooldownOutcome
from orchestrator.store.base import (
    SETTLED_PREFIX,
    AttemptRow,
    EventRow,
    Leftover,
    Plan,
    PlannedRun,
    RunRow,
    RunTableDamagedError,
)
from orchestrator.store.database import READ_ONLY, repair_advice, shown, told
from orchestrator.store.outage import ServerWait, patient
from orchestrator.store.schema import ATTEMPT, EVENT, EXPERIMENT, FACT, RUN

_Answer = TypeVar("_Answer")

_NEXT_RUNS = (
    select(RUN.c.position, RUN.c.run_id, RUN.c.treatment, RUN.c.repetition, RUN.c.state)
    .where(RUN.c.position > bindparam("after"))
    .order_by(RUN.c.position)
    .limit(50)
)
"""A few at a time: their specs and results take memory that the process then keeps."""
_THEIR_ATTEMPTS = (
    select(ATTEMPT)
    .where(ATTEMPT.c.run_id.in_(bindparam("of_runs", expanding=True)))
    .order_by(ATTEMPT.c.run_id, ATTEMPT.c.number)
)

_GIVEN_UP = (
    select(ATTEMPT.c.attempt_id, ATTEMPT.c.run_id, ATTEMPT.c.testbed)
    .where(
        ATTEMPT.c.state.in_([AttemptState.CANCELLED, AttemptState.LOST]),
        ATTEMPT.c.finished_at.is_not(None),
        ATTEMPT.c.result.is_(None),
    )
    .order_by(ATTEMPT.c.claimed_at)
)

_THEIR_OUTLINES = (
    select(
        *(column for column in ATTEMPT.c if column.name != "result"),
        # An older version kept the reasons in the result alone.
        case((ATTEMPT.c.reasons.is_(None), ATTEMPT.c.result)).label("result"),
    )
    .where(ATTEMPT.c.run_id.in_(bindparam("of_runs", expanding=True)))
    .order_by(ATTEMPT.c.run_id, ATTEMPT.c.number)
)
"""The same without results."""


class SqlReader:
    """`RunReader` over one database. Waits for no writer.

    Args:
        engine: of an open database with the current schema.
        url: where it is, for messages.
        server: how a server that goes away is waited for; not at all by default.
    """

    def __init__(self, engine: Engine, url: URL, server: ServerWait | None = None) -> None:
        self._engine = engine
        self._server = server or ServerWait()
        self._reading = engine.execution_options(**{READ_ONLY: True})
        self._url = url

    @patient
    def plan(self, *, with_runs: bool = True) -> Plan | None:
        """See `RunReader`."""
        with self._reader() as connection:
            row = connection.execute(select(EXPERIMENT)).first()
            if row is None:
                return None
            runs = connection.execute(select(RUN).order_by(RUN.c.position)).all() if with_runs else []
            return Plan(
                experiment=row.name,
                seed=row.seed,
                factors=tuple(row.factors),
                runs=tuple(
                    PlannedRun(run.position, run.run_id, run.treatment, run.repetition, self._spec(run.spec))
                    for run in runs
                ),
                max_attempts=row.max_attempts,
                config_text=row.config_text,
                design=row.design,
                sha256=row.plan_sha256,
            )

    def attempt_ids(self) -> dict[str, bool]:
        """Attempt id -> whether it is accepted; cheap."""
        with self._reader() as connection:
            rows = connection.execute(select(ATTEMPT.c.attempt_id, ATTEMPT.c.accepted)).all()
        return {row.attempt_id: bool(row.accepted) for row in rows}

    @patient
    def counts(self) -> dict[RunState, int]:
        """See `RunReader`."""
        with self._reader() as connection:
            rows = connection.execute(select(RUN.c.state, func.count()).group_by(RUN.c.state)).all()
        found = {RunState(state): count for state, count in rows}
        return {state: found.get(state, 0) for state in RunState}

    @patient
    def runs(self, *, with_results: bool = True) -> Sequence[RunRow]:
        """See `RunReader`."""
        return list(self.each_run(with_results=with_results))

    def each_run(self, *, with_results: bool = True) -> Iterator[RunRow]:
        """See `RunReader`. All of one moment, where the database is SQLite."""
        attempts_of = _THEIR_ATTEMPTS if with_results else _THEIR_OUTLINES
        position = -1
        with self._reader() as connection:
            while runs := connection.execute(_NEXT_RUNS, {"after": position}).all():
                position = runs[-1].position
                by_run: dict[str, list[AttemptRow]] = {run.run_id: [] for run in runs}
                for attempt in connection.execute(attempts_of, {"of_runs": list(by_run)}):
                    by_run[attempt.run_id].append(_attempt_row(attempt))
                for run in runs:
                    attempts = tuple(by_run[run.run_id])
                    state = RunState(run.state)
                    yield RunRow(run.position, run.run_id, run.treatment, run.repetition, state, attempts)

    def run(self, run_id: str) -> RunRow | None:
        """One run with its attempts, or None where there is no such run; cheap at any size."""
        columns = (RUN.c.position, RUN.c.run_id, RUN.c.treatment, RUN.c.repetition, RUN.c.state)
        with self._reader() as connection:
            row = connection.execute(select(*columns).where(RUN.c.run_id == run_id)).first()
            if row is None:
                return None
            attempts = connection.execute(_THEIR_ATTEMPTS, {"of_runs": [run_id]}).all()
            state = RunState(row.state)
            rows = tuple(_attempt_row(attempt) for attempt in attempts)
            return RunRow(row.position, row.run_id, row.treatment, row.repetition, state, rows)

    @patient
    def spec(self, run_id: str) -> TrialSpec | None:
        """What a run executes, or None where there is no such run."""
        with self._reader() as connection:
            spec = connection.execute(select(RUN.c.spec).where(RUN.c.run_id == run_id)).scalar()
            return None if spec is None else self._spec(spec)

    def neighbours(self, position: int) -> tuple[str | None, str | None]:
        """The runs before and after a place in the execution order."""
        with self._reader() as connection:
            found = connection.execute(
                select(RUN.c.position, RUN.c.run_id).where(RUN.c.position.in_([position - 1, position + 1]))
            ).all()
        by_position = {row.position: row.run_id for row in found}
        return by_position.get(position - 1), by_position.get(position + 1)

    def events(self, run_id: str | None = None) -> Sequence[EventRow]:
        """See `RunReader`."""
        query = select(EVENT).order_by(EVENT.c.id)
        if run_id is not None:
            query = query.where(EVENT.c.run_id == run_id)
        with self._reader() as connection:
            return [
                EventRow(
                    row.at,
                    row.attempt_id,
                    row.run_id,
                    AttemptState(row.state_before) if row.state_before else None,
                    AttemptState(row.state_after) if row.state_after else None,
                    row.message,
                )
                for row in connection.execute(query)
            ]

    @patient
    def recall(self, key: str) -> JsonValue:
        """See `RunReader`."""
        with self._reader() as connection:
            value: JsonValue = connection.execute(select(FACT.c.value).where(FACT.c.key == key)).scalar()
        return value

    @patient
    def leftovers(self) -> dict[str, list[Leftover]]:
        """See `RunReader`."""
        with self._reader() as connection:
            rows = connection.execute(_GIVEN_UP).all()
            settled = set(connection.execute(select(FACT.c.key).where(FACT.c.key.startswith(SETTLED_PREFIX))).scalars())
        found: dict[str, list[Leftover]] = {}
        for row in rows:
            left = Leftover(row.attempt_id, row.run_id)
            if left.settled_key not in settled:
                found.setdefault(row.testbed, []).append(left)
        return found

    @patient
    def last_results(self, n: int) -> dict[str, list[str]]:
        """See `RunReader`."""
        place = func.row_number().over(partition_by=ATTEMPT.c.testbed, order_by=ATTEMPT.c.finished_at.desc())
        ended = (
            select(ATTEMPT.c.testbed, ATTEMPT.c.attempt_id, place.label("place"))
            .where(ATTEMPT.c.finished_at.is_not(None), ATTEMPT.c.result.is_not(None))
            .subquery()
        )
        found: dict[str, list[str]] = {}
        with self._reader() as connection:
            for row in connection.execute(select(ended).where(ended.c.place <= n).order_by(ended.c.place)):
                found.setdefault(row.testbed, []).append(row.attempt_id)
        return found

    @patient
    def facts(self, prefix: str) -> dict[str, JsonValue]:
        """See `RunReader`."""
        query = select(FACT).where(FACT.c.key.startswith(prefix, autoescape=True)).order_by(FACT.c.key)
        with self._reader() as connection:
            return {row.key: row.value for row in connection.execute(query)}

    @property
    def file(self) -> Path | None:
        """The database's file; None: it is on a server."""
        is_sqlite = self._url.get_backend_name() == "sqlite"
        return Path(self._url.database) if is_sqlite and self._url.database else None

    def patiently(self, question: Callable[[], _Answer]) -> _Answer:
        """The answer to what is read, or written and may be repeated; waits for a server that is away."""
        return self._server.ask(question, self._look)

    def _look(self, message: str) -> None:
        """Whether a server is back."""
        with self._reader() as connection:
            connection.execute(select(1))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for queries beyond these, such as the dashboard's; the database's errors come in words."""
        with self._reader() as connection:
            yield connection

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        with self._sensible(), told(self._url), self._reading.connect() as connection:
            yield connection

    def _spec(self, stored: Any) -> TrialSpec:
        with self._sensible():
            return TrialSpec.model_validate(stored)

    @contextmanager
    def _sensible(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            # Of a conversion, or of pydantic: the disk lost what no structure of the file depends on.
            raise RunTableDamagedError(
                f"The run table {shown(self._url)} holds what makes no sense "
                f"({str(error).splitlines()[0][:200]}). {repair_advice(self._url)}"
            ) from error


def cooldown_of(row: Any) -> CooldownOutcome | None:
    """The pause that is stored with an attempt."""
    return CooldownOutcome(**row.cooldown) if row.cooldown else None


def _attempt_row(row: Any) -> AttemptRow:
    result = TrialResult.model_validate(row.result) if row.result else None
    if row.reasons is not None:
        reasons = [SuspectReason.model_validate(reason) for reason in row.reasons]
    else:
        # Written by an older version, which knew the testbed's reasons only.
        reasons = result.reasons if result else []
    return AttemptRow(
        attempt_id=row.attempt_id,
        run_id=row.run_id,
        number=row.number,
        state=AttemptState(row.state),
        accepted=bool(row.accepted),
        testbed=row.testbed,
        claimed_at=row.claimed_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        error=ErrorBody.model_validate(row.error) if row.error else None,
        result=result,
        reasons=tuple(reasons),
        cooldown=cooldown_of(row),
        owner=row.owner,
        lease_until=row.lease_until,
    )
