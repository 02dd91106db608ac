"""How a campaign stands, from the light index and the drivers' facts: what the first page shows, and what is told live.

`status` reads every result to say the same; a page that is refreshed every few seconds cannot.
"""

import heapq
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from contract.attempt_state import AttemptState, RunState
from contract.errors import ErrorBody
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.run_index import LightAttempt, LightRun, RunIndex
from orchestrator.dashboard.standing_store import require_store
from orchestrator.disk_space import DiskSpace
from orchestrator.driver import Condition, Driver, drivers
from orchestrator.explain import Remark, Situation, explain
from orchestrator.processes import ProcessState, process_state
from orchestrator.store.base import AttemptRow, EventRow, RunRow
from orchestrator.store.control import Pause, paused
from orchestrator.store.schema import ATTEMPT, EVENT, EXPERIMENT, RUN
from orchestrator.time_left import TimeLeft, time_left

_SHOWN_EVENTS = 40
_SHOWN_TROUBLES = 6
_LATEST_ATTEMPTS = 60
"""Enough to see whether the newest attempts all failed alike."""

_ENDED = frozenset({RunState.DONE, RunState.SUSPECT, RunState.FAILED})
_EVER = datetime.max.replace(tzinfo=UTC)

_CONDITION_WORDS = {
    Condition.WORKING: "working",
    Condition.COOLING: "cooling down",
    Condition.GATE: "waiting to be cool",
    Condition.UNREACHABLE: "unreachable",
    Condition.BUSY: "busy with another's trial",
    Condition.WAITING: "waiting",
    Condition.ENDED: "at rest",
}


@dataclass(frozen=True)
class Current:
    """An attempt under way.

    Attributes:
        since: when it got its present state.
    """

    run_id: str
    attempt_id: str
    number: int
    testbed: str
    state: AttemptState
    since: datetime
    claimed_at: datetime
    treatment: dict[str, Any]


@dataclass(frozen=True)
class Testbed:
    """A machine that trials run on, as its driver last told.

    Attributes:
        word: what it is at.
        is_wrong: whether somebody should look.
        disk: free space, in words; empty: not told.
    """

    name: str
    url: str
    word: str
    is_wrong: bool
    seen_at: datetime
    disk: str


@dataclass(frozen=True)
class Cooldown:
    """A pause before a trial.

    Attributes:
        is_gate: whether the floor is over and the gate holds.
        limit_c: below it the gate may open; None: not known.
    """

    testbed: str
    run_id: str | None
    is_gate: bool
    since: datetime
    until: datetime | None
    temp_c: float | None
    idle_temp_c: float | None
    limit_c: float | None


@dataclass(frozen=True)
class Glance:
    """All that the first page shows but for live power.

    Attributes:
        counts: runs per state, all states present.
        began_at: first claim; None: nothing began.
        last_end_at: of the newest attempt that ended.
        left: None: too few runs have ended, or none is left.
        is_driven: whether an orchestrator is at work on it, as far as can be told.
        troubles: failed and suspect runs, the newest first; not those that are excluded.
        n_troubles: how many there are in all.
        events: the newest first.
    """

    at: datetime
    n_runs: int
    counts: dict[RunState, int]
    n_excluded: int
    codes: dict[str, int]
    began_at: datetime | None
    last_end_at: datetime | None
    left: TimeLeft | None
    pause: Pause | None
    is_driven: bool
    current: tuple[Current, ...]
    cooldowns: tuple[Cooldown, ...]
    testbeds: tuple[Testbed, ...]
    remarks: tuple[Remark, ...]
    troubles: tuple[LightRun, ...]
    n_troubles: int
    events: tuple[EventRow, ...]

    @property
    def n_ended(self) -> int:
        """Runs that are done, suspect or failed."""
        return sum(self.counts[state] for state in (RunState.DONE, RunState.SUSPECT, RunState.FAILED))

    @property
    def n_left(self) -> int:
        """Runs that are to do, or running."""
        return self.n_runs - self.n_ended

    @property
    def ended_at(self) -> datetime | None:
        """When the last run ended; None: some are left."""
        return None if self.n_left else self.last_end_at

    @property
    def elapsed_s(self) -> float | None:
        """From the first claim until now, or until the last end where nobody is at work; None: nothing began."""
        if self.began_at is None:
            return None
        until = self.at if self.is_driven and self.n_left else self.last_end_at or self.at
        return (until - self.began_at).total_seconds()

    def ends_at(self, left_s: float) -> datetime:
        """When it ends if it takes that long from now on."""
        return self.at + timedelta(seconds=left_s)

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        document = asdict(self)
        document["counts"] = {state.value: n for state, n in self.counts.items()}
        document["pause"] = self.pause.model_dump(mode="json") if self.pause else None
        document["elapsed_s"] = self.elapsed_s
        document["troubles"] = [run_document(row) for row in self.troubles]
        return document


