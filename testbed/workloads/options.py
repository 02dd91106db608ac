"""A workload's own options: declared as a model, refused with a message that lists them."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import InvalidOptionError


class WorkloadOptions(BaseModel):
    """Base of all workloads' options: no unknown names, no silent conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


OptionsT = TypeVar("OptionsT", bound=WorkloadOptions)


def parse_options(workload: str, model: type[OptionsT], options: Mapping[str, Any]) -> OptionsT:
    """Check a workload's options.

    Args:
        workload: its registry name, for the message.
        model: the options it knows.
        options: as in `WorkloadSpec.options`.

    Raises:
        InvalidOptionError: an unknown or missing option, or an impossible value; all of them are named.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        wrong = "; ".join(_tell(each) for each in error.errors())
        raise InvalidOptionError(
            f"Workload {workload!r}: {wrong}. Known options: {known}. Change workload.options of the trial.",
            workload=workload,
            known=list(model.model_fields),
        ) from error


def _tell(problem: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in problem["loc"]) or "options"
    if problem["type"] == "extra_forbidden":
        return f"there is no option {name!r}"
    if problem["type"] == "missing":
        return f"option {name!r} is missing"
    return f"option {name!r} cannot be {problem['input']!r} ({problem['msg']})"
