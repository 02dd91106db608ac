"""Checks that all engines share: what is installed, and what fits."""

from collections.abc import Sequence

from contract.errors import InvalidRequestError
from testbed.engines.base import GenerationRequest


def check_concurrency(wanted: int, loaded: int | None) -> None:
    """See that `generate` may keep this many requests in flight.

    Args:
        wanted: requests in flight.
        loaded: what the engine was loaded for; None when it is not loaded.

    Raises:
        InvalidRequestError: it is not loaded, or for fewer.
    """
    if loaded is None:
        raise InvalidRequestError("The engine has no model: call load() before generate().")
    if not 1 <= wanted <= loaded:
        raise InvalidRequestError(
            f"{wanted} requests in flight were asked for; the engine was loaded for 1 to {loaded}. "
            "Raise engine.max_concurrency of the trial.",
            wanted=wanted,
            loaded=loaded,
        )


def check_no_exit(requests: Sequence[GenerationRequest], engine: str) -> None:
    """See that no request asks to leave the model early, where the engine has no such thing.

    Args:
        requests: of the call.
        engine: registry name.

    Raises:
        InvalidRequestError: one does.
    """
    for request in requests:
        if request.exit_layer is not None:
            raise InvalidRequestError(
                f"Request {request.request_id!r} is to leave the model after {request.exit_layer} layers, and the "
                f"engine {engine!r} knows no early exit. Leave out sampling.exit_layers, or take the engine "
                "transformers.",
                request_id=request.request_id,
                exit_layer=request.exit_layer,
            )


def room_for_answer(request: GenerationRequest, n_prompt_tokens: int, max_model_len: int) -> int:
    """Tokens that the context leaves for an answer.

    Args:
        request: of the prompt.
        n_prompt_tokens: of its rendered prompt.
        max_model_len: tokens that the context holds.

    Raises:
        InvalidRequestError: none, or with `ignore_eos` fewer than were asked for.
    """
    room = max_model_len - n_prompt_tokens
    if room < 1:
        raise prompt_too_long(request.request_id, n_prompt_tokens, max_model_len)
    if request.sampling.ignore_eos and room < request.sampling.max_tokens:
        raise answer_cut_short(request.request_id, room, request.sampling.max_tokens, max_model_len)
    return room


def prompt_too_long(request_id: str, n_prompt_tokens: int, max_model_len: int) -> InvalidRequestError:
    """The error for a prompt that leaves no room for an answer."""
    return InvalidRequestError(
        f"Request {request_id!r} has a prompt of {n_prompt_tokens} tokens; the context holds {max_model_len}, of which "
        "at least one is for the answer. Raise model.max_model_len, or leave out the item.",
        request_id=request_id,
        n_prompt_tokens=n_prompt_tokens,
        max_model_len=max_model_len,
    )


def answer_cut_short(request_id: str, n_output_tokens: int, wanted: int, max_model_len: int) -> InvalidRequestError:
    """The error for `ignore_eos` when prompt and `max_tokens` together exceed the context."""
    return InvalidRequestError(
        f"Request {request_id!r} asks for exactly {wanted} tokens (ignore_eos), but the context of {max_model_len} "
        f"leaves room for {n_output_tokens} after its prompt. Raise model.max_model_len, or lower sampling.max_tokens.",
        request_id=request_id,
        n_output_tokens=n_output_tokens,
        max_model_len=max_model_len,
    )