def run_document(row: LightRun) -> dict[str, Any]:
    """A row of the table as JSON."""
    document = asdict(row)
    document["exclusion"] = row.exclusion.model_dump(mode="json") if row.exclusion else None
    return document


def glance(board: Dashboard, index: RunIndex) -> Glance:
    """Look.

    Raises:
        JouleBedError: the run table is gone, or cannot be read.
    """
    require_store(board.store)
    now = board.now()
    known = drivers(board.store)
    events = _events(board)
    tally = index.derived("tally", _tally)
    since = _state_since(board, {each.attempt_id: each.state for each in tally.opened})
    current = tuple(
        Current(
            each.run_id,
            each.attempt_id,
            each.number,
            each.testbed,
            each.state,
            since.get(each.attempt_id, each.claimed_at),
            each.claimed_at,
            row.treatment if (row := index.row(each.run_id)) is not None else {},
        )
        for each in tally.opened
    )
    counts = tally.counts
    n_left = counts[RunState.TODO] + counts[RunState.RUNNING]
    active = [each for each in known if _is_active(each)] if not board.is_frozen else []
    begun_s = sum((now - each.claimed_at).total_seconds() for each in current) if active else 0.0
    situation = _situation(board, known, counts, since, [*tally.latest, *tally.opened])
    return Glance(
        at=now,
        n_runs=tally.n_runs,
        counts={state: counts[state] for state in RunState},
        n_excluded=tally.n_excluded,
        codes=tally.codes,
        began_at=tally.began_at,
        last_end_at=tally.last_end_at,
        left=time_left(tally.run_s, n_left, n_at_once=max(len(active), 1), begun_s=begun_s),
        pause=paused(board.store),
        is_driven=bool(active),
        current=current,
        cooldowns=tuple(_cooldown(each) for each in active if each.condition in (Condition.COOLING, Condition.GATE)),
        testbeds=_testbeds(known, is_copy=board.is_frozen),
        remarks=tuple(explain(situation)) if not board.is_frozen else (),
        troubles=tally.troubles,
        n_troubles=tally.n_troubles,
        events=events,
    )


@dataclass(frozen=True)
class _Tally:
    """What a glance needs of all runs. It follows from them alone, so it is made once while none changes.

    Attributes:
        opened: attempts under way, the oldest first.
        latest: the newest attempts.
        run_s: what each ended run took.
        troubles: the newest of those that are to be looked at, of `n_troubles`.
    """

    n_runs: int
    counts: Counter[RunState]
    n_excluded: int
    codes: dict[str, int]
    began_at: datetime | None
    last_end_at: datetime | None
    opened: tuple[LightAttempt, ...]
    latest: tuple[LightAttempt, ...]
    run_s: tuple[float, ...]
    troubles: tuple[LightRun, ...]
    n_troubles: int


def _tally(rows: Sequence[LightRun], attempts: Sequence[LightAttempt]) -> _Tally:
    ended = [row for row in rows if row.state in _ENDED]
    troubles = [row for row in ended if row.state is not RunState.DONE and row.exclusion is None]
    # Without an end: it changed just now.
    troubles.sort(key=lambda row: row.ended_at or _EVER, reverse=True)
    opened = [each for each in attempts if each.finished_at is None]
    return _Tally(
        n_runs=len(rows),
        counts=Counter([row.state for row in rows]),
        n_excluded=sum([row.exclusion is not None for row in rows]),
        codes=dict(Counter(code for row in troubles for code in row.codes).most_common()),
        began_at=min([each.claimed_at for each in attempts], default=None),
        last_end_at=max([row.ended_at for row in rows if row.ended_at], default=None),
        opened=tuple(sorted(opened, key=lambda each: each.claimed_at)),
        latest=tuple(heapq.nlargest(_LATEST_ATTEMPTS, attempts, key=lambda each: each.finished_at or each.claimed_at)),
        run_s=tuple([row.run_s for row in ended]),
        troubles=tuple(troubles[:_SHOWN_TROUBLES]),
        n_troubles=len(troubles),
    )


def created_at(board: Dashboard) -> datetime | None:
    """When the experiment was planned."""
    with board.store.reading() as connection:
        return connection.execute(select(EXPERIMENT.c.created_at)).scalar()


