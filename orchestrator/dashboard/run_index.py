"""All runs with their main figures in memory, read from the run table without parsing a result twice.

A result has tens of kilobytes; the table needs six numbers of it. The database cuts them out of the stored JSON, once
per attempt; after that only what changed is read. Sorting and filtering 10,000 light rows takes milliseconds.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, func, select

from contract.attempt_state import AttemptState, RunState
from contract.trial_result import SuspectReason
from contract.units import Scalar
from orchestrator.dashboard.standing_store import require_store
from orchestrator.store.control import Exclusion, exclusions
from orchestrator.store.schema import ATTEMPT, EVENT, RUN
from orchestrator.store.sql_store import SqlStore
from orchestrator.suspicion import SuspectResultError, reason_text


@dataclass(frozen=True, slots=True)
class LightAttempt:
    """One execution, without its result.

    Attributes:
        error_code: empty: none.
        told: why it is doubted, or why it failed, in words.
        codes: of the reasons, or of the error.
        figures: of its result; see `FIGURES`.
    """

    attempt_id: str
    run_id: str
    number: int
    state: AttemptState
    accepted: bool
    testbed: str
    claimed_at: datetime
    finished_at: datetime | None
    error_code: str
    told: str
    codes: tuple[str, ...]
    figures: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class LightRun:
    """One row of the table; figures as in run_table.csv. None: not measured.

    Attributes:
        attempt_id: the execution that the row shows; None: there was none.
        codes: why it is suspect, or why it failed.
        told: the same in words.
        run_s: what all its ended attempts took, cooldowns included.
        ended_at: of its last attempt.
        exclusion: why it is left out of the results; None: it is not.
    """

    position: int
    run_id: str
    treatment: dict[str, Scalar]
    repetition: int
    state: RunState
    n_attempts: int
    attempt_id: str | None
    testbed: str | None
    energy_j: float | None
    energy_net_j: float | None
    energy_method: str | None
    duration_s: float | None
    tokens_per_s: float | None
    accuracy: float | None
    codes: tuple[str, ...]
    told: str
    run_s: float
    ended_at: datetime | None
    exclusion: Exclusion | None


FIGURES = ("energy_j", "energy_net_j", "energy_method", "duration_s", "tokens_per_s", "accuracy")
"""Order of an attempt's figures."""

_RESULT = ATTEMPT.c.result

_AT_ONCE = 500
"""Runs that one query names."""

_MOST_DERIVED = 64
"""Things kept that were made of all rows: an address may ask for any number of orders."""

_T = TypeVar("_T")

_COLUMNS = (
    ATTEMPT.c.attempt_id,
    ATTEMPT.c.run_id,
    ATTEMPT.c.number,
    ATTEMPT.c.state,
    ATTEMPT.c.accepted,
    ATTEMPT.c.testbed,
    ATTEMPT.c.claimed_at,
    ATTEMPT.c.finished_at,
    ATTEMPT.c.error,
    ATTEMPT.c.reasons,
    _RESULT[("summary", "energy_j")].as_float().label("energy_j"),
    _RESULT[("summary", "energy_net_j")].as_float().label("energy_net_j"),
    _RESULT[("summary", "method")].as_string().label("energy_method"),
    _RESULT["duration_s"].as_float().label("duration_s"),
    _RESULT["tokens_per_s"].as_float().label("tokens_per_s"),
    _RESULT[("workload", "score", "accuracy")].as_float().label("accuracy"),
)


