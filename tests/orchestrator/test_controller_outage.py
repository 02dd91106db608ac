"""What a campaign does when testbeds, networks or other orchestrators get in its way; no time passes."""

from itertools import pairwise
from typing import Any

import pytest

from contract.attempt_state import AttemptState, RunState
from contract.errors import (
    JouleBedError,
    ProtocolMismatchError,
    UnauthorizedError,
)
from contract.trial_result import AttemptStatus
from orchestrator.campaign import Ending
from orchestrator.clients.fake_client import FakeClient
from orchestrator.config import Cooldown
from tests.orchestrator.campaigns import AWAY, NO_COOLDOWN, Campaign, leave
from tests.orchestrator.doubles import spec


@pytest.mark.parametrize("method", ["submit", "status", "result", "fetch_artifacts", "acknowledge"])
def test_a_testbed_that_stays_away_for_a_while(campaign: Campaign, method: str) -> None:
    client = FakeClient(failures={method: [AWAY] * 3}, brings_results=method != "result")
    outcome = campaign.run(client)
    assert outcome.counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3
    # At the end two are left to be told, and a testbed that is away is not asked for each of them.
    n_told = 2 if method == "acknowledge" else 3
    assert len({attempt_id for called, attempt_id in client.calls if called == "acknowledge"}) == n_told
    if method != "acknowledge":
        assert campaign.view.waits and "No answer" in campaign.view.waits[0]


@pytest.mark.parametrize("method", ["submit", "status", "result", "fetch_artifacts"])
def test_a_testbed_that_stays_away_stops_a_campaign_that_can_go_on(campaign: Campaign, method: str) -> None:
    client = FakeClient(failures={method: [AWAY] * 10_000}, brings_results=method != "result")
    outcome = campaign.run(client, unreachable_after_s=600.0)
    assert outcome.ending is Ending.UNREACHABLE
    assert "No answer" in outcome.message
    assert 600 <= campaign.clock.now_s < 700
    # A trial whose files cannot be fetched does not keep the next one from beginning.
    n_open = 2 if method == "fetch_artifacts" else 1
    assert campaign.states() == [RunState.RUNNING] * n_open + [RunState.TODO] * (3 - n_open)
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
    campaign.view.waiting = lambda message, code="": (  # type: ignore[method-assign]
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


def test_the_lease_is_renewed_while_waiting(campaign: Campaign) -> None:
    renewals: list[float] = []
    record_state = campaign.store.record_state

    def count(attempt_id: str, state: AttemptState, message: str = "", **named: Any) -> None:
        renewals.append(campaign.clock.now_s)
        record_state(attempt_id, state, message, **named)

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

    def waiting(message: str, code: str = "") -> None:
        campaign.view.waits.append(message)
        client.cancel(stolen[0])

    campaign.view.on_status = steal
    campaign.view.waiting = waiting  # type: ignore[method-assign]
    outcome = campaign.run(client)
    assert outcome.counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.CANCELLED, *[AttemptState.SUCCEEDED] * 3]
    assert "Another orchestrator" in campaign.view.waits[0]