def _is_active(driver: Driver) -> bool:
    return driver.condition is not Condition.ENDED and process_state(driver.owner) is not ProcessState.GONE


def _cooldown(driver: Driver) -> Cooldown:
    idle, delta = driver.idle_temp_c, driver.delta_c
    return Cooldown(
        testbed=driver.testbed,
        run_id=driver.run_id,
        is_gate=driver.condition is Condition.GATE,
        since=driver.since,
        until=driver.until,
        temp_c=driver.temp_c,
        idle_temp_c=idle,
        limit_c=idle + delta if idle is not None and delta is not None else None,
    )


def _testbeds(known: Sequence[Driver], *, is_copy: bool) -> tuple[Testbed, ...]:
    found: dict[str, Testbed] = {}
    for driver in known:
        if driver.testbed in found:
            continue
        is_gone = is_copy or not _is_active(driver)
        word = _CONDITION_WORDS[Condition.ENDED if is_gone else driver.condition]
        disk = ""
        if driver.testbed_disk_free_bytes is not None and driver.testbed_disk_total_bytes:
            disk = DiskSpace(driver.testbed_disk_free_bytes, driver.testbed_disk_total_bytes).told
        is_wrong = not is_gone and driver.condition in (Condition.UNREACHABLE, Condition.BUSY)
        found[driver.testbed] = Testbed(driver.testbed, driver.url, word, is_wrong, driver.seen_at, disk)
    return tuple(found.values())


def _events(board: Dashboard) -> tuple[EventRow, ...]:
    with board.store.reading() as connection:
        rows = connection.execute(select(EVENT).order_by(EVENT.c.id.desc()).limit(_SHOWN_EVENTS)).all()
    return tuple(
        EventRow(
            row.at,
            row.attempt_id,
            row.run_id,
            AttemptState(row.state_before) if row.state_before else None,
            AttemptState(row.state_after) if row.state_after else None,
            row.message,
        )
        for row in rows
    )


def _state_since(board: Dashboard, states: dict[str, AttemptState]) -> dict[str, datetime]:
    """Open attempt -> when it got its present state."""
    found: dict[str, datetime] = {}
    if not states:
        return found
    run_ids = {attempt_id.rpartition("-a")[0] for attempt_id in states}
    query = (
        select(EVENT.c.at, EVENT.c.attempt_id, EVENT.c.state_before, EVENT.c.state_after)
        .where(EVENT.c.run_id.in_(run_ids))
        .order_by(EVENT.c.id)
    )
    with board.store.reading() as connection:
        for row in connection.execute(query):
            state = states.get(row.attempt_id or "")
            if state is not None and row.state_after == state and row.state_before != row.state_after:
                found[row.attempt_id] = row.at
    return found


def _situation(
    board: Dashboard,
    known: Sequence[Driver],
    counts: Counter[RunState],
    since: dict[str, datetime],
    attempts: Sequence[LightAttempt],
) -> Situation:
    """What `explain` looks at, of the open and the newest attempts, which are given, and without results."""
    columns = [column for column in ATTEMPT.c if column.name not in ("result", "reasons", "cooldown")]
    # By their keys alone: any other condition reads the whole table, results included.
    wanted = {each.attempt_id for each in attempts}
    query = select(*columns).where(ATTEMPT.c.attempt_id.in_(wanted))
    with board.store.reading() as connection:
        found = {row.attempt_id: row for row in connection.execute(query)}
        run_ids = {row.run_id for row in found.values()}
        states = connection.execute(select(RUN.c.run_id, RUN.c.state).where(RUN.c.run_id.in_(run_ids))).all()
    by_run: dict[str, list[AttemptRow]] = {}
    for row in found.values():
        by_run.setdefault(row.run_id, []).append(_attempt(row))
    rows = [RunRow(-1, run_id, {}, 0, RunState(state), tuple(by_run[run_id])) for run_id, state in states]
    if counts[RunState.TODO] and not any(row.state is RunState.TODO for row in rows):
        rows.append(RunRow(-1, "", {}, 0, RunState.TODO, ()))
    return Situation(
        now=board.now(),
        host=socket.gethostname(),
        folder=board.experiment,
        rows=rows,
        drivers=known,
        state_since=since,
        disk=DiskSpace.of(board.experiment),
        process_state=process_state,
    )


def _attempt(row: Any) -> AttemptRow:
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
        result=None,
        owner=row.owner,
        lease_until=row.lease_until,
    )
