"""What a testbed holds of attempts that were given up while it was away: evidence, and never accepted."""

from pathlib import Path

from contract.attempt_state import AttemptState, RunState
from contract.errors import TestbedUnreachableError
from orchestrator.artifacts import RESULT
from orchestrator.campaign import Ending
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.store.base import Claim
from tests.orchestrator.campaigns import Campaign, leave
from tests.orchestrator.test_pool import Box, Lab, study

AWAY = TestbedUnreachableError("No answer from the testbed.")


def given_up(campaign: Campaign, client: FakeClient) -> Claim:
    """An attempt that the testbed has, and whose run is to be done again."""
    claim = leave(campaign, client, AttemptState.SUBMITTED)
    campaign.store.finish(claim.attempt_id, AttemptState.CANCELLED, error=AWAY.body())
    return claim


def acknowledged(client: FakeClient) -> list[str]:
    return [attempt_id for method, attempt_id in client.calls if method == "acknowledge"]


def told(campaign: Campaign, claim: Claim) -> list[str]:
    return [
        event.message
        for event in campaign.store.events(claim.run_id)
        if event.attempt_id == claim.attempt_id and event.state_after is None
    ]


def test_a_result_that_was_left_is_kept_and_acknowledged_but_not_accepted(tmp_path: Path) -> None:
    campaign, client = Campaign(tmp_path, 3), FakeClient()
    claim = given_up(campaign, client)
    client.status(claim.attempt_id, wait_s=60)
    assert campaign.store.leftovers()["fake"][0].attempt_id == claim.attempt_id
    assert campaign.run(client).ending is Ending.FINISHED
    row = campaign.store.run(claim.run_id)
    assert row is not None
    assert [(attempt.state, attempt.accepted) for attempt in row.attempts] == [
        (AttemptState.CANCELLED, False),
        (AttemptState.SUCCEEDED, True),
    ]
    assert row.attempts[0].result is None
    assert claim.attempt_id in acknowledged(client)
    assert (tmp_path / "runs" / claim.run_id / claim.attempt_id / RESULT).exists()
    assert len(told(campaign, claim)) == 1
    assert "superseded and not accepted: its files are kept as evidence" in told(campaign, claim)[0]
    assert campaign.store.leftovers() == {}


def test_it_is_asked_about_once(tmp_path: Path) -> None:
    campaign, client = Campaign(tmp_path, 3), FakeClient()
    claim = given_up(campaign, client)
    # The testbed never got it, or has forgotten it.
    empty = FakeClient()
    assert campaign.run(empty).ending is Ending.FINISHED
    assert told(campaign, claim) == ["fake holds nothing of it"]
    assert campaign.store.leftovers() == {}
    assert acknowledged(empty).count(claim.attempt_id) == 0


def test_what_another_testbed_took_over_is_not_this_ones(tmp_path: Path) -> None:
    campaign, client = Campaign(tmp_path, 3), FakeClient()
    claim = given_up(campaign, client)
    assert campaign.run(FakeClient(), testbed="other").ending is Ending.FINISHED
    assert [left.attempt_id for left in campaign.store.leftovers()["fake"]] == [claim.attempt_id]
    # Though nothing is left to do: the next time that it is driven, it is rid of it.
    assert campaign.run(client).ending is Ending.FINISHED
    assert campaign.store.leftovers() == {}
    assert claim.attempt_id in acknowledged(client)


def test_a_testbed_that_comes_back_is_rid_of_what_was_given_back(tmp_path: Path) -> None:
    dying, well = Box(), Box(pace_s=0.02)
    lab = Lab(tmp_path, study(2, 60), {"dying": dying, "well": well})

    def die(spec: object, n_before: int) -> FakeTrial:
        dying.is_away = not dying.runs
        return FakeTrial()

    dying._script = die
    submit = well.submit

    def revive(attempt_id, spec, **options):  # type: ignore[no-untyped-def]
        # Its run was taken by the other one: now it may come back.
        if dying.runs[:1] == [spec.run_id] or any(spec.run_id in key for _, key in dying.calls):
            dying.is_away = False
        return submit(attempt_id, spec, **options)

    well.submit = revive  # type: ignore[method-assign]
    assert lab.run(give_back_after_s=0.1).ending is Ending.FINISHED
    given_back = [
        attempt for row in lab.store.runs() for attempt in row.attempts if attempt.state is AttemptState.CANCELLED
    ]
    assert [attempt.testbed for attempt in given_back] == ["dying"]
    assert given_back[0].attempt_id in acknowledged(dying)
    assert lab.store.counts()[RunState.DONE] == 120
    assert sum(attempt.accepted for row in lab.store.runs() for attempt in row.attempts) == 120
    assert lab.store.leftovers() == {}
