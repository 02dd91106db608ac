"""Requests with their lengths, in one JSONL form, whatever they were converted from.

One object a line:

| field | meaning |
|---|---|
| conversation_id | of the source |
| prompt | the person's first turn |
| n_input_tokens | of the prompt; null: no tokenizer has counted yet |
| n_output_tokens | of the model's first answer; null as above |
| source | `sharegpt`, `lmsys` or `wildchat` |

`testbed traces convert` makes such files: see `testbed.workloads.chat_source`.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import WorkloadNotFoundError

INPUT_EDGES = (256, 1024)
OUTPUT_EDGES = (100, 350)
"""Tokens; at most so many is short, at most the next medium, more is long. Edges of our choice, near those that
DynamoLLM names: state them with a figure."""

BUCKET_NAMES = ("short", "medium", "long")


class TracedRequest(BaseModel):
    """One line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    conversation_id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    n_input_tokens: int | None = Field(default=None, gt=0)
    n_output_tokens: int | None = Field(default=None, gt=0)
    source: str = Field(min_length=1)


@dataclass(frozen=True)
class RequestTrace:
    """A file as it was read.

    Attributes:
        requests: in the order of the file.
        sha256: of the file.
    """

    requests: tuple[TracedRequest, ...]
    sha256: str


def length_bucket(
    n_input_tokens: int,
    n_output_tokens: int,
    input_edges: Sequence[int] = INPUT_EDGES,
    output_edges: Sequence[int] = OUTPUT_EDGES,
) -> str:
    """Name of a length bucket, such as `short-long`: input, then output.

    Args:
        n_input_tokens: of the prompt.
        n_output_tokens: of the answer.
        input_edges: the longest short, and the longest medium prompt.
        output_edges: the same for answers.
    """
    places = (
        sum(n_tokens > edge for edge in edges)
        for n_tokens, edges in ((n_input_tokens, input_edges), (n_output_tokens, output_edges))
    )
    return "-".join(BUCKET_NAMES[place] for place in places)


def read_trace(path: Path) -> RequestTrace:
    """Read a file in the one form.

    Raises:
        WorkloadNotFoundError: it is not there, is empty, or a line of it is no request; the message names file and
            line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WorkloadNotFoundError(f"The requests {path} cannot be read ({error}).", path=str(path)) from error
    requests = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            requests.append(TracedRequest.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise WorkloadNotFoundError(
                f"{path}, line {number} is no request ({where + ': ' if where else ''}{first['msg']}). Convert the "
                "data set again: testbed traces convert.",
                path=str(path),
                line=number,
            ) from error
    if not requests:
        raise WorkloadNotFoundError(f"{path} holds no request. Convert a data set: testbed traces convert.")
    return RequestTrace(tuple(requests), hashlib.sha256(data).hexdigest())


def write_trace(path: Path, requests: Iterable[TracedRequest]) -> int:
    """Write a file in the one form.

    Returns:
        How many requests it has.
    """
    n_requests = 0
    with path.open("w", encoding="utf-8") as file:
        for request in requests:
            file.write(json.dumps(request.model_dump(), ensure_ascii=False) + "\n")
            n_requests += 1
    return n_requests
