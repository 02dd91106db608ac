"""Cooldowns in a campaign: kept with the attempt, told, and a start that was too warm is marked; no time passes."""

import json
from typing import Any

import pytest

from analysis.load import load_runs
from contract.attempt_state import AttemptState, RunState
from contract.errors import TestbedUnreachableError
from contract.trial_result import SuspectReason
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.config import Cooldown, OnSuspect
from orchestrator.controller import IDLE_TEMP_KEY
from orchestrator.export import export_run_table
from orchestrator.run_table_columns import DATA_COLUMNS
from orchestrator.status_view import status_document
from orchestrator.store.base import AttemptRow
from tests.orchestrator.campaigns import Campaign, scripted
from tests.orchestrator.doubles import spec

GATE = Cooldown(floor_s=1.0, max_wait_s=10.0)


def warm_after_idle(n_cool: int = 3) -> FakeClient:
    """A testbed that is at 40 °C for the first readings, and at 70 °C ever after."""
    left = iter([40.0] * n_cool)
    return FakeClient(temp_c=lambda: next(left, 70.0), brings_results=False)


def cooldown_stories(campaign: Campaign) -> list[str]:
    return [event.message for event in campaign.store.events() if event.message.startswith("Cooldown")]


def only_attempt(campaign: Campaign, number: int) -> AttemptRow:
    (attempt,) = campaign.store.runs()[number].attempts
    return attempt


def test_cooldown_is_kept_and_told(campaign: Campaign) -> None:
    client = FakeClient(temp_c=lambda: 41.5)
    campaign.run(client, Cooldown(floor_s=30.0))
    assert campaign.store.recall(IDLE_TEMP_KEY) == {"fake": 41.5}
    assert 60 < campaign.clock.now_s < 70
    told = cooldown_stories(campaign)
    assert len(told) == 3
    assert "without a thermal gate" in told[0]
    assert all("cool (41.5 °C, idle 41.5 °C)" in message for message in told[1:])
    kept = [only_attempt(campaign, i).cooldown for i in range(3)]
    assert [(each.gate, each.start_temp_c, each.idle_temp_c) for each in kept if each] == [
        ("disabled", 41.5, 41.5),
        ("open", 41.5, 41.5),
        ("open", 41.5, 41.5),
    ]
    assert campaign.states() == [RunState.DONE] * 3


def test_a_gate_that_timed_out_marks_the_run(campaign: Campaign) -> None:
    campaign.run(warm_after_idle(), GATE)
    assert ["did not open in time" in message for message in cooldown_stories(campaign)] == [False, True, True]
    assert campaign.states() == [RunState.DONE, RunState.SUSPECT, RunState.SUSPECT]
    attempt = only_attempt(campaign, 1)
    (reason,) = attempt.reasons
    assert (attempt.state, attempt.accepted, attempt.error) == (AttemptState.SUSPECT, False, None)
    assert reason.code == "started_warm"
    assert "11.0 s" in reason.message and "70.0 °C, idle 40.0 °C" in reason.message


def test_the_result_stays_as_it_was_received(campaign: Campaign) -> None:
    campaign.run(warm_after_idle(), GATE)
    attempt = only_attempt(campaign, 1)
    assert attempt.result is not None
    assert (attempt.result.state, attempt.result.reasons) == (AttemptState.SUCCEEDED, [])
    file = campaign.folder / "runs" / spec(1).run_id / attempt.attempt_id / "result.json"
    assert json.loads(file.read_text()) == attempt.result.model_dump(mode="json")


def test_the_gates_reason_stands_beside_the_testbeds(campaign: Campaign) -> None:
    gap = SuspectReason(code="gap", message="3 gaps.")
    trial = FakeTrial(state=AttemptState.SUSPECT, reasons=(gap,))
    client = warm_after_idle()
    client._script = lambda trial_spec, n_before: trial
    campaign.run(client, GATE)
    assert [reason.code for reason in only_attempt(campaign, 0).reasons] == ["gap"]
    assert [reason.code for reason in only_attempt(campaign, 1).reasons] == ["gap", "started_warm"]
    document = status_document(campaign.folder, campaign.store)
    assert document["suspect_codes"] == {"gap": 3, "started_warm": 2}


def test_a_failed_trial_that_started_warm_is_just_failed(campaign: Campaign) -> None:
    client = warm_after_idle()
    client._script = lambda trial_spec, n_before: FakeTrial(state=AttemptState.TIMED_OUT)
    campaign.run(client, GATE, max_equal_failures=0)
    assert campaign.states() == [RunState.FAILED] * 3
    assert only_attempt(campaign, 1).reasons == ()


