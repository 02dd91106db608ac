"""An engine without a model: deterministic answers at a given speed, and failures to order."""

import heapq
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, Literal, Never

from pydantic import Field

from contract.errors import EngineError
from contract.trial_result import LoadReport
from contract.trial_spec import ModelSpec
from contract.units import canonical_json, sha256_of
from testbed.clock import Clock, SystemClock
from testbed.engines.base import Completion, GenerationRequest, RequestSource
from testbed.engines.checks import check_concurrency, check_no_exit, room_for_answer
from testbed.engines.made_up import check_made_up, made_up_report
from testbed.options import PartOptions, parse_options

_EXIT_STATUS = 17
_DEFAULT_MODEL_LEN = 8192
_FILLER = ("because", "that", "is", "what", "the", "text", "says")


class FakeOptions(PartOptions):
    """Options of the fake engine."""

    tokens_per_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Of each request in flight; 0 answers at once."""
    load_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """How long a load takes."""
    answers: list[str] = Field(default=["yes", "no"], min_length=1)
    """What an answer begins with: chosen by a hash of the request, so that about half of two are right."""
    fail_on: int | None = Field(default=None, ge=0)
    """Index, in a call of `generate`, of the request that raises EngineError instead of being answered."""
    die: Literal["segv", "exit", "hang"] | None = None
    """How the process ends instead of answering: a segmentation fault, exit status 17, or no progress for ever."""
    die_on: int = Field(default=0, ge=-1)
    """Index of the request at which it dies, in a call of `generate`; -1 dies while loading."""


class FakeEngine:
    """See `Engine`. Takes models of source `fake:NAME`; `fake:missing` is not there.

    Args:
        clock: what waits.
        **options: see `FakeOptions`.

    Raises:
        InvalidOptionError: an unknown or impossible option.
    """

    name = "fake"

    def __init__(self, *, clock: Clock | None = None, **options: Any) -> None:
        self._options = parse_options("engine", self.name, FakeOptions, options)
        self._clock = clock or SystemClock()
        self._model: ModelSpec | None = None
        self._max_concurrency: int | None = None

    def check(self, model: ModelSpec) -> None:
        """See `Engine`."""
        check_made_up(model, "fake", ". Write fake:NAME, or choose a real engine.")

    def load(self, model: ModelSpec, *, max_concurrency: int, seed: int) -> LoadReport:
        """See `Engine`."""
        self.check(model)
        start_ns = self._clock.monotonic_ns()
        self._clock.sleep(self._options.load_s)
        if self._options.die is not None and self._options.die_on < 0:
            self._end_process()
        self._model, self._max_concurrency = model, max_concurrency
        return made_up_report(
            self.name,
            model,
            {**self._options.model_dump(mode="json"), "max_concurrency": max_concurrency, "seed": seed},
            load_s=(self._clock.monotonic_ns() - start_ns) / 1e9,
            max_model_len=self._max_model_len,
        )

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """See `Engine`."""
        check_concurrency(concurrency, self._max_concurrency)
        check_no_exit(requests, self.name)
        planned = self._plan(requests, concurrency)
        for index in sorted(range(len(planned)), key=lambda i: (planned[i].finished_ns, i)):
            done = planned[index]
            self._clock.sleep(max(done.finished_ns - self._clock.monotonic_ns(), 0) / 1e9)
            if index == self._options.fail_on:
                raise EngineError(
                    f"The fake engine fails on request {index} ({done.request_id!r}), as option fail_on says."
                )
            if self._options.die is not None and index == self._options.die_on:
                self._end_process()
            if on_completion is not None:
                on_completion(done)
        return planned

    def serve(
        self,
        requests: Sequence[GenerationRequest],
        source: RequestSource,
        *,
        on_completion: Callable[[Completion], None],
    ) -> None:
        """See `ContinuousEngine`. Each request makes its tokens at the engine's speed, whatever the others do."""
        check_no_exit(requests, self.name)
        token_ns = round(1e9 / self._options.tokens_per_s) if self._options.tokens_per_s else 0
        for request in requests:
            self._answer(request, 0, token_ns)  # refuses what does not fit, before anything is taken
        in_flight: list[tuple[int, int, Completion]] = []  # a heap, by the end
        while True:
            for index in source.take(len(in_flight)):
                check_concurrency(len(in_flight) + 1, self._max_concurrency)
                done = self._answer(requests[index], self._clock.monotonic_ns(), token_ns)
                heapq.heappush(in_flight, (done.finished_ns, index, done))
            if not in_flight:
                if not source.wait():
                    return
                continue
            # A step: one token, or what is left to the next end.
            end_ns = in_flight[0][0]
            left_ns = max(end_ns - self._clock.monotonic_ns(), 0)
            self._clock.sleep(min(left_ns, token_ns or left_ns) / 1e9)
            while in_flight and in_flight[0][0] <= self._clock.monotonic_ns():
                on_completion(heapq.heappop(in_flight)[2])

    def close(self) -> None:
        """See `Engine`."""
        self._model = self._max_concurrency = None

    @property
    def _max_model_len(self) -> int:
        return (self._model.max_model_len if self._model else None) or _DEFAULT_MODEL_LEN

    def _plan(self, requests: Sequence[GenerationRequest], concurrency: int) -> list[Completion]:
        """All answers with their times, worked out before any waiting: a closed loop over `concurrency` slots."""
        token_ns = round(1e9 / self._options.tokens_per_s) if self._options.tokens_per_s else 0
        free_ns = [self._clock.monotonic_ns()] * concurrency  # already a heap
        planned = []
        for request in requests:
            start_ns = heapq.heappop(free_ns)
            done = self._answer(request, start_ns, token_ns)
            heapq.heappush(free_ns, done.finished_ns)
            planned.append(done)
        return planned

    def _answer(self, request: GenerationRequest, start_ns: int, token_ns: int) -> Completion:
        assert self._model is not None  # check_concurrency has seen to it
        prompt = canonical_json([request.messages, self._model.chat_template_date.isoformat()])
        n_prompt_tokens = len(prompt.split())
        room = room_for_answer(request, n_prompt_tokens, self._max_model_len)
        limit = min(request.sampling.max_tokens, room)
        # Greedy answers do not depend on the seed, drawn ones do: as with a real engine.
        seed = request.seed if request.sampling.temperature > 0 else 0
        draw = int(sha256_of([prompt, self._model.source, seed])[:12], 16)
        n_tokens = limit if request.sampling.ignore_eos else 1 + draw % limit
        words = [self._options.answers[draw % len(self._options.answers)]]
        words += [_FILLER[(draw + i) % len(_FILLER)] for i in range(n_tokens - 1)]
        times_ns = tuple(start_ns + (i + 1) * token_ns for i in range(n_tokens))
        return Completion(
            request_id=request.request_id,
            text=" ".join(words),
            prompt_sha256=sha256_of(prompt),
            n_prompt_tokens=n_prompt_tokens,
            n_output_tokens=n_tokens,
            finish_reason="length" if n_tokens == limit else "stop",
            submitted_ns=start_ns,
            token_ns=times_ns,
            finished_ns=times_ns[-1],
        )

    def _end_process(self) -> Never:
        if self._options.die == "exit":
            os._exit(_EXIT_STATUS)
        if self._options.die == "segv":
            os.kill(os.getpid(), signal.SIGSEGV)
        while True:
            self._clock.sleep(3600.0)
