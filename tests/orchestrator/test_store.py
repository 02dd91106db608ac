"""The run table: one accepted attempt per run whatever happens, and a store that says what is wrong with it."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import IntegrityError

from contract.attempt_state import AttemptState, RunState
from contract.errors import ChildDiedError, ErrorBody, ModelNotFoundError, PlanChangedError, UsageError
from contract.trial_result import TrialResult
from orchestrator.cooldown import CooldownOutcome
from orchestrator.store.base import Claim, RunLedger, RunReader, TakenOverError
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import LEASE_S, SqlStore
from orchestrator.suspicion import SuspectResultError
from tests.contract.examples import RESULT
from tests.orchestrator.doubles import plan
from tests.postgresql_server import PostgresqlServer, wait_until_left

Address = Path | str
"""A SQLite file, or a PostgreSQL database's URL."""

RETRYABLE = ChildDiedError("The child died. Look at its log.", signal=9).body()
HOPELESS = ModelNotFoundError("No model. Download it.").body()


class Now:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "test" / RUN_TABLE


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest) -> Iterator[Address]:
    """Of a run table without a row: a file that is not there yet, and a database on a server."""
    if request.param == "sqlite":
        yield Path(request.getfixturevalue("path"))
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    with server.run_table() as url:
        yield url


@pytest.fixture
def store(address: Address) -> Iterator[SqlStore]:
    store = SqlStore.open(address, owner="me", create=True)
    store.create_experiment(plan(3))
    yield store
    store.close()


def result_of(claim: Claim, state: AttemptState = AttemptState.SUCCEEDED) -> TrialResult:
    return RESULT.model_copy(update={"attempt_id": claim.attempt_id, "run_id": claim.run_id, "state": state})


def claimed(store: SqlStore) -> Claim:
    claim = store.claim_next("box")
    assert claim is not None
    return claim


def end(store: SqlStore, state: AttemptState, error: ErrorBody | None = None) -> tuple[Claim, RunState]:
    claim = claimed(store)
    result = result_of(claim, state) if state.has_result else None
    return claim, store.finish(claim.attempt_id, state, result=result, error=error)


def dump(address: Address) -> list[str]:
    """All that is in a database, as text."""
    if isinstance(address, Path):
        with closing(sqlite3.connect(address)) as connection:
            return list(connection.iterdump())
    engine = create_engine(address)
    with engine.connect() as connection:
        rows = [
            f"{table}{tuple(row)}"
            for table in inspect(connection).get_table_names()
            for row in connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1")
        ]
    engine.dispose()
    return rows


def test_the_plan_comes_back_as_it_was(store: SqlStore) -> None:
    ledger: RunLedger = store
    reader: RunReader = store
    ledger.create_experiment(plan(3))
    assert reader.plan() == plan(3)
    assert reader.counts() == {state: 3 * (state is RunState.TODO) for state in RunState}
    assert [(run.position, run.run_id, run.attempts) for run in reader.runs()] == [
        (i, f"run_{i}_repetition_0", ()) for i in range(3)
    ]


def test_runs_are_read_a_few_at_a_time_and_all_of_them(address: Address) -> None:
    with closing(SqlStore.open(address, owner="me", create=True)) as store:
        store.create_experiment(plan(450))
        ends = [end(store, AttemptState.SUCCEEDED)[0] for _ in range(3)]
        read = list(store.each_run())
        assert read == store.runs()
    assert [run.position for run in read] == list(range(450))
    found = [attempt.attempt_id for run in read for attempt in run.attempts]
    assert found == [claim.attempt_id for claim in ends]
    assert [len(run.attempts) for run in read[:4]] == [1, 1, 1, 0]


def test_an_outline_of_the_plan_has_all_but_its_runs(store: SqlStore) -> None:
    assert store.plan(with_runs=False) == replace(plan(3), runs=())


def test_an_empty_store_has_no_plan(address: Address) -> None:
    with closing(SqlStore.open(address, create=True)) as store:
        assert store.plan() is None
        assert store.claim_next("box") is None
        assert sum(store.counts().values()) == 0