def test_the_gate_is_in_the_run_table(campaign: Campaign) -> None:
    campaign.run(warm_after_idle(), GATE)
    text = export_run_table(campaign.store, campaign.folder, "csv").read_text(encoding="utf-8")
    assert "started_warm: Cooldown of 11.0 s" in text
    columns = {column.name: column for column in DATA_COLUMNS}
    row = campaign.store.runs()[1]
    read = {
        name: columns[name].read(row, row.attempts[0])
        for name in ("start_temp_c", "idle_temp_c", "cooldown_s", "thermal_gate")
    }
    assert read == {"start_temp_c": 70.0, "idle_temp_c": 40.0, "cooldown_s": 11.0, "thermal_gate": "timed_out"}
    assert [columns[name].unit for name in read] == ["degC", "degC", "s", ""]


def test_the_analysis_reads_the_gates_reason(campaign: Campaign) -> None:
    campaign.run(warm_after_idle(), GATE)
    experiment = load_runs(campaign.folder)
    assert experiment.runs["counted"].to_list() == [True, False, False]
    assert len(experiment.counted(include_suspect=True)) == 3
    assert [each.why.split(":")[:2] for each in experiment.excluded] == [["suspect", " started_warm"]] * 2


def test_a_retry_waits_for_the_gate_again(campaign: Campaign) -> None:
    # Warm for the first gate alone: three idle readings, then those of one gate, then cool for ever.
    n_read = iter(range(10_000))
    client = FakeClient(temp_c=lambda: 70.0 if 3 <= next(n_read) < 9 else 40.0)
    campaign.run(client, GATE, on_suspect=OnSuspect.RETRY)
    assert campaign.states() == [RunState.DONE] * 3
    first, second = campaign.store.runs()[1].attempts
    assert [reason.code for reason in first.reasons] == ["started_warm"]
    assert (first.accepted, second.accepted, second.reasons) == (False, True, ())
    assert [each.cooldown.gate for each in (first, second) if each.cooldown] == ["timed_out", "open"]


@pytest.mark.parametrize("method", ["status", "result", "fetch_artifacts"])
def test_a_warm_start_is_known_to_whoever_goes_on(campaign: Campaign, method: str) -> None:
    """The process that saw the gate time out is gone before the result comes."""
    client = warm_after_idle()
    campaign.view.on_end = lambda end: campaign.stop.request()
    campaign.run(client, GATE)
    campaign.stop.level = 0
    submit = client.submit

    def submit_and_break(attempt_id: str, trial: Any, **how: Any) -> Any:
        status = submit(attempt_id, trial, **how)
        client._failures[method] = [TestbedUnreachableError("No answer.")] * 10_000
        return status

    client.submit = submit_and_break  # type: ignore[method-assign]
    campaign.run(client, GATE, unreachable_after_s=30.0)
    assert campaign.states()[1] is RunState.RUNNING
    client.submit = submit  # type: ignore[method-assign]
    client._failures.clear()
    campaign.run(client, Cooldown(floor_s=0.0, max_wait_s=0.0))
    assert campaign.states() == [RunState.DONE, RunState.SUSPECT, RunState.TODO]
    assert [reason.code for reason in only_attempt(campaign, 1).reasons] == ["started_warm"]


def test_a_machine_that_anothers_trial_has_warmed(campaign: Campaign) -> None:
    temp_c = [40.0]
    client = FakeClient(temp_c=lambda: temp_c[0])
    client.submit("foreign", spec(99))

    def waiting(message: str, code: str = "") -> None:
        temp_c[0] = 60.0
        if campaign.clock.now_s > 20:
            client.cancel("foreign")

    campaign.view.waiting = waiting  # type: ignore[method-assign]
    campaign.view.on_end = lambda end: campaign.stop.request()
    campaign.run(client, GATE)
    (reason,) = only_attempt(campaign, 0).reasons
    assert reason.code == "started_warm" and "60.0 °C, idle 40.0 °C" in reason.message


def test_a_campaign_that_goes_on_keeps_its_idle_temperature_and_its_floor(campaign: Campaign) -> None:
    temp_c = [40.0]
    client = FakeClient(temp_c=lambda: temp_c[0])
    campaign.view.on_end = lambda end: campaign.stop.request()
    campaign.run(client, Cooldown(floor_s=30.0))
    campaign.stop.level, temp_c[0] = 0, 41.0
    begin_s = campaign.clock.now_s
    campaign.run(client, Cooldown(floor_s=30.0))
    assert campaign.store.recall(IDLE_TEMP_KEY) == {"fake": 40.0}
    assert campaign.clock.now_s - begin_s == pytest.approx(30.0, abs=1.0)


def test_a_trial_without_cooldown_has_no_cooldown_on_record(campaign: Campaign) -> None:
    campaign.run(FakeClient(scripted()))
    assert [only_attempt(campaign, i).cooldown for i in range(3)] == [None] * 3
    assert cooldown_stories(campaign) == []
