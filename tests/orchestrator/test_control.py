"""What a person decides about a campaign, and who hears of it."""

import csv
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState, RunState
from contract.errors import ChildDiedError, UsageError
from orchestrator.attempt_journal import JOURNAL
from orchestrator.campaign import Ending
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.decision_journal import DECISIONS, DecisionJournal
from orchestrator.driver import Condition, Driver
from orchestrator.experiment_folder import open_run_table
from orchestrator.experiment_runner.export import export_experiment_runner
from orchestrator.explain import explain
from orchestrator.export import export_run_table
from orchestrator.plan_file import keep_plan
from orchestrator.recording_view import RecordingView
from orchestrator.repair import repair
from orchestrator.retry_command import retry_command
from orchestrator.status_view import look_at, status_document
from orchestrator.store.control import MAX_TEXT, CampaignControl
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import SqlStore
from orchestrator.story_view import campaign_document, run_document
from tests.contract.examples import RESULT
from tests.end_to_end.nodes import running_testbed, start_orchestrator
from tests.orchestrator.campaigns import Campaign, failing, scripted
from tests.orchestrator.doubles import plan
from tests.orchestrator.test_orchestrator_cli import command, words, write_config
from tests.postgresql_server import PostgresqlServer

RUN = "run_0_repetition_0"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def control(campaign: Campaign) -> CampaignControl:
    return CampaignControl(campaign.store)


@pytest.fixture
def done(campaign: Campaign) -> Iterator[Campaign]:
    """Done, suspect, failed."""

    def script(trial: object, n_before: int) -> FakeTrial:
        number = int(trial.run_id.split("_")[1])  # type: ignore[attr-defined]
        if number == 1:
            return FakeTrial(state=AttemptState.SUSPECT)
        return failing(ChildDiedError("It died. Look at its log.")) if number == 2 else FakeTrial()

    keep_plan(campaign.folder, plan(3))
    campaign.run(FakeClient(script))
    assert campaign.states() == [RunState.DONE, RunState.SUSPECT, RunState.FAILED]
    yield campaign
    campaign.store.close()


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[SqlStore]:
    """Done, suspect, failed; with figures."""
    with closing(SqlStore.open(tmp_path / RUN_TABLE, owner="me", create=True)) as store:
        store.create_experiment(plan(3, max_attempts=1))
        for state in (AttemptState.SUCCEEDED, AttemptState.SUSPECT, AttemptState.FAILED):
            claim = store.claim_next("box")
            assert claim is not None
            changed = {"attempt_id": claim.attempt_id, "run_id": claim.run_id, "state": state}
            store.finish(claim.attempt_id, state, result=RESULT.model_copy(update=changed))
        yield store


def messages(store: SqlStore) -> list[str]:
    return [event.message for event in store.events() if event.attempt_id is None]


class OnBoth:
    """The same behaviour, whether the run table is a file or in a server's database."""

    @pytest.fixture(params=["sqlite", "postgresql"])
    def campaign(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Campaign]:
        if request.param == "sqlite":
            yield Campaign(tmp_path)
            return
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        with server.run_table() as url:
            yield Campaign(tmp_path, address=url)