def test_the_same_plan_again_changes_nothing_and_another_is_refused(store: SqlStore, address: Address) -> None:
    end(store, AttemptState.SUCCEEDED)
    before = dump(address)
    store.create_experiment(plan(3))
    with pytest.raises(PlanChangedError, match="Give the configuration another `name`"):
        store.create_experiment(plan(4))
    assert dump(address) == before


def test_an_attempt_is_told_from_claim_to_acceptance(store: SqlStore) -> None:
    claim = claimed(store)
    assert (claim.run_id, claim.number, claim.state) == ("run_0_repetition_0", 1, AttemptState.CLAIMED)
    assert claim.spec == plan(3).runs[0].spec
    assert store.counts()[RunState.RUNNING] == 1
    for state in (AttemptState.SUBMITTED, AttemptState.LOADING, AttemptState.LOADING, AttemptState.COLLECTING):
        store.record_state(claim.attempt_id, state)
    result = result_of(claim)
    assert store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result) is RunState.DONE
    (attempt,) = store.runs()[0].attempts
    assert attempt.accepted
    assert attempt.result == result
    assert attempt.error is None
    assert attempt.finished_at is not None
    assert attempt.finished_at.tzinfo is not None
    assert [event.state_after.value for event in store.events(claim.run_id)] == [
        "CLAIMED", "SUBMITTED", "LOADING", "COLLECTING", "SUCCEEDED",
    ]  # fmt: skip
    assert store.events("run_1_repetition_0") == []
    assert claimed(store).run_id == "run_1_repetition_0"


def test_a_forbidden_transition_changes_nothing(store: SqlStore, address: Address) -> None:
    claim = claimed(store)
    store.record_state(claim.attempt_id, AttemptState.MEASURING)
    before = dump(address)
    for state in (AttemptState.LOADING, AttemptState.CLAIMED, AttemptState.SUCCEEDED, AttemptState.FAILED):
        with pytest.raises(ValueError, match=r"cannot follow|use finish"):
            store.record_state(claim.attempt_id, state)
    with pytest.raises(ValueError, match="does not end an attempt"):
        store.finish(claim.attempt_id, AttemptState.MEASURING)
    with pytest.raises(ValueError, match="does not end an attempt"):
        store.finish(claim.attempt_id, AttemptState.SUCCEEDED)
    with pytest.raises(UsageError, match="no attempt nobody"):
        store.record_state("nobody", AttemptState.LOADING)
    assert dump(address) == before


def test_finish_is_idempotent(store: SqlStore, address: Address) -> None:
    claim, state = end(store, AttemptState.SUCCEEDED)
    before = dump(address)
    assert store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim)) is state
    with pytest.raises(TakenOverError, match="has ended as SUCCEEDED"):
        store.finish(claim.attempt_id, AttemptState.FAILED, error=RETRYABLE)
    with pytest.raises(ValueError, match="cannot follow"):
        store.record_state(claim.attempt_id, AttemptState.LOADING)
    assert dump(address) == before


def test_retryable_failures_are_tried_up_to_the_limit(store: SqlStore) -> None:
    ends = [end(store, AttemptState.FAILED, RETRYABLE) for _ in range(3)]
    assert [(claim.run_id, claim.number) for claim, _ in ends] == [("run_0_repetition_0", n) for n in (1, 2, 3)]
    assert [state for _, state in ends] == [RunState.TODO, RunState.TODO, RunState.FAILED]
    assert [attempt.error for attempt in store.runs()[0].attempts] == [RETRYABLE] * 3
    assert claimed(store).run_id == "run_1_repetition_0"


@pytest.mark.parametrize(
    ("state", "error", "after"),
    [
        (AttemptState.FAILED, HOPELESS, RunState.FAILED),
        (AttemptState.FAILED, None, RunState.FAILED),
        (AttemptState.TIMED_OUT, HOPELESS, RunState.FAILED),
        (AttemptState.TIMED_OUT, RETRYABLE, RunState.TODO),
        (AttemptState.LOST, None, RunState.TODO),
        (AttemptState.LOST, HOPELESS, RunState.TODO),
        (AttemptState.CANCELLED, None, RunState.TODO),
        (AttemptState.SUSPECT, None, RunState.SUSPECT),
        (AttemptState.SUCCEEDED, None, RunState.DONE),
    ],
)
def test_what_follows_an_attempt(
    store: SqlStore, state: AttemptState, error: ErrorBody | None, after: RunState
) -> None:
    assert end(store, state, error)[1] is after
    assert store.counts()[after] >= 1
    assert store.runs()[0].state is after


