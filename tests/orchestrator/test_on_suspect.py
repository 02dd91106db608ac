"""What becomes of doubted results in a campaign; no time passes."""

import random
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState, RunState
from contract.errors import EngineError, UsageError
from contract.trial_result import SuspectReason
from contract.trial_spec import TrialSpec
from orchestrator.campaign import Ending
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.config import OnSuspect
from orchestrator.export import export_run_table
from orchestrator.retry_command import retry_command
from orchestrator.status_view import status_document
from orchestrator.suspicion import ON_SUSPECT_KEY
from tests.orchestrator.campaigns import Campaign, failing, scripted
from tests.orchestrator.doubles import spec

DOUBTED = FakeTrial(state=AttemptState.SUSPECT)
FIRST = spec(0).run_id


def doubted(*codes: str) -> FakeTrial:
    reasons = tuple(SuspectReason(code=code, message=f"Because of {code}.") for code in codes)
    return FakeTrial(state=AttemptState.SUSPECT, reasons=reasons)


def events_of_the_campaign(campaign: Campaign) -> list[str]:
    return [event.message for event in campaign.store.events() if event.run_id is None]


def test_keep_is_the_default(campaign: Campaign) -> None:
    outcome = campaign.run(FakeClient(scripted(DOUBTED)))
    assert campaign.states() == [RunState.SUSPECT, RunState.DONE, RunState.DONE]
    assert outcome.ending is Ending.FINISHED
    (attempt,) = campaign.store.runs()[0].attempts
    assert attempt.result is not None and attempt.reasons == tuple(attempt.result.reasons)
    assert campaign.store.events(FIRST)[-1].message == "fake: The script says so."


def test_retry_tries_again_and_keeps_the_evidence(campaign: Campaign) -> None:
    campaign.run(FakeClient(scripted(doubted("gap"), doubted("stale"))), on_suspect=OnSuspect.RETRY)
    assert campaign.states() == [RunState.DONE] * 3
    attempts = campaign.store.runs()[0].attempts
    assert [(each.state, each.accepted) for each in attempts] == [
        (AttemptState.SUSPECT, False),
        (AttemptState.SUSPECT, False),
        (AttemptState.SUCCEEDED, True),
    ]
    assert [[reason.code for reason in each.reasons] for each in attempts] == [["gap"], ["stale"], []]
    for each in attempts:
        assert each.result is not None
        assert (campaign.folder / "runs" / FIRST / each.attempt_id / "result.json").is_file()


def test_at_the_limit_the_last_doubted_result_is_kept(campaign: Campaign) -> None:
    trials = [doubted("one"), doubted("two"), doubted("three")]
    campaign.run(FakeClient(scripted(*trials)), on_suspect=OnSuspect.RETRY)
    assert campaign.states() == [RunState.SUSPECT, RunState.DONE, RunState.DONE]
    document = status_document(campaign.folder, campaign.store)
    assert document["suspects"][0]["code"] == "three"
    assert document["suspect_codes"] == {"three": 1}
    row = export_run_table(campaign.store, campaign.folder, "csv").read_text().splitlines()[1]
    assert row.endswith(",three: Because of three.")  # once, though the attempt's error says it too


def test_a_doubted_result_outlives_a_retry_that_fails(campaign: Campaign) -> None:
    broken = failing(EngineError("It broke."))
    campaign.run(FakeClient(scripted(doubted("gap"), broken, broken)), on_suspect=OnSuspect.RETRY)
    row = campaign.store.runs()[0]
    assert [each.state for each in row.attempts] == [AttemptState.SUSPECT, AttemptState.FAILED, AttemptState.FAILED]
    assert row.state is RunState.SUSPECT
    (told,) = status_document(campaign.folder, campaign.store)["suspects"]
    assert (told["code"], told["reason"]) == ("gap", "gap: Because of gap.")


def test_fail_counts_the_run_as_failed_and_goes_on(campaign: Campaign) -> None:
    outcome = campaign.run(FakeClient(scripted(doubted("gap", "stale"))), on_suspect=OnSuspect.FAIL)
    assert outcome.ending is Ending.FINISHED
    assert campaign.states() == [RunState.FAILED, RunState.DONE, RunState.DONE]
    (attempt,) = campaign.store.runs()[0].attempts
    assert (attempt.state, attempt.accepted) == (AttemptState.SUSPECT, False)
    assert attempt.result is not None
    assert attempt.error is not None
    assert (attempt.error.code, attempt.error.detail) == ("suspect", {"codes": ["gap", "stale"]})
    (told,) = status_document(campaign.folder, campaign.store)["failures"]
    assert (told["code"], told["reason"]) == ("suspect", "gap: Because of gap.; stale: Because of stale.")


def test_refused_results_are_no_figures_of_the_table(campaign: Campaign) -> None:
    """The fake's results last 1.0 s."""
    for policy, cell in ((OnSuspect.FAIL, ""), (OnSuspect.KEEP, "1.0")):
        campaign.run(FakeClient(scripted(DOUBTED)), on_suspect=policy)
        header, row, *_ = export_run_table(campaign.store, campaign.folder, "csv").read_text().splitlines()
        assert row.split(",")[header.split(",").index("duration_s")] == cell
        retry_command(campaign.store, wants_suspect=False, wants_failed=True, run_ids=[])


def test_runs_that_are_all_refused_stop_the_campaign_early(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, n_runs=20)
    client = FakeClient(lambda trial, n_before: DOUBTED)
    outcome = campaign.run(client, on_suspect=OnSuspect.FAIL)
    assert outcome.ending is Ending.HOPELESS and "'suspect'" in outcome.message
    assert outcome.counts[RunState.FAILED] == 3
    assert campaign.run(client, on_suspect=OnSuspect.KEEP).counts[RunState.SUSPECT] == 17


