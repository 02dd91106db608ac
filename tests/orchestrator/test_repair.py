"""Run tables that are broken in many ways, mended, and carried on to the same end as an undisturbed one."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contract.attempt_state import AttemptState, RunState
from contract.errors import ChildDiedError, ConfigError, UsageError
from contract.trial_spec import TrialSpec
from orchestrator.attempt_journal import JOURNAL, AttemptJournal
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.experiment_folder import open_run_table, require_sound
from orchestrator.plan_file import PLAN, keep_plan
from orchestrator.repair import BROKEN, Repair, repair
from orchestrator.store.base import RunRow, RunTableDamagedError
from orchestrator.store.schema import RUN_TABLE
from orchestrator.store.sql_store import SqlStore
from orchestrator.suspicion import SuspectResultError
from tests.end_to_end.nodes import running_testbed
from tests.orchestrator.campaigns import Campaign
from tests.orchestrator.doubles import plan
from tests.orchestrator.test_orchestrator_cli import command, run, words, write_config
from tests.orchestrator.test_store import claimed, result_of

N_RUNS = 30
N_DONE = 18
PAGE = 4096
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def script(trial: TrialSpec, n_before: int) -> FakeTrial:
    """Every fifth run fails once, one is doubted, one fails for good."""
    number = int(trial.run_id.split("_")[1])
    if number == 7:
        return FakeTrial(state=AttemptState.SUSPECT)
    if number == 8:
        return FakeTrial(state=AttemptState.FAILED, error=ConfigError("It cannot work. Change it.").body())
    if number % 5 == 0 and n_before == 0:
        return FakeTrial(state=AttemptState.FAILED, error=ChildDiedError("It died. Look at its log.").body())
    return FakeTrial()


class Half(Campaign):
    """A campaign that was stopped after `N_DONE` runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, N_RUNS)
        keep_plan(folder, plan(N_RUNS))
        self.n_repairs = 0
        self.client = FakeClient(script)
        # A trial ends in the table while the next one is under way, which is the last.
        self.view.on_end = lambda end: self.stop.request() if len(self.view.ends) == N_DONE - 1 else None
        self.run(self.client)
        self.before = list(self.store.runs())
        self.events = self.store.events()
        self.close()

    @property
    def path(self) -> Path:
        return self.folder / RUN_TABLE

    def close(self) -> None:
        self.store.close()
        assert not self.path.with_name(f"{RUN_TABLE}-wal").exists()

    def repair(self, *, only_look: bool = False) -> Repair:
        self.n_repairs += 1
        return repair(self.folder, None, only_look=only_look, now=NOW + timedelta(minutes=self.n_repairs))

    def rows(self) -> list[RunRow]:
        with closing(open_run_table(self.folder, create=False)) as store:
            require_sound(self.folder, store)
            return list(store.runs())

    def to_the_end(self) -> list[RunRow]:
        self.store = open_run_table(self.folder, create=False)
        require_sound(self.folder, self.store)
        self.store.create_experiment(plan(N_RUNS))
        self.stop.level = 0
        self.view.on_end = lambda end: None
        self.run(self.client)
        rows = list(self.store.runs())
        self.close()
        return rows


@pytest.fixture
def half(tmp_path: Path) -> Half:
    return Half(tmp_path)


def told(rows: list[RunRow]) -> list[Any]:
    """A table without times and owners, and without what differs by name from campaign to campaign."""
    return [
        (row.run_id, row.state, [(each.number, each.state, each.accepted, each.error) for each in row.attempts])
        for row in rows
    ]


def results(rows: list[RunRow]) -> list[Any]:
    """Of all attempts, failed ones too."""
    return [[each.result for each in row.attempts] for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    campaign = Campaign(tmp_path_factory.mktemp("undisturbed"), N_RUNS)
    campaign.run(FakeClient(script))
    rows = list(campaign.store.runs())
    campaign.store.close()
    return told(rows)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zero_page(path: Path, number: int) -> None:
    with path.open("r+b") as file:
        file.seek(number * PAGE)
        file.write(bytes(PAGE))


def zero_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 100)


def another_file(path: Path) -> None:
    path.write_bytes(b"It is a text, and no database. " * PAGE)


def pages(path: Path, table: str) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        try:
            query = "SELECT pageno FROM dbstat WHERE name = ? ORDER BY pageno"
            return [row[0] for row in connection.execute(query, (table,))]
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no dbstat")


