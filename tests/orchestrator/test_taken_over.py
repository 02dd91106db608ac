"""An orchestrator that was away comes back to an attempt that another one has ended."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState
from contract.trial_result import ArtifactRef, AttemptStatus, TrialResult
from orchestrator.attempt_journal import AttemptJournal
from orchestrator.campaign import Ending
from orchestrator.clients.fake_client import FakeClient
from orchestrator.experiment_folder import require_sound
from orchestrator.membership import Alone
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import LEASE_S, SqlStore
from tests.orchestrator.campaigns import AWAY, Campaign
from tests.orchestrator.test_store import Now


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def campaign(tmp_path: Path, now: Now) -> Campaign:
    return of(tmp_path, "hostA:1:1", now)


def of(folder: Path, owner: str, now: Now) -> Campaign:
    campaign = Campaign(folder, n_runs=1)
    campaign.store.close()
    campaign.store = SqlStore.open(folder / RUN_TABLE, owner=owner, create=False, now=now)
    return campaign


def be_away(campaign: Campaign, now: Now) -> None:
    """Another orchestrator takes what this one has in hand, finds it nowhere, and does its run again."""
    now.at += timedelta(seconds=LEASE_S + 1)
    other = of(campaign.folder, "hostB:1:1", now)
    assert other.run(FakeClient(), testbed="other").ending is Ending.FINISHED
    other.store.close()


def check(campaign: Campaign) -> None:
    """One accepted attempt, the other's; the campaign went on, and told why it let go."""
    (row,) = campaign.store.runs()
    assert [(each.state, each.accepted) for each in row.attempts] == [
        (AttemptState.LOST, False),
        (AttemptState.SUCCEEDED, True),
    ]
    assert campaign.view.ends == []
    assert any("has ended as LOST" in message or "taken over" in message for message in campaign.view.waits)
    accepted = {each.attempt_id: each.accepted for each in AttemptJournal(campaign.folder).read().values()}
    assert accepted == {each.attempt_id: each.accepted for each in row.attempts}
    require_sound(campaign.folder, campaign.store)


def test_its_result_is_not_accepted(campaign: Campaign, now: Now) -> None:
    """Away between a trial's end and the run table."""
    client = FakeClient()
    outcome = client.outcome
    n = 0

    def slow(attempt_id: str) -> TrialResult:
        nonlocal n
        n += 1
        if n == 1:
            be_away(campaign, now)
        return outcome(attempt_id)

    client.outcome = slow  # type: ignore[method-assign]
    campaign.run(client, passing_s=0.0)
    check(campaign)


def test_that_its_testbed_forgot_it_too_is_no_end(campaign: Campaign, now: Now) -> None:
    """Acknowledged by the other, and deleted."""
    client = FakeClient()

    def away(status: AttemptStatus) -> None:
        if status.state is AttemptState.MEASURING and status.attempt_id in client._attempts:
            be_away(campaign, now)
            del client._attempts[status.attempt_id]

    campaign.view.on_status = away
    assert campaign.run(client, passing_s=0.0).ending is Ending.FINISHED
    check(campaign)


@pytest.mark.parametrize("is_settled_late", [False, True])
def test_it_cannot_be_given_back(campaign: Campaign, now: Now, is_settled_late: bool) -> None:
    """Nor is that an end of the campaign on this testbed."""

    class Going(FakeClient):
        n_asked = 0

        def status(
            self, attempt_id: str, *, after_version: int = -1, wait_s: float = 0.0, with_result: bool = False
        ) -> AttemptStatus:
            status = super().status(attempt_id, after_version=after_version, wait_s=wait_s, with_result=with_result)
            if not is_settled_late and status.state is AttemptState.MEASURING:
                self.go()
            return status

        def fetch_artifacts(self, attempt_id: str, artifacts: Sequence[ArtifactRef], folder: Path) -> None:
            self.go()
            super().fetch_artifacts(attempt_id, artifacts, folder)

        def go(self) -> None:
            self.n_asked += 1
            if self.n_asked == 1:
                be_away(campaign, now)
                raise AWAY

    member = Alone(campaign.store)
    member.has_colleagues = True
    member.may_give_back = lambda: True  # type: ignore[method-assign]
    assert campaign.run(Going(), membership=member, give_back_after_s=0.0, passing_s=0.0).ending is Ending.FINISHED
    check(campaign)
