"""The loop on a real run table and a scripted testbed; no time passes."""

from contextlib import closing
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState, RunState
from contract.errors import (
    ChildDiedError,
    EngineError,
    ErrorBody,
    ModelNotFoundError,
)
from contract.trial_result import AttemptStatus
from contract.trial_spec import TrialSpec
from orchestrator.campaign import Ending
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.config import Cooldown
from orchestrator.store.sql_store import SqlStore
from tests.orchestrator.campaigns import Campaign, failing, scripted
from tests.orchestrator.doubles import spec


def test_runs_everything_in_order_once(campaign: Campaign, tmp_path: Path) -> None:
    client = FakeClient()
    outcome = campaign.run(client)
    assert outcome.ending is Ending.FINISHED
    assert outcome.counts[RunState.DONE] == 3
    assert [end.claim.run_id for end in campaign.view.ends] == [spec(i).run_id for i in range(3)]
    for row in campaign.store.runs():
        folder = tmp_path / "runs" / row.run_id / row.attempts[0].attempt_id
        assert sorted(path.name for path in folder.iterdir()) == ["requests.jsonl", "result.json"]
    assert [method for method, _ in client.calls].count("acknowledge") == 3
    before = len(client.calls)
    assert campaign.run(client).ending is Ending.FINISHED
    # A process that was killed may not have told that its last results are safe.
    assert {method for method, _ in client.calls[before:]} <= {"acknowledge"}


def test_the_story_of_an_attempt_is_told(campaign: Campaign) -> None:
    campaign.run(FakeClient())
    story = [event.state_after for event in campaign.store.events(spec(0).run_id)]
    assert story == [
        AttemptState.CLAIMED,
        AttemptState.SUBMITTED,
        AttemptState.LOADING,
        AttemptState.MEASURING,
        AttemptState.COLLECTING,
        AttemptState.SUCCEEDED,
    ]


def test_a_retryable_failure_is_a_new_attempt(campaign: Campaign) -> None:
    outcome = campaign.run(FakeClient(scripted(failing(EngineError("It broke.")))))
    assert outcome.counts[RunState.DONE] == 3
    assert [attempt.state for attempt in campaign.store.runs()[0].attempts] == [
        AttemptState.FAILED,
        AttemptState.SUCCEEDED,
    ]


def test_retries_have_a_limit_and_the_rest_goes_on(campaign: Campaign) -> None:
    outcome = campaign.run(FakeClient(scripted(*[failing(EngineError("It broke."))] * 9)))
    assert outcome.ending is Ending.FINISHED
    assert campaign.states() == [RunState.FAILED, RunState.DONE, RunState.DONE]
    assert len(campaign.store.runs()[0].attempts) == 3


def test_what_is_not_retryable_is_tried_once(campaign: Campaign) -> None:
    client = FakeClient(failures={"submit": [ModelNotFoundError("There is no model.")]})
    campaign.run(client)
    assert campaign.states() == [RunState.FAILED, RunState.DONE, RunState.DONE]
    row = campaign.store.runs()[0].attempts[0]
    assert row.error is not None and row.error.code == "model_not_found"


def test_a_result_without_its_files_is_not_accepted(campaign: Campaign) -> None:
    client = FakeClient(scripted(FakeTrial(is_corrupt=True)))
    campaign.run(client)
    first, second = campaign.store.runs()[0].attempts
    assert (first.state, first.accepted) == (AttemptState.FAILED, False)
    assert first.error is not None and first.error.code == "artifact_corrupt"
    assert (second.state, second.accepted) == (AttemptState.SUCCEEDED, True)
    assert ("acknowledge", first.attempt_id) not in client.calls


def test_ctrl_c_once_finishes_the_trial(campaign: Campaign) -> None:
    campaign.view.on_status = lambda status: campaign.stop.request() if campaign.stop.level == 0 else None
    outcome = campaign.run(FakeClient())
    assert outcome.ending is Ending.STOPPED
    assert campaign.states() == [RunState.DONE, RunState.TODO, RunState.TODO]


def test_ctrl_c_twice_cancels_it_and_it_runs_again_later(campaign: Campaign) -> None:
    client = FakeClient()

    def twice(status: AttemptStatus) -> None:
        if status.state is AttemptState.MEASURING:
            campaign.stop.request()
            campaign.stop.request()

    campaign.view.on_status = twice
    assert campaign.run(client).ending is Ending.STOPPED
    assert campaign.attempts() == [AttemptState.CANCELLED]
    assert campaign.states() == [RunState.TODO] * 3
    with pytest.raises(KeyboardInterrupt):
        campaign.stop.request()
    campaign.stop.level = 0
    campaign.view.on_status = lambda status: None
    assert campaign.run(client).counts[RunState.DONE] == 3