BREAKS: dict[str, Callable[[Path], None]] = {
    "cut to half": cut,
    "cut to one page": lambda path: os.truncate(path, PAGE),
    "cut within a page": lambda path: os.truncate(path, path.stat().st_size - 1000),
    "emptied": lambda path: os.truncate(path, 0),
    "header overwritten": zero_header,
    "first page zeroed": lambda path: zero_page(path, 0),
    "page in the middle zeroed": lambda path: zero_page(path, path.stat().st_size // PAGE // 2),
    "another file": another_file,
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_run_table_is_noticed_mended_and_carried_on(half: Half, name: str, undisturbed: list[Any]) -> None:
    BREAKS[name](half.path)
    broken = half.path.read_bytes() if half.path.exists() else None
    with pytest.raises(UsageError, match=f"orchestrator repair (--check )?{half.folder}"):
        half.rows()
    mended = half.repair()
    assert mended.faults
    assert mended.table is not None
    assert not mended.table.refused
    assert told(half.rows()) == told(half.before)
    # Which attempt is accepted is the same; all but times of those that only files tell of.
    accepted = [[each.attempt_id for each in row.attempts if each.accepted] for row in half.rows()]
    assert accepted == [[each.attempt_id for each in row.attempts if each.accepted] for row in half.before]
    assert results(half.rows()) == results(half.before)
    if broken is not None:
        assert mended.aside is not None
        assert (mended.aside / RUN_TABLE).read_bytes() == broken
    assert half.repair() == Repair(())
    n_before = len(half.client.calls)
    assert told(half.to_the_end()) == undisturbed
    submitted = [attempt_id for method, attempt_id in half.client.calls[n_before:] if method == "submit"]
    assert not {attempt_id for attempt_id in submitted if attempt_id in {e.attempt_id for e in half.events}}


def test_every_single_page_may_be_lost(half: Half) -> None:
    """Page by page: whatever it held, nothing accepted is lost, and events of other pages stay."""
    whole = half.path.read_bytes()
    keep = {path.name: path.read_bytes() for path in (half.folder / PLAN, half.folder / JOURNAL)}
    for number in range(len(whole) // PAGE):
        half.path.write_bytes(whole)
        zero_page(half.path, number)
        for name, content in keep.items():
            (half.folder / name).write_bytes(content)
        half.repair()
        assert told(half.rows()) == told(half.before), f"page {number}"
        assert results(half.rows()) == results(half.before), f"page {number}"


def test_a_row_without_its_result_gets_it_from_its_files(half: Half) -> None:
    """A long row lies in several pages: what is read of one may lack its result, a failed attempt's too."""
    with closing(sqlite3.connect(half.path)) as connection, connection:
        connection.execute("UPDATE attempt SET result = NULL")
    zero_page(half.path, pages(half.path, "event")[1] - 1)
    half.repair()
    assert told(half.rows()) == told(half.before)
    assert results(half.rows()) == results(half.before)
    failed = [each for row in half.before for each in row.attempts if each.state is AttemptState.FAILED]
    assert all(each.result is not None for each in failed)
    assert len(failed) > 2


def test_events_and_facts_around_a_damaged_page_are_read(half: Half) -> None:
    with closing(SqlStore.open(half.path, create=False)) as store:
        store.remember("idle_temp_c", {"fake": 38.5}, "told")
        events = store.events()
    damaged = pages(half.path, "event")
    assert len(damaged) > 2
    zero_page(half.path, damaged[1] - 1)
    half.repair()
    with closing(open_run_table(half.folder, create=False)) as store:
        assert store.recall("idle_temp_c") == {"fake": 38.5}
        after = store.events()
        assert "rebuilt by `orchestrator repair`" in after[-1].message
        kept = [event for event in after if event in events]
        assert len(events) / 2 < len(kept) < len(events)
        # What is lost of an attempt's story is its way, never its end.
        ended = {event.attempt_id for event in after if event.state_after is not None and event.state_after.is_final}
        assert ended == {each.attempt_id for row in half.before for each in row.attempts}


def test_nothing_but_the_files_is_left(half: Half, undisturbed: list[Any]) -> None:
    """No run table and no journal, as with results of an older version: files alone tell of what was measured."""
    half.path.unlink()
    (half.folder / JOURNAL).unlink()
    mended = half.repair()
    assert mended.table is not None
    assert mended.table.n_salvaged == 0
    measured = [each for row in half.before for each in row.attempts if each.result is not None]
    assert mended.table.n_from_files == len(measured)
    assert [row.state for row in half.rows()] == [row.state for row in half.before]
    assert [row[1] for row in told(half.to_the_end())] == [row[1] for row in undisturbed]


def test_a_lost_wal_is_noticed_and_its_attempts_come_back(half: Half, tmp_path: Path, undisturbed: list[Any]) -> None:
    """As after a kill: the newest commits are in the -wal only, and somebody tidies up."""
    program = """
import os, signal, sys
from pathlib import Path
from tests.orchestrator.test_repair import N_RUNS, plan, script
from tests.end_to_end.nodes import running_testbed
from tests.orchestrator.campaigns import Campaign
from orchestrator.clients.fake_client import FakeClient
campaign = Campaign(Path(sys.argv[1]), N_RUNS)
campaign.view.on_end = lambda end: os.kill(os.getpid(), signal.SIGKILL) if len(campaign.view.ends) == 5 else None
campaign.run(FakeClient(script))
"""
    killed = subprocess.run(
        [sys.executable, "-c", program, str(half.folder)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    copy = tmp_path / "copy"
    shutil.copytree(half.folder, copy)
    with closing(open_run_table(copy, create=False)) as store:
        before = list(store.runs())
    half.path.with_name(f"{RUN_TABLE}-wal").unlink()
    with pytest.raises(RunTableDamagedError, match=r"does not know \d+ attempts that have files"):
        half.rows()
    half.repair()
    # What had been claimed for the next trial left no file, so nothing knows of it.
    known = [
        row if row.state is not RunState.RUNNING else replace(row, state=RunState.TODO, attempts=()) for row in before
    ]
    assert told(half.rows()) == told(known)
    assert sum(row.state is RunState.DONE for row in before) > sum(row.state is RunState.DONE for row in half.before)
    half.client = FakeClient(script)
    assert [row[1] for row in told(half.to_the_end())] == [row[1] for row in undisturbed]


def test_an_old_copy_that_was_put_back_is_noticed(half: Half) -> None:
    old = half.path.read_bytes()
    rows = half.to_the_end()
    half.path.write_bytes(old)
    with pytest.raises(RunTableDamagedError, match="does not know"):
        half.rows()
    half.repair()
    assert told(half.rows()) == told(rows)


def artifact(half: Half, number: int) -> tuple[str, Path]:
    accepted = [each for row in half.before for each in row.attempts if each.accepted]
    attempt = accepted[number]
    return attempt.attempt_id, half.folder / "runs" / attempt.run_id / attempt.attempt_id / "requests.jsonl"


def test_results_without_sound_files_are_not_accepted(half: Half, undisturbed: list[Any]) -> None:
    (wrong, path), (gone, other), (half_id, third) = (artifact(half, number) for number in (0, 1, 2))
    path.write_bytes(path.read_bytes()[::-1])
    other.unlink()
    third.with_name("result.json").write_text("{")
    half.path.unlink()
    mended = half.repair()
    assert mended.table is not None
    assert mended.table.refused.keys() == {wrong, gone, half_id}
    assert "size or SHA-256 differ" in mended.table.refused[wrong]
    assert "is missing" in mended.table.refused[gone]
    assert "cannot be read" in mended.table.refused[half_id]
    rows = half.rows()
    assert sum(row.state is RunState.DONE for row in rows) == sum(row.state is RunState.DONE for row in half.before) - 3
    refused = [each for row in rows for each in row.attempts if each.attempt_id == wrong]
    assert [(each.state, each.error.code if each.error else "") for each in refused] == [
        (AttemptState.FAILED, "artifact_corrupt")
    ]
    assert [row[1] for row in told(half.to_the_end())] == [row[1] for row in undisturbed]


def test_a_look_changes_nothing(half: Half) -> None:
    cut(half.path)
    before = {path: path.read_bytes() for path in half.folder.rglob("*") if path.is_file()}
    mended = half.repair(only_look=True)
    assert mended.faults
    assert mended.table is not None
    assert mended.aside is None
    assert {path: path.read_bytes() for path in half.folder.rglob("*") if path.is_file()} == before


def test_a_table_in_use_is_left_alone(half: Half) -> None:
    cut(half.path)
    with half.path.open("rb"), pytest.raises(UsageError, match=rf"Process {os.getpid()} .*open: end it"):
        half.repair()
    assert half.repair().faults


def test_an_open_attempt_stays_open_and_is_taken_up(half: Half) -> None:
    with closing(SqlStore.open(half.path, owner="me", create=False)) as store:
        claim = claimed(store)
        half.client.submit(claim.attempt_id, claim.spec)
        store.record_state(claim.attempt_id, AttemptState.MEASURING)
    damaged = pages(half.path, "event")
    zero_page(half.path, damaged[0] - 1)
    half.repair()
    (attempt,) = (each for row in half.rows() for each in row.attempts if each.attempt_id == claim.attempt_id)
    assert attempt.state is AttemptState.MEASURING
    with closing(SqlStore.open(half.path, owner="me", create=False)) as store:
        assert claimed(store).attempt_id == claim.attempt_id


def test_an_attempt_whose_files_began_to_arrive_is_asked_for_again(half: Half) -> None:
    with closing(SqlStore.open(half.path, owner="me", create=False)) as store:
        claim = claimed(store)
    half.client.submit(claim.attempt_id, claim.spec)
    part = half.folder / "runs" / claim.run_id / claim.attempt_id / "requests.jsonl.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"{")
    half.path.unlink()
    half.repair()
    rows = half.to_the_end()
    (row,) = (row for row in rows if row.run_id == claim.run_id)
    first = row.attempts[0]
    assert (first.attempt_id, first.error.code if first.error else "") == (claim.attempt_id, "child_died")


def test_two_accepted_by_the_files_are_one_in_the_table(half: Half) -> None:
    """Without journal and table: two SUCCEEDED attempts of one run; the older counts, the other is evidence."""
    _, path = artifact(half, 1)
    first = path.parent
    run_id = first.parent.name
    second = first.with_name(f"{run_id}-a2-0123abcd")
    shutil.copytree(first, second)
    result = json.loads((second / "result.json").read_text())
    (second / "result.json").write_text(json.dumps({**result, "attempt_id": second.name}))
    half.path.unlink()
    (half.folder / JOURNAL).unlink()
    half.repair()
    (row,) = (row for row in half.rows() if row.run_id == run_id)
    assert [(each.attempt_id, each.accepted) for each in row.attempts] == [(first.name, True), (second.name, False)]


def test_runs_that_were_given_new_attempts_keep_them(half: Half) -> None:
    (failed,) = (row.run_id for row in half.before if row.state is RunState.FAILED)
    with closing(SqlStore.open(half.path, create=False)) as store:
        store.reopen([failed])
    zero_page(half.path, pages(half.path, "event")[0] - 1)
    half.repair()
    (row,) = (row for row in half.rows() if row.run_id == failed)
    assert row.state is RunState.TODO


def test_what_the_orchestrator_doubted_stays_doubted(tmp_path: Path) -> None:
    """The testbed said SUCCEEDED; the journal remembers that the orchestrator knew better."""
    path = tmp_path / RUN_TABLE
    campaign = Campaign(tmp_path, 1)
    keep_plan(tmp_path, plan(1))
    client = FakeClient()
    campaign.run(client)
    attempt = campaign.store.runs()[0].attempts[0]
    campaign.store.close()
    journal = AttemptJournal(tmp_path)
    error = SuspectResultError("It began warm.").body().model_copy(update={"retryable": True})
    journal.note(
        journal.read()[attempt.attempt_id].model_copy(
            update={"state": AttemptState.SUSPECT, "accepted": False, "error": error}
        )
    )
    path.unlink()
    repair(tmp_path, None, only_look=False, now=NOW)
    with closing(SqlStore.open(path, create=False)) as store:
        (row,) = store.runs()
        assert (row.state, row.attempts[0].state) == (RunState.TODO, AttemptState.SUSPECT)


def test_without_the_plans_file_the_table_or_the_configuration_gives_the_plan(half: Half) -> None:
    (half.folder / PLAN).write_text('{"format": 1}')
    zero_page(half.path, pages(half.path, "event")[0] - 1)
    mended = half.repair()
    assert mended.table is not None
    assert any("plan was read from the broken run table" in note for note in mended.table.notes)
    assert told(half.rows()) == told(half.before)

    (half.folder / PLAN).unlink()
    half.path.unlink()
    with pytest.raises(ConfigError, match=r"plan .* is lost.*orchestrator repair CONFIG\.py"):
        half.repair()
    planned = plan(N_RUNS)
    repair(half.folder, planned, only_look=False, now=NOW)
    assert told(half.rows()) == told(half.before)
    half.path.unlink()
    with pytest.raises(ConfigError, match="another plan"):
        repair(half.folder, replace(planned, sha256="0" * 64), only_look=False, now=NOW)


def test_where_nothing_is_there_is_nothing_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no experiment"):
        repair(tmp_path, None, only_look=False, now=NOW)
    assert list(tmp_path.iterdir()) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from orchestrator import repair as module
from datetime import UTC, datetime
n = int(sys.argv[2])
count = 0
def counting(real):
    def counted(path, *rest, **more):
        global count
        if count == n:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return real(path, *rest, **more)
    return counted
for name in ("replace", "mkdir", "touch"):
    setattr(Path, name, counting(getattr(Path, name)))
module.repair(Path(sys.argv[1]), None, only_look=False, now=datetime.now(UTC))
print(count)
"""


def test_a_repair_that_is_killed_at_any_step_is_done_again(half: Half, tmp_path: Path) -> None:
    zero_page(half.path, pages(half.path, "event")[1] - 1)
    half.path.with_name(f"{RUN_TABLE}-wal").write_bytes(b"left over")
    start = tmp_path.parent / f"{tmp_path.name}-start"
    shutil.copytree(half.folder, start)
    n = 0
    while True:
        shutil.rmtree(half.folder)
        shutil.copytree(start, half.folder)
        ran = subprocess.run(
            [sys.executable, "-c", _KILLED, str(half.folder), str(n)],
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode == 0:
            break
        assert ran.returncode == -signal.SIGKILL, ran.stderr
        half.repair()
        assert told(half.rows()) == told(half.before), f"killed at step {n}"
        with closing(open_run_table(half.folder, create=False)) as store:
            assert len(store.events()) > len(half.events) / 2, f"killed at step {n}"
        assert not list(half.folder.glob(".repair-*"))
        n += 1
    assert n > 5
    shutil.rmtree(start)


def test_the_command_says_what_it_did(half: Half) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orchestrator", "repair", str(half.folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    sound = command()
    assert (sound.returncode, "is sound: nothing was done" in " ".join(sound.stdout.split())) == (0, True)
    cut(half.path)
    looked = command("--check", "--json")
    document = json.loads(looked.stdout)
    assert (looked.returncode, document["sound"], document["repaired"]) == (1, False, False)
    n_done = sum(row.state is RunState.DONE for row in half.before)
    assert (document["runs"]["DONE"], document["accepted"]) == (n_done, n_done)
    mended = command()
    assert mended.returncode == 0
    assert f"{n_done} accepted" in " ".join(mended.stdout.split())
    assert (half.folder / RUN_TABLE).exists()
    assert len(list(half.folder.glob(f"{BROKEN}*"))) == 1


def test_results_of_a_store_without_files_are_told(tmp_path: Path) -> None:
    """An accepted attempt of which no file is left: it is evidence of nothing."""
    path = tmp_path / RUN_TABLE
    keep_plan(tmp_path, plan(2))
    with closing(SqlStore.open(path, owner="me", create=True)) as store:
        store.create_experiment(plan(2))
        claim = claimed(store)
        store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=result_of(claim))
    zero_page(path, pages(path, "event")[0] - 1)
    mended = repair(tmp_path, None, only_look=False, now=NOW)
    assert mended.table is not None
    assert mended.table.refused == {claim.attempt_id: "it has no files under runs/"}


def attempts_of(folder: Path) -> dict[str, bool]:
    with closing(open_run_table(folder, create=False)) as store:
        return store.attempt_ids()


def test_a_campaign_over_http_refuses_a_lost_table_until_it_is_mended(tmp_path: Path) -> None:
    config, results = write_config(tmp_path, repetitions=1, tokens_per_s=0), tmp_path / "results"
    folder = results / "e2e"
    with running_testbed(tmp_path / "box") as testbed:
        done = run(config, testbed, results)
        assert done.returncode == 0, words(done)
        table = (folder / "run_table.csv").read_bytes()
        accepted = attempts_of(folder)
        (folder / RUN_TABLE).unlink()
        for arguments in (["status"], ["export"], ["retry", "--failed"]):
            refused = command(*arguments, folder)
            assert (refused.returncode, f"orchestrator repair {folder}" in words(refused)) == (2, True)
        refused = run(config, testbed, results)
        assert (refused.returncode, f"orchestrator repair {folder}" in words(refused)) == (2, True)
        assert not (folder / RUN_TABLE).exists()
        mended = command("repair", config, "--results", results)
        assert mended.returncode == 0, words(mended)
        again = run(config, testbed, results)
        assert (again.returncode, "nothing was run" in words(again)) == (0, True)
        assert attempts_of(folder) == accepted
        assert command("export", folder).returncode == 0
        assert (folder / "run_table.csv").read_bytes() == table