class TestPause(OnBoth):
    def test_nobody_claims_a_run_and_a_resume_lets_them(self, campaign: Campaign, control: CampaignControl) -> None:
        control.pause("anna@lab", "the room is too warm")
        assert campaign.store.claim_next("box") is None
        with closing(SqlStore.open(campaign.address, owner="other", create=False)) as second:
            assert second.claim_next("box") is None
            CampaignControl(second).resume("ben@lab")
            assert second.claim_next("box") is not None

    def test_the_trial_under_way_is_taken_up_and_goes_on(self, campaign: Campaign, control: CampaignControl) -> None:
        claim = campaign.store.claim_next("box")
        assert claim is not None
        control.pause("anna@lab")
        again = campaign.store.claim_next("box")
        assert again is not None
        assert again.attempt_id == claim.attempt_id

    def test_the_story_says_who_and_why(self, campaign: Campaign, control: CampaignControl) -> None:
        pause = control.pause("anna@lab", "the room is too warm")
        assert control.paused() == pause
        assert control.resume("ben@lab") == pause
        assert control.paused() is None
        assert messages(campaign.store) == [
            "paused by anna@lab: the room is too warm",
            "resumed by ben@lab (was paused by anna@lab: the room is too warm)",
        ]

    def test_twice_is_once(self, campaign: Campaign, control: CampaignControl) -> None:
        first = control.pause("anna@lab", "lunch")
        assert control.pause("ben@lab", "other") == first
        control.resume("ben@lab")
        assert control.resume("ben@lab") is None
        assert len(messages(campaign.store)) == 2

    def test_a_campaign_waits_and_goes_on_by_itself(self, campaign: Campaign, control: CampaignControl) -> None:
        campaign.view.on_end = lambda end: control.pause("anna@lab", "lunch") if len(campaign.view.ends) == 1 else None
        clock_sleep = campaign.clock.sleep

        def sleep(duration_s: float) -> None:
            clock_sleep(duration_s)
            if campaign.clock.now_s > 600:
                control.resume("anna@lab")

        campaign.stop._sleep = sleep
        outcome = campaign.run(FakeClient())
        assert outcome.ending is Ending.FINISHED
        assert campaign.states() == [RunState.DONE] * 3
        assert campaign.clock.now_s > 600
        assert set(campaign.view.waits) == {
            "The campaign is paused by anna@lab: lunch. `orchestrator resume` lets it go on."
        }

    def test_ctrl_c_ends_the_wait(self, campaign: Campaign, control: CampaignControl) -> None:
        control.pause("anna@lab")
        sleep = campaign.clock.sleep

        def interrupted(duration_s: float) -> None:
            sleep(duration_s)
            campaign.stop.level = 1

        campaign.stop._sleep = interrupted
        assert campaign.run(FakeClient()).ending is Ending.STOPPED
        assert campaign.states() == [RunState.TODO] * 3

    def test_with_nothing_left_it_holds_nothing_up(self, campaign: Campaign, control: CampaignControl) -> None:
        campaign.view.on_end = lambda end: control.pause("anna@lab") if len(campaign.view.ends) == 3 else None
        assert campaign.run(FakeClient()).ending is Ending.FINISHED

    def test_status_story_and_log_tell(
        self, campaign: Campaign, control: CampaignControl, caplog: pytest.LogCaptureFixture
    ) -> None:
        control.pause("anna@lab", "lunch")
        document = status_document(campaign.folder, campaign.store)
        assert document["pause"]["by"] == "anna@lab"
        (told,) = [each for each in document["explanations"] if each["code"] == "paused"]
        assert "paused by anna@lab: lunch" in told["message"]
        assert "orchestrator resume" in told["advice"]
        assert campaign_document(campaign.store)["pause"]["reason"] == "lunch"
        at = datetime.now(UTC)
        driver = Driver(owner="h:1:2", testbed="b", started_at=at, condition=Condition.WORKING, since=at, seen_at=at)
        view = RecordingView(campaign.view, campaign.store, driver)
        with caplog.at_level(logging.INFO, "orchestrator.campaign"):
            view.waiting("The campaign is paused by anna@lab: lunch.")
        assert "paused by anna@lab: lunch" in caplog.text
        control.resume("anna@lab")
        assert "paused" not in [remark.code for remark in explain(look_at(campaign.folder, campaign.store))]


