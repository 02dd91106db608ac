"""Claims of a pool: balanced, left to colleagues, renewed together; on a file and on a server alike."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState, RunState
from orchestrator.store.balance import Balance
from orchestrator.store.sql_store import LEASE_S, SqlStore
from tests.orchestrator.test_pool import study
from tests.orchestrator.test_store import Now, result_of


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | Path]:
    if request.param == "sqlite":
        yield tmp_path / "run_table.sqlite"
        return
    with request.getfixturevalue("postgresql").run_table() as url:
        yield url


def test_turns_of_any_pace_leave_treatments_balanced() -> None:
    """Whatever the order in which testbeds come free, no two counts of one testbed differ by more than two."""
    for seed in range(20):
        chance = random.Random(seed)
        treatments = [n % 6 for n in range(6 * 20)]
        balance, left = Balance(treatments), list(range(len(treatments)))
        choices = [balance.choice(name) for name in "abcd"]
        while len(left) > 6:
            choice = chance.choice(choices)
            position = choice.best(left[: choice.window])
            assert position is not None
            choice.took(position)
            left.remove(position)
        for taken in balance.taken.values():
            counts = [taken[treatment] for treatment in range(6)]
            assert max(counts) - min(counts) <= 2


def test_the_order_is_bent_by_one_repetition_at_most() -> None:
    balance = Balance([n % 5 for n in range(100)])
    choice = balance.choice("a")
    assert choice.window == 6
    for position in range(0, 100, 5):
        choice.took(position)
    # It has taken the first treatment often, and takes any other of those that come next.
    assert choice.best([5, 6, 7, 8, 9, 10]) == 6
    assert choice.best([5]) == 5


def test_two_orchestrators_with_pools_never_take_the_same_run(address: str | Path) -> None:
    plan = study(4, 10)
    with closing(SqlStore.open(address, create=True, owner="first:1:1")) as first:
        first.create_experiment(plan)
        with closing(SqlStore.open(address, create=False, owner="second:2:2")) as second:
            taken: list[tuple[str, str]] = []
            barrier = threading.Barrier(6)

            def drive(name: str) -> None:
                store = first if name < "d" else second
                choice = balances[id(store)].choice(name)
                barrier.wait(30)
                while (claim := store.claim_next(name, choice)) is not None:
                    taken.append((name, claim.run_id))
                    store.record_state(claim.attempt_id, AttemptState.SUBMITTED)
                    store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim))

            balances = {id(store): Balance.of(store, None, ()) for store in (first, second)}
            with ThreadPoolExecutor(6) as executor:
                list(executor.map(drive, "abcdef"))
            assert sorted(run_id for _, run_id in taken) == sorted(run.run_id for run in plan.runs)
            assert second.counts()[RunState.DONE] == 40
            # Who continues it knows what each has done.
            again = Balance.of(second, None, ()).taken
            assert {name: counts.total() for name, counts in again.items()} == Counter(name for name, _ in taken)


def test_kinds_take_their_own_runs_and_look_past_the_others(address: str | Path) -> None:
    with closing(SqlStore.open(address, create=True, owner="me:1:1")) as store:
        store.create_experiment(study(2, 30))
        balance = Balance.of(store, lambda kind, treatment: str(treatment["level"]) == kind, {"0", "1"})
        choices = {kind: balance.choice(f"box-{kind}", kind) for kind in "01"}
        claims = [store.claim_next("box-0", choices["0"]) for _ in range(1)]
        for _ in range(40):
            claim = store.claim_next("box-0", choices["0"])
            if claim is None:
                break
            claims.append(claim)
            store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim))
        assert {claim.spec.treatment["level"] for claim in claims if claim} == {0}
        assert store.counts()[RunState.TODO] == 30
        other = store.claim_next("box-1", choices["1"])
        assert other is not None
        assert other.spec.treatment["level"] == 1


def test_the_leases_of_all_are_renewed_at_once(address: str | Path) -> None:
    now = Now()
    with (
        closing(SqlStore.open(address, create=True, owner="me:1:1", now=now)) as store,
        closing(SqlStore.open(address, create=False, owner="other:2:2", now=now)) as other,
    ):
        store.create_experiment(study(2, 1))
        balance = Balance.of(store, None, ())
        for name in "ab":
            assert store.claim_next(name, balance.choice(name)) is not None
        now.at += timedelta(seconds=LEASE_S - 1)
        assert store.renew() == 2
        now.at += timedelta(seconds=LEASE_S - 1)
        assert other.claim_next("c", Balance.of(other, None, ()).choice("c")) is None
        now.at += timedelta(seconds=2)
        assert other.claim_next("c", Balance.of(other, None, ()).choice("c")) is not None


def test_what_a_testbed_left_is_its_colleagues(address: str | Path) -> None:
    with closing(SqlStore.open(address, create=True, owner="me:1:1")) as store:
        store.create_experiment(study(1, 2))
        balance = Balance.of(store, None, ())
        choices = {name: balance.choice(name) for name in "ab"}
        left = store.claim_next("a", choices["a"])
        assert left is not None
        mine = store.claim_next("b", choices["b"])
        assert mine is not None
        assert mine.run_id != left.run_id
        store.finish(mine.attempt_id, AttemptState.SUCCEEDED, result=result_of(mine))
        assert store.claim_next("b", choices["b"]) is None
        balance.left("a")
        again = store.claim_next("b", choices["b"])
        assert again is not None
        # It was claimed, and whether the other testbed has it was not noted: a new attempt of the same run.
        assert (again.run_id, again.number) == (left.run_id, 2)
        assert again.attempt_id != left.attempt_id


def test_what_a_testbed_left_running_is_asked_for_by_its_colleagues(address: str | Path) -> None:
    with closing(SqlStore.open(address, create=True, owner="me:1:1")) as store:
        store.create_experiment(study(1, 1))
        balance = Balance.of(store, None, ())
        choices = {name: balance.choice(name) for name in "ab"}
        left = store.claim_next("a", choices["a"])
        assert left is not None
        store.record_state(left.attempt_id, AttemptState.SUBMITTED)
        assert store.claim_next("b", choices["b"]) is None
        balance.left("a")
        again = store.claim_next("b", choices["b"])
        assert again is not None
        assert again.attempt_id == left.attempt_id
