"""Several orchestrators on one run table on a server: each run is accepted once, whoever is killed."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState, RunState
from orchestrator.store.base import AttemptRow, TakenOverError
from orchestrator.store.sql_store import SqlStore
from tests.orchestrator.doubles import plan
from tests.postgresql_server import PostgresqlServer

N_RUNS = 40

_ORCHESTRATOR = """
import os, signal, sys
from pathlib import Path
from contract.attempt_state import AttemptState
from contract.errors import ChildDiedError
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from tests.orchestrator.campaigns import Campaign, failing
url, folder, name, die_after = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def script(trial, n_before):
    # Every fifth run fails at first, wherever it is tried first.
    return failing(ChildDiedError("It died.")) if n_before == 0 and trial.seed % 5 == 0 else FakeTrial()

campaign = Campaign(folder, int(sys.argv[5]), address=url)
client = FakeClient(script)
if die_after:
    ask = client.status
    def status(attempt_id, **how):
        if len(campaign.view.ends) == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return ask(attempt_id, **how)
    client.status = status
print("ready", flush=True)
sys.stdin.readline()
print(campaign.run(client, testbed=name), flush=True)
"""


@pytest.fixture
def url(postgresql: PostgresqlServer) -> Iterator[str]:
    with postgresql.run_table() as url:
        yield url


def start(url: str, folder: Path, name: str, die_after: int = 0) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", _ORCHESTRATOR, url, str(folder), name, str(die_after), str(N_RUNS)]
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    return subprocess.Popen(program, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def race(*processes: subprocess.Popen[str]) -> list[int]:
    """Let them go at the same moment, and wait for their ends."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    endings = [process.communicate(timeout=120)[0] for process in processes]
    print(*endings)  # for who looks at a failure
    return [process.returncode for process in processes]


def test_each_run_is_accepted_once(url: str, tmp_path: Path) -> None:
    assert race(start(url, tmp_path / "a", "a"), start(url, tmp_path / "b", "b")) == [0, 0]
    check(url, {"a", "b"})


def test_each_run_is_accepted_once_though_one_is_killed_in_the_middle(url: str, tmp_path: Path) -> None:
    killed, other = start(url, tmp_path / "a", "a", die_after=3), start(url, tmp_path / "b", "b")
    assert race(killed, other) == [-signal.SIGKILL, 0]
    check(url, {"a", "b"})


def was_given_up(attempt: AttemptRow) -> bool:
    """Claimed by who was killed, for a testbed that is not the other's."""
    is_over = attempt.state is AttemptState.CANCELLED
    return is_over and attempt.error is not None and attempt.error.code == TakenOverError.code


def check(url: str, testbeds: set[str]) -> None:
    with closing(SqlStore.open(url, create=False)) as store:
        runs = store.runs()
        assert store.plan() == plan(N_RUNS)
        assert store.counts() == {state: N_RUNS * (state is RunState.DONE) for state in RunState}
    attempts = [attempt for run in runs for attempt in run.attempts]
    assert Counter(attempt.run_id for attempt in attempts if attempt.accepted) == Counter(run.run_id for run in runs)
    assert {attempt.testbed for attempt in attempts} == testbeds  # both took part
    assert all(attempt.state.is_final for attempt in attempts)
    # Nothing was tried without need: only what failed, or was lost with its orchestrator's testbed.
    spare = [attempt.state for attempt in attempts if not attempt.accepted and not was_given_up(attempt)]
    assert set(spare) <= {AttemptState.FAILED, AttemptState.LOST}
    assert [attempt.number for run in runs for attempt in run.attempts] == [
        number + 1 for run in runs for number in range(len(run.attempts))
    ]
