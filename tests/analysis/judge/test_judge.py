"""The judge: verdicts, cache, resumption after a kill, errors that say what to do."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path
from typing import Any

import httpx
import pytest

from analysis.answers import read_answers
from analysis.cli import main
from analysis.judge.endpoint import EndpointError, JudgeEndpoint, read_key
from analysis.judge.question import Question
from analysis.judge.run import Judged, judge_answers
from analysis.judge.store import JUDGEMENTS, JudgementStore
from contract.errors import UsageError

HERE = Path(__file__).resolve().parent
_fake = run_path(str(HERE / "fake_judge.py"))
FakeJudge, completion, judged, verdict = (_fake[name] for name in ("FakeJudge", "completion", "judged", "verdict"))
write_experiment: Callable[..., Path] = run_path(str(HERE / "conftest.py"))["write_experiment"]

QUESTION = Question("BoolQ", "Is it?", "yes", "Yes, it is.")


def transport(judge: Any) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        status, body, headers = judge.answer(
            request.method, request.url.path, request.headers.get("Authorization", ""), request.content
        )
        return httpx.Response(status, json=body, headers=headers)

    return httpx.MockTransport(handle)


@contextmanager
def endpoint(judge: Any, waits: list[float] | None = None, **options: Any) -> Iterator[JudgeEndpoint]:
    slept = [] if waits is None else waits
    with JudgeEndpoint("http://judge.test", "judge", transport=transport(judge), sleep=slept.append, **options) as it:
        yield it


def run_judge(experiment: Path, judge: Any, waits: list[float] | None = None, **options: Any) -> Judged:
    answers = read_answers(experiment).answers
    with endpoint(judge, waits) as asked, JudgementStore(experiment / JUDGEMENTS) as store:
        return judge_answers(answers, asked, store, **options)


# --- Verdicts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        '{"reason": "r", "answered_label": "yes", "verdict": "correct"}',
        '```json\n{"answered_label": " Yes ", "verdict": "correct"}\n```',
        'Here it is: {"verdict": "correct", "answered_label": "yes", "reason": "r", "more": 1} I hope it helps.',
    ],
)
def test_a_verdict_is_read_from_what_models_write(content: str) -> None:
    found = QUESTION.parse(content)
    assert (found.verdict, found.answered_label) == ("correct", "yes")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("It is correct.", "no JSON object"),
        ("{not json}", "JSON"),
        ('{"verdict": "right", "answered_label": "yes"}', "verdict"),
        ('{"verdict": "correct", "answered_label": "maybe"}', "maybe"),
        ('{"verdict": "incorrect", "answered_label": "yes"}', "means correct"),
        ('{"verdict": "correct", "answered_label": null}', "means no_answer"),
    ],
)
def test_what_is_no_verdict_is_refused_with_its_fault(content: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        QUESTION.parse(content)


def test_the_key_changes_with_all_that_the_verdict_depends_on() -> None:
    keys = {
        QUESTION.key(model="m", endpoint_model="e", seed=0),
        QUESTION.key(model="n", endpoint_model="e", seed=0),
        QUESTION.key(model="m", endpoint_model="f", seed=0),
        QUESTION.key(model="m", endpoint_model="e", seed=1),
        Question("BoolQ", "Is it?", "yes", "No.").key(model="m", endpoint_model="e", seed=0),
        Question("BoolQ", "Is it?", "no", "Yes, it is.").key(model="m", endpoint_model="e", seed=0),
        Question("BoolQ", "Was it?", "yes", "Yes, it is.").key(model="m", endpoint_model="e", seed=0),
    }
    assert len(keys) == 7


# --- Judging --------------------------------------------------------------------------------------------------


def test_answers_are_judged_once_and_counted_each(experiment: Path) -> None:
    judge = FakeJudge()
    before = {path: path.read_bytes() for path in experiment.rglob("*") if path.is_file()}
    found = run_judge(experiment, judge)
    assert (found.n_answers, found.n_distinct, found.n_asked, found.n_cached) == (12, 11, 11, 0)
    assert len(judge.chats) == 11
    (task,) = found.tasks
    # Items 0 to 5: yes no yes no yes no; answers: yes yes - yes yes -.
    assert (task.n_correct, task.n_incorrect, task.n_no_answer, task.n_invalid) == (4, 4, 4, 0)
    assert task.accuracy == pytest.approx(1 / 3)
    assert task.n_items == 6
    assert task.label_accuracy == pytest.approx(1 / 3)
    assert (found.n_prompt_tokens, found.n_output_tokens) == (1100, 110)
    chat = judge.chats[0]
    assert (chat["temperature"], chat["seed"], chat["model"]) == (0, 0, "judge")
    assert chat["response_format"]["json_schema"]["schema"]["required"]
    again = run_judge(experiment, judge)
    assert (again.n_cached, again.n_asked, again.tasks) == (11, 0, found.tasks)
    assert len(judge.chats) == 11
    # Nothing of the trials has changed, and nothing but the store was added.
    assert {
        path: path.read_bytes() for path in experiment.rglob("*") if path.name != JUDGEMENTS and path.is_file()
    } == before


def test_another_seed_or_model_is_judged_anew(experiment: Path) -> None:
    judge = FakeJudge(models=("judge", "other"))
    run_judge(experiment, judge)
    assert run_judge(experiment, judge, seed=1).n_asked == 11
    behind = FakeJudge(models=("llama.gguf",))  # takes any name, as llama.cpp does
    found = run_judge(experiment, behind)
    assert (found.n_asked, found.endpoint_model) == (11, "llama.gguf")


def test_a_limit_is_kept_and_gone_on_from(experiment: Path) -> None:
    judge = FakeJudge()
    first = run_judge(experiment, judge, limit=4)
    assert (first.n_asked, first.n_left) == (4, 7)
    second = run_judge(experiment, judge)
    assert (second.n_cached, second.n_asked, second.n_left) == (4, 7, 0)
    assert len(judge.chats) == 11


def test_invalid_json_is_asked_for_once_more_then_counted(experiment: Path) -> None:
    def reply(body: dict[str, Any]) -> Any:
        if "on day 1\n" in body["messages"][1]["content"]:
            return completion("I would say it is fine.")  # never a verdict
        if "on day 2\n" in body["messages"][1]["content"] and len(body["messages"]) == 2:
            return completion('{"verdict": "correct"}')  # put right when asked again
        return judged(body)

    judge = FakeJudge(reply)
    found = run_judge(experiment, judge)
    (task,) = found.tasks
    assert (task.n_invalid, task.n_judged) == (2, 10)
    # 11 questions; items 1 and 2 of both runs were asked twice.
    assert len(judge.chats) == 11 + 4
    assert max(len(chat["messages"]) for chat in judge.chats) == 4
    assert run_judge(experiment, judge).n_asked == 0


def test_a_format_that_the_endpoint_does_not_know_is_left_out(experiment: Path) -> None:
    def reply(body: dict[str, Any]) -> Any:
        if "response_format" in body:
            return 400, {"error": {"message": "response_format is not supported"}}, {}
        return judged(body)

    judge = FakeJudge(reply)
    found = run_judge(experiment, judge, workers=1)
    assert found.tasks[0].n_judged == 12
    assert len(judge.chats) == 11 + 2


def test_one_refused_request_is_invalid_and_the_rest_goes_on(experiment: Path) -> None:
    def reply(body: dict[str, Any]) -> Any:
        long = any(f"on day {i}\n" in body["messages"][1]["content"] for i in (4, 5))
        if long and len(judge.chats) > 1:
            return 400, {"error": {"message": "the prompt is longer than the context"}}, {}
        return judged(body)

    judge = FakeJudge(reply)
    found = run_judge(experiment, judge, workers=1)
    assert found.tasks[0].n_invalid in (3, 4)  # the very first request is answered, whichever it is
    assert found.tasks[0].n_judged + found.tasks[0].n_invalid == 12


# --- A busy or refusing endpoint ------------------------------------------------------------------------------


def test_a_busy_endpoint_is_waited_for_as_it_asks(experiment: Path) -> None:
    refused = iter([True, True])

    def reply(body: dict[str, Any]) -> Any:
        if next(refused, False):
            return 429, {"error": {"message": "slow down"}}, {"Retry-After": "7"}
        return judged(body)

    waits: list[float] = []
    found = run_judge(experiment, FakeJudge(reply), waits, workers=1)
    assert found.tasks[0].n_judged == 12
    assert waits == [7, 7]


def test_an_endpoint_that_stays_away_ends_it_and_keeps_the_verdicts(experiment: Path) -> None:
    def reply(body: dict[str, Any]) -> Any:
        return judged(body) if len(judge.chats) <= 3 else (503, {"error": "overloaded"}, {})

    judge = FakeJudge(reply)
    with pytest.raises(EndpointError, match=r"503: overloaded.*run the same command again"):
        run_judge(experiment, judge, workers=1)
    judge.reply = judged
    assert run_judge(experiment, judge).n_cached == 3


def test_a_wrong_key_is_one_clear_error() -> None:
    with endpoint(FakeJudge(key="secret"), key="wrong") as it, pytest.raises(EndpointError) as caught:
        it.model_id()
    assert "refuses the key" in caught.value.message
    assert "Incorrect API key provided." in caught.value.message
    assert "wrong" not in caught.value.message


def test_an_unknown_model_is_one_clear_error(experiment: Path) -> None:
    def reply(body: dict[str, Any]) -> Any:
        return 404, {"error": {"message": "The model 'judge' does not exist"}}, {}

    judge = FakeJudge(reply, models=("a", "b"))
    with pytest.raises(EndpointError, match=r"no model 'judge'.*does not exist"):
        run_judge(experiment, judge, workers=1)
    assert len(judge.chats) == 1


def test_an_address_that_is_no_endpoint_is_told() -> None:
    with pytest.raises(UsageError, match="--endpoint"):
        JudgeEndpoint("localhost:8080", "judge")
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>"))
    with (
        JudgeEndpoint("http://page.test/v1/", "judge", transport=page) as it,
        pytest.raises(EndpointError, match="OpenAI-compatible"),
    ):
        it.chat(QUESTION.messages(), QUESTION.schema())
    assert it.url == "http://page.test/v1"


def test_a_named_key_must_be_set() -> None:
    with pytest.raises(UsageError, match="JUDGE_KEY"):
        read_key("JUDGE_KEY", {})
    assert read_key("JUDGE_KEY", {"JUDGE_KEY": " k "}) == "k"
    assert read_key(None, {}) is None


# --- Over a socket --------------------------------------------------------------------------------------------


def command(experiment: Path, url: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "analysis", "judge", str(experiment), "--endpoint", url, "--model", "judge", *more]


def test_a_killed_judging_goes_on_where_it_was(tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path / "study", n_items=20)
    n_distinct, workers = 39, 2
    judge = FakeJudge(delay_s=0.05)
    with judge.serving() as url:
        line = command(experiment, url, "--workers", str(workers), "--json")
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while len(judge.chats) < 8 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        n_before = len(judge.chats)
        assert 8 <= n_before < n_distinct
        with JudgementStore(experiment / JUDGEMENTS, create=False) as store:
            n_kept = len(store.all())
        # What was under way is lost, nothing else.
        assert n_before - 2 * workers <= n_kept <= n_before
        judge.delay_s = 0
        done = subprocess.run(line, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["n_cached"], found["n_asked"], found["n_left"]) == (n_kept, n_distinct - n_kept, 0)
    assert len(judge.chats) == n_before + n_distinct - n_kept
    assert found["energy_note"] == "The energy of judging is not part of any trial."


def test_the_command_prints_both_accuracies_and_says_whose_energy_it_is_not(
    experiment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = FakeJudge(key="secret")
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with judge.serving() as url:
        line = ["judge", str(experiment), "--endpoint", url, "--model", "judge", "--api-key-env", "JUDGE_KEY"]
        assert main(line) == 0
        printed = capsys.readouterr().out
        assert "33.3%" in printed
        assert "The energy of judging is not part of any trial." in printed
        monkeypatch.setenv("JUDGE_KEY", "stolen")
        assert main(line) == 2
        assert "refuses the key" in capsys.readouterr().err


def test_nothing_listens_there(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waits: list[float] = []
    away = httpx.MockTransport(lambda request: (_ for _ in ()).throw(httpx.ConnectError("refused")))
    with (
        JudgeEndpoint("http://judge.test", "judge", transport=away, sleep=waits.append) as it,
        pytest.raises(EndpointError, match="ConnectError: refused"),
    ):
        it.model_id()
    assert len(waits) == 5
    assert main(["judge", str(experiment / "none"), "--endpoint", "http://judge.test", "--model", "m"]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert not (experiment / "none").exists()
