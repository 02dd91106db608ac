"""The page of a run: what it says, what it draws, and what it never gives away. No browser."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from analysis.answers import read_answers
from analysis.judge.question import PROMPT_VERSION, Question
from analysis.judge.store import JUDGEMENTS, Judgement, JudgementStore, utc_now
from contract.attempt_state import RunState
from orchestrator.artifacts import RUNS
from orchestrator.dashboard.app import create_app
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.run_answers import read_answers_of
from orchestrator.dashboard.run_view import NotHereError, download_path, run_figures, shown_attempt, state_in_words
from orchestrator.store.control import CampaignControl
from tests.dashboard.results import EVIL, POWER_W, Results

TOKEN = "a-token-for-the-run-page"
FIRST, SECOND, THIRD, LAST = (f"run_{i}_repetition_0" for i in range(4))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Done, suspect, failed, to do."""
    made = Results(tmp_path_factory.mktemp("results") / "four", {"threads": [1, 2, 4, 8]}, repetitions=1)
    made.succeed(answer=EVIL)
    made.succeed(reasons=[("throttled", f"The GPU was slowed down. {EVIL}")])
    made.fail(f"It died. {EVIL}", log_tail=["line one", EVIL])
    return made


@pytest.fixture(scope="module")
def client(results: Results) -> Iterator[TestClient]:
    app = create_app(Dashboard(results.folder, results.store, name="four"), TOKEN)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}, raise_server_exceptions=False) as client:
        yield client


def test_each_state_is_told_in_words(results: Results) -> None:
    said = {row.run_id: state_in_words(row) for row in results.store.runs()}
    assert said[FIRST] == "Its result is accepted: that of attempt 1."
    assert "reasons to doubt" in said[SECOND]
    assert said[THIRD].startswith("No attempts are left. The last one ended failed: It died.")
    assert said[LAST] == "It has not been run yet. It is number 4 in the order of the plan."


def test_a_run_that_is_retried_still_shows_what_was_measured(results: Results) -> None:
    row = results.store.run(FIRST)
    assert row is not None
    failed = results.store.run(THIRD)
    assert failed is not None
    both = replace(row, attempts=(*row.attempts, *failed.attempts), state=RunState.TODO)
    shown = shown_attempt(both)
    assert shown is not None and shown.accepted
    assert state_in_words(both).startswith("It is to be tried again. Attempt 1 ended failed")


def test_one_run_is_read_as_the_whole_table_tells_it(results: Results) -> None:
    rows = list(results.store.runs())
    assert [results.store.run(row.run_id) for row in rows] == rows
    assert results.store.run("run_9_repetition_0") is None
    assert [results.store.neighbours(row.position) for row in rows] == [
        (None, SECOND),
        (FIRST, THIRD),
        (SECOND, LAST),
        (THIRD, None),
    ]


def test_power_keeps_its_energy_and_phases_lie_on_its_clock(results: Results) -> None:
    found = run_figures(results.folder, FIRST)
    assert [each["name"] for each in found["figures"]] == ["power", "temp_c"]
    power = found["figures"][0]
    assert f"cpu_package: mean {POWER_W:.1f} W" in power["text"]
    assert "measure 2.0 to 10.0 s" in power["text"]
    line = power["figure"]["data"][0]
    assert all(value == pytest.approx(POWER_W) for value in line["y"])
    bands = [(shape["x0"], shape["x1"]) for shape in power["figure"]["layout"]["shapes"]]
    assert bands == [(0.0, 2.0), (2.0, 10.0)]
    assert "40 to 50" in found["figures"][1]["text"]


@pytest.mark.parametrize("run_id", [THIRD, LAST])
def test_a_run_without_samples_says_so(results: Results, run_id: str) -> None:
    found = run_figures(results.folder, run_id)
    assert found["figures"] == []
    assert run_id in found["missing"][0]
    assert run_id in read_answers_of(results.folder, run_id).problem


def test_answers_are_filtered_and_carry_their_energy(results: Results) -> None:
    page = read_answers_of(results.folder, FIRST)
    assert [row["verdict"] for row in page.rows] == ["right", "wrong", "unread"] * 2
    assert {row["energy_j"] for row in page.rows} == {40.0}
    assert (page.n_all, page.has_judge, page.is_estimate) == (6, False, False)
    wrong = read_answers_of(results.folder, FIRST, only="wrong", offset=1)
    assert (wrong.n_matching, [row["index"] for row in wrong.rows]) == (4, [2, 4, 5])


