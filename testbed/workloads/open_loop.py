"""Requests that arrive by the clock: drawn before it starts, with their lengths, from stored seeds."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from contract.errors import InvalidOptionError, WorkloadNotFoundError
from contract.trial_result import TaskScore
from contract.units import Identifier
from testbed.data_folder import REQUEST_TRACES, named_file
from testbed.options import PartOptions, parse_options
from testbed.simulation.arrivals import ArrivalSpec, draw_arrivals
from testbed.workloads.base import PreparedWorkload, Verdict, WorkItem
from testbed.workloads.request_trace import BUCKET_NAMES, TracedRequest, length_bucket, read_trace

_WORDS = ("river", "stone", "lamp", "paper", "engine", "field", "copper", "window", "harbour", "thread")
_BUCKETS = tuple(f"{one}-{other}" for one in BUCKET_NAMES for other in BUCKET_NAMES)


class ArrivalOptions(PartOptions):
    """When requests arrive: see `testbed.simulation.arrivals.ArrivalSpec`."""

    kind: Literal["poisson", "gamma", "trace"] = "poisson"
    rate_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Mean rate. Of a recorded trace: None keeps its own."""
    cv: float | None = None
    """Of gamma: coefficient of variation of the gaps; 1 is Poisson, more comes in bursts."""
    trace_s: list[float] | None = None
    """Of a trace: recorded arrivals, seconds, rising. They travel in the plan."""


class OpenLoopOptions(PartOptions):
    """Options of the open loop."""

    duration_s: float = Field(gt=0, le=1e6, allow_inf_nan=False)
    """Requests arrive for so long."""
    arrivals: ArrivalOptions
    arrival_seed: int = Field(ge=0)
    """Of arrivals and lengths. The same for all policies that are to be compared: they then meet the same requests."""
    trace: Identifier | None = None
    """File of requests in the testbed's folder `request_traces`, see `testbed traces convert`. None: prompts of our own
    with the two lengths below."""
    bucket: str | None = None
    """Of a file: only requests of this length bucket, such as `short-long`."""
    n_input_tokens: int | None = Field(default=None, gt=0)
    """Without a file: length of every prompt, met exactly, the chat template included."""
    prompt_words: int | None = Field(default=None, gt=0)
    """Without a file: so many words are sent, and the length is what policies are told. For a simulated server, which
    reads none: an hour of long prompts would be megabytes of made-up text. None: the length is met."""
    n_output_tokens: int | None = Field(default=None, gt=0)
    """Of every answer, met exactly. With a file: in place of its own lengths."""
    max_output_tokens: int | None = Field(default=None, gt=0)
    """Longer answers of a file are asked for so many tokens only."""


