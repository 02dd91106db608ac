"""Prompts of an exact length, by the engine's own count."""

from pathlib import Path

import pytest

from contract.errors import InvalidOptionError
from contract.trial_spec import ModelSpec, SamplingSpec, WorkloadSpec
from testbed.attempt_folder import RequestRecord
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.fake_engine import FakeEngine
from testbed.prompt_length import pad_prompts, wrong_lengths
from testbed.trial_run import Parts, run_trial
from testbed.workloads.length_sweep import LengthSweepWorkload
from tests.testbed.test_trial_run import SPEC, NoThermometer, StillClock


def loaded() -> FakeEngine:
    engine = FakeEngine()
    engine.load(ModelSpec(name="m", source="fake:m"), max_concurrency=8, seed=0)
    return engine


def counts(engine: FakeEngine, n_input_tokens: int, n_items: int) -> list[int]:
    prepared = LengthSweepWorkload(n_input_tokens=n_input_tokens, n_output_tokens=2, n_items=n_items).prepare()
    items = pad_prompts(engine, prepared).items
    sampling = SamplingSpec(max_tokens=2, ignore_eos=True)
    asked = [GenerationRequest(item.item_id, item.messages, sampling, 0) for item in items]
    return [done.n_prompt_tokens for done in engine.generate(asked, concurrency=4)]


@pytest.mark.parametrize("n_input_tokens", [8, 50, 250, 500])
def test_every_prompt_has_the_length(n_input_tokens: int) -> None:
    assert counts(loaded(), n_input_tokens, 9) == [n_input_tokens] * 9


def test_no_two_prompts_begin_alike_and_the_same_ones_come_again() -> None:
    prepared = LengthSweepWorkload(n_input_tokens=60, n_output_tokens=2, n_items=20).prepare()
    items, again = (pad_prompts(loaded(), prepared).items for _ in range(2))
    assert items == again
    beginnings = {" ".join(item.messages[0]["content"].split()[:8]) for item in items}
    assert len(beginnings) == 20
    assert {item.n_output_tokens for item in items} == {2}


def test_a_length_below_the_template_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="the nearest has"):
        counts(loaded(), 1, 1)


class TwoForEach(FakeEngine):
    """A tokenizer that cuts every word in two: no odd length can be made."""

    def generate(self, requests, **arguments):  # type: ignore[no-untyped-def]
        return [
            Completion(**{**vars(done), "n_prompt_tokens": 2 * done.n_prompt_tokens})
            for done in super().generate(requests, **arguments)
        ]


def test_a_length_that_no_words_make_is_refused_and_one_that_some_make_is_found() -> None:
    engine = TwoForEach()
    engine.load(ModelSpec(name="m", source="fake:m"), max_concurrency=8, seed=0)
    with pytest.raises(InvalidOptionError, match="n_input_tokens"):
        counts(engine, 51, 1)


def test_without_a_length_prompts_stay_as_they_are() -> None:
    prepared = LengthSweepWorkload(n_output_tokens=2).prepare()
    assert pad_prompts(loaded(), prepared) is prepared


def test_a_trial_records_the_padded_prompts(tmp_path: Path) -> None:
    options = {"n_input_tokens": 40, "n_output_tokens": 5, "n_items": 3}
    workload = WorkloadSpec(name="length_sweep", options=options, concurrency=2)
    spec = SPEC.model_copy(update={"workload": workload})
    parts = Parts(
        engine=FakeEngine(), warm=None, workload=LengthSweepWorkload(**options), meters=(), thermometer=NoThermometer()
    )
    record = run_trial(spec, parts, tmp_path, StillClock())
    assert record.error is None and record.reasons == [] and record.workload is not None
    assert record.workload.n_prompt_tokens == 3 * 40 and record.workload.n_output_tokens == 3 * 5
    requests = [RequestRecord.model_validate_json(line) for line in (tmp_path / "requests.jsonl").open()]
    assert {request.n_prompt_tokens for request in requests} == {40}
    assert all(request.messages[0]["content"].startswith("Go on:") for request in requests)


def test_an_answer_to_a_prompt_of_another_length_is_doubted() -> None:
    prepared = LengthSweepWorkload(n_input_tokens=40, n_output_tokens=2, n_items=1).prepare()
    asked = [GenerationRequest("sweep-0", ({"role": "user", "content": "a b"},), SamplingSpec(max_tokens=2), 0)]
    reasons = wrong_lengths(prepared, loaded().generate(asked, concurrency=1))
    assert [reason.code for reason in reasons] == ["prompt_length"] and "sweep-0" in reasons[0].message
