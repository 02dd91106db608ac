"""What `status` and `doctor` make of few and of many testbeds."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from contract.attempt_state import AttemptState
from orchestrator.driver import Condition, Driver
from orchestrator.explain import Weight, explain
from orchestrator.status_view import look_at, print_status, status_document
from orchestrator.status_view import testbeds as listed
from orchestrator.store.balance import Balance
from orchestrator.store.owner import this_owner
from orchestrator.store.sql_store import SqlStore
from tests.orchestrator.test_pool import study
from tests.orchestrator.test_store import result_of


def begun(folder: Path, n_testbeds: int, conditions: dict[int, Condition]) -> SqlStore:
    """A campaign that this process drives on some testbeds: each has a trial open, but the first, which is idle."""
    store = SqlStore.open(folder / "run_table.sqlite", create=True)
    store.create_experiment(study(4, 30))
    balance = Balance.of(store, None, ())
    now = datetime.now(UTC)
    for number in range(n_testbeds):
        name = f"box-{number:04}"
        driver = Driver(
            owner=this_owner(),
            testbed=name,
            url=f"http://{name}:1",
            started_at=now,
            since=now,
            seen_at=now,
            condition=conditions.get(number, Condition.WORKING),
            is_member=True,
        )
        store.remember(driver.key, driver.model_dump(mode="json"))
        claim = store.claim_next(name, balance.choice(name))
        assert claim is not None
        if number == 0:
            store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim))
        else:
            store.record_state(claim.attempt_id, AttemptState.MEASURING)
    return store


def told(folder: Path, store: SqlStore) -> str:
    console = Console(record=True, width=300)
    print_status(console, status_document(folder, store))
    return console.export_text()


def by_name(found: list[dict[str, Any]]) -> dict[str, tuple[str, int]]:
    return {each["testbed"]: (each["doing"], each["n_done"]) for each in found}


def test_few_testbeds_are_told_one_by_one(tmp_path: Path) -> None:
    store = begun(tmp_path, 3, {2: Condition.UNREACHABLE})
    situation = look_at(tmp_path, store)
    assert by_name(listed(situation)) == {
        "box-0000": ("idle", 1),
        "box-0001": ("measuring", 0),
        "box-0002": ("unreachable", 0),
    }
    text = told(tmp_path, store)
    assert "3 testbeds: 1 idle, 1 measuring, 1 unreachable" in text
    assert "box-0000: idle, 1 done" in text
    problems = [remark for remark in explain(situation) if remark.weight is Weight.PROBLEM]
    assert [remark.code for remark in problems] == ["testbed_unreachable"]
    assert "box-0002" in problems[0].message
    assert "drives this on 2 testbeds (box-0000, box-0001)" in text.replace("box-0001, box-0000", "box-0000, box-0001")


def test_many_testbeds_are_added_up(tmp_path: Path) -> None:
    away = dict.fromkeys(range(20, 40), Condition.UNREACHABLE)
    store = begun(tmp_path, 60, away)
    text = told(tmp_path, store)
    assert "60 testbeds: 39 measuring, 20 unreachable, 1 idle" in text
    assert "unreachable: box-0020" in text
    assert "and 10 more" in text
    assert "Open: 59 attempts" in text
    assert "drives this on 40 testbeds" in text
    assert len(text.splitlines()) < 40
    problems = [each for each in explain(look_at(tmp_path, store)) if each.code == "testbed_unreachable"]
    assert len(problems) == 1
    assert problems[0].message.startswith("20 testbeds (")