class TestExclusion(OnBoth):
    def test_only_of_a_run_that_has_ended(self, campaign: Campaign, control: CampaignControl) -> None:
        with pytest.raises(UsageError, match="ended"):
            control.exclude(RUN, "why", "anna@lab")
        assert campaign.store.claim_next("box") is not None
        with pytest.raises(UsageError, match="running"):
            control.exclude(RUN, "why", "anna@lab")
        with pytest.raises(UsageError, match="no run"):
            control.exclude("run_9_repetition_0", "why", "anna@lab")
        assert control.exclusions() == {}
        assert messages(campaign.store) == []

    @pytest.mark.parametrize(
        ("by", "reason"), [("", "why"), ("anna", ""), ("anna", " \n\t"), ("anna", "x" * (MAX_TEXT + 1))]
    )
    def test_texts_are_wanted_and_bounded(self, done: Campaign, by: str, reason: str) -> None:
        with pytest.raises(UsageError):
            CampaignControl(done.store).exclude(RUN, reason, by)
        assert CampaignControl(done.store).exclusions() == {}

    def test_control_characters_do_not_get_into_terminals(self, done: Campaign) -> None:
        exclusion = CampaignControl(done.store).exclude(RUN, "the\x1b[31m window\r\nwas open", "anna\x00")
        assert (exclusion.reason, exclusion.by) == ("the [31m window was open", "anna")

    def test_status_and_story_tell(self, done: Campaign) -> None:
        control = CampaignControl(done.store)
        control.exclude(RUN, "the window was open", "anna@lab")
        assert status_document(done.folder, done.store)["excluded"] == [
            {"run_id": RUN, "reason": "excluded by anna@lab: the window was open"}
        ]
        story = run_document(done.folder, done.store, RUN)
        assert story["exclusion"]["reason"] == "the window was open"
        assert story["events"][-1]["message"] == "excluded by anna@lab: the window was open"
        assert story["state"] == "DONE"
        control.include(RUN, "ben@lab")
        assert control.include(RUN, "ben@lab") is None
        assert run_document(done.folder, done.store, RUN)["exclusion"] is None

    def test_the_exports_keep_the_row_without_figures(self, measured: SqlStore, tmp_path: Path) -> None:
        control = CampaignControl(measured)
        rows = list(csv.DictReader(export_run_table(measured, tmp_path, "csv").read_text().splitlines()))
        assert float(rows[0]["energy_j"]) > 0
        for run_id in (RUN, "run_1_repetition_0"):
            control.exclude(run_id, "the window was open", "anna@lab")
        rows = list(csv.DictReader(export_run_table(measured, tmp_path, "csv").read_text().splitlines()))
        for row in rows[:2]:
            assert (row["__done"], row["state"], row["energy_j"], row["duration_s"]) == ("DONE", "EXCLUDED", "", "")
            assert row["reasons"].startswith("excluded by anna@lab: the window was open")
            assert row["attempt_id"].startswith(row["__run_id"])
        assert rows[2]["state"] == "FAILED"
        polars = pytest.importorskip("polars")
        frame = polars.read_parquet(export_run_table(measured, tmp_path, "parquet"))
        assert frame["state"].to_list() == ["EXCLUDED", "EXCLUDED", "FAILED"]
        assert frame["energy_j"].to_list() == [None, None, None]
        control.include(RUN, "anna@lab")
        rows = list(csv.DictReader(export_run_table(measured, tmp_path, "csv").read_text().splitlines()))
        assert float(rows[0]["energy_j"]) > 0

    def test_an_export_for_experiment_runner_may_lose_and_regain_it(self, measured: SqlStore, tmp_path: Path) -> None:
        control = CampaignControl(measured)
        out = tmp_path / "theirs"

        def exported() -> tuple[dict[str, str], tuple[str, ...]]:
            notes = export_experiment_runner(measured, tmp_path, out).notes
            return next(csv.DictReader((out / "run_table.csv").read_text().splitlines())), notes

        figure = exported()[0]["energy_j"]
        assert float(figure) > 0
        control.exclude(RUN, "the window was open", "anna@lab")
        row, notes = exported()
        assert (row["__done"], row["energy_j"]) == ("DONE", "")
        assert any("the window was open" in note for note in notes)
        control.include(RUN, "anna@lab")
        assert exported()[0]["energy_j"] == figure

    def test_retry_leaves_excluded_runs_alone(self, done: Campaign) -> None:
        control = CampaignControl(done.store)
        control.exclude("run_1_repetition_0", "the window was open", "anna@lab")
        with pytest.raises(UsageError, match="excluded"):
            control.retry(["run_1_repetition_0"], "ben@lab")
        retry_command(done.store, wants_suspect=True, wants_failed=True, run_ids=[], by="ben@lab")
        assert done.states() == [RunState.DONE, RunState.SUSPECT, RunState.TODO]
        assert messages(done.store)[-1] == "to be tried again, as asked by ben@lab"


class TestRepair:
    @pytest.fixture
    def decided(self, done: Campaign) -> Campaign:
        control = CampaignControl(done.store)
        control.exclude(RUN, "the window was open", "anna@lab")
        control.exclude("run_1_repetition_0", "a mistake", "anna@lab")
        control.include("run_1_repetition_0", "anna@lab")
        control.pause("anna@lab", "lunch")
        done.store.close()
        return done

    def test_of_a_lost_table_keeps_pause_and_exclusions(self, decided: Campaign) -> None:
        for path in decided.folder.glob(f"{RUN_TABLE}*"):
            path.unlink()
        assert repair(decided.folder, None, only_look=False, now=NOW).faults
        with closing(open_run_table(decided.folder, create=False)) as store:
            control = CampaignControl(store)
            assert {run_id: each.words for run_id, each in control.exclusions().items()} == {
                RUN: "excluded by anna@lab: the window was open"
            }
            pause = control.paused()
            assert pause is not None
            assert pause.words == "paused by anna@lab: lunch"

    def test_a_run_without_evidence_counts_again(self, decided: Campaign) -> None:
        for path in decided.folder.glob(f"{RUN_TABLE}*"):
            path.unlink()
        for path in (decided.folder / "runs" / RUN).rglob("*"):
            if path.is_file():
                path.unlink()
        mended = repair(decided.folder, None, only_look=False, now=NOW)
        assert mended.table is not None
        assert any("the window was open" in note for note in mended.table.notes)
        with closing(open_run_table(decided.folder, create=False)) as store:
            assert CampaignControl(store).exclusions() == {}

    def test_a_damaged_journal_costs_its_damaged_lines_only(self, decided: Campaign) -> None:
        path = decided.folder / DECISIONS
        assert path.stat().st_mode & 0o077 == 0
        lines = path.read_text().splitlines()
        path.write_text("\n".join(["not JSON", *lines, '{"at": "half a li']))
        assert len(DecisionJournal(decided.folder).read()) == 3
        facts = DecisionJournal(decided.folder).added_to({"idle_temp_c": 38.0, "excluded/run_1_repetition_0": {}})
        assert sorted(facts) == ["excluded/run_0_repetition_0", "idle_temp_c", "pause"]

    def test_of_two_decisions_the_later_one_counts(self, decided: Campaign) -> None:
        later = {"by": "ben@lab", "reason": "later", "at": "2099-01-01T00:00:00Z"}
        facts = DecisionJournal(decided.folder).added_to({"pause": later})
        assert facts["pause"] == later


