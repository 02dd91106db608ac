"""Full disks, read-only folders, locks and halves of files under a campaign: told in words, and carried on."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState, RunState
from contract.errors import ConfigError, DiskFullError, UsageError
from orchestrator.artifacts import ArtifactFolder
from orchestrator.attempt_journal import AttemptJournal
from orchestrator.campaign import Ending
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.experiment_folder import open_run_table, require_sound
from orchestrator.export import export_run_table
from orchestrator.plan_file import PLAN, keep_plan, read_plan
from orchestrator.repair import repair
from orchestrator.stop_request import StoppedError
from orchestrator.store.base import RunTableError
from orchestrator.store.database import LockWait
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import SqlStore
from orchestrator.stored_files import stored_attempts
from tests.mounts import fill, make_room, read_only, small_disk
from tests.orchestrator.campaigns import Campaign, leave, scripted
from tests.orchestrator.doubles import plan


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 2048) as disk:
        yield disk


def check_whole(campaign: Campaign, n_runs: int) -> None:
    """All runs done, each once, with files that verify."""
    assert campaign.states() == [RunState.DONE] * n_runs
    accepted = [each.attempt_id for row in campaign.store.runs() for each in row.attempts if each.accepted]
    assert len(accepted) == n_runs
    stored = {each.attempt_id: each.fault for each in stored_attempts(campaign.folder)}
    assert {stored[attempt_id] for attempt_id in accepted} == {""}
    require_sound(campaign.folder, campaign.store)


class TestFullDisk:
    @pytest.mark.parametrize("left_kib", [0, 4, 8, 12, 16, 24, 32, 48, 64, 96])
    @pytest.mark.parametrize("moment", ["between trials", "during a trial"])
    def test_a_campaign_stops_and_goes_on_when_there_is_room(self, disk: Path, moment: str, left_kib: int) -> None:
        """However much is left, which decides what is the first that cannot be written."""
        campaign, client = Campaign(disk, n_runs=12), FakeClient()
        keep_plan(disk, plan(12))
        if moment == "between trials":
            campaign.view.on_end = lambda end: fill(disk, left_kib) if len(campaign.view.ends) == 2 else None
        else:
            campaign.view.on_status = lambda status: fill(disk, left_kib) if len(campaign.view.ends) == 2 else None
        try:
            outcome = campaign.run(client)
            ending, message = outcome.ending, outcome.message
        except RunTableError as error:
            ending, message = Ending.BROKEN, error.message
        campaign.view.on_end, campaign.view.on_status = lambda end: None, lambda status: None
        if left_kib == 0:
            assert ending is Ending.BROKEN
        if ending is Ending.BROKEN:
            assert any(word in message for word in ("Free some disk space", "Make room", "disk failed, is full"))
        done = {row.run_id for row in campaign.store.runs() if row.state is RunState.DONE}
        assert len(done) >= 2
        make_room(disk)
        n_before = len(client.calls)
        assert campaign.run(client).ending is Ending.FINISHED
        check_whole(campaign, 12)
        again = {attempt_id.partition("-a")[0] for method, attempt_id in client.calls[n_before:] if method == "submit"}
        assert not again & done

    def test_nothing_is_burnt_on_a_full_testbed(self, tmp_path: Path) -> None:
        """The submission is refused: the campaign ends at once, and no attempt of any run is used up."""
        campaign = Campaign(tmp_path, n_runs=5)
        client = FakeClient(failures={"submit": [DiskFullError("The testbed's disk is full. Make room.")]})
        outcome = campaign.run(client)
        assert (outcome.ending, outcome.message) == (Ending.BROKEN, "The testbed's disk is full. Make room.")
        assert campaign.attempts() == [AttemptState.CLAIMED]
        assert campaign.run(client).ending is Ending.FINISHED
        assert campaign.attempts() == [AttemptState.SUCCEEDED] * 5

    def test_a_trial_that_fails_by_a_full_testbed_ends_the_campaign(self, tmp_path: Path) -> None:
        campaign = Campaign(tmp_path, n_runs=5)
        full = FakeTrial(state=AttemptState.FAILED, error=DiskFullError("The disk is full. Make room.").body())
        client = FakeClient(scripted(full))
        outcome = campaign.run(client)
        assert (outcome.ending, outcome.message) == (Ending.BROKEN, "The disk is full. Make room.")
        assert campaign.attempts() == [AttemptState.FAILED]
        assert campaign.run(client).ending is Ending.FINISHED
        assert campaign.attempts() == [AttemptState.FAILED] + [AttemptState.SUCCEEDED] * 5

    def test_an_export_that_finds_no_room_does_not_hide_how_it_ended(self, tmp_path: Path, disk: Path) -> None:
        campaign = Campaign(tmp_path, n_runs=2)
        fill(disk)

        def export() -> None:
            export_run_table(campaign.store, disk, "csv")

        campaign.export = export
        outcome = campaign.run(FakeClient())
        assert outcome.ending is Ending.BROKEN
        assert "run_table.csv cannot be written (No space left on device)" in outcome.message
        assert outcome.counts[RunState.DONE] == 2

    def test_a_new_experiment_leaves_nothing_half(self, disk: Path) -> None:
        for left_kib in range(0, 200, 20):
            fill(disk, left_kib)
            folder = disk / f"left-{left_kib}"
            planned = plan(40)
            for attempt in ("full", "with room"):
                try:
                    with closing(open_run_table(folder, create=True)) as store:
                        store.create_experiment(planned)
                        keep_plan(folder, planned)
                except UsageError as error:
                    assert attempt == "full"
                    assert "disk" in error.message
                make_room(disk)
            with closing(open_run_table(folder, create=False)) as store:
                assert store.plan() == planned
            kept = read_plan(folder)
            assert kept is not None
            assert kept.plan == planned

    def test_a_line_of_the_journal_that_was_cut_off_costs_no_other(self, disk: Path) -> None:
        campaign = Campaign(disk, n_runs=3)
        campaign.run(FakeClient())
        journal = AttemptJournal(disk)
        ended = list(journal.read().values())
        assert len(ended) == 3
        path = disk / "attempts.jsonl"
        path.write_bytes(path.read_bytes() + b'{"attempt_id": "half')
        more = ended[0].model_copy(update={"attempt_id": "more"})
        journal.note(more)
        assert list(journal.read().values()) == [*ended, more]


class TestReadOnly:
    def test_it_is_told_and_nothing_is_changed(self, tmp_path: Path) -> None:
        campaign = Campaign(tmp_path / "results", n_runs=2)
        campaign.run(FakeClient())
        campaign.store.close()
        before = {path: path.read_bytes() for path in campaign.folder.rglob("*") if path.is_file()}
        with read_only(campaign.folder):
            with pytest.raises(UsageError, match=r"cannot be used.*permissions"):
                open_run_table(campaign.folder, create=True)
            with pytest.raises(UsageError, match=r"folder .*new cannot be made \(Read-only file system\)"):
                open_run_table(campaign.folder / "new", create=True)
            with pytest.raises(ConfigError, match=r"plan\.json cannot be written \(Read-only file system\)"):
                keep_plan(campaign.folder, plan(2))
            AttemptJournal(campaign.folder).note(*AttemptJournal(campaign.folder).read().values())  # never raises
        assert {path: path.read_bytes() for path in campaign.folder.rglob("*") if path.is_file()} == before
        with closing(open_run_table(campaign.folder, create=False)) as store:
            assert store.counts()[RunState.DONE] == 2

    def test_files_that_cannot_be_stored_stop_the_campaign_and_arrive_later(self, tmp_path: Path) -> None:
        campaign, client = Campaign(tmp_path, n_runs=2), FakeClient()
        (tmp_path / "runs").mkdir()
        with read_only(tmp_path / "runs"):
            outcome = campaign.run(client)
        assert outcome.ending is Ending.BROKEN
        assert "Read-only file system" in outcome.message
        assert "run the same command again" in outcome.message
        # The second had begun when the first was to be stored: both are taken up again.
        assert campaign.states() == [RunState.RUNNING, RunState.RUNNING]
        assert campaign.run(client).ending is Ending.FINISHED
        assert campaign.attempts() == [AttemptState.SUCCEEDED] * 2
        check_whole(campaign, 2)


@contextmanager
def held(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody who has begun to edit the file with another program."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


class TestLocks:
    def locking(self, tmp_path: Path, wait: LockWait) -> Campaign:
        campaign = Campaign(tmp_path, n_runs=3)
        campaign.store.close()
        campaign.store = SqlStore.open(tmp_path / RUN_TABLE, create=False, wait=wait)
        return campaign

    def test_one_that_is_short_is_waited_for_in_silence(self, tmp_path: Path) -> None:
        told: list[str] = []
        campaign = self.locking(tmp_path, LockWait(limit_s=60.0, tell=told.append, busy_s=30.0))
        with held(tmp_path / RUN_TABLE) as other:
            timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
            timer.start()
            assert campaign.run(FakeClient()).ending is Ending.FINISHED
            timer.join()
        assert told == []
        assert campaign.states() == [RunState.DONE] * 3

    def test_one_that_is_long_is_told_and_waited_for(self, tmp_path: Path) -> None:
        told: list[str] = []
        wait = LockWait(limit_s=3600.0, busy_s=0.02)
        campaign = self.locking(tmp_path, wait)
        begun: list[sqlite3.Connection] = []

        def begin() -> None:
            other = sqlite3.connect(tmp_path / RUN_TABLE, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            begun.append(other)

        def tell(message: str) -> None:
            told.append(message)
            if len(told) % 5 == 0:
                begun.pop().execute("COMMIT")

        wait.tell = tell
        campaign.view.on_status = lambda status: None if begun else begin()  # in the middle of every trial, and again
        assert campaign.run(FakeClient()).ending is Ending.FINISHED
        assert len(told) >= 5
        assert all("holds the run table's lock" in message for message in told)
        assert campaign.states() == [RunState.DONE] * 3
        assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3
        for other in begun:
            other.close()

    def test_one_that_stays_ends_the_campaign_which_goes_on_later(self, tmp_path: Path) -> None:
        now_s = iter(range(1000))
        wait = LockWait(limit_s=20.0, busy_s=0.01, clock=lambda: float(next(now_s)))
        campaign, client = self.locking(tmp_path, wait), FakeClient()
        kept: list[sqlite3.Connection] = []

        def begin() -> None:
            other = sqlite3.connect(tmp_path / RUN_TABLE, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            kept.append(other)

        campaign.view.on_status = lambda status: None if kept else begin()
        outcome = campaign.run(client)
        assert outcome.ending is Ending.BROKEN
        assert "database is locked" in outcome.message
        assert "run the same command again" in outcome.message
        kept[0].close()
        assert campaign.run(client).ending is Ending.FINISHED
        assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3

    def test_a_person_need_not_wait(self, tmp_path: Path) -> None:
        def stop(message: str) -> None:
            raise StoppedError("Stopped.")

        campaign = self.locking(tmp_path, LockWait(limit_s=3600.0, busy_s=0.01, tell=stop))
        with held(tmp_path / RUN_TABLE):
            assert campaign.run(FakeClient()).ending is Ending.STOPPED
        assert campaign.run(FakeClient()).ending is Ending.FINISHED


HALVES = {
    "nothing but a folder": {},
    "a part": {"requests.jsonl.part": b'{"item'},
    "a part that is wrong": {"requests.jsonl.part": b"\0" * 10},
    "a part that is too long": {"requests.jsonl.part": b"x" * 100},
    "a file that was cut off": {"requests.jsonl": b'{"item'},
    "a file of other bytes": {"requests.jsonl": b'{"item_id": "1"}\n'},
    "an empty file": {"requests.jsonl": b""},
    "half a result": {"requests.jsonl": b'{"item_id": "0"}\n', "result.json": b'{"attempt'},
    "a result's part": {"requests.jsonl": b'{"item_id": "0"}\n', "result.json.part": b'{"attempt'},
    "a result without its file": {"result.json": b"{}"},
}


@pytest.mark.parametrize("name", HALVES)
def test_half_written_files_of_a_killed_campaign_are_replaced(tmp_path: Path, name: str) -> None:
    campaign, client = Campaign(tmp_path), FakeClient()
    claim = leave(campaign, client, AttemptState.COLLECTING)
    folder = ArtifactFolder(tmp_path).folder(claim.run_id, claim.attempt_id)
    folder.mkdir(parents=True)
    for file, content in HALVES[name].items():
        (folder / file).write_bytes(content)
    assert campaign.run(client).ending is Ending.FINISHED
    assert campaign.attempts() == [AttemptState.SUCCEEDED] * 3
    check_whole(campaign, 3)
    assert sorted(path.name for path in folder.iterdir()) == ["requests.jsonl", "result.json"]


@pytest.mark.parametrize("what", ["overwritten", "truncated", "removed"])
def test_damage_in_the_middle_of_a_campaign_costs_nothing(tmp_path: Path, what: str) -> None:
    """SQLite may notice at once or not before the next start; either way the repaired table goes on."""
    campaign, client = Campaign(tmp_path, n_runs=6), FakeClient()
    keep_plan(tmp_path, plan(6))

    def damage() -> None:
        for name in (RUN_TABLE, f"{RUN_TABLE}-wal"):
            path = tmp_path / name
            if what == "overwritten":
                path.write_bytes(b"\xff" * path.stat().st_size)
            elif what == "truncated":
                path.write_bytes(b"")
            else:
                path.unlink()

    campaign.view.on_end = lambda end: damage() if len(campaign.view.ends) == 3 else None
    try:
        ended = campaign.run(client)
        assert ended.ending in (Ending.FINISHED, Ending.BROKEN)
    except RunTableError as error:
        assert "orchestrator repair" in error.message
    campaign.store.close()
    with (
        pytest.raises(RunTableError, match="orchestrator repair"),
        closing(open_run_table(tmp_path, create=False)) as it,
    ):
        require_sound(tmp_path, it)
    repair(tmp_path, None, only_look=False, now=datetime(2026, 11, 21, tzinfo=UTC))
    campaign.store = open_run_table(tmp_path, create=False)
    assert sum(state is RunState.DONE for state in campaign.states()) >= 3
    assert campaign.run(client).ending is Ending.FINISHED
    check_whole(campaign, 6)
    submitted = [attempt_id.partition("-a")[0] for method, attempt_id in client.calls if method == "submit"]
    assert sorted(submitted) == sorted({run.run_id for run in plan(6).runs})


def test_a_plan_file_is_written_once_and_mended(tmp_path: Path) -> None:
    keep_plan(tmp_path, plan(2))
    path = tmp_path / PLAN
    before = path.stat().st_mtime_ns, path.read_bytes()
    keep_plan(tmp_path, plan(2))
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    path.write_bytes(before[1][:-100])
    keep_plan(tmp_path, plan(2))
    assert path.read_bytes() == before[1]
