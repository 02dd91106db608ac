"""Types shared by every message: SI units, finite numbers, frozen models."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

PROTOCOL_VERSION = 5
"""Version of everything in this package. Two nodes that differ in it do not talk to each other."""

PROTOCOL_HEADER = "JouleBed-Protocol"
"""Request and response header that carries `PROTOCOL_VERSION`."""

Scalar = str | int | float | bool
"""A factor level: what fits one cell of the run table."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A duration, or a time since the attempt's own monotonic origin."""

Joules = Annotated[float, Field(allow_inf_nan=False)]
"""An energy. May be negative only where it is net of a baseline."""

Watts = Annotated[float, Field(allow_inf_nan=False)]

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""A name that is also safe as a file name: no separators, no leading dot."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class WireModel(BaseModel):
    """Base of all messages: immutable, no unknown fields, no NaN."""

    # The names of fields are worth a cache of strings; ids are not: they come once, and fill it with a megabyte.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        ser_json_inf_nan="null",
        cache_strings="keys",
    )


def canonical_json(value: Any) -> str:
    """JSON text with sorted keys and no spaces: equal values give equal text.

    Args:
        value: a pydantic model, or anything `json.dumps` takes.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