def test_the_policy_may_change_and_the_change_is_on_record(campaign: Campaign) -> None:
    client = FakeClient(lambda trial, n_before: DOUBTED)
    campaign.view.on_end = lambda end: campaign.stop.request()
    for policy in (OnSuspect.KEEP, OnSuspect.KEEP, OnSuspect.FAIL):
        campaign.stop.level = 0
        campaign.run(client, on_suspect=policy)
    assert campaign.states() == [RunState.SUSPECT, RunState.SUSPECT, RunState.FAILED]
    assert campaign.store.recall(ON_SUSPECT_KEY) == "fail"
    assert events_of_the_campaign(campaign) == [
        "doubted results from now on: keep",
        "doubted results from now on: fail (was: keep)",
    ]


@pytest.mark.parametrize("policy", list(OnSuspect))
def test_runs_are_measured_again_by_hand(campaign: Campaign, policy: OnSuspect) -> None:
    campaign.run(FakeClient(scripted(*[DOUBTED] * 3)), on_suspect=policy)
    before = campaign.store.runs()[0]
    told = retry_command(campaign.store, wants_suspect=True, wants_failed=True, run_ids=[])
    assert told.startswith("1 run to do again") and "orchestrator run" in told
    assert campaign.states() == [RunState.TODO, RunState.DONE, RunState.DONE]
    campaign.run(FakeClient(), on_suspect=policy)
    after = campaign.store.runs()[0]
    assert after.state is RunState.DONE
    assert after.attempts[:-1] == before.attempts
    assert [each.accepted for each in after.attempts] == [False] * len(before.attempts) + [True]


def test_runs_that_are_measured_again_have_all_their_tries(campaign: Campaign) -> None:
    client = FakeClient(scripted(*[DOUBTED] * 6))
    campaign.run(client, on_suspect=OnSuspect.RETRY)
    assert len(campaign.store.runs()[0].attempts) == 3
    retry_command(campaign.store, wants_suspect=True, wants_failed=False, run_ids=[])
    campaign.run(client, on_suspect=OnSuspect.RETRY)
    assert len(campaign.store.runs()[0].attempts) == 6
    assert campaign.states()[0] is RunState.SUSPECT


def test_what_cannot_be_measured_again_is_told(campaign: Campaign) -> None:
    campaign.run(FakeClient(scripted(DOUBTED)))
    with pytest.raises(UsageError, match=r"no run nowhere"):
        retry_command(campaign.store, wants_suspect=True, wants_failed=False, run_ids=["nowhere"])
    with pytest.raises(UsageError, match=r"run_1_repetition_0 is done"):
        retry_command(campaign.store, wants_suspect=True, wants_failed=False, run_ids=[spec(1).run_id])
    assert campaign.states() == [RunState.SUSPECT, RunState.DONE, RunState.DONE]
    assert "Nothing" in retry_command(campaign.store, wants_suspect=False, wants_failed=True, run_ids=[])
    assert "1 run" in retry_command(campaign.store, wants_suspect=False, wants_failed=False, run_ids=[FIRST])
    assert "Nothing" in retry_command(campaign.store, wants_suspect=False, wants_failed=False, run_ids=[FIRST])


class Crash(BaseException):
    """As a kill: nothing of ours catches it."""


@pytest.mark.parametrize("policy", list(OnSuspect))
@pytest.mark.parametrize("seed", range(6))
def test_one_accepted_result_whatever_crashes(tmp_path: Path, policy: OnSuspect, seed: int) -> None:
    """Crashes before and after each write of the run table, between a doubted result and its retry among others."""
    chance = random.Random(seed)
    campaign = Campaign(tmp_path, n_runs=4)
    ends = [doubted("gap"), FakeTrial(), failing(EngineError("It broke."))]
    script: dict[tuple[str, int], FakeTrial] = {}

    def trial(trial_spec: TrialSpec, n_before: int) -> FakeTrial:
        return script.setdefault((trial_spec.run_id, n_before), chance.choice(ends))

    client = FakeClient(trial)
    store = campaign.store
    n_crashes = 0
    for name in ("finish", "record_state", "claim_next"):
        write = getattr(store, name)

        def crashing(*args: object, _write: object = write, **named: object) -> object:
            nonlocal n_crashes
            where = chance.random() if n_crashes < 12 else 1.0
            n_crashes += where < 0.2
            if where < 0.1:
                raise Crash
            answer = _write(*args, **named)  # type: ignore[operator]
            if where < 0.2:
                raise Crash
            return answer

        setattr(store, name, crashing)
    while True:
        try:
            outcome = campaign.run(client, on_suspect=policy, max_equal_failures=0)
            break
        except Crash:
            continue
    assert n_crashes > 0
    assert outcome.counts[RunState.TODO] + outcome.counts[RunState.RUNNING] == 0
    for row in store.runs():
        accepted = [each for each in row.attempts if each.accepted]
        assert len(accepted) == (row.state is RunState.DONE)
        assert all(each.state is AttemptState.SUCCEEDED for each in accepted)
        assert len(row.attempts) <= 3
        suspects = [each for each in row.attempts if each.state is AttemptState.SUSPECT]
        assert all(each.result is not None and each.reasons for each in suspects)
        if suspects and not accepted:
            assert row.state is (RunState.FAILED if policy is OnSuspect.FAIL else RunState.SUSPECT)
        if policy is not OnSuspect.RETRY:
            assert len(suspects) <= 1