class OpenLoopWorkload:
    """See `Workload`. Every item has an arrival; nothing is scored. Needs `TrialSpec.serving`.

    Args:
        folder: of the request traces; None: in the data folder of the testbed that this process belongs to.
        **options: see `OpenLoopOptions`.

    Raises:
        InvalidOptionError: an unknown, missing or impossible option.
    """

    name = "open_loop"

    def __init__(self, *, folder: Path | None = None, **options: Any) -> None:
        self._options = parse_options("workload", self.name, OpenLoopOptions, options)
        self._folder = folder
        given = self._options
        times = given.arrivals.trace_s
        self._arrivals = ArrivalSpec(
            kind=given.arrivals.kind,
            rate_per_s=given.arrivals.rate_per_s,
            cv=given.arrivals.cv,
            trace_s=None if times is None else tuple(times),
        )
        if given.trace is None and (given.n_input_tokens is None or given.n_output_tokens is None):
            raise self._wrong("give a trace, or both n_input_tokens and n_output_tokens")
        if given.trace is None and (given.bucket is not None or given.max_output_tokens is not None):
            raise self._wrong("bucket and max_output_tokens choose from a trace, and there is none")
        if given.trace is not None and (given.n_input_tokens is not None or given.prompt_words is not None):
            raise self._wrong("prompts of a trace have their own length: leave out n_input_tokens and prompt_words")
        if given.bucket is not None and given.bucket not in _BUCKETS:
            raise self._wrong(f"there is no length bucket {given.bucket!r}; choose one of: {', '.join(_BUCKETS)}")

    def prepare(self) -> PreparedWorkload:
        """See `Workload`. Arrivals first, then a request for each, drawn with replacement.

        Raises:
            InvalidOptionError: nothing arrives, or the file is not there.
            WorkloadNotFoundError: the file cannot be read, or has no request of the bucket.
        """
        options = self._options
        times_s = draw_arrivals(self._arrivals, options.duration_s, options.arrival_seed)
        if not times_s.size:
            raise self._wrong(f"no request arrives in {options.duration_s:g} s: raise the rate or the duration")
        draw = random.Random(f"open_loop/{options.arrival_seed}")
        settings: dict[str, str | int | float | bool | None] = {
            "duration_s": options.duration_s,
            "arrival_kind": options.arrivals.kind,
            "rate_per_s": self._arrivals.mean_rate_per_s,
            "cv": options.arrivals.cv,
            "arrival_seed": options.arrival_seed,
            "n_requests": int(times_s.size),
        }
        if options.trace is None:
            items = self._made_up(times_s.tolist(), draw)
            source = f"prompts of JouleBed's own of {options.n_input_tokens} tokens"
            if options.prompt_words is not None:
                source = f"placeholders of {options.prompt_words} words that stand for prompts of "
                source += f"{options.n_input_tokens} tokens"
            settings |= {"n_input_tokens": options.n_input_tokens, "n_output_tokens": options.n_output_tokens}
            settings |= {"prompt_words": options.prompt_words}
        else:
            path = named_file(REQUEST_TRACES, options.trace, os.environ, folder=self._folder)
            trace = read_trace(path)
            known = [each for each in map(self._request, trace.requests) if each is not None]
            if not known:
                raise WorkloadNotFoundError(
                    f"{path} has no request of bucket {options.bucket!r}, or no lengths: convert it with --tokenizer, "
                    "or give n_output_tokens.",
                    path=str(path),
                )
            items = tuple(self._traced(i, time_s, draw.choice(known)) for i, time_s in enumerate(times_s.tolist()))
            source = f"{options.trace}, {len(known)} of {len(trace.requests)} requests to draw from"
            settings |= {"trace": options.trace, "trace_sha256": trace.sha256, "bucket": options.bucket}
        arrive = "as recorded" if options.arrivals.kind == "trace" else f"{options.arrivals.kind} arrivals"
        return PreparedWorkload(
            items=items,
            source=f"{source}; {arrive}, {self._arrivals.mean_rate_per_s:g}/s for {options.duration_s:g} s",
            settings=settings,
            duration_s=options.duration_s,
            n_padded_tokens=options.n_input_tokens if options.prompt_words is None else None,
        )

    def judge(self, item: WorkItem, answer: str) -> Verdict:
        """See `Workload`: there is nothing to judge."""
        return Verdict(predicted_label=None, is_correct=None)

    def score(self, items: Sequence[WorkItem], verdicts: Sequence[Verdict]) -> TaskScore | None:
        """See `Workload`: there is no score."""
        return None

    def _made_up(self, times_s: Sequence[float], draw: random.Random) -> tuple[WorkItem, ...]:
        n_input, n_output = self._options.n_input_tokens, self._options.n_output_tokens
        assert n_input is not None
        items = []
        for index, time_s in enumerate(times_s):
            # A number first: engines that keep prompts must not find two alike.
            words = [str(index), *(draw.choice(_WORDS) for _ in range((self._options.prompt_words or n_input) - 1))]
            items.append(_item(f"open-{index}", " ".join(words), time_s, n_input, n_output))
        return tuple(items)

    def _request(self, request: TracedRequest) -> tuple[TracedRequest, int] | None:
        """A request with the length that is asked for; None where it is not of the bucket, or nobody has counted."""
        options = self._options
        n_output = request.n_output_tokens
        if options.bucket is not None and (
            request.n_input_tokens is None
            or n_output is None
            or length_bucket(request.n_input_tokens, n_output) != options.bucket
        ):
            return None
        wanted = options.n_output_tokens or n_output
        return None if wanted is None else (request, min(wanted, options.max_output_tokens or wanted))

    def _traced(self, index: int, time_s: float, chosen: tuple[TracedRequest, int]) -> WorkItem:
        request, n_output_tokens = chosen
        # Drawn with replacement: the place makes the id unique, the conversation is told in it.
        name = f"open-{index}-{request.conversation_id}"
        return _item(name, request.prompt, time_s, request.n_input_tokens, n_output_tokens)

    def _wrong(self, text: str) -> InvalidOptionError:
        return InvalidOptionError(f"Workload {self.name!r}: {text}. Change workload.options of the trial.")


def _item(name: str, text: str, time_s: float, n_input_tokens: int | None, n_output_tokens: int | None) -> WorkItem:
    message = {"role": "user", "content": text}
    return WorkItem(
        item_id=name,
        messages=(message,),
        gold_label=None,
        n_output_tokens=n_output_tokens,
        arrival_s=time_s,
        n_input_tokens=n_input_tokens,
    )
