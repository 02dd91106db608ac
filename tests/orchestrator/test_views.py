"""What a person is told of doubted results: while the campaign runs, at its end, and when they ask."""

from io import StringIO

from rich.console import Console

from contract.attempt_state import AttemptState
from contract.trial_result import SuspectReason
from orchestrator.campaign import CampaignOutcome
from orchestrator.campaign_view import CampaignView
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.config import OnSuspect
from orchestrator.progress_view import make_view
from orchestrator.status_view import print_campaign_end, print_status, status_document, suspect_codes
from tests.orchestrator.campaigns import Campaign, scripted

GAP = SuspectReason(code="gap", message="3 gaps.")
STALE = SuspectReason(code="stale", message="The sensor said 61.2 W 900 times.")


def doubted(*reasons: SuspectReason) -> FakeTrial:
    return FakeTrial(state=AttemptState.SUSPECT, reasons=reasons)


def console_and_text(*, terminal: bool = False) -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(file=text, width=200, force_terminal=terminal), text


def run_all_suspect(campaign: Campaign, view: CampaignView) -> CampaignOutcome:
    trials = iter([doubted(GAP), doubted(GAP, STALE), doubted(STALE)])
    campaign.view = view  # type: ignore[assignment]
    return campaign.run(FakeClient(lambda trial, n_before: next(trials)))


def test_lines_tell_how_many_are_suspect_and_why(campaign: Campaign) -> None:
    console, text = console_and_text()
    with make_view(console, campaign.store.counts(), wants_bars=False) as view:
        run_all_suspect(campaign, view)
    lines = text.getvalue().splitlines()
    assert lines[0].endswith("gap: 3 gaps. (1 suspect: 1 gap)")
    assert lines[1].endswith("(2 suspect: 2 gap, 1 stale)")
    assert lines[2].endswith("(3 suspect: 2 gap, 2 stale)")


def test_bars_tell_it_too_and_go_on_from_an_earlier_count(campaign: Campaign) -> None:
    run_all_suspect(campaign, campaign.view)
    console, text = console_and_text(terminal=True)
    codes = suspect_codes(campaign.store)
    with make_view(console, campaign.store.counts(), wants_bars=True, suspect_codes=codes):
        pass
    assert "3/3 " in text.getvalue()
    assert "3 suspect: 2 gap, 2 stale" in text.getvalue()


def test_a_doubted_result_that_is_not_kept_is_told(campaign: Campaign) -> None:
    console, text = console_and_text()
    with make_view(console, campaign.store.counts(), wants_bars=False) as view:
        campaign.view = view  # type: ignore[assignment]
        campaign.run(FakeClient(scripted(doubted(GAP))), on_suspect=OnSuspect.RETRY)
    lines = text.getvalue().splitlines()
    assert lines[0] == "[0/3] run_0_repetition_0: SUSPECT, 1.0 s, gap: 3 gaps. It will be tried again."
    assert lines[1] == "[1/3] run_0_repetition_0 (attempt 2): SUCCEEDED, 1.0 s"


def test_a_refused_result_is_told(campaign: Campaign) -> None:
    console, text = console_and_text()
    with make_view(console, campaign.store.counts(), wants_bars=False) as view:
        campaign.view = view  # type: ignore[assignment]
        campaign.run(FakeClient(scripted(doubted(GAP))), on_suspect=OnSuspect.FAIL)
    first = text.getvalue().splitlines()[0]
    assert first == "[1/3] run_0_repetition_0: SUSPECT, 1.0 s, gap: 3 gaps. The run counts as failed."


def test_the_end_says_how_many_are_suspect_and_what_to_do(campaign: Campaign) -> None:
    outcome = run_all_suspect(campaign, campaign.view)
    console, text = console_and_text()
    assert print_campaign_end(console, campaign.folder, campaign.store, outcome) == 0
    (line,) = [line for line in text.getvalue().splitlines() if line.startswith("3 suspect runs")]
    assert "(2 gap, 2 stale)" in line
    assert f"orchestrator retry {campaign.folder} --suspect" in line
    assert f"orchestrator status {campaign.folder}" in line


def test_refused_results_make_exit_code_1(campaign: Campaign) -> None:
    outcome = campaign.run(FakeClient(scripted(doubted(GAP))), on_suspect=OnSuspect.FAIL)
    console, text = console_and_text()
    assert print_campaign_end(console, campaign.folder, campaign.store, outcome) == 1
    assert "run_0_repetition_0: gap: 3 gaps." in text.getvalue()
    assert "orchestrator retry" in text.getvalue() and "--failed" in text.getvalue()


def test_status_groups_by_code(campaign: Campaign) -> None:
    numbered = iter(range(3))

    def trial(*_: object) -> FakeTrial:
        return doubted(SuspectReason(code="gap", message=f"{next(numbered)} gaps."))

    campaign.run(FakeClient(trial))
    document = status_document(campaign.folder, campaign.store)
    assert document["suspect_codes"] == {"gap": 3}
    assert [each["codes"] for each in document["suspects"]] == [["gap"]] * 3
    console, text = console_and_text()
    print_status(console, document)
    assert "Suspect (3 gap):\n  run_0_repetition_0 and 2 more: gap: 0 gaps.\n" in text.getvalue()