def test_what_a_person_cancelled_does_not_count(store: SqlStore) -> None:
    states = [AttemptState.CANCELLED, AttemptState.FAILED, AttemptState.CANCELLED, AttemptState.LOST]
    for state in states:
        assert end(store, state, RETRYABLE)[1] is RunState.TODO
    claim, state_after = end(store, AttemptState.FAILED, RETRYABLE)
    assert (claim.number, state_after) == (5, RunState.FAILED)


def test_the_database_itself_refuses_a_second_accepted_attempt(store: SqlStore) -> None:
    end(store, AttemptState.FAILED, RETRYABLE)
    end(store, AttemptState.SUCCEEDED)
    with store._engine.begin() as connection, pytest.raises(IntegrityError, match=r"(?i)unique"):
        connection.exec_driver_sql("UPDATE attempt SET accepted = true WHERE number = 1")


def test_facts_are_kept_and_replaced(store: SqlStore, address: Address) -> None:
    assert store.recall("idle_temp_c") is None
    store.remember("idle_temp_c", {"box": 38.5})
    store.remember("idle_temp_c", {"box": 39.0})
    with closing(SqlStore.open(address, create=False)) as other:
        assert other.recall("idle_temp_c") == {"box": 39.0}


def test_a_fact_that_eight_threads_write_at_once_is_there_once(address: Address) -> None:
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        with closing(SqlStore.open(address, owner=f"owner-{number}", create=True)) as store:
            barrier.wait()
            for _ in range(10):
                store.remember("key", number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    with closing(SqlStore.open(address, create=False)) as store:
        assert store.facts("") == {"key": store.recall("key")}


def test_claims_of_eight_threads_never_collide(address: Address) -> None:
    taken: list[str] = []
    barrier = threading.Barrier(8)

    def drive(owner: str) -> None:
        barrier.wait()
        with closing(SqlStore.open(address, owner=owner, create=True)) as store:
            store.create_experiment(plan(80))
            while (claim := store.claim_next(owner)) is not None:
                taken.append(claim.run_id)
                store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim))

    threads = [threading.Thread(target=drive, args=(f"owner-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(run.run_id for run in plan(80).runs)


def test_an_open_attempt_is_its_owners_until_the_lease_runs_out(address: Address) -> None:
    now = Now()
    with (
        closing(SqlStore.open(address, owner="elsewhere:1:1", create=True, now=now)) as first,
        closing(SqlStore.open(address, owner="me", create=False, now=now)) as second,
    ):
        first.create_experiment(plan(1))
        claim = claimed(first)
        now.at += timedelta(seconds=LEASE_S - 1)
        assert second.claim_next("box") is None
        first.record_state(claim.attempt_id, AttemptState.SUBMITTED)
        now.at += timedelta(seconds=LEASE_S - 1)
        assert second.claim_next("box") is None
        assert claimed(first).attempt_id == claim.attempt_id  # its own; renews as well
        now.at += timedelta(seconds=LEASE_S + 1)
        taken = second.claim_next("other-box")
        assert taken is not None
        assert (taken.attempt_id, taken.state) == (claim.attempt_id, AttemptState.SUBMITTED)
        assert first.claim_next("box") is None
        assert second.events()[-1].message == "taken over from elsewhere:1:1"
        assert second.runs()[0].attempts[0].testbed == "box"  # which has it


def test_who_was_silent_for_too_long_cannot_write_any_more(address: Address) -> None:
    now = Now()
    with (
        closing(SqlStore.open(address, owner="elsewhere:1:1", create=True, now=now)) as silent,
        closing(SqlStore.open(address, owner="me", create=False, now=now)) as other,
    ):
        silent.create_experiment(plan(1))
        claim = claimed(silent)
        now.at += timedelta(seconds=LEASE_S + 1)
        assert claimed(other) == claim
        with pytest.raises(TakenOverError, match="taken over by me"):
            silent.record_state(claim.attempt_id, AttemptState.SUBMITTED)
        with pytest.raises(TakenOverError):
            silent.finish(claim.attempt_id, AttemptState.CANCELLED)
        other.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim))
        # What is over is over, and its end is not another's.
        for state in (AttemptState.CANCELLED, AttemptState.SUCCEEDED):
            with pytest.raises(TakenOverError, match="has ended as SUCCEEDED, by me"):
                silent.finish(claim.attempt_id, state, result=result_of(claim))


def test_an_attempt_runs_on_one_testbed_at_most(address: Address) -> None:
    """It was claimed, and whether its testbed has it was not noted: another one gets a new attempt of the run."""
    now = Now()
    with (
        closing(SqlStore.open(address, owner="elsewhere:1:1", create=True, now=now)) as first,
        closing(SqlStore.open(address, owner="me", create=False, now=now)) as second,
    ):
        first.create_experiment(plan(1))
        left = claimed(first)
        now.at += timedelta(seconds=LEASE_S + 1)
        claim = second.claim_next("other-box")
        assert claim is not None
        assert (claim.run_id, claim.number) == (left.run_id, 2)
        assert [(each.testbed, each.state) for each in second.runs()[0].attempts] == [
            ("box", AttemptState.CANCELLED),
            ("other-box", AttemptState.CLAIMED),
        ]
        # What it may have is asked for when that testbed is driven again.
        assert {name: [each.attempt_id for each in found] for name, found in second.leftovers().items()} == {
            "box": [left.attempt_id]
        }
        with pytest.raises(TakenOverError):
            first.finish(left.attempt_id, AttemptState.SUCCEEDED, result=result_of(left))
        assert second.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim)) is RunState.DONE
        assert [attempt.accepted for attempt in second.runs()[0].attempts] == [False, True]


