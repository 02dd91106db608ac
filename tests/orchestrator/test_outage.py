"""A database server that goes away in mid-campaign: waited for, told of, and nothing is lost or run twice."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState, RunState
from orchestrator.campaign import CampaignOutcome, Ending
from orchestrator.clients.fake_client import FakeClient
from orchestrator.outage_note import NOTE, OutageNotes, outage_of
from orchestrator.stop_request import StoppedError
from orchestrator.store.base import RunTableAwayError, RunTableError
from orchestrator.store.outage import ServerWait, Stage
from orchestrator.store.owner import this_owner
from orchestrator.store.sql_store import SqlStore
from tests.end_to_end.nodes import running_testbed, write_config
from tests.orchestrator.campaigns import Campaign
from tests.orchestrator.doubles import Clock, plan
from tests.orchestrator.test_pool import Box, Lab, study
from tests.orchestrator.test_pool_cli import command, start
from tests.postgresql_server import PostgresqlServer

AWAY = RunTableAwayError("The run table does not answer.")
N_RUNS = 100


@pytest.fixture
def url(postgresql: PostgresqlServer) -> Iterator[str]:
    with postgresql.run_table() as url:
        yield url
        postgresql.start_if_stopped()


def failing(n: int, clock: Clock | None = None, pause_s: float = 0.0) -> Callable[[], str]:
    """A question that is answered the time after n."""
    left = [n]

    def ask() -> str:
        if clock is not None:
            clock.sleep(pause_s)
        if left[0]:
            left[0] -= 1
            raise AWAY
        return "answer"

    return ask


def never(message: str) -> None:
    raise AWAY


def test_it_waits_in_growing_pauses_and_tells_once() -> None:
    clock, told, stages, looks = Clock(), list[str](), list[Stage](), list[str]()
    pauses: list[float] = []

    def pause(duration_s: float) -> None:
        pauses.append(duration_s)
        clock.sleep(duration_s)

    def look(message: str) -> None:
        looks.append(message)
        if len(looks) < 9:
            raise AWAY

    wait = ServerWait(
        3600, tell=told.append, note=lambda stage, message: stages.append(stage), pause=pause, clock=clock
    )
    assert wait.ask(failing(1), look) == "answer"
    assert pauses == sorted(pauses)
    assert pauses[0] < 1 < pauses[-1] <= 5
    assert stages == ["away", "back"]
    assert len(told) == 2
    assert "Trying again for 1 h" in told[0]
    assert f"answers again after {sum(pauses):.0f} s" in told[1]
    assert looks[-1].startswith("the run table did not answer for ")
    assert wait.since_back_s == 0


def test_it_gives_up_after_its_time_and_then_at_once() -> None:
    clock, stages = Clock(), list[Stage]()
    wait = ServerWait(60, note=lambda stage, message: stages.append(stage), pause=clock.sleep, clock=clock)
    with pytest.raises(RunTableError, match=r"That was so for 1 min.*run the same command again"):
        wait.ask(failing(99), never)
    ended_s = clock()
    assert stages == ["away", "over"]
    with pytest.raises(RunTableError, match="That was so for 1 min"):
        wait.ask(lambda: "", never)
    assert clock() == ended_s


def test_a_question_that_fails_on_a_server_that_answers_is_given_up_too() -> None:
    clock = Clock()
    wait = ServerWait(60, pause=clock.sleep, clock=clock)
    with pytest.raises(RunTableError, match="the campaign ends"):
        wait.ask(failing(10**6, clock, 0.01), lambda message: None)
    assert clock() < 200


def test_without_patience_and_when_a_person_stops_it_ends_at_once() -> None:
    with pytest.raises(RunTableAwayError):
        ServerWait().ask(failing(1), lambda message: None)

    def stopped(duration_s: float) -> None:
        raise StoppedError("Stopped.")

    wait = ServerWait(60, pause=stopped)
    for _ in range(2):
        with pytest.raises(StoppedError):
            wait.ask(failing(1), never)


def test_one_thread_looks_for_all() -> None:
    everybody = threading.Barrier(8)
    n_looks, answers = [0], list[str]()

    def ask() -> None:
        question = failing(1)

        def first_together() -> str:
            try:
                return question()
            except RunTableAwayError:
                everybody.wait(20)
                raise

        answers.append(wait.ask(first_together, look))

    def look(message: str) -> None:
        n_looks[0] += 1

    wait = ServerWait(60, pause=lambda duration_s: None)
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == ["answer"] * 8
    assert n_looks == [1]


def test_what_the_folder_tells_meanwhile(tmp_path: Path) -> None:
    notes = OutageNotes(tmp_path, 3600)
    notes.note("away", "It does not answer.")
    told = outage_of(tmp_path)
    assert told is not None
    assert told.owner == this_owner()
    assert told.until - told.since == timedelta(hours=1)
    assert "goes on by itself when it is back" in told.words(datetime.now(UTC))
    notes.note("over", "It did not answer.")
    told = outage_of(tmp_path)
    assert told is not None
    assert "gave up at" in told.words(datetime.now(UTC))
    assert "and is gone" in told.model_copy(
        update={"is_over": False, "owner": this_owner().rpartition(":")[0] + ":1"}
    ).words(datetime.now(UTC))
    notes.note("back", "")
    assert outage_of(tmp_path) is None
    (tmp_path / NOTE).write_text("{")
    assert outage_of(tmp_path) is None


def check(url: str, client: FakeClient, n_runs: int = N_RUNS) -> None:
    """Each run was tried once, and its result is accepted."""
    with closing(SqlStore.open(url, create=False)) as store:
        runs = store.runs()
    assert [row.state for row in runs] == [RunState.DONE] * n_runs
    assert [attempt.state for row in runs for attempt in row.attempts] == [AttemptState.SUCCEEDED] * n_runs
    submitted = Counter(attempt_id for method, attempt_id in client.calls if method == "submit")
    assert set(submitted) == {attempt.attempt_id for row in runs for attempt in row.attempts}


def test_connections_that_the_server_cuts_all_the_time(postgresql: PostgresqlServer, url: str, tmp_path: Path) -> None:
    campaign, client, over = Campaign(tmp_path, N_RUNS, address=url, wait_s=60), FakeClient(), threading.Event()
    n_cut = 0

    def cut() -> None:
        nonlocal n_cut
        while not over.wait(0.3):
            n_cut += postgresql.cut(url)

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        outcome = campaign.run(client)
    finally:
        over.set()
        thread.join()
    assert outcome.ending is Ending.FINISHED, outcome.message
    assert n_cut > 0
    check(url, client)


def test_an_answer_that_is_lost_on_its_way_changes_nothing(url: str, tmp_path: Path) -> None:
    """The server has written, and the connection breaks before it can say so."""
    campaign, client = Campaign(tmp_path, 5, address=url, wait_s=60), FakeClient()
    commit, n_lost = campaign.store._engine.dialect.do_commit, [0]

    def lose(connection: object) -> None:
        commit(connection)  # type: ignore[arg-type]
        n_lost[0] += 1
        if n_lost[0] % 3 == 1:  # then come the look whether it is back, and the same question again
            raise AWAY

    campaign.store._engine.dialect.do_commit = lose  # type: ignore[method-assign]
    assert campaign.run(client).ending is Ending.FINISHED
    assert n_lost[0] > 3 * 2 * 5  # each run has two writes at least
    check(url, client, 5)


def test_a_pool_whose_server_is_restarted(postgresql: PostgresqlServer, url: str, tmp_path: Path) -> None:
    boxes = {name: Box(pace_s=0.01) for name in ("a", "b", "c")}
    lab = Lab(tmp_path, study(2, 30), boxes)
    lab.store.close()
    told, waits = list[str](), threading.Event()

    def tell(line: str) -> None:
        told.append(line)
        waits.set()

    lab.store = SqlStore.open(url, create=True, server=ServerWait(60, tell=tell))
    lab.store.create_experiment(lab.plan)
    submit = boxes["a"].submit

    def crash(*arguments: object, **options: object) -> object:
        if len(boxes["a"].runs) == 3:
            stopped.set()
            assert waits.wait(60)
        return submit(*arguments, **options)  # type: ignore[arg-type]

    boxes["a"].submit = crash  # type: ignore[assignment,method-assign]
    stopped, outcomes = threading.Event(), list[CampaignOutcome]()
    thread = threading.Thread(target=lambda: outcomes.append(lab.run()))
    thread.start()
    # Of this thread, since the server ends with the one that started it.
    assert stopped.wait(60)
    postgresql.stop()
    assert waits.wait(60)
    postgresql.start()
    thread.join(60)
    assert [outcome.ending for outcome in outcomes] == [Ending.FINISHED], outcomes
    assert told[0].startswith("Waiting: ")
    assert "answers again after" in told[-1]
    attempts = [attempt for row in lab.store.runs() for attempt in row.attempts]
    assert [attempt.accepted for attempt in attempts] == [True] * 60
    assert len({run_id for box in boxes.values() for run_id in box.runs}) == 60
    lab.store.close()


def test_past_its_time_the_campaign_ends_and_the_same_command_continues(
    postgresql: PostgresqlServer, url: str, tmp_path: Path
) -> None:
    campaign, client = Campaign(tmp_path, 5, address=url, wait_s=0.5), FakeClient()

    def stop(end: object) -> None:
        if len(campaign.view.ends) == 2:
            postgresql.stop()

    campaign.view.on_end = stop
    outcome = campaign.run(client)
    assert outcome.ending is Ending.BROKEN
    assert "run the same command again" in outcome.message
    assert "pg_isready" in outcome.message
    assert outcome.counts[RunState.DONE] == 2  # as far as it knew
    assert "Waiting:" in campaign.told[0]
    postgresql.start()
    again = Campaign(tmp_path, 5, address=url)
    assert again.run(client).ending is Ending.FINISHED
    check(url, client, 5)


def test_leases_that_ran_out_during_an_outage_are_not_taken_over_at_once(
    postgresql: PostgresqlServer, url: str
) -> None:
    with closing(SqlStore.open(url, create=True, owner="far-away:1:1")) as one:
        one.create_experiment(plan(1))
        claim = one.claim_next("a")
        with closing(SqlStore.open(url, create=False, owner="farther-away:1:1")) as other:
            postgresql.stop()
            postgresql.start()
            with one._engine.begin() as connection:
                connection.exec_driver_sql("UPDATE attempt SET lease_until = now() - interval '1 hour'")
            assert other.claim_next("b") is None
            one.renew()
            assert one.claim_next("a") == claim


def test_a_server_is_restarted_under_a_campaign(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    config = write_config(tmp_path, repetitions=3, lifetime="block", tokens_per_s=0)
    results = tmp_path / "results"
    with running_testbed(tmp_path) as testbed, postgresql.database() as url:
        run = ("run", config, "--testbed", testbed.url, "--results", results, "--database", url, "--no-progress")
        process = start(*run)
        assert process.stdout is not None
        told = ""
        try:
            for line in process.stdout:
                told += line
                if line.startswith("[3/"):
                    postgresql.stop()
                if line.startswith("Waiting: ") and told.count("Waiting: ") == 1:
                    code, status = command("status", results / "e2e")
                    assert code == 2, (told, status)
                    assert "waits for it since" in status, status
                    assert "goes on by itself when it is back" in status
                    postgresql.start()
        finally:
            postgresql.start_if_stopped()
            process.kill()
        assert process.wait() == 0, told
        assert "The run table answers again after" in told
        assert "12 runs: 12 done" in told
        assert not (results / "e2e" / NOTE).exists()
        code, story = command("story", results / "e2e")
        assert "the run table did not answer for" in story
        with closing(SqlStore.open(url, create=False)) as store:
            attempts = [attempt for row in store.runs() for attempt in row.attempts]
        assert [attempt.accepted for attempt in attempts] == [True] * 12