def test_a_judges_verdict_stands_beside_the_answer(tmp_path: Path) -> None:
    made = Results(tmp_path / "judged", {"threads": [1]}, repetitions=1)
    made.succeed()
    questions = [Question.of(answer) for answer in read_answers(made.folder).answers]
    with JudgementStore(made.folder / JUDGEMENTS) as store:
        question = questions[1]
        assert question is not None
        key = question.key(model="judge", endpoint_model="judge-7b", seed=3)
        here = ("judge", "judge-7b", "http://box/v1", 3, "BoolQ-1", "BoolQ", "yes", "correct", "yes", "It says yes.")
        store.add(Judgement(key, PROMPT_VERSION, *here, 1, None, None, utc_now()))  # type: ignore[arg-type]
    page = read_answers_of(made.folder, FIRST)
    assert [len(row["opinions"]) for row in page.rows] == [0, 1, 0, 0, 0, 0]
    assert page.rows[1]["opinions"][0].reason == "It says yes."
    # The rules read `no`, the judge reads `yes`.
    assert [row["index"] for row in read_answers_of(made.folder, FIRST, only="disputed").rows] == [1]


@pytest.mark.parametrize("path", ["", "/story", "/answers", "/answers?only=unread"])
@pytest.mark.parametrize("run_id", [FIRST, SECOND, THIRD, LAST])
def test_nothing_that_a_model_says_becomes_markup(client: TestClient, run_id: str, path: str) -> None:
    answer = client.get(f"/runs/{run_id}{path}")
    assert answer.status_code == 200
    assert EVIL not in answer.text
    assert "<script>document" not in answer.text and "<img" not in answer.text
    if run_id == FIRST and path.startswith("/answers"):
        assert "&lt;script&gt;document" in answer.text


def test_an_unknown_run_is_not_found(client: TestClient) -> None:
    for path in ("/runs/run_9_repetition_9", "/api/runs/nothing/figures", "/runs/nothing/answers"):
        assert client.get(path).status_code == 404
    assert "no such run" in client.get("/api/runs/nothing").json()["message"]
    assert client.get(f"/runs/{FIRST}/answers?offset=-1").status_code == 422


def test_artifacts_are_attachments(client: TestClient, results: Results) -> None:
    answer = client.get(f"/runs/{FIRST}/artifacts/requests.jsonl")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    row = results.store.run(FIRST)
    assert row is not None
    attempt = row.attempts[0].attempt_id
    path = results.folder / RUNS / FIRST / attempt / "requests.jsonl"
    assert answer.content == path.read_bytes()
    assert client.get(f"/runs/{FIRST}/artifacts/result.json?attempt={attempt}").json()["run_id"] == FIRST


@pytest.mark.parametrize(
    "name",
    [
        "../result.json",
        "..%2f..%2f..%2frun_table.sqlite",
        "%2e%2e%2f%2e%2e%2fplan.json",
        "....//run_table.sqlite",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "record.json%00",
        "secret.txt",
        ".",
        "",
    ],
)
def test_no_path_of_a_request_reaches_the_disk(client: TestClient, results: Results, name: str) -> None:
    row = results.store.run(FIRST)
    assert row is not None
    # A file that is there, but that no result lists.
    (results.folder / RUNS / FIRST / row.attempts[0].attempt_id / "secret.txt").write_text("secret")
    answer = client.get(f"/runs/{FIRST}/artifacts/{name}")
    assert answer.status_code in (404, 405)
    assert "attachment" not in answer.headers.get("content-disposition", "")


@pytest.mark.parametrize("attempt", ["../..", "..", "", "run_1_repetition_0-a1", "/etc"])
def test_only_attempts_of_the_run_are_known(client: TestClient, attempt: str) -> None:
    answer = client.get(f"/runs/{FIRST}/artifacts/record.json", params={"attempt": attempt})
    assert answer.status_code == 404


def test_a_link_out_of_the_experiment_is_not_followed(tmp_path: Path) -> None:
    made = Results(tmp_path / "linked", {"threads": [1]}, repetitions=1)
    claim = made.succeed()
    outside = tmp_path / "outside.txt"
    outside.write_text("not yours")
    listed = made.folder / RUNS / claim.run_id / claim.attempt_id / "record.json"
    listed.unlink()
    listed.symlink_to(outside)
    row = made.store.run(claim.run_id)
    assert row is not None
    with pytest.raises(NotHereError, match="is not here"):
        download_path(made.folder, row, claim.attempt_id, "record.json")


def test_an_excluded_run_says_who_and_why(tmp_path: Path) -> None:
    made = Results(tmp_path / "excluded", {"threads": [1]}, repetitions=1)
    made.succeed()
    CampaignControl(made.store).exclude(FIRST, "the window was open", "Anna")
    app = create_app(Dashboard(made.folder, made.store, name="excluded"), TOKEN)
    client = TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"})
    text = client.get(f"/runs/{FIRST}").text
    assert "by Anna" in text and "the window was open" in text
    assert 'data-control="include"' in text and 'data-control="exclude"' not in text
    # Its measurements stay to be looked at.
    assert len(run_figures(made.folder, FIRST)["figures"]) == 2
    assert len(read_answers_of(made.folder, FIRST).rows) == 6