_DRIVE_AND_DIE = """
import os, signal, sys
from contract.attempt_state import AttemptState
from orchestrator.store.sql_store import SqlStore
from tests.orchestrator.doubles import plan
from tests.orchestrator.test_store import result_of
from orchestrator.suspicion import SuspectResultError
path, last = sys.argv[1:]
store = SqlStore.open(path, create=True)
store.create_experiment(plan(2))
claim = store.claim_next("box")
for state in (AttemptState.SUBMITTED, AttemptState.LOADING, AttemptState.MEASURING, AttemptState.COLLECTING):
    if last in ("CLAIMED", "AGAIN", "REOPENED"):
        break
    store.record_state(claim.attempt_id, state)
    if state == last:
        break
if last in ("AGAIN", "REOPENED"):
    claim = store.claim_next("box")
    doubted = result_of(claim, AttemptState.SUSPECT)
    error = SuspectResultError("Doubted.").body().model_copy(update={"retryable": last == "AGAIN"})
    store.finish(claim.attempt_id, AttemptState.SUSPECT, result=doubted, error=error)
    if last == "REOPENED":
        store.reopen([claim.run_id])
elif last == "DONE":
    store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim))
elif last == "TORN":
    # In the middle of the transaction that would have accepted it.
    connection = store._engine.connect()
    connection.exec_driver_sql("UPDATE attempt SET state = 'SUCCEEDED', accepted = true, finished_at = 'x'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_after(address: Address, last: str) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _DRIVE_AND_DIE, str(address), last],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if isinstance(address, str):
        wait_until_left(address)


@pytest.mark.parametrize("last", ["CLAIMED", "SUBMITTED", "MEASURING", "COLLECTING", "TORN", "DONE"])
def test_after_a_kill_a_new_process_takes_over_at_once(address: Address, last: str) -> None:
    kill_after(address, last)
    with closing(SqlStore.open(address, create=True)) as store:
        store.create_experiment(plan(2))
        claim = claimed(store)
        if last == "DONE":
            assert claim.run_id == "run_1_repetition_0"
            return
        reached = AttemptState.COLLECTING if last == "TORN" else AttemptState(last)
        assert (claim.run_id, claim.number, claim.state) == ("run_0_repetition_0", 1, reached)
        assert store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim)) is RunState.DONE
        assert len(store.runs()[0].attempts) == 1


@pytest.mark.parametrize("last", ["AGAIN", "REOPENED"])
def test_after_a_kill_a_doubted_run_is_tried_again_once(address: Address, last: str) -> None:
    """Killed between the doubted result and the attempt that is to follow it."""
    kill_after(address, last)
    with closing(SqlStore.open(address, create=True)) as store:
        claim = claimed(store)
        assert (claim.run_id, claim.number) == ("run_0_repetition_0", 2)
        assert store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim)) is RunState.DONE
        assert [attempt.accepted for attempt in store.runs()[0].attempts] == [False, True]
        assert claimed(store).run_id == "run_1_repetition_0"


def doubt(store: SqlStore, *, retryable: bool | None) -> RunState:
    """A doubted result; retryable None: it is kept."""
    claim = claimed(store)
    error = None if retryable is None else SuspectResultError("Doubted.").body()
    return store.finish(
        claim.attempt_id,
        AttemptState.SUSPECT,
        result=result_of(claim, AttemptState.SUSPECT),
        error=error and error.model_copy(update={"retryable": retryable}),
    )


def test_the_last_doubted_result_decides(store: SqlStore) -> None:
    run_id = "run_0_repetition_0"
    assert doubt(store, retryable=None) is RunState.SUSPECT
    assert store.reopen([run_id]) == [run_id]
    assert store.reopen([run_id]) == []
    assert end(store, AttemptState.FAILED, HOPELESS)[1] is RunState.SUSPECT
    assert store.reopen([run_id]) == [run_id]
    assert doubt(store, retryable=True) is RunState.TODO
    assert doubt(store, retryable=False) is RunState.FAILED
    assert store.reopen([run_id]) == [run_id]
    assert end(store, AttemptState.CANCELLED)[1] is RunState.TODO
    assert end(store, AttemptState.SUCCEEDED)[1] is RunState.DONE
    with pytest.raises(UsageError, match="one accepted result"):
        store.reopen([run_id])
    assert [attempt.number for attempt in store.runs()[0].attempts] == [1, 2, 3, 4, 5, 6]


def test_a_cooldown_is_kept_with_its_attempt_and_goes_to_whoever_takes_it_over(address: Address) -> None:
    now = Now()
    with (
        closing(SqlStore.open(address, owner="elsewhere:1:1", create=True, now=now)) as first,
        closing(SqlStore.open(address, owner="me", create=False, now=now)) as second,
    ):
        first.create_experiment(plan(1))
        claim = claimed(first)
        assert claim.cooldown is None
        warm = CooldownOutcome(waited_s=330.0, start_temp_c=62.0, idle_temp_c=40.0, gate="timed_out", readings=9)
        first.record_state(claim.attempt_id, AttemptState.CLAIMED, warm.message, cooldown=warm)
        first.record_state(claim.attempt_id, AttemptState.SUBMITTED)
        now.at += timedelta(seconds=LEASE_S + 1)
        assert claimed(second).cooldown == warm
        assert second.runs()[0].attempts[0].cooldown == warm


def test_claims_use_the_indexes_at_any_size(path: Path) -> None:
    statements: list[str] = []
    with closing(SqlStore.open(path, owner="me", create=True)) as store:
        store.create_experiment(plan(2))
        connection = sqlite3.connect(path)
        for statement in (
            "SELECT run_id, spec FROM run WHERE state = 'TODO' ORDER BY position LIMIT 1",
            "SELECT attempt.*, spec FROM attempt JOIN run ON run.run_id = attempt.run_id"
            " WHERE finished_at IS NULL ORDER BY claimed_at",
            "SELECT coalesce(max(number), 0) FROM attempt WHERE run_id = 'x'",
            "SELECT state FROM attempt WHERE run_id = 'x' ORDER BY number",
            "SELECT attempt_id FROM attempt WHERE run_id = 'x' AND accepted LIMIT 1",
            "SELECT state, count(*) FROM run GROUP BY state",
        ):
            statements += [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
        connection.close()
    told = "\n".join(statements)
    assert "ix_run_state_position (state=?)" in told
    assert "ix_attempt_open" in told
    assert "TEMP B-TREE" not in told  # nothing is sorted
    assert not [line for line in statements if line.startswith("SCAN") and "INDEX" not in line]
