"""What a campaign leaves behind for whoever asks later: events, the driver's condition, the log."""

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from contract.attempt_state import AttemptState, RunState
from contract.errors import JouleBedError, ProtocolMismatchError, TestbedBusyError, UsageError
from contract.node_info import NodeInfo
from contract.trial_result import AttemptStatus
from orchestrator.campaign import CampaignOutcome, Ending
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.config import Cooldown
from orchestrator.driver import Condition, Driver, driver_key, drivers
from orchestrator.log import campaign_log
from orchestrator.recorded_campaign import Recorder
from orchestrator.recording_view import RecordingView
from orchestrator.status_view import look_at, print_status, status_document
from orchestrator.stop_request import StopRequest
from orchestrator.store.owner import this_owner
from orchestrator.story_view import campaign_document, print_campaign_story, print_run_story, run_document
from tests.orchestrator.campaigns import AWAY, Campaign, Collector, failing, scripted

START = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


class Scene:
    """A campaign with a view that writes it down; its wall clock goes with its monotonic one."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.shown = campaign.view
        self.view = RecordingView(
            self.shown,
            campaign.store,
            self.driver(),
            unreachable_after_s=600.0,
            stop_level=lambda: campaign.stop.level,
            now=self.now,
            clock=campaign.clock,
        )
        campaign.view = self.view  # type: ignore[assignment]

    def now(self) -> datetime:
        return START + timedelta(seconds=self.campaign.clock())

    def driver(self) -> Driver:
        return Driver(
            owner=this_owner(),
            testbed="fake",
            url="http://fake",
            started_at=START,
            condition=Condition.WORKING,
            since=START,
            seen_at=START,
            delta_c=5.0,
        )

    def messages(self, run_id: str | None = None) -> list[str]:
        return [event.message for event in self.campaign.store.events(run_id) if event.state_after is None]

    def known(self) -> Driver:
        (found,) = drivers(self.campaign.store)
        return found


@pytest.fixture
def scene(campaign: Campaign) -> Scene:
    return Scene(campaign)


def test_an_outage_is_an_event_of_its_attempt_and_the_driver_tells_of_it_meanwhile(scene: Scene) -> None:
    during: list[Driver] = []
    noted = scene.shown.waiting

    def waiting(message: str, code: str = "") -> None:
        noted(message, code)
        during.append(scene.known())

    scene.shown.waiting = waiting  # type: ignore[method-assign]
    outcome = scene.campaign.run(FakeClient(failures={"status": [AWAY] * 12}))
    assert outcome.ending is Ending.FINISHED
    away, back = scene.messages("run_0_repetition_0")
    assert away == "waiting: No answer from the testbed."
    assert back.startswith("the testbed answers again after ")
    assert {each.condition for each in during} == {Condition.UNREACHABLE}
    assert {each.since for each in during} == {during[0].since}
    assert during[0].run_id == "run_0_repetition_0"
    assert during[0].until == during[0].since + timedelta(seconds=600)
    # A sign of life, though not at every try.
    assert during[-1].seen_at > during[0].seen_at
    assert len({each.seen_at for each in during}) < len(during)
    assert scene.known().condition is Condition.WORKING


def test_another_testbeds_guest_is_told_apart(scene: Scene) -> None:
    busy = TestbedBusyError("This testbed runs attempt x.")
    scene.campaign.run(FakeClient(failures={"submit": [busy, busy]}))
    assert scene.messages("run_0_repetition_0") == [
        "waiting: This testbed runs attempt x.",
        "the testbed is free again after 3.0 s",
    ]


def test_a_campaign_that_goes_well_writes_nothing_of_its_own(scene: Scene) -> None:
    scene.campaign.run(FakeClient())
    assert drivers(scene.campaign.store) == []
    assert [each for each in scene.messages() if not each.startswith("doubted results")] == []


def test_a_long_pause_is_told_with_its_temperatures(scene: Scene) -> None:
    temperatures = iter([40.0, 40.0, 40.0] + [61.0] * 10_000)
    seen: list[Driver] = []
    cooling = scene.shown.cooling

    def note(progress: object) -> None:
        cooling(progress)  # type: ignore[arg-type]
        if drivers(scene.campaign.store):
            seen.append(scene.known())

    scene.shown.cooling = note  # type: ignore[method-assign]
    scene.campaign.run(
        FakeClient(temp_c=lambda: next(temperatures)), cooldown=Cooldown(floor_s=10.0, max_wait_s=60.0, delta_c=5.0)
    )
    assert next(each.condition for each in seen if each.condition is not Condition.COOLING) is Condition.GATE
    gate = [each for each in seen if each.condition is Condition.GATE][-1]
    assert (gate.temp_c, gate.idle_temp_c, gate.delta_c) == (61.0, 40.0, 5.0)


def test_a_stop_is_told(scene: Scene) -> None:
    # Once: the second time would cancel the trial that is under way by then.
    scene.shown.on_end = lambda end: scene.campaign.stop.request() if scene.campaign.stop.level == 0 else None
    outcome = scene.campaign.run(FakeClient())
    scene.view.ended(outcome)
    assert scene.messages()[-2:] == [
        "asked to stop after the current trial",
        "the campaign ended (stopped), 1 run left",
    ]
    assert (scene.known().condition, scene.known().ending) == (Condition.ENDED, "stopped")


def test_why_it_gave_up_is_told_by_status(scene: Scene) -> None:
    outcome = scene.campaign.run(FakeClient(failures={"submit": [AWAY] * 10_000}))
    scene.view.ended(outcome)
    assert scene.known().ending == "unreachable"
    text = StringIO()
    print_status(Console(file=text, width=200), status_document(scene.campaign.folder, scene.campaign.store))
    assert "Problem: No orchestrator drives this experiment: process " in text.getvalue()
    assert "\n  No answer from the testbed." in text.getvalue()
    assert "-> When that is mended: " in text.getvalue()


def test_status_tells_since_when_an_attempt_is_where_it_is(campaign: Campaign) -> None:
    claim = campaign.store.claim_next("fake")
    assert claim is not None
    campaign.store.record_state(claim.attempt_id, AttemptState.MEASURING)
    began = campaign.store.events()[-1].at
    campaign.store.record_state(claim.attempt_id, AttemptState.MEASURING)  # renews the lease
    row = next(row for row in campaign.store.runs() if row.state is RunState.RUNNING)
    assert row.attempts[0].updated_at > began
    assert look_at(campaign.folder, campaign.store).state_since == {claim.attempt_id: began}


def info() -> NodeInfo:
    return FakeClient().node().model_copy(update={"disk_free_bytes": 5, "disk_total_bytes": 100})


def test_a_recorder_begins_and_ends_and_sweeps_up_who_is_gone(campaign: Campaign, tmp_path: Path) -> None:
    gone = Scene(campaign).driver().model_copy(update={"owner": "vps:1:1", "condition": Condition.ENDED})
    campaign.store.remember(driver_key(gone.owner), gone.model_dump(mode="json"))
    recorder = Recorder("", Cooldown(), arguments=["run", "my study.py"])
    with recorder.recorded(
        Collector(),
        campaign.store,
        info(),
        url="http://fake",
        clock_offset_s=3600.0,
        unreachable_after_s=600.0,
        stop=StopRequest(),
    ) as view:
        (known,) = drivers(campaign.store)
        assert (known.owner, known.clock_offset_s, known.testbed_disk_free_bytes) == (this_owner(), 3600.0, 5)
        assert known.command == "orchestrator run 'my study.py'"
        view.ended(CampaignOutcome(Ending.FINISHED, "", campaign.store.counts()))
    began, ended = campaign_document(campaign.store)["events"]
    assert f"process {os.getpid()}: 3 of 3 runs left, testbed fake at http://fake" in began["message"]
    assert "clock +3600 s" in began["message"]
    assert ended["message"] == "the campaign ended (finished), 3 runs left"


def test_a_fault_of_our_own_is_told(campaign: Campaign) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        Recorder("", Cooldown()).recorded(
            Collector(),
            campaign.store,
            info(),
            url="",
            clock_offset_s=None,
            unreachable_after_s=600.0,
            stop=StopRequest(),
        ),
    ):
        _ = 1 / 0
    (known,) = drivers(campaign.store)
    assert (known.condition, known.ending) == (Condition.ENDED, "broken")
    assert known.message == "ZeroDivisionError: division by zero"


def test_a_campaign_that_could_not_be_continued_says_why(campaign: Campaign) -> None:
    refusal = ProtocolMismatchError("The testbed speaks protocol version 2. Upgrade it.")
    Recorder("http://fake", Cooldown(), arguments=["run", "x.py"]).note_refusal(campaign.store, refusal)
    (remark,) = status_document(campaign.folder, campaign.store)["explanations"]
    assert remark["code"] == "protocol_mismatch"
    assert remark["details"] == (refusal.message,)
    assert remark["advice"] == "When that is mended: `orchestrator run x.py`."


class TestStory:
    def test_of_a_run_with_a_failure(self, campaign: Campaign) -> None:
        died = JouleBedError("It died.", log_tail=["line 1", "CUDA error"], signal="SIGKILL")
        died.retryable = True  # type: ignore[misc]
        campaign.run(FakeClient(scripted(failing(died), FakeTrial())))
        document = run_document(campaign.folder, campaign.store, "run_0_repetition_0")
        first, second = document["attempts"]
        assert [event["state_after"] for event in second["events"]][-1] == "SUCCEEDED"
        assert second["artifacts"][0]["is_here"] is True
        assert json.loads(json.dumps(document)) == document
        text = StringIO()
        print_run_story(Console(file=text, width=60), document)
        told = text.getvalue()
        assert told.startswith("run_0_repetition_0: DONE, 2 attempts (number=0)\n")
        assert f"Attempt 1 {first['attempt_id']} on fake" in told and "error internal (worth a retry): It died." in told
        assert "    signal=SIGKILL\n    its last output:\n    | line 1\n    | CUDA error\n" in told
        assert "requests.jsonl  17 bytes" in told
        # By the attempt's id, only that one.
        assert len(run_document(campaign.folder, campaign.store, first["attempt_id"])["attempts"]) == 1

    def test_of_what_is_not_there(self, campaign: Campaign) -> None:
        with pytest.raises(UsageError, match="Did you mean run_0_repetition_0"):
            run_document(campaign.folder, campaign.store, "run_0_repetition_O")
        text = StringIO()
        print_campaign_story(Console(file=text), campaign_document(campaign.store))
        assert text.getvalue() == "Nothing has happened to the campaign yet.\n"


class TestLog:
    @pytest.fixture(autouse=True)
    def root(self) -> Iterator[None]:
        before = list(logging.getLogger().handlers)
        yield
        assert logging.getLogger().handlers == before

    def test_tells_the_campaign_with_ids(self, scene: Scene, tmp_path: Path) -> None:
        with campaign_log(tmp_path, log_format="json") as path:
            scene.view.began("began")
            scene.campaign.run(FakeClient(failures={"status": [AWAY]}))
            logging.getLogger("other").info("after")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert path == tmp_path / "orchestrator.log"
        assert (lines[0]["message"], lines[0]["run_id"], lines[0]["pid"]) == ("began", None, os.getpid())
        of_first = [line for line in lines if line["run_id"] == "run_0_repetition_0"]
        assert len({line["attempt_id"] for line in of_first}) == 1
        told = [line["message"] for line in of_first]
        assert told[0] == "attempt 1"
        assert "MEASURING" in told and told[-1].startswith("run_0_repetition_0: SUCCEEDED")
        assert [line["level"] for line in of_first if "No answer" in line["message"]] == ["WARNING"]
        assert (lines[-1]["message"], lines[-1]["attempt_id"]) == ("after", None)

    def test_rotates_and_is_its_owners_alone(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            with campaign_log(tmp_path, max_bytes=1000):
                for number in range(100):
                    logging.getLogger("x").info("line %03d %s", number, "." * 50)
        finally:
            os.umask(before)
        files = sorted(tmp_path.glob("orchestrator.log*"))
        assert len(files) == 6
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert "line 099" in (tmp_path / "orchestrator.log").read_text()

    def test_goes_on_where_it_was(self, tmp_path: Path) -> None:
        for number in range(2):
            with campaign_log(tmp_path) as path:
                logging.getLogger("x").info("start %d", number)
        assert len(path.read_text().splitlines()) == 2

    def test_hides_secrets_that_come_later_too(self, tmp_path: Path) -> None:
        secrets = ["hf_0123456789"]
        with campaign_log(tmp_path, secrets=secrets) as path:
            secrets.append("bearer-token-xyz")
            logging.getLogger("x").warning("one hf_0123456789 two %s", "bearer-token-xyz")
        assert path.read_text().rstrip().endswith("one [hidden] two [hidden]")

    def test_a_log_that_cannot_be_written_stops_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with campaign_log(tmp_path / "absent"):
            logging.getLogger("x").error("nobody hears this")
        assert capsys.readouterr().err == ""


def test_the_view_passes_everything_on(scene: Scene) -> None:
    states: list[AttemptState] = []

    def note(status: AttemptStatus) -> None:
        states.append(status.state)

    scene.shown.on_status = note
    scene.campaign.run(FakeClient(failures={"status": [AWAY]}))
    assert len(scene.shown.ends) == 3
    assert scene.shown.waits and AttemptState.MEASURING in states
