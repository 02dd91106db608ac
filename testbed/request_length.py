"""How many tokens a request asks for, and whether that can fit into the context."""

from collections.abc import Sequence

from contract.errors import InvalidRequestError
from contract.trial_spec import SamplingSpec
from testbed.workloads.base import WorkItem


def sampling_of(sampling: SamplingSpec, item: WorkItem) -> SamplingSpec:
    """How an item is sampled: as the trial says, unless the item has a length of its own.

    Args:
        sampling: the trial's.
        item: to be asked.
    """
    if item.n_output_tokens is None:
        return sampling
    return sampling.model_copy(update={"max_tokens": item.n_output_tokens, "ignore_eos": True})


def refuse_what_cannot_fit(
    items: Sequence[WorkItem], sampling: SamplingSpec, max_model_len: int | None, where: str = "model.max_model_len"
) -> None:
    """See that answers of an exact length have room beside their prompts, before anything is loaded for them.

    No tokenizer is needed: a prompt has at least a token for each of its words. So a request that is let through
    may still be too long by a few tokens: then the engine refuses it.

    Args:
        items: to be asked.
        sampling: the trial's.
        max_model_len: context in tokens; None where it is not known yet.
        where: who said so, for the message.

    Raises:
        InvalidRequestError: one cannot fit; the message names it with both lengths.
    """
    if max_model_len is None:
        return
    for item in items:
        wanted = sampling_of(sampling, item)
        n_words = sum(len(message["content"].split()) for message in item.messages)
        if wanted.ignore_eos and n_words + wanted.max_tokens > max_model_len:
            raise InvalidRequestError(
                f"Request {item.item_id!r} is to generate exactly {wanted.max_tokens} tokens after a prompt of at "
                f"least {n_words}, and the context ({where}) has {max_model_len}. Raise model.max_model_len, up to "
                "what the model was made for, or generate fewer tokens.",
                request_id=item.item_id,
                n_output_tokens=wanted.max_tokens,
                n_prompt_words=n_words,
                max_model_len=max_model_len,
            )
