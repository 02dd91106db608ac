"""`status` says in words why a campaign stands as it does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState, RunState
from contract.errors import ErrorBody
from orchestrator.disk_space import DiskSpace
from orchestrator.driver import Condition, Driver
from orchestrator.explain import Remark, Situation, Weight, explain
from orchestrator.outage_note import OutageNote
from orchestrator.processes import ProcessState
from orchestrator.store.base import AttemptRow, RunRow

NOW = datetime(2026, 11, 21, 5, 22, 5, tzinfo=UTC)
OWNER = "vps:123:1"
GIB = 2**30
ROOMY = DiskSpace(50 * GIB, 100 * GIB)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def driver(condition: Condition = Condition.WORKING, **values: object) -> Driver:
    given = {
        "owner": OWNER,
        "testbed": "gpu-box",
        "url": "http://gpu-box:8765",
        "command": "orchestrator run study.py --testbed http://gpu-box:8765",
        "started_at": ago(hours=9),
        "condition": condition,
        "since": ago(hours=2, minutes=10),
        "seen_at": ago(seconds=5),
    }
    return Driver.model_validate(given | values)


def attempt(
    number: int = 0, state: AttemptState = AttemptState.CLAIMED, error: ErrorBody | None = None, **values: object
) -> AttemptRow:
    finished_at = ago(minutes=30 - number) if state.is_final else None
    row = AttemptRow(
        attempt_id=f"run_{number}-a1",
        run_id=f"run_{number}",
        number=1,
        state=state,
        accepted=state is AttemptState.SUCCEEDED,
        testbed="gpu-box",
        claimed_at=ago(hours=1),
        updated_at=finished_at or ago(seconds=3),
        finished_at=finished_at,
        error=error,
        result=None,
        owner=OWNER,
        lease_until=None if finished_at else NOW + timedelta(seconds=50),
    )
    return replace(row, **values)  # type: ignore[arg-type]


def situation(
    *attempts: AttemptRow,
    drivers: tuple[Driver, ...] = (),
    state: ProcessState = ProcessState.ALIVE,
    host: str = "vps",
    disk: DiskSpace = ROOMY,
    run_state: RunState = RunState.RUNNING,
) -> Situation:
    rows = [RunRow(99, "run_99", {}, 0, RunState.TODO, ())]
    for each in attempts:
        rows.append(RunRow(0, each.run_id, {}, 0, RunState.FAILED if each.finished_at else run_state, (each,)))
    return Situation(
        now=NOW,
        host=host,
        folder=Path("results/study"),
        rows=rows,
        drivers=drivers,
        state_since={},
        disk=disk,
        process_state=lambda owner: state,
    )


def only(remarks: list[Remark]) -> Remark:
    assert len(remarks) == 1, remarks
    return remarks[0]


def test_a_testbed_of_a_ray_cluster_that_is_away() -> None:
    held_up = driver(Condition.UNREACHABLE, testbed="testbed-gpu-0", url="ray:testbed-gpu-0", is_member=True)
    remark = only(explain(situation(drivers=(held_up,))))
    assert remark.code == "testbed_unreachable"
    assert "doctor" not in remark.advice
    for words in ("ray status", "ray list actors", "testbed-gpu-0 is"):
        assert words in remark.advice
    assert "ray:" not in remark.advice


def test_a_campaign_that_gave_up_on_its_database_server() -> None:
    over = OutageNote(owner=OWNER, since=ago(hours=13), until=ago(hours=1), is_over=True, message="It is away.")
    before = driver(seen_at=ago(hours=13))
    told = replace(situation(drivers=(before,), state=ProcessState.GONE), outage=over)
    remark = only(explain(told))
    assert (remark.weight, remark.code) == (Weight.PROBLEM, "run_table_away")
    assert "gave up at 04:22:05 UTC" in remark.message
    assert before.command in remark.advice
    # Somebody has been at work since: it is past.
    later = driver(Condition.ENDED, seen_at=ago(minutes=5), ending="stopped")
    assert only(explain(replace(told, drivers=(later,)))).code == "stopped"


def test_a_testbed_that_is_away() -> None:
    held_up = driver(
        Condition.UNREACHABLE,
        attempt_id="run_0-a1",
        message="No answer from the testbed.",
        last_answer_at=ago(hours=2, minutes=11),
        until=NOW + timedelta(minutes=5),
    )
    remark = only(explain(situation(attempt(state=AttemptState.MEASURING), drivers=(held_up,))))
    assert (remark.weight, remark.code) == (Weight.PROBLEM, "testbed_unreachable")
    assert remark.message == (
        "The testbed gpu-box (http://gpu-box:8765) is unreachable since 03:12:05 UTC (2 h 10 min); "
        "its last answer came at 03:11:05 UTC."
    )
    assert remark.details[0] == "Last attempt: run_0-a1, MEASURING when last seen."
    assert remark.details[1] == "No answer from the testbed."
    assert "process 123 on this machine keeps trying until 05:27:05 UTC".lower() in remark.details[2].lower()
    assert "orchestrator doctor --testbed http://gpu-box:8765" in remark.advice


def test_a_testbed_that_is_busy_with_anothers_trial() -> None:
    held_up = driver(Condition.BUSY, message="This testbed runs attempt x.", since=ago(minutes=3))
    remark = only(explain(situation(attempt(), drivers=(held_up,))))
    assert (remark.weight, remark.code) == (Weight.WARNING, "testbed_busy")
    assert "another's trial since 05:19:05 UTC (3 min)" in remark.message
    assert "This testbed runs attempt x." in remark.details


def test_a_thermal_gate_that_holds() -> None:
    gate = driver(
        Condition.GATE,
        since=ago(minutes=4),
        attempt_id="run_0-a1",
        temp_c=61.0,
        idle_temp_c=40.0,
        delta_c=5.0,
        until=NOW + timedelta(seconds=60),
    )
    remark = only(explain(situation(attempt(), drivers=(gate,))))
    assert remark.code == "thermal_gate"
    assert "since 05:18:05 UTC (4 min), at most 1 min more" in remark.message
    assert "has 61.0 °C and the gate wants at most 45.0 °C (idle 40.0 °C + 5)" in remark.message
    # What was written during the pause says nothing once the trial has begun.
    started = only(explain(situation(attempt(state=AttemptState.MEASURING), drivers=(gate,))))
    assert started.code == "driven"


def test_nothing_is_wrong() -> None:
    remark = only(explain(situation(attempt(), drivers=(driver(),))))
    assert (remark.weight, remark.code) == (Weight.NOTE, "driven")
    assert (
        "Process 123 on this machine drives this on the testbed gpu-box; last sign of life 3.0 s ago" in remark.message
    )
    assert explain(situation(host="elsewhere", drivers=(driver(),)))[0].message.startswith("Process 123 on vps ")


@pytest.mark.parametrize(
    ("state", "seen_at", "code", "words"),
    [
        (ProcessState.GONE, ago(hours=2, minutes=12), "undriven", "is gone without a word"),
        (ProcessState.SUSPENDED, ago(seconds=4), "suspended", "is suspended"),
        (ProcessState.ALIVE, ago(minutes=12), "silent", "it hangs, or its disk does"),
        (ProcessState.ELSEWHERE, ago(minutes=12), "silent", "cannot be told from here whether it lives"),
    ],
)
def test_a_process_that_does_not_drive_any_more(state: ProcessState, seen_at: datetime, code: str, words: str) -> None:
    left = attempt(updated_at=seen_at, lease_until=seen_at + timedelta(seconds=60))
    remark = only(explain(situation(left, drivers=(driver(seen_at=seen_at),), state=state)))
    assert (remark.weight, remark.code) == (Weight.PROBLEM, code)
    assert words in remark.message
    if code == "undriven":
        assert "last sign of life was at 03:10:05 UTC, 2 h 12 min ago" in remark.message
        assert "orchestrator run study.py --testbed http://gpu-box:8765" in remark.advice


def test_a_campaign_that_gave_up() -> None:
    ended = driver(Condition.ENDED, ending="protocol_mismatch", message="The testbed speaks protocol version 2 ...")
    remark = only(explain(situation(drivers=(ended,), state=ProcessState.GONE)))
    assert (remark.weight, remark.code) == (Weight.PROBLEM, "protocol_mismatch")
    assert "gave up at 03:12:05 UTC, 2 h 10 min ago" in remark.message
    assert remark.details == ("The testbed speaks protocol version 2 ...",)


def test_a_person_stopped_it_or_never_began() -> None:
    stopped = only(explain(situation(drivers=(driver(Condition.ENDED, ending="stopped"),), state=ProcessState.GONE)))
    assert (stopped.weight, stopped.code) == (Weight.NOTE, "stopped")
    assert only(explain(situation())).code == "not_begun"


def test_an_attempt_of_another_machine_is_held_until_its_lease_ends() -> None:
    remarks = explain(situation(attempt(), state=ProcessState.ELSEWHERE, host="here"))
    assert [remark.code for remark in remarks] == ["undriven", "held"]
    assert "is held by process 123 on vps until 05:22:55 UTC" in remarks[1].message


@pytest.mark.parametrize(
    ("disk", "weight"),
    [
        (DiskSpace(50 * GIB, 100 * GIB), None),
        (DiskSpace(11 * GIB, 100 * GIB), None),
        (DiskSpace(2 * GIB, 100 * GIB), Weight.WARNING),
        (DiskSpace(GIB // 2, 100 * GIB), Weight.PROBLEM),
        (DiskSpace(GIB // 2, GIB), Weight.PROBLEM),
    ],
)
def test_full_disks_here_and_there(disk: DiskSpace, weight: Weight | None) -> None:
    asked = driver(testbed_disk_free_bytes=disk.free_bytes, testbed_disk_total_bytes=disk.total_bytes)
    remarks = [each for each in explain(situation(drivers=(asked,), disk=disk)) if each.code != "driven"]
    assert [(each.code, each.weight) for each in remarks] == (
        [("disk", weight), ("testbed_disk", weight)] if weight else []
    )
    if weight is Weight.WARNING:
        assert "98 % full, 2.0 GiB free" in remarks[0].message


def test_clock_skew_is_told_with_its_harm() -> None:
    remarks = explain(situation(drivers=(driver(clock_offset_s=3600.0),)))
    skew = next(each for each in remarks if each.code == "clock_skew")
    assert skew.weight is Weight.WARNING
    assert "Clock skew of +3600 s" in skew.message
    assert "Durations and energies are not touched" in skew.advice


def failed(number: int, code: str) -> AttemptRow:
    return attempt(number, AttemptState.FAILED, ErrorBody(code=code, message=f"It is {code}."))


def test_attempts_that_all_fail_alike() -> None:
    alike = [failed(number, "cuda_oom") for number in range(3, 6)]
    remarks = explain(situation(failed(1, "other"), *alike, drivers=(driver(),)))
    assert remarks[0].code == "failing"
    assert remarks[0].message == "The last 3 attempts all failed with cuda_oom."
    assert remarks[0].details == ("It is cuda_oom.",)
    assert "orchestrator story results/study run_5" in remarks[0].advice
    mixed = [failed(number, "cuda_oom") for number in (1, 2)] + [attempt(9, AttemptState.SUCCEEDED)]
    assert "failing" not in [each.code for each in explain(situation(*mixed, drivers=(driver(),)))]


def test_the_worst_comes_first() -> None:
    remarks = explain(situation(drivers=(driver(clock_offset_s=60.0),), disk=DiskSpace(GIB // 2, 100 * GIB)))
    assert [each.weight for each in remarks] == [Weight.PROBLEM, Weight.WARNING, Weight.NOTE]
