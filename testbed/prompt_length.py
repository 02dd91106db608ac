"""Prompts of an exact length, counted by the loaded model's own tokenizer and chat template."""

import random
from dataclasses import replace

from contract.errors import InvalidOptionError
from contract.trial_result import SuspectReason
from contract.trial_spec import SamplingSpec
from testbed.engines.base import Completion, Engine, GenerationRequest
from testbed.workloads.base import PreparedWorkload, WorkItem

_WORDS = """
the of and to in is it that for was on are as with his they at be this from have or by one had not but what all
were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my
made over did down only way find use may water long little very after words called just where most know
"""
"""Common enough to be one token each, with the space before it, in tokenizers for English."""

_BEGINNING = "Go on:"
_ROUNDS = 12


def pad_prompts(engine: Engine, prepared: PreparedWorkload) -> PreparedWorkload:
    """Replace the prompts by words, as many as make `n_padded_tokens` of them, template included.

    The number is found by asking the engine to read trial prompts, before anything is measured. Every prompt has the
    same words in an order of its own: a tokenizer cuts at spaces, so that all are equally long, and no two share a
    beginning that a cache could keep. No prompt that is measured was read before.

    Args:
        engine: loaded.
        prepared: with `n_padded_tokens`; else it comes back as it is.

    Raises:
        InvalidOptionError: the chat template alone is longer, or no number of words makes the length.
        EngineError: as `generate`.
    """
    wanted = prepared.n_padded_tokens
    if wanted is None:
        return prepared
    n_words, tried = max(wanted // 2, 1), {}
    for _ in range(_ROUNDS):
        tried[n_words] = _count(engine, n_words)
        if tried[n_words] == wanted:
            return replace(prepared, items=tuple(_padded(item, i, n_words) for i, item in enumerate(prepared.items)))
        n_words += wanted - tried[n_words]
        if n_words < 1 or n_words in tried:
            break
    nearest = min(tried.values(), key=lambda found: abs(found - wanted))
    raise InvalidOptionError(
        f"No prompt of exactly {wanted} tokens can be made for this model: the nearest has {nearest}, the chat "
        "template included. Choose that for n_input_tokens, or a longer one.",
        n_input_tokens=wanted,
        nearest=nearest,
    )


def wrong_lengths(prepared: PreparedWorkload, completions: list[Completion]) -> list[SuspectReason]:
    """Whether the engine read prompts of another length than they were padded to.

    Args:
        prepared: what was asked.
        completions: what came back.
    """
    wanted = prepared.n_padded_tokens
    wrong = [each for each in completions if wanted is not None and each.n_prompt_tokens != wanted]
    if not wrong:
        return []
    message = (
        f"{len(wrong)} of {len(completions)} prompts do not have {wanted} tokens, such as {wrong[0].request_id!r} with "
        f"{wrong[0].n_prompt_tokens}."
    )
    return [SuspectReason(code="prompt_length", message=message)]


def _count(engine: Engine, n_words: int) -> int:
    probe = GenerationRequest("length-probe", _messages(-1, n_words), SamplingSpec(max_tokens=1, ignore_eos=True), 0)
    return engine.generate([probe], concurrency=1)[0].n_prompt_tokens


def _padded(item: WorkItem, index: int, n_words: int) -> WorkItem:
    return replace(item, messages=_messages(index, n_words))


def _messages(index: int, n_words: int) -> tuple[dict[str, str], ...]:
    known = _WORDS.split()
    words = [known[i % len(known)] for i in range(n_words)]
    random.Random(index).shuffle(words)
    return ({"role": "user", "content": " ".join([_BEGINNING, *words])},)