class RunIndex:
    """The runs of one experiment. Thread-safe.

    Args:
        store: the run table.
    """

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._planned: list[tuple[int, str, dict[str, Scalar], int]] = []
        self._attempts: dict[str, dict[str, LightAttempt]] = {}
        self._rows: dict[str, LightRun] = {}
        self._ordered: list[LightRun] = []
        self._executions: list[LightAttempt] = []
        self._derived: dict[str, Any] = {}
        self._levels: dict[str, list[Scalar]] = {}
        self._codes: Counter[str] = Counter()
        self.factors: tuple[str, ...] = ()
        self.version = 0
        self.n_read = 0
        """Rows made so far."""

    def forget(self) -> None:
        """Read everything anew: the run table's file is another one."""
        with self._lock:
            self._forget()

    def rows(self) -> Sequence[LightRun]:
        """All runs in order, as they stand now; not to be changed.

        Raises:
            RunTableError: the run table is gone, or cannot be read.
        """
        with self._lock:
            self._refresh()
            return self._ordered

    def attempts(self) -> Sequence[LightAttempt]:
        """All attempts, in no order; not to be changed."""
        with self._lock:
            self._refresh()
            return self._executions

    def row(self, run_id: str) -> LightRun | None:
        """One run as it stood when the index was read last; None: there is none."""
        return self._rows.get(run_id)

    def derived(self, name: str, make: Callable[[Sequence[LightRun], Sequence[LightAttempt]], _T]) -> _T:
        """What follows from all rows, such as their order by a column: made once, and anew when a row has changed.

        Args:
            name: of it; the same name must mean the same thing.
            make: from all runs in order and all attempts in none; neither is to be changed, nor this index asked.

        Raises:
            RunTableError: the run table is gone, or cannot be read.
        """
        with self._lock:
            self._refresh()
            if name not in self._derived:
                if len(self._derived) >= _MOST_DERIVED:
                    self._derived.clear()
                self._derived[name] = make(self._ordered, self._executions)
            found: _T = self._derived[name]
            return found

    def levels(self) -> dict[str, list[Scalar]]:
        """Factor -> its levels, as they are in the plan."""
        self.rows()
        return self._levels

    def codes(self) -> Counter[str]:
        """Reason or error code -> runs with it."""
        self.rows()
        return self._codes

    def _forget(self) -> None:
        self._seen, self._planned = None, []
        self._attempts, self._rows, self._ordered, self._executions = {}, {}, [], []
        self._derived = {}
        self._levels, self._codes = {}, Counter()

    def _refresh(self) -> None:
        require_store(self._store)
        with self._store.reading() as connection:
            last_event = connection.execute(select(func.max(EVENT.c.id))).scalar() or 0
            n_facts = len(excluded := exclusions(self._store))
            seen = (last_event, n_facts)
            if seen == self._seen and self._planned:
                return
            if self._seen is not None and last_event < self._seen[0]:
                self._forget()  # rebuilt by a repair
            if not self._planned:
                self._read_plan()
                if not self._planned:
                    return
            # Whatever happens to a run is told by an event of it.
            changed = None if self._seen is None else self._told_of(connection, self._seen[0])
            for attempt in map(_light, _each(connection, select(*_COLUMNS), ATTEMPT.c.run_id, changed)):
                self._attempts.setdefault(attempt.run_id, {})[attempt.attempt_id] = attempt
            states = {
                run_id: RunState(state)
                for run_id, state in _each(connection, select(RUN.c.run_id, RUN.c.state), RUN.c.run_id, changed)
            }
        for position, run_id, treatment, repetition in self._planned:
            row, exclusion = self._rows.get(run_id), excluded.get(run_id)
            if run_id in states:
                attempts = sorted(self._attempts.get(run_id, {}).values(), key=lambda each: each.number)
                row = _row(position, run_id, treatment, repetition, states[run_id], attempts, exclusion)
                self.n_read += 1
            elif row is not None and row.exclusion != exclusion:
                row = replace(row, exclusion=exclusion)
            if row is not None:
                self._rows[run_id] = row
        self._ordered = [self._rows[run_id] for _, run_id, *_ in self._planned if run_id in self._rows]
        self._executions = [attempt for of_run in self._attempts.values() for attempt in of_run.values()]
        self._derived = {}
        self._codes = Counter(code for row in self._ordered for code in row.codes)
        self._seen = seen
        self.version += 1

    def _read_plan(self) -> None:
        plan = self._store.plan(with_runs=False)
        if plan is None:
            return
        self.factors = plan.factors
        columns = (RUN.c.position, RUN.c.run_id, RUN.c.treatment, RUN.c.repetition)
        with self._store.reading() as connection:
            rows = connection.execute(select(*columns).order_by(RUN.c.position)).all()
        self._planned = [(row.position, row.run_id, row.treatment, row.repetition) for row in rows]
        levels: dict[str, dict[str, Scalar]] = {factor: {} for factor in self.factors}
        for row in rows:
            for factor, level in row.treatment.items():
                levels.setdefault(factor, {}).setdefault(str(level), level)
        self._levels = {factor: list(found.values()) for factor, found in levels.items()}

    def _told_of(self, connection: Connection, last_event: int) -> list[str]:
        query = select(EVENT.c.run_id).where(EVENT.c.id > last_event, EVENT.c.run_id.is_not(None)).distinct()
        return list(connection.execute(query).scalars())


