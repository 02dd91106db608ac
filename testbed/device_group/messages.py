"""What the trial's process and the processes of its devices tell each other: one JSON object a line.

| to the device | |
|---|---|
| `load` | its TrialSpec |
| `log` | a file that takes its output from now on |
| `requests` | what to answer, and how many in flight; answered by `ready` |
| `go` | the instant at which to start, in nanoseconds of the machine's monotonic clock |
| `close` | the end; so is the end of its input |

| from the device | |
|---|---|
| `loaded` | its LoadReport |
| `ready` | it has its requests, and waits at the barrier |
| `done` | one request was answered |
| `generated` | all were: the answers, its own marks, CPU seconds and memory |
| `failed` | an ErrorBody; it ends |
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import IO, Any

from contract.trial_spec import SamplingSpec
from testbed.engines.base import Completion, GenerationRequest

Message = dict[str, Any]


def send(stream: IO[str], message: Mapping[str, Any]) -> None:
    """Write one line.

    Raises:
        OSError: nobody reads it any more.
    """
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def parse(line: str) -> Message | None:
    """A line's message; None for anything else, such as what a library prints."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and "what" in message else None


def pack_requests(requests: Sequence[GenerationRequest]) -> list[Message]:
    """Requests as JSON."""
    return [
        {
            "request_id": each.request_id,
            "messages": list(each.messages),
            "sampling": each.sampling.model_dump(mode="json"),
            "seed": each.seed,
            "exit_layer": each.exit_layer,
        }
        for each in requests
    ]


def unpack_requests(packed: Sequence[Message]) -> list[GenerationRequest]:
    """The other way round."""
    return [
        GenerationRequest(
            each["request_id"],
            tuple(each["messages"]),
            SamplingSpec.model_validate(each["sampling"]),
            each["seed"],
            each["exit_layer"],
        )
        for each in packed
    ]


def pack_completions(completions: Sequence[Completion]) -> list[Message]:
    """Answers as JSON."""
    return [asdict(each) for each in completions]


def unpack_completions(packed: Sequence[Message]) -> list[Completion]:
    """The other way round."""
    return [Completion(**_with_tuples(each)) for each in packed]


def _with_tuples(packed: Message) -> Message:
    # JSON has none.
    return {name: tuple(value) if isinstance(value, list) else value for name, value in packed.items()}
