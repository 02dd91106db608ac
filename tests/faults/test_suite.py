"""The suite itself: what it is there to find, it finds."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from contract.trial_result import PhaseWindow
from testbed.attempt_folder import ChildRecord
from tests.end_to_end.fault_proxy import KINDS, kind_of
from tests.faults import processes
from tests.faults.audit import audit, differences, read_table
from tests.faults.experiment import N_TREATMENTS, write_experiment
from tests.faults.kill_campaign import experiment_folder, undisturbed
from tests.faults.plan import MOMENTS, draw
from tests.faults.report import Report


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    undisturbed(folder, N_TREATMENTS)
    return experiment_folder(folder)


@pytest.fixture
def experiment(finished: Path, tmp_path: Path) -> Path:
    """A copy, to be spoiled."""
    return Path(shutil.copytree(finished, tmp_path / "experiment"))


def change(experiment: Path, *statements: str) -> None:
    with closing(sqlite3.connect(experiment / "run_table.sqlite")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def an_attempt(experiment: Path) -> Path:
    return sorted(experiment.glob("runs/*/*"))[0]


class TestAudit:
    def test_finds_nothing_where_nothing_happened(self, experiment: Path) -> None:
        found = audit(experiment, N_TREATMENTS)
        assert (found.problems, found.n_runs, found.n_attempts) == ([], N_TREATMENTS, N_TREATMENTS)
        assert found.n_windows == N_TREATMENTS
        assert differences(read_table(experiment), read_table(experiment)) == []

    def test_a_run_that_is_not_done(self, experiment: Path) -> None:
        change(experiment, "UPDATE run SET state = 'TODO' WHERE position = 0")
        assert "is TODO" in audit(experiment, N_TREATMENTS).lost[0]

    def test_a_run_that_is_not_there(self, experiment: Path) -> None:
        assert audit(experiment, N_TREATMENTS + 1).lost

    def test_an_artifact_that_is_gone_or_other(self, experiment: Path) -> None:
        attempt = an_attempt(experiment)
        (attempt / "requests.jsonl").unlink()
        with (attempt / "record.json").open("ab") as file:
            file.write(b" ")
        lost = " ".join(audit(experiment, N_TREATMENTS).lost)
        assert "requests.jsonl" in lost and "record.json" in lost

    def test_an_artifact_that_came_half(self, experiment: Path) -> None:
        (an_attempt(experiment) / "requests.jsonl.part").touch()
        assert "is a half" in audit(experiment, N_TREATMENTS).lost[0]

    def test_two_accepted_attempts(self, experiment: Path) -> None:
        columns = "run_id, accepted, testbed, owner, claimed_at, updated_at, finished_at, result"
        change(
            experiment,
            "DROP INDEX ux_attempt_accepted",
            f"INSERT INTO attempt (attempt_id, number, state, {columns}) "
            f"SELECT attempt_id || 'x', 99, state, {columns} FROM attempt LIMIT 1",
        )
        assert "2 accepted attempts" in audit(experiment, N_TREATMENTS).duplicated[0]

    def test_an_attempt_without_an_end_and_one_without_a_row(self, experiment: Path) -> None:
        change(experiment, "UPDATE attempt SET finished_at = NULL WHERE rowid = 1")
        (an_attempt(experiment).parent / "stray").mkdir()
        wrong = " ".join(audit(experiment, N_TREATMENTS).wrong)
        assert "has no end" in wrong and "stray belongs to no attempt" in wrong

    def test_two_trials_at_the_same_time(self, experiment: Path) -> None:
        first, second = sorted(experiment.glob("runs/*/*/record.json"))[:2]
        record = ChildRecord.model_validate_json(first.read_bytes())
        phases = [PhaseWindow(phase=each.phase, start_s=0.0, duration_s=1.0) for each in record.phases]
        for path in (first, second):
            path.write_text(record.model_copy(update={"phases": phases}).model_dump_json())
        assert audit(experiment, N_TREATMENTS).overlaps
        assert not audit(experiment, N_TREATMENTS, n_testbeds=2).overlaps

    def test_another_table(self, experiment: Path, finished: Path) -> None:
        table = experiment / "run_table.csv"
        table.write_bytes(table.read_bytes().replace(b",fake,", b",other,", 1))
        requests = an_attempt(experiment) / "requests.jsonl"
        requests.write_text(requests.read_text().replace('"answer":"', '"answer":"other ', 1))
        told = " ".join(differences(read_table(experiment), read_table(finished)))
        assert "energy_source" in told and "other answers" in told

    def test_a_report_is_not_fine_with_a_problem(self) -> None:
        assert Report("part", {"lost": 0}).is_fine
        assert "NOT FINE" in Report("part", {"lost": 1}, ["run_0 is TODO"]).text()


class TestPlan:
    def test_is_drawn_from_the_seed(self) -> None:
        assert draw(100, 10, seed=1) == draw(100, 10, seed=1) != draw(100, 10, seed=2)

    def test_has_all_victims_and_all_moments(self) -> None:
        blows = draw(100, 10, seed=1)
        victims = Counter(blow.victim for blow in blows)
        assert sum(victims.values()) == 110
        assert victims["ctrl_c"] == victims["ctrl_c_twice"] == 5
        assert min(victims[each] for each in ("orchestrator", "testbed", "runner")) >= 20
        assert min(victims[each] for each in ("energibridge", "both_nodes", "power_cut")) >= 5
        assert {blow.moment for blow in blows} == set(MOMENTS)
        assert [blow.after_share for blow in blows] == sorted(blow.after_share for blow in blows)

    def test_of_few_kills_has_every_program(self) -> None:
        for seed in range(20):
            victims = {blow.victim for blow in draw(8, 0, seed)}
            assert {"orchestrator", "testbed", "runner", "energibridge"} <= victims

    def test_number_of_trials(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="multiple of 8"):
            write_experiment(tmp_path, 9)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_an_orphan_is_found() -> None:
    mark = f"test-{os.getpid()}"
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "-m", "x"], env={**os.environ, processes.MARK: mark}
    )
    try:
        (left,) = processes.wait_until_none(mark, 0.5)
        assert (left.pid, left.kind) == (process.pid, "other")
        assert processes.wait_until_none(mark, 0.5, spare=frozenset({process.pid})) == []
        assert processes.find("another") == []
    finally:
        assert processes.kill(process.pid)
        process.wait()
    assert processes.wait_until_none(mark, 5.0) == []
    assert not processes.kill(process.pid)


def test_every_message_has_a_kind() -> None:
    attempt = "/v1/attempts/run_0-a1"
    messages = [
        ("GET", "/v1/live"),
        ("GET", "/v1/node"),
        ("POST", "/v1/check"),
        ("PUT", attempt),
        ("GET", f"{attempt}?wait_s=10&after_version=3"),
        ("GET", f"{attempt}/result"),
        ("GET", f"{attempt}/artifacts/requests.jsonl"),
        ("POST", f"{attempt}/acknowledgement"),
        ("DELETE", attempt),
    ]
    assert tuple(kind_of(*message) for message in messages) == KINDS