def test_ctrl_c_during_the_cooldown_starts_nothing(campaign: Campaign) -> None:
    client = FakeClient()
    campaign.view.cooling = lambda progress: campaign.stop.request()  # type: ignore[method-assign]
    outcome = campaign.run(client, Cooldown(floor_s=30.0, max_wait_s=0.0))
    assert outcome.ending is Ending.STOPPED
    assert campaign.clock.now_s < 5
    assert campaign.states() == [RunState.DONE, RunState.TODO, RunState.TODO]
    assert [method for method, _ in client.calls].count("submit") == 1


def test_stops_early_when_every_run_fails_alike(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, n_runs=20)
    client = FakeClient(lambda trial, n_before: failing(ModelNotFoundError("There is no model x.")))
    outcome = campaign.run(client)
    assert outcome.ending is Ending.HOPELESS
    assert "There is no model x." in outcome.message
    assert outcome.counts[RunState.FAILED] == 3
    # Once there is a result, the failures of others stop nothing.
    missing = failing(ModelNotFoundError("There is no model x."))
    client._script = lambda trial, n_before: FakeTrial() if trial.run_id == spec(0).run_id else missing
    campaign.store.reopen([spec(0).run_id])
    outcome = campaign.run(client)
    assert outcome.ending is Ending.FINISHED
    assert (outcome.counts[RunState.DONE], outcome.counts[RunState.FAILED]) == (1, 19)


def test_stops_when_a_machine_breaks_in_the_middle(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, n_runs=20)
    broken = failing(ChildDiedError("The child died."))
    client = FakeClient(lambda trial, n_before: FakeTrial() if trial.run_id == spec(0).run_id else broken)
    outcome = campaign.run(client)
    assert outcome.ending is Ending.HOPELESS
    assert (outcome.counts[RunState.DONE], outcome.counts[RunState.FAILED]) == (1, 2)


def test_pauses_grow_while_failures_follow_one_another(campaign: Campaign) -> None:
    client = FakeClient(scripted(*[failing(ChildDiedError("The child died."))] * 2))
    assert campaign.run(client, retry_pause_s=10.0).counts[RunState.DONE] == 3
    assert campaign.view.waits == ["The child died. Going on in 10 s.", "The child died. Going on in 20 s."]
    assert 30 <= campaign.clock.now_s < 40


def test_waits_for_the_runs_of_another_orchestrator(campaign: Campaign) -> None:
    client = FakeClient()
    with closing(SqlStore.open(campaign.folder / "run_table.sqlite", owner="elsewhere:1:1", create=False)) as other:
        claim = other.claim_next("fake")
        assert claim is not None

        def waiting(message: str, code: str = "") -> None:
            campaign.view.waits.append(message)
            if len(campaign.view.waits) == 3:
                other.finish(claim.attempt_id, AttemptState.CANCELLED)

        campaign.view.waiting = waiting  # type: ignore[method-assign]
        outcome = campaign.run(client)
    assert outcome.ending is Ending.FINISHED
    assert outcome.counts[RunState.DONE] == 3
    assert len(campaign.view.waits) == 3
    assert "another orchestrator" in campaign.view.waits[0]


def test_different_failures_are_not_hopeless(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, n_runs=6)
    codes = ["a", "b"]

    def script(trial: TrialSpec, n_before: int) -> FakeTrial:
        number = trial.treatment["number"]
        assert isinstance(number, int)
        return FakeTrial(state=AttemptState.FAILED, error=ErrorBody(code=codes[number % 2], message="It broke."))

    assert campaign.run(FakeClient(script)).ending is Ending.FINISHED


def test_a_full_disk_stops_a_campaign_that_can_go_on(campaign: Campaign, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("no folder")
    client = FakeClient()
    outcome = campaign.run(client)
    assert outcome.ending is Ending.BROKEN
    assert "cannot be written" in outcome.message
    (tmp_path / "runs").unlink()
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3


def test_states_that_pass_at_once_cost_no_commit(campaign: Campaign) -> None:
    client = FakeClient()
    status = client.status
    client.status = lambda attempt_id, *, after_version=-1, wait_s=0.0, with_result=False: status(  # type: ignore[method-assign]
        attempt_id, after_version=after_version, wait_s=10 * wait_s
    )
    campaign.run(client)
    story = [event.state_after for event in campaign.store.events(spec(0).run_id)]
    assert story == [AttemptState.CLAIMED, AttemptState.SUCCEEDED]


def test_exports_once_a_minute_and_at_the_end(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, n_runs=13)
    campaign.run(FakeClient(), Cooldown(floor_s=10.0, max_wait_s=0.0))
    assert campaign.clock.now_s == pytest.approx(120.0, abs=2.0)
    assert campaign.n_exports in (2, 3)