def test_a_pause_whose_note_is_damaged_still_holds(campaign: Campaign, control: CampaignControl) -> None:
    campaign.store.remember("pause", "what is this")
    pause = control.paused()
    assert pause is not None
    assert campaign.store.claim_next("box") is None


def test_the_commands(done: Campaign) -> None:
    done.store.close()

    def say(*arguments: str, code: int = 0) -> str:
        ran = command(*arguments)
        assert ran.returncode == code, ran.stderr
        return " ".join((ran.stdout + ran.stderr).split())

    folder = str(done.folder)
    say("export", folder)
    assert "paused by anna: lunch" in say("pause", folder, "--by", "anna", "--reason", "lunch")
    assert json.loads(say("status", folder, "--json"))["pause"]["by"] == "anna"
    assert "Resumed" in say("resume", folder, "--by", "anna")
    assert "not paused" in say("resume", folder)
    assert "2 runs are left out" in say("exclude", folder, RUN, "run_1_repetition_0", "--reason", "a window")
    assert "EXCLUDED" in (done.folder / "run_table.csv").read_text()
    assert "Left out of the results" in say("status", folder)
    assert "a window" in say("story", folder, RUN)
    assert "1 run counts again" in say("include", folder, RUN)
    assert "no run" in say("exclude", folder, "run_77_repetition_0", "--reason", "x", code=2)
    say("exclude", folder, RUN, code=2)


def test_a_running_campaign_is_paused_from_another_terminal(tmp_path: Path) -> None:
    config, results = write_config(tmp_path, repetitions=1, tokens_per_s=16.0), tmp_path / "results"
    folder = results / "e2e"
    with running_testbed(tmp_path / "box") as testbed:
        campaign = start_orchestrator(config, testbed.url, results)
        try:
            wait_for((folder / JOURNAL).exists)  # a run has ended
            assert command("pause", folder, "--by", "anna", "--reason", "lunch").returncode == 0
            log = folder / "orchestrator.log"
            wait_for(lambda: "paused by anna: lunch" in log.read_text())
            before = counts(folder)
            assert before["RUNNING"] == 0
            assert before["TODO"] > 0
            assert words(command("status", folder)).count("paused by anna: lunch") == 1
            assert "paused by anna: lunch" in words(command("doctor", folder))
            assert "paused by anna: lunch" in words(command("story", folder))
            assert counts(folder) == before
            assert command("resume", folder).returncode == 0
            assert campaign.wait(120) == 0
        finally:
            campaign.kill()
            campaign.wait()
    assert counts(folder)["DONE"] == 4
    assert "it goes on after" in log.read_text()


def counts(folder: Path) -> dict[str, int]:
    with closing(open_run_table(folder, create=False)) as store:
        return {state.value: n for state, n in store.counts().items()}


def wait_for(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 90
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_failure_that_is_scripted_is_still_a_failure(campaign: Campaign, control: CampaignControl) -> None:
    """A pause between two tries of one run waits before the second."""
    campaign.view.on_end = lambda end: control.pause("anna@lab") if len(campaign.view.ends) == 1 else None
    sleep = campaign.clock.sleep

    def resuming(duration_s: float) -> None:
        sleep(duration_s)
        if control.paused() is not None and campaign.clock.now_s > 60:
            assert next(row.state for row in campaign.store.runs()) is RunState.TODO
            control.resume("anna@lab")

    campaign.stop._sleep = resuming
    outcome = campaign.run(FakeClient(scripted(failing(ChildDiedError("It died. Look at its log.")))))
    assert outcome.ending is Ending.FINISHED
    assert campaign.states() == [RunState.DONE] * 3
