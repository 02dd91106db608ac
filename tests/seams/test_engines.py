"""One behaviour suite over every engine: what `testbed.engines.base` promises."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from contract.errors import (
    InvalidOptionError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
)
from contract.trial_spec import SamplingSpec
from testbed.engines.base import Completion, ContinuousEngine, GenerationRequest
from testbed.engines.model_source import find_model
from tests.seams.engine_cases import CASES, MAX_CONCURRENCY, MODEL_LEN


def ask(text: str, *, seed: int = 1, request_id: str = "r", **sampling: Any) -> GenerationRequest:
    settings = {"max_tokens": 8, **sampling}
    return GenerationRequest(request_id, ({"role": "user", "content": text},), SamplingSpec(**settings), seed)


def questions(n: int, **sampling: Any) -> list[GenerationRequest]:
    return [ask(f"What comes after {i}?", request_id=f"q{i}", seed=i, **sampling) for i in range(n)]


def most_in_flight(completions: Sequence[Completion]) -> int:
    events = [(done.submitted_ns, 1) for done in completions] + [(done.finished_ns, -1) for done in completions]
    level = highest = 0
    for _, change in sorted(events):  # an end sorts before a start of the same time
        level += change
        highest = max(highest, level)
    return highest


def test_the_load_report_names_exactly_what_was_loaded(loaded):
    report = loaded.report
    assert (report.engine, report.model_name, report.model_source) == (loaded.case.name, "m", loaded.case.source)
    assert report.model_revision.startswith("sha256:") and len(report.model_revision) == 71
    assert report.max_model_len == MODEL_LEN
    assert report.engine_version
    assert report.load_s > 0
    assert report.settings
    assert not report.reused


def test_answers_come_in_the_order_of_the_requests(loaded):
    seen: list[Completion] = []
    requests = questions(6)
    done = loaded.engine.generate(requests, concurrency=3, on_completion=seen.append)
    assert [each.request_id for each in done] == [each.request_id for each in requests]
    assert sorted(each.request_id for each in seen) == [f"q{i}" for i in range(6)]
    assert [each.finished_ns for each in seen] == sorted(each.finished_ns for each in seen)


def test_no_requests_give_no_answers(loaded):
    assert loaded.engine.generate([], concurrency=1) == []


@pytest.mark.parametrize("concurrency", [1, MAX_CONCURRENCY])
def test_counts_and_times_are_consistent(loaded, concurrency):
    before_ns = time.monotonic_ns()
    done = loaded.engine.generate(questions(5), concurrency=concurrency)
    for each in done:
        assert each.text.strip()
        assert each.n_prompt_tokens > 3
        assert 1 <= each.n_output_tokens <= 8
        assert each.finish_reason in ("stop", "length")
        assert each.finish_reason == "stop" or each.n_output_tokens == 8
        assert 1 <= len(each.token_ns) <= each.n_output_tokens
        assert list(each.token_ns) == sorted(each.token_ns)
        assert before_ns <= each.submitted_ns < each.token_ns[0]
        assert each.token_ns[-1] <= each.finished_ns <= time.monotonic_ns()


def test_tokens_have_times_of_their_own(loaded):
    (done,) = loaded.engine.generate([ask("Count to ten.", max_tokens=16, ignore_eos=True)], concurrency=1)
    assert len(set(done.token_ns)) >= 12


def test_ignore_eos_gives_exactly_max_tokens(loaded):
    done = loaded.engine.generate(questions(4, max_tokens=48, ignore_eos=True), concurrency=2)
    assert [each.n_output_tokens for each in done] == [48] * 4
    assert {each.finish_reason for each in done} == {"length"}


@pytest.mark.parametrize("concurrency", [1, 2, MAX_CONCURRENCY])
def test_concurrency_is_reached_and_not_exceeded(loaded, concurrency):
    done = loaded.engine.generate(questions(8, max_tokens=12, ignore_eos=True), concurrency=concurrency)
    assert most_in_flight(done) == concurrency
    assert [each.submitted_ns for each in done] == sorted(each.submitted_ns for each in done)


def test_greedy_one_at_a_time_repeats_exactly(loaded):
    first, second = (loaded.engine.generate(questions(3, max_tokens=16), concurrency=1) for _ in range(2))
    assert [each.text for each in first] == [each.text for each in second]
    assert [each.n_output_tokens for each in first] == [each.n_output_tokens for each in second]


def test_a_seed_repeats_a_draw_and_another_seed_does_not(loaded):
    def draw(seed: int) -> str:
        request = ask("Tell me a story.", seed=seed, temperature=1.0, max_tokens=24, ignore_eos=True)
        return loaded.engine.generate([request], concurrency=1)[0].text

    assert draw(5) == draw(5)
    assert len({draw(seed) for seed in (5, 6, 7)}) > 1


def test_the_prompt_hash_tells_prompts_apart(loaded):
    texts = ["Is it so?", "Is it so?", "Is it not so?"]
    done = loaded.engine.generate([ask(text, request_id=str(i)) for i, text in enumerate(texts)], concurrency=2)
    hashes = [each.prompt_sha256 for each in done]
    assert hashes[0] == hashes[1] != hashes[2]
    assert all(len(each) == 64 for each in hashes)


def test_a_prompt_beyond_the_context_is_refused_with_both_lengths(loaded):
    long = ask("word " * 2 * MODEL_LEN, request_id="long-one")
    with pytest.raises(InvalidRequestError, match=rf"'long-one'.* {MODEL_LEN}[ ,;]") as caught:
        loaded.engine.generate([ask("Hello?"), long], concurrency=2)
    assert caught.value.detail["n_prompt_tokens"] > 2 * MODEL_LEN
    assert caught.value.detail["max_model_len"] == MODEL_LEN
    # and the engine is still good
    assert loaded.engine.generate([ask("Hello?")], concurrency=1)[0].n_output_tokens > 0


def test_more_in_flight_than_it_was_loaded_for_is_refused(loaded):
    with pytest.raises(InvalidRequestError, match="max_concurrency"):
        loaded.engine.generate(questions(2), concurrency=MAX_CONCURRENCY + 1)


def test_an_error_in_the_callback_leaves_the_engine_usable(loaded):
    class Stop(Exception):
        pass

    def stop(_: Completion) -> None:
        raise Stop

    with pytest.raises(Stop):
        loaded.engine.generate(questions(6, max_tokens=32), concurrency=2, on_completion=stop)
    assert len(loaded.engine.generate(questions(2), concurrency=2)) == 2


class Plan:
    """Hands requests over by plan: at its n-th question those of `begins[n]`; then nothing more."""

    def __init__(self, *begins: list[int]) -> None:
        self.begins = list(begins)
        self.in_flight: list[int] = []

    def take(self, n_in_flight: int) -> list[int]:
        self.in_flight.append(n_in_flight)
        return self.begins.pop(0) if self.begins else []

    def wait(self) -> bool:
        return bool(self.begins)


@pytest.fixture
def continuous(loaded):
    if not isinstance(loaded.engine, ContinuousEngine):
        pytest.skip(f"{loaded.case.name} serves whole batches")
    return loaded.engine


def test_a_request_joins_those_in_flight(continuous):
    source, done = Plan([0], [], [1, 2], [], [3]), []
    continuous.serve(questions(4, max_tokens=24, ignore_eos=True), source, on_completion=done.append)
    assert sorted(each.request_id for each in done) == ["q0", "q1", "q2", "q3"]
    assert {each.n_output_tokens for each in done} == {24}
    by_id = {each.request_id: each for each in done}
    # The second and third began while the first was under way, and none of its tokens was lost over it.
    assert by_id["q0"].submitted_ns < by_id["q1"].submitted_ns < by_id["q0"].finished_ns
    assert most_in_flight(done) == 4 and max(source.in_flight) == 4
    for each in done:
        assert each.submitted_ns < each.token_ns[0] and list(each.token_ns) == sorted(each.token_ns)


def test_a_continuous_run_ends_when_nothing_comes_any_more_and_skips_what_never_came(continuous):
    done: list[Completion] = []
    continuous.serve(questions(3), Plan([], [1], [], []), on_completion=done.append)
    assert [each.request_id for each in done] == ["q1"]
    continuous.serve(questions(3), Plan(), on_completion=done.append)
    assert len(done) == 1


def test_a_continuous_run_refuses_too_many_and_a_prompt_too_long(continuous):
    asked = questions(MAX_CONCURRENCY + 1, max_tokens=24, ignore_eos=True)
    with pytest.raises(InvalidRequestError, match="max_concurrency"):
        continuous.serve(asked, Plan(list(range(MAX_CONCURRENCY + 1))), on_completion=lambda done: None)
    long = ask("word " * 2 * MODEL_LEN, request_id="long-one")
    seen: list[Completion] = []
    with pytest.raises(InvalidRequestError, match="long-one"):
        continuous.serve([ask("Hello?"), long], Plan([0], [1]), on_completion=seen.append)
    # and the engine is still good
    assert continuous.generate([ask("Hello?")], concurrency=1)[0].n_output_tokens > 0


def test_a_missing_model_is_named_before_anything_is_loaded(case):
    model = case.model(source=case.missing)
    for attempt in (case.build().check, lambda m: case.build().load(m, max_concurrency=1, seed=1)):
        with pytest.raises(ModelNotFoundError) as caught:
            attempt(model)
        assert case.missing.partition(":")[2] in caught.value.message


def test_a_model_that_is_there_passes_the_check(case):
    engine = case.build()
    engine.check(case.model())
    engine.close()


def test_a_requests_exit_layer_is_taken_or_refused_by_name(loaded):
    asked = replace(ask("Hello?", request_id="early"), exit_layer=2)
    if loaded.case.name == "transformers":
        (done,) = loaded.engine.generate([asked], concurrency=1)
        assert set(done.token_exit_layer) == {2} and len(done.token_entropy_nats) == done.n_output_tokens
    else:
        seen: list[Completion] = []
        with pytest.raises(InvalidRequestError, match=rf"'early' .*'{loaded.case.name}' knows no early exit"):
            loaded.engine.generate([ask("Hello?"), asked], concurrency=1, on_completion=seen.append)
        assert seen == [], "refused before any request begins"
    # and the engine is still good
    assert loaded.engine.generate([ask("Hello?")], concurrency=1)[0].n_output_tokens > 0


def test_an_unknown_option_is_refused_when_built(case):
    with pytest.raises(InvalidOptionError, match=r"no option 'warp_speed'.*Known options: \w+"):
        case.build(warp_speed=9)


def test_an_impossible_value_is_refused_when_built(case):
    option = {"fake": "tokens_per_s", "llama_cpp": "n_threads", "transformers": "threads", "vllm": "threads"}[case.name]
    for value in (-1, "two"):
        with pytest.raises(InvalidOptionError, match=option):
            case.build(**{option: value})


def test_closing_twice_or_unloaded_is_no_error_and_ends_generation(case):
    engine = case.build()
    engine.close()
    engine.close()
    with pytest.raises(InvalidRequestError, match="load"):
        engine.generate([ask("Hello?")], concurrency=1)


REAL = ["llama_cpp", "transformers", pytest.param("vllm", marks=pytest.mark.vllm)]


def real_case(name):
    pytest.importorskip(CASES[name].module)
    return CASES[name]


def shipped_gguf() -> bytes:
    return find_model(CASES["llama_cpp"].model()).path.read_bytes()


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("damage", ["not GGUF", "truncated"])
def test_a_damaged_gguf_is_a_load_error_that_names_the_file(name, damage, tmp_path, monkeypatch):
    case = real_case(name)
    monkeypatch.setenv("JOULEBED_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(b"<html>" if damage == "not GGUF" else shipped_gguf()[:3_000_000])
    engine = case.build()
    with pytest.raises(ModelLoadError, match=r"damaged\.gguf.*[Ff]etch"):
        engine.load(case.model(source=f"path:{path}"), max_concurrency=1, seed=1)
    engine.close()
    assert not list((tmp_path / "cache").glob("unpacked/*"))


def test_llama_cpp_prints_the_pinned_date_in_the_prompt(tmp_path, monkeypatch):
    case = real_case("llama_cpp")
    monkeypatch.setenv("JOULEBED_CACHE", str(tmp_path / "cache"))
    # The shipped template with a date in the place of some of its words, of equal length: the file stays valid.
    words, code = b"named SmolLM, trained by Hugging Face", b"' + date_string + '"
    assert shipped_gguf().count(words) == 1
    path = tmp_path / "dated.gguf"
    path.write_bytes(shipped_gguf().replace(words, code.ljust(len(words))))
    engine = case.build()
    engine.load(case.model(source=f"path:{path}", chat_template_date=date(2024, 7, 6)), max_concurrency=1, seed=1)
    (done,) = engine.generate([ask("Hi")], concurrency=1)
    engine.close()
    padding = " " * (len(words) - len(code))
    expected = (
        f"<|im_start|>system\nYou are a helpful AI assistant 06 Jul 2024{padding}<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert done.prompt_sha256 == hashlib.sha256(expected.encode()).hexdigest()


@pytest.mark.parametrize("case", [pytest.param("vllm", marks=pytest.mark.vllm)], indirect=True)
def test_vllm_prints_the_pinned_date_in_the_prompt(loaded, monkeypatch):
    template = "{{ date_string }}: {{ messages[0]['content'] }}"
    monkeypatch.setattr(loaded.engine._tokenizer, "chat_template", template)
    (done,) = loaded.engine.generate([ask("Hi")], concurrency=1)
    assert done.prompt_sha256 == hashlib.sha256(b"26 Jul 2024: Hi").hexdigest()


def test_exactly_max_tokens_that_do_not_fit_are_refused(loaded):
    with pytest.raises(InvalidRequestError, match="ignore_eos"):
        loaded.engine.generate([ask("Hi", max_tokens=2 * MODEL_LEN, ignore_eos=True)], concurrency=1)
