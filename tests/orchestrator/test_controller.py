"""The loop on a real run table and a scripted testbed; no time passes."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from contract.attempt_state import AttemptState, RunState
from contract.errors import (
    EngineError,
    ErrorBody,
    JouleBedError,
    ModelNotFoundError,
    ProtocolMismatchError,
    TestbedUnreachableError,
    UnauthorizedError,
)
from contract.trial_result import AttemptStatus
from contract.trial_spec import TrialSpec
from orchestrator.artifacts import ArtifactFolder
from orchestrator.campaign import CampaignOutcome, ControllerSettings, Ending
from orchestrator.campaign_view import AttemptEnd, SilentView
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.config import Cooldown
from orchestrator.controller import IDLE_TEMP_KEY, Controller
from orchestrator.cooldown import CooldownWait
from orchestrator.stop_request import StopRequest
from orchestrator.store.base import Claim
from orchestrator.store.sql_store import SqlStore
from tests.orchestrator.doubles import Clock, plan, spec

NO_COOLDOWN = Cooldown(floor_s=0.0, max_wait_s=0.0)
AWAY = TestbedUnreachableError("No answer from the testbed.")


class Collector(SilentView):
    def __init__(self) -> None:
        self.ends: list[AttemptEnd] = []
        self.waits: list[str] = []
        self.on_status: Callable[[AttemptStatus], None] = lambda status: None
        self.on_end: Callable[[AttemptEnd], None] = lambda end: None

    def status(self, status: AttemptStatus) -> None:
        self.on_status(status)

    def waiting(self, message: str) -> None:
        self.waits.append(message)

    def attempt_ended(self, end: AttemptEnd) -> None:
        self.ends.append(end)
        self.on_end(end)


class Campaign:
    """One experiment in a folder; `run` may be called again, as a new process would."""

    def __init__(self, folder: Path, n_runs: int = 3, max_attempts: int = 3) -> None:
        self.folder = folder
        self.clock = Clock()
        self.view = Collector()
        self.stop = StopRequest(clock=self.clock, sleep=self.clock.sleep)
        self.n_exports = 0
        self.store = SqlStore.open(folder / "run_table.sqlite", create=True)
        self.store.create_experiment(plan(n_runs, max_attempts))

    def run(self, client: FakeClient, cooldown: Cooldown = NO_COOLDOWN, **settings: Any) -> CampaignOutcome:
        def export() -> None:
            self.n_exports += 1

        return Controller(
            self.store,
            client,
            testbed="fake",
            cooldown=CooldownWait(
                cooldown, lambda: client.node().temperatures, clock=self.clock, sleep=self.stop.sleep
            ),
            artifacts=ArtifactFolder(self.folder),
            view=self.view,
            stop=self.stop,
            export=export,
            settings=ControllerSettings(**settings),
            clock=self.clock,
        ).run()

    def states(self) -> list[RunState]:
        return [row.state for row in self.store.runs()]

    def attempts(self) -> list[AttemptState]:
        return [attempt.state for row in self.store.runs() for attempt in row.attempts]


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path)


def scripted(*trials: FakeTrial) -> Callable[[TrialSpec, int], FakeTrial]:
    """The trials of the first run, one per attempt; all else succeeds."""

    def script(trial: TrialSpec, n_before: int) -> FakeTrial:
        return trials[n_before] if trial.run_id == spec(0).run_id and n_before < len(trials) else FakeTrial()

    return script


def failing(error: JouleBedError) -> FakeTrial:
    return FakeTrial(state=AttemptState.FAILED, error=error.body())


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
    assert len(client.calls) == before


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


def test_suspect_results_are_kept_and_not_repeated(campaign: Campaign) -> None:
    outcome = campaign.run(FakeClient(scripted(FakeTrial(state=AttemptState.SUSPECT))))
    assert campaign.states() == [RunState.SUSPECT, RunState.DONE, RunState.DONE]
    assert outcome.ending is Ending.FINISHED
    result = campaign.store.runs()[0].attempts[0].result
    assert result is not None and result.reasons


def test_a_result_without_its_files_is_not_accepted(campaign: Campaign) -> None:
    client = FakeClient(scripted(FakeTrial(is_corrupt=True)))
    campaign.run(client)
    first, second = campaign.store.runs()[0].attempts
    assert (first.state, first.accepted) == (AttemptState.FAILED, False)
    assert first.error is not None and first.error.code == "artifact_corrupt"
    assert (second.state, second.accepted) == (AttemptState.SUCCEEDED, True)
    assert ("acknowledge", first.attempt_id) not in client.calls


@pytest.mark.parametrize("method", ["submit", "status", "result", "fetch_artifact", "acknowledge"])
def test_a_testbed_that_stays_away_for_a_while(campaign: Campaign, method: str) -> None:
    client = FakeClient(failures={method: [AWAY] * 3})
    outcome = campaign.run(client)
    assert outcome.counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3
    assert len({attempt_id for called, attempt_id in client.calls if called == "acknowledge"}) == 3
    if method != "acknowledge":
        assert campaign.view.waits and "No answer" in campaign.view.waits[0]


@pytest.mark.parametrize("method", ["submit", "status", "result", "fetch_artifact"])
def test_a_testbed_that_stays_away_stops_a_campaign_that_can_go_on(campaign: Campaign, method: str) -> None:
    client = FakeClient(failures={method: [AWAY] * 10_000})
    outcome = campaign.run(client, unreachable_after_s=600.0)
    assert outcome.ending is Ending.UNREACHABLE
    assert "No answer" in outcome.message
    assert 600 <= campaign.clock.now_s < 700
    assert campaign.states() == [RunState.RUNNING, RunState.TODO, RunState.TODO]
    client._failures.clear()
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3


@pytest.mark.parametrize("error", [UnauthorizedError("Wrong token."), ProtocolMismatchError("Versions differ.")])
def test_a_testbed_that_refuses_stops_the_campaign(campaign: Campaign, error: JouleBedError) -> None:
    client = FakeClient(failures={"status": [error]})
    outcome = campaign.run(client)
    assert (outcome.ending, outcome.message) == (Ending.REFUSED, error.message)
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3


@pytest.mark.parametrize("submitted", [False, True])
@pytest.mark.parametrize("cooldown", [NO_COOLDOWN, Cooldown(floor_s=5.0, max_wait_s=0.0)])
def test_a_claim_that_was_left_goes_on_under_its_id(campaign: Campaign, submitted: bool, cooldown: Cooldown) -> None:
    """Killed between claim and submission, or between submission and the note of it."""
    client = FakeClient()
    left = campaign.store.claim_next("fake")
    assert left is not None
    if submitted:
        client.submit(left.attempt_id, left.spec)
    assert campaign.run(client, cooldown).counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3
    assert campaign.store.runs()[0].attempts[0].attempt_id == left.attempt_id


def leave(campaign: Campaign, client: FakeClient, state: AttemptState) -> Claim:
    claim = campaign.store.claim_next("fake")
    assert claim is not None
    client.submit(claim.attempt_id, claim.spec)
    campaign.store.record_state(claim.attempt_id, state)
    return claim


def test_an_attempt_that_was_left_is_followed_to_its_end(campaign: Campaign) -> None:
    client = FakeClient()
    leave(campaign, client, AttemptState.MEASURING)
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3


def test_an_attempt_that_the_testbed_forgot_is_lost_and_tried_again(campaign: Campaign) -> None:
    client = FakeClient()
    leave(campaign, client, AttemptState.MEASURING)
    client.forget()
    assert campaign.run(client).counts[RunState.DONE] == 3
    first, second = campaign.store.runs()[0].attempts
    assert (first.state, second.state) == (AttemptState.LOST, AttemptState.SUCCEEDED)
    assert first.error is not None and "no longer knows" in first.error.message


def test_a_testbed_that_forgets_in_the_middle(campaign: Campaign) -> None:
    client = FakeClient()

    def forget_once(status: AttemptStatus) -> None:
        if status.state is AttemptState.MEASURING and campaign.attempts().count(AttemptState.LOST) == 0:
            client.forget()

    campaign.view.on_status = forget_once
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert campaign.attempts().count(AttemptState.LOST) == 1


def test_waits_for_somebody_elses_trial(campaign: Campaign) -> None:
    client = FakeClient()
    client.submit("foreign", spec(99))
    campaign.view.waiting = lambda message: (  # type: ignore[method-assign]
        client.cancel("foreign") if campaign.clock.now_s > 20 else None,
        campaign.view.waits.append(message),
    )[1]
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert "foreign" in campaign.view.waits[0]
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3


def test_does_not_wait_for_it_for_ever(campaign: Campaign) -> None:
    client = FakeClient()
    client.submit("foreign", spec(99))
    outcome = campaign.run(client, busy_after_s=100.0)
    assert outcome.ending is Ending.UNREACHABLE
    assert "foreign" in outcome.message
    assert campaign.clock.now_s < 200


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
    client._script = lambda trial, n_before: FakeTrial()
    campaign.view.on_end = lambda end: setattr(
        client, "_script", lambda trial, n_before: failing(ModelNotFoundError("There is no model x."))
    )
    outcome = campaign.run(client)
    assert outcome.ending is Ending.FINISHED
    assert (outcome.counts[RunState.DONE], outcome.counts[RunState.FAILED]) == (1, 19)


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


def test_cooldown_is_kept_and_told(campaign: Campaign) -> None:
    client = FakeClient(temp_c=lambda: 41.5)
    campaign.run(client, Cooldown(floor_s=30.0))
    assert campaign.store.recall(IDLE_TEMP_KEY) == {"fake": 41.5}
    assert 60 < campaign.clock.now_s < 70
    told = [event.message for event in campaign.store.events() if event.state_after is AttemptState.SUBMITTED]
    assert "without a thermal gate" in told[0]
    assert all("cool (41.5 °C, idle 41.5 °C)" in message for message in told[1:])


def test_a_gate_that_timed_out_is_in_the_story(campaign: Campaign) -> None:
    temperatures: Sequence[float] = [40.0] * 3
    left = iter(temperatures)
    client = FakeClient(temp_c=lambda: next(left, 70.0))
    campaign.run(client, Cooldown(floor_s=1.0, max_wait_s=10.0))
    told = [event.message for event in campaign.store.events() if event.state_after is AttemptState.SUBMITTED]
    assert ["timed out" in message for message in told] == [False, True, True]


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


def test_the_lease_is_renewed_while_waiting(campaign: Campaign) -> None:
    renewals: list[float] = []
    record_state = campaign.store.record_state

    def count(attempt_id: str, state: AttemptState, message: str = "") -> None:
        renewals.append(campaign.clock.now_s)
        record_state(attempt_id, state, message)

    campaign.store.record_state = count  # type: ignore[method-assign]
    campaign.run(FakeClient(failures={"status": [AWAY] * 30}), Cooldown(floor_s=100.0, max_wait_s=0.0))
    gaps = [after - before for before, after in pairwise(renewals)]
    assert max(gaps) < 30


def test_an_attempt_that_another_finished_is_left_to_it(campaign: Campaign) -> None:
    client = FakeClient()
    stolen: list[str] = []

    def steal(status: AttemptStatus) -> None:
        if not stolen:
            campaign.store.finish(status.attempt_id, AttemptState.CANCELLED)
            stolen.append(status.attempt_id)

    def waiting(message: str) -> None:
        campaign.view.waits.append(message)
        client.cancel(stolen[0])

    campaign.view.on_status = steal
    campaign.view.waiting = waiting  # type: ignore[method-assign]
    outcome = campaign.run(client)
    assert outcome.counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.CANCELLED, *[AttemptState.SUCCEEDED] * 3]
    assert "Another orchestrator" in campaign.view.waits[0]


def test_states_that_pass_at_once_cost_no_commit(campaign: Campaign) -> None:
    client = FakeClient()
    status = client.status
    client.status = lambda attempt_id, *, after_version=-1, wait_s=0.0: status(  # type: ignore[method-assign]
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
