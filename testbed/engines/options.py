"""An engine's own options: declared as a model, refused with a message that lists them."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import InvalidOptionError, InvalidRequestError, MissingPackageError


class EngineOptions(BaseModel):
    """Base of all engines' options: no unknown names, no silent conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


OptionsT = TypeVar("OptionsT", bound=EngineOptions)


def parse_options(engine: str, model: type[OptionsT], options: Mapping[str, Any]) -> OptionsT:
    """Check an engine's options.

    Args:
        engine: its registry name, for the message.
        model: the options it knows.
        options: as in `EngineSpec.options`.

    Raises:
        InvalidOptionError: an unknown option, or an impossible value; all of them are named.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        known = ", ".join(model.model_fields) or "none"
        wrong = "; ".join(_tell(each) for each in error.errors())
        raise InvalidOptionError(
            f"Engine {engine!r}: {wrong}. Known options: {known}. Change engine.options of the trial.",
            engine=engine,
            known=list(model.model_fields),
        ) from error


def _tell(problem: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in problem["loc"]) or "options"
    if problem["type"] == "extra_forbidden":
        return f"there is no option {name!r}"
    return f"option {name!r} cannot be {problem['input']!r} ({problem['msg']})"


def require_package(engine: str, module: str, extra: str) -> None:
    """See that an engine's library is installed, without importing it.

    Raises:
        MissingPackageError: it is not; the message names the extra.
    """
    if find_spec(module) is None:
        raise MissingPackageError(
            f"The engine {engine!r} needs the package {module!r}. On the testbed, run: pip install 'joulebed[{extra}]'",
            name=engine,
            extra=extra,
        )


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
