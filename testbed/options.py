"""A part's own options: declared as a model, refused with a message that lists them."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import InvalidOptionError


class PartOptions(BaseModel):
    """Base of the options of engines and workloads: no unknown names, no silent conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


OptionsT = TypeVar("OptionsT", bound=PartOptions)


def parse_options(seam: str, name: str, model: type[OptionsT], options: Mapping[str, Any]) -> OptionsT:
    """Check the options that a spec gives to a part.

    Args:
        seam: `engine` or `workload`, for the message: the field of the spec.
        name: the part's registry name.
        model: the options it knows.
        options: as in the spec.

    Raises:
        InvalidOptionError: an unknown or missing option, or an impossible value; all of them are named.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        known = ", ".join(model.model_fields) or "none"
        wrong = "; ".join(_tell(each) for each in error.errors())
        raise InvalidOptionError(
            f"{seam.capitalize()} {name!r}: {wrong}. Known options: {known}. Change {seam}.options of the trial.",
            name=name,
            known=list(model.model_fields),
        ) from error


def _tell(problem: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in problem["loc"]) or "options"
    if problem["type"] == "extra_forbidden":
        return f"there is no option {name!r}"
    if problem["type"] == "missing":
        return f"option {name!r} is missing"
    return f"option {name!r} cannot be {problem['input']!r} ({problem['msg']})"
