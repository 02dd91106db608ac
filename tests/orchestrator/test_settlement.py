"""A trial is written down while the testbed prepares the next one: in which order, and what a kill leaves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState, RunState
from contract.errors import AttemptNotFoundError, ChildDiedError, TestbedBusyError
from contract.routes import MAX_BROUGHT_BYTES
from contract.trial_result import ArtifactRef, AttemptStatus, TrialResult
from contract.trial_spec import TrialSpec
from orchestrator.campaign import Ending
from orchestrator.campaign_view import AttemptEnd
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.config import Cooldown, OnSuspect
from orchestrator.membership import Colleagues
from orchestrator.store.balance import Balance
from orchestrator.store.base import Claim
from tests.orchestrator.campaigns import AWAY, Campaign, scripted


class Watched(FakeClient):
    """Notes at each submission how many attempts the run table has ended by then."""

    def __init__(self, campaign: Campaign, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._campaign = campaign
        self.n_ended: list[int] = []
        self.waits: list[float] = []

    def submit(
        self, attempt_id: str, spec: TrialSpec, *, wait_s: float = 0.0, acknowledges: Sequence[str] = ()
    ) -> AttemptStatus:
        self.n_ended.append(sum(state.is_final for state in self._campaign.attempts()))
        self.waits.append(wait_s)
        return super().submit(attempt_id, spec, wait_s=wait_s, acknowledges=acknowledges)


class Killed(BaseException):
    """The end of the process, wherever it is."""


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path)


def test_a_sound_trial_is_settled_when_the_next_one_is_submitted(campaign: Campaign) -> None:
    client = Watched(campaign)
    told: list[str] = []
    campaign.view.attempt_started = lambda claim: told.append(f"started {claim.run_id}")  # type: ignore[method-assign]
    campaign.view.on_end = lambda end: told.append(f"ended {end.claim.run_id}")
    outcome = campaign.run(client)
    assert outcome.counts[RunState.DONE] == 3
    assert client.n_ended == [0, 0, 1]
    # The answer is not waited for, or the time would be lost.
    assert client.waits[0] > 0
    assert client.waits[1:] == [0, 0]
    runs = [row.run_id for row in campaign.store.runs()]
    assert told == [f"{what} {run}" for run in runs for what in ("started", "ended")]
    acknowledged = [attempt_id for method, attempt_id in client.calls if method == "acknowledge"]
    assert sorted(acknowledged) == sorted(row.attempts[0].attempt_id for row in campaign.store.runs())


def test_with_a_cooldown_each_trial_is_settled_first(campaign: Campaign) -> None:
    client = Watched(campaign)
    campaign.run(client, Cooldown(floor_s=1.0, max_wait_s=0.0))
    assert client.n_ended == [0, 1, 2]


@pytest.mark.parametrize(
    ("lifetime", "warmup_requests", "baseline_s", "n_ended"),
    [
        ("block", 0, 0.0, [0, 1, 2]),
        ("block", 1, 5.0, [0, 1, 2]),
        ("block", 1, 0.0, [0, 0, 1]),
        ("trial", 0, 5.0, [0, 0, 1]),
    ],
)
def test_nothing_is_settled_beside_a_measurement(
    campaign: Campaign,
    monkeypatch: pytest.MonkeyPatch,
    lifetime: str,
    warmup_requests: int,
    baseline_s: float,
    n_ended: list[int],
) -> None:
    claim_next = campaign.store.claim_next

    def claim_changed(*args: object, **options: object) -> Claim | None:
        claim = claim_next(*args, **options)  # type: ignore[arg-type]
        if claim is None:
            return None
        engine = claim.spec.engine.model_copy(update={"lifetime": lifetime})
        changed = {"engine": engine, "warmup_requests": warmup_requests, "baseline_s": baseline_s}
        return replace(claim, spec=claim.spec.model_copy(update=changed))

    monkeypatch.setattr(campaign.store, "claim_next", claim_changed)
    client = Watched(campaign)
    campaign.run(client)
    assert client.n_ended == n_ended


def test_a_doubted_trial_is_settled_first(campaign: Campaign) -> None:
    client = Watched(campaign, script=scripted(FakeTrial(state=AttemptState.SUSPECT)))
    campaign.run(client, on_suspect=OnSuspect.RETRY)
    assert client.n_ended == [0, 1, 1, 2]
    # Tried again at once, and not when another has taken its turn.
    assert campaign.attempts() == [AttemptState.SUSPECT, *[AttemptState.SUCCEEDED] * 3]


def test_files_that_are_still_on_the_testbed_are_fetched_first(campaign: Campaign) -> None:
    class Large(Watched):
        def outcome(self, attempt_id: str) -> TrialResult:
            large = ArtifactRef(name="trace_0.csv", size_bytes=MAX_BROUGHT_BYTES + 1, sha256="0" * 64)
            result = super().outcome(attempt_id)
            return result.model_copy(update={"artifacts": [*result.artifacts, large]})

        def fetch_artifacts(self, attempt_id: str, artifacts: Sequence[ArtifactRef], folder: Path) -> None:
            super().fetch_artifacts(attempt_id, artifacts[:1], folder)

    client = Large(campaign)
    campaign.run(client)
    assert client.n_ended == [0, 1, 2]


@pytest.mark.parametrize("at", [1, 2])
def test_killed_before_it_is_settled(campaign: Campaign, at: int) -> None:
    client = FakeClient()
    submit, n = client.submit, 0

    def killed(*arguments: object, **options: object) -> AttemptStatus:
        nonlocal n
        n += 1
        if n == 2 and at == 1:
            raise Killed  # the second trial is claimed, and has not reached the testbed
        status = submit(*arguments, **options)  # type: ignore[arg-type]
        if n == 2 and at == 2:
            raise Killed  # it runs
        return status

    client.submit = killed  # type: ignore[method-assign]
    settle = type(campaign.store).finish
    campaign.store.finish = lambda *_, **__: (_ for _ in ()).throw(Killed)  # type: ignore[method-assign]
    with pytest.raises(Killed):
        campaign.run(client)
    assert campaign.states() == [RunState.RUNNING, RunState.RUNNING, RunState.TODO]
    client.submit = submit  # type: ignore[method-assign]
    campaign.store.finish = settle.__get__(campaign.store)  # type: ignore[method-assign]
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3
    submitted = [attempt_id for method, attempt_id in client.calls if method == "submit"]
    assert len(set(submitted)) == 3


def test_a_full_disk_here_is_no_failure_of_the_next_trial(campaign: Campaign) -> None:
    client = FakeClient()
    (campaign.folder / "runs").write_text("a file where the folder should be")
    outcome = campaign.run(client)
    assert outcome.ending is Ending.BROKEN
    first, second = (row.attempts[0] for row in campaign.store.runs()[:2])
    assert first.attempt_id in outcome.message
    assert not first.state.is_final
    assert not second.state.is_final
    (campaign.folder / "runs").unlink()
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3


def test_files_that_are_gone_lose_their_own_trial_only(campaign: Campaign) -> None:
    client = FakeClient(failures={"fetch_artifacts": [AttemptNotFoundError("Pruned.")]})
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert sorted(campaign.attempts()) == [AttemptState.LOST, *[AttemptState.SUCCEEDED] * 3]


@pytest.mark.parametrize("error", [AWAY, TestbedBusyError("It runs the trial of another.")])
def test_nothing_waits_for_a_testbed_that_is_away_or_busy(campaign: Campaign, error: Exception) -> None:
    client = FakeClient()
    submit, n_done = client.submit, []

    def once_refused(*arguments: object, **options: object) -> AttemptStatus:
        n_done.append(campaign.states().count(RunState.DONE))
        if len(n_done) == 2:
            raise error
        return submit(*arguments, **options)  # type: ignore[arg-type]

    client.submit = once_refused  # type: ignore[method-assign]
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert n_done == [0, 0, 1, 1]


def test_in_the_order_in_which_they_were(campaign: Campaign) -> None:
    """The next attempt ends before it began: by then the last one has ended, and the pause is for what failed."""
    client = FakeClient()
    told: list[str] = []
    campaign.view.attempt_started = lambda claim: told.append(f"started {claim.run_id[4]} {claim.number}")  # type: ignore[method-assign]
    campaign.view.on_end = lambda end: told.append(f"{end.state} {end.claim.run_id[4]}")
    submit, n = client.submit, 0

    def refusing(*arguments: object, **options: object) -> AttemptStatus:
        nonlocal n
        n += 1
        if n == 2:
            raise ChildDiedError("The process that checks died.")
        return submit(*arguments, **options)  # type: ignore[arg-type]

    client.submit = refusing  # type: ignore[method-assign]
    begin_s = campaign.clock()
    assert campaign.run(client).counts[RunState.DONE] == 3
    first, second, third = (row.run_id[4] for row in campaign.store.runs())
    assert told == [
        f"started {first} 1",
        f"SUCCEEDED {first}",
        f"started {second} 1",
        f"FAILED {second}",
        f"started {second} 2",
        f"SUCCEEDED {second}",
        f"started {third} 1",
        f"SUCCEEDED {third}",
    ]
    assert campaign.clock() - begin_s >= 1.0
    assert any("Going on in 1 s" in message for message in campaign.view.waits)


@pytest.mark.parametrize("waits_for", ["the run table", "the testbed"])
def test_ctrl_c_twice_while_it_is_settled(campaign: Campaign, waits_for: str) -> None:
    """Settling has to wait and is not waited for: the trial that was submitted meanwhile is cancelled."""
    client = FakeClient()
    finish, fetch, n = campaign.store.finish, client.fetch_artifacts, 0

    def asked_twice() -> bool:
        nonlocal n
        n += 1
        if n == 1:
            campaign.stop.request()
            campaign.stop.request()
        return n == 1

    def locked(*arguments: object, **options: object) -> RunState:
        if asked_twice():
            campaign.stop.sleep_unless_cancelled(0.0)  # as whoever waits for a lock does
        return finish(*arguments, **options)  # type: ignore[arg-type]

    def away(*arguments: object) -> None:
        if asked_twice():
            raise AWAY
        fetch(*arguments)  # type: ignore[arg-type]

    if waits_for == "the run table":
        campaign.store.finish = locked  # type: ignore[method-assign]
    else:
        client.fetch_artifacts = away  # type: ignore[method-assign]
    assert campaign.run(client).ending is Ending.STOPPED
    first, second, third = campaign.store.runs()
    assert [each.state.is_final for row in (first, second) for each in row.attempts] == [False, False]
    assert client.status(second.attempts[0].attempt_id).state is AttemptState.CANCELLED
    assert not third.attempts
    campaign.stop.level = 0
    assert campaign.run(client).counts[RunState.DONE] == 3
    assert campaign.attempts() == [
        AttemptState.SUCCEEDED,
        AttemptState.CANCELLED,
        AttemptState.SUCCEEDED,
        AttemptState.SUCCEEDED,
    ]


def test_a_result_that_did_not_come_by_itself_is_settled_first(campaign: Campaign) -> None:
    """Its files may still have to be fetched, and the testbed would serve them while it measures."""
    client = Watched(campaign, brings_results=False)
    campaign.run(client)
    assert client.n_ended == [0, 1, 2]


def test_a_result_of_who_was_killed_is_acknowledged_by_who_goes_on(campaign: Campaign) -> None:
    """It was in the run table, and its testbed was not told."""
    client = FakeClient()

    def kill(end: AttemptEnd) -> None:
        if len(campaign.view.ends) == 2:
            raise Killed

    campaign.view.on_end = kill
    with pytest.raises(Killed):
        campaign.run(client)
    campaign.view.on_end = lambda end: None
    assert campaign.run(client).ending is Ending.FINISHED
    acknowledged = {attempt_id for method, attempt_id in client.calls if method == "acknowledge"}
    assert acknowledged == {row.attempts[0].attempt_id for row in campaign.store.runs()}


def test_in_a_pool_both_runs_of_a_testbed_that_is_gone_go_to_others(campaign: Campaign) -> None:
    """It went away with files that are still there while its next trial runs."""

    class Going(FakeClient):
        is_away = False

        def submit(
            self, attempt_id: str, spec: TrialSpec, *, wait_s: float = 0.0, acknowledges: Sequence[str] = ()
        ) -> AttemptStatus:
            self._answer()
            status = super().submit(attempt_id, spec, wait_s=wait_s, acknowledges=acknowledges)
            self.is_away = len(self._attempts) == 2
            return status

        def status(
            self, attempt_id: str, *, after_version: int = -1, wait_s: float = 0.0, with_result: bool = False
        ) -> AttemptStatus:
            self._answer()
            return super().status(attempt_id, after_version=after_version, wait_s=wait_s, with_result=with_result)

        def fetch_artifacts(self, attempt_id: str, artifacts: Sequence[ArtifactRef], folder: Path) -> None:
            self._answer()
            super().fetch_artifacts(attempt_id, artifacts, folder)

        def cancel(self, attempt_id: str) -> AttemptStatus:
            self._answer()
            return super().cancel(attempt_id)

        def _answer(self) -> None:
            if self.is_away:
                raise AWAY

    pool = Colleagues(campaign.store, Balance.of(campaign.store, None, {""}), clock=campaign.clock)
    member, _ = pool.member("fake"), pool.member("other")
    given_back: list[float] = []
    campaign.view.on_end = lambda end: given_back.append(campaign.clock.now_s)
    outcome = campaign.run(
        Going(), membership=member, renew_s=float("inf"), give_back_after_s=600.0, unreachable_after_s=3600.0
    )
    assert outcome.ending is Ending.UNREACHABLE
    assert campaign.attempts() == [AttemptState.CANCELLED] * 2
    assert campaign.states() == [RunState.TODO] * 3
    assert all(600 * n <= at_s < 610 * n for n, at_s in enumerate(given_back, 1))
    left = [each.attempt_id for each in campaign.store.leftovers()["fake"]]
    assert left == [row.attempts[0].attempt_id for row in campaign.store.runs()[:2]]