def _each(
    connection: Connection, query: Select[Any], column: ColumnElement[str], wanted: Sequence[str] | None
) -> Iterator[Any]:
    """Rows of the runs that are wanted, or of all where None."""
    if wanted is None:
        yield from connection.execute(query)
        return
    for start in range(0, len(wanted), _AT_ONCE):
        yield from connection.execute(query.where(column.in_(wanted[start : start + _AT_ONCE])))


def _light(row: Any) -> LightAttempt:
    reasons = [SuspectReason.model_validate(reason) for reason in row.reasons or ()]
    error_code = str((row.error or {}).get("code", ""))
    told = [reason_text(reasons)] if reasons else []
    # The error of a doubted result repeats its reasons.
    if row.error and not (told and error_code == SuspectResultError.code):
        told.append(f"{error_code}: {row.error.get('message', '')}")
    codes = tuple(dict.fromkeys(reason.code for reason in reasons)) or ((error_code,) if error_code else ())
    return LightAttempt(
        attempt_id=row.attempt_id,
        run_id=row.run_id,
        number=row.number,
        state=AttemptState(row.state),
        accepted=bool(row.accepted),
        testbed=row.testbed,
        claimed_at=row.claimed_at,
        finished_at=row.finished_at,
        error_code=error_code,
        told=" ".join("; ".join(told).split()),
        codes=codes,
        figures=tuple(getattr(row, name) for name in FIGURES),
    )


def _row(
    position: int,
    run_id: str,
    treatment: dict[str, Scalar],
    repetition: int,
    state: RunState,
    attempts: Sequence[LightAttempt],
    exclusion: Exclusion | None,
) -> LightRun:
    telling = _telling(attempts)
    # As in run_table.csv: what was refused, or is to be measured again, is evidence and no figure.
    is_figure = telling is not None and (telling.accepted or (telling.state.has_result and state is RunState.SUSPECT))
    figures = telling.figures if telling is not None and is_figure else (None,) * len(FIGURES)
    energy_j, energy_net_j, energy_method, duration_s, tokens_per_s, accuracy = figures
    ended = [each for each in attempts if each.finished_at is not None]
    return LightRun(
        position=position,
        run_id=run_id,
        treatment=treatment,
        repetition=repetition,
        state=state,
        n_attempts=len(attempts),
        attempt_id=telling.attempt_id if telling else None,
        testbed=telling.testbed if telling else None,
        energy_j=energy_j,
        energy_net_j=energy_net_j,
        energy_method=energy_method,
        duration_s=duration_s,
        tokens_per_s=tokens_per_s,
        accuracy=accuracy,
        codes=telling.codes if telling else (),
        told=telling.told if telling else "",
        run_s=sum((each.finished_at - each.claimed_at).total_seconds() for each in ended if each.finished_at),
        ended_at=max((each.finished_at for each in ended if each.finished_at), default=None),
        exclusion=exclusion,
    )


def _telling(attempts: Sequence[LightAttempt]) -> LightAttempt | None:
    """See `run_table_columns.telling_attempt`."""
    for attempt in attempts:
        if attempt.accepted:
            return attempt
    for attempt in reversed(attempts):
        if attempt.state.has_result:
            return attempt
    return attempts[-1] if attempts else None
