"""llama.cpp inside this process, through xllamacpp: as many parallel slots as requests in flight."""

import gc
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from contract.errors import EngineError, InvalidOptionError, JouleBedError, ModelLoadError
from contract.trial_result import LoadReport
from contract.trial_spec import ModelSpec
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.checks import (
    answer_cut_short,
    check_concurrency,
    check_no_exit,
    prompt_too_long,
)
from testbed.engines.llama_cpp_log import caught_log, read_load_log
from testbed.engines.llama_cpp_settings import (
    ControlSocket,
    LlamaCppOptions,
    check_gpu,
    common_params,
    gpu_names,
    read_back,
    slot_ctx,
)
from testbed.engines.model_source import check_model, find_model, require_kind
from testbed.engines.weights_cache import cache_root, weights_revision
from testbed.options import parse_options

_KINDS = ("gguf",)
# The same two as vLLM, in its order: llama.cpp's own default chain would also cut by rank and by minimum probability.
_SAMPLERS = ["temperature", "top_p"]


class _Answer:
    """Collects the pieces of one streamed answer; `take` is llama.cpp's callback.

    Args:
        stopping: set when the answer is no longer wanted.
    """

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self.texts: list[str] = []
        self.token_ns: list[int] = []
        self.finish_reason = ""
        self.prompt = ""
        self.usage: dict[str, int] = {}
        self.error: dict[str, Any] | None = None
        self.timings: dict[str, Any] = {}

    def take(self, chunk: dict[str, Any]) -> bool:
        """Note a piece; true asks llama.cpp to stop."""
        now_ns = time.monotonic_ns()
        self.error = chunk.get("error", self.error)
        self.usage = chunk.get("usage", self.usage)
        self.prompt = chunk.get("__verbose", {}).get("prompt", self.prompt)
        for choice in chunk.get("choices", ()):
            self.texts.append(choice["delta"].get("content") or "")
            self.finish_reason = choice["finish_reason"] or self.finish_reason
        # A piece carries several tokens where one alone is not a whole character; the last may carry none.
        self.timings = chunk.get("timings", self.timings)
        n_tokens = max(self.timings.get("predicted_n", 0), self.usage.get("completion_tokens", 0))
        self.token_ns += [now_ns] * (n_tokens - len(self.token_ns))
        return self._stopping.is_set()


class LlamaCppEngine:
    """See `Engine`. Takes GGUF files.

    Args:
        **options: see `LlamaCppOptions`.

    Raises:
        InvalidOptionError: an unknown or impossible option.
    """

    name = "llama_cpp"

    def __init__(self, **options: Any) -> None:
        self._options = parse_options("engine", self.name, LlamaCppOptions, options)
        self._server: Any = None
        self._control: ControlSocket | None = None
        self._max_concurrency: int | None = None
        self._slot_ctx = 0
        self._template_date = ""

    def check(self, model: ModelSpec) -> None:
        """See `Engine`."""
        self._check_context(model)
        check_model(model, _KINDS)

    def load(self, model: ModelSpec, *, max_concurrency: int, seed: int) -> LoadReport:
        """See `Engine`. llama.cpp has no seed of its own: each request brings one."""
        self._check_context(model)
        start_ns = time.monotonic_ns()
        check_model(model, _KINDS)
        files = find_model(model)
        require_kind(model, files, _KINDS)
        revision = weights_revision(files, cache_root())
        import xllamacpp

        gpus = gpu_names()
        check_gpu(self._options, gpus)
        self._control = ControlSocket()
        params = common_params(files.path, self._options, model.max_model_len, max_concurrency, self._control)
        with caught_log() as log:
            try:
                self._server = xllamacpp.Server(params)
            except RuntimeError as error:
                self.close()
                raise ModelLoadError(
                    f"llama.cpp could not load {files.path} ({error}). Its own account is in the trial's child.log: a "
                    "damaged file must be fetched again; where memory ran out, lower model.max_model_len, "
                    "max_concurrency or n_gpu_layers.",
                    path=str(files.path),
                ) from error
            told = read_load_log(log(), has_gpu=bool(gpus))
        props = self._control.get("/props", str(self._server.listening_address))
        self._slot_ctx = slot_ctx(props)
        if model.max_model_len is not None and self._slot_ctx < model.max_model_len:
            self.close()
            raise ModelLoadError(
                f"Model {model.name!r} has a context of {self._slot_ctx} tokens; {model.max_model_len} were asked for. "
                "Lower model.max_model_len.",
                model=model.name,
            )
        self._max_concurrency = max_concurrency
        # As Llama 3's chat templates print it.
        self._template_date = model.chat_template_date.strftime("%d %b %Y")
        return LoadReport(
            engine=self.name,
            engine_version=f"xllamacpp {metadata.version('xllamacpp')}",
            model_name=model.name,
            model_source=model.source,
            model_revision=revision,
            max_model_len=self._slot_ctx,
            load_s=(time.monotonic_ns() - start_ns) / 1e9,
            settings=read_back(params, props, self._options, told, gpus),
        )

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """See `Engine`. One waiting thread for each request in flight; this thread only collects."""
        check_concurrency(concurrency, self._max_concurrency)
        check_no_exit(requests, self.name)
        outcomes: queue.SimpleQueue[tuple[int, Completion | JouleBedError]] = queue.SimpleQueue()
        stopping = threading.Event()
        numbered = iter(enumerate(requests))
        taking = threading.Lock()

        def work() -> None:
            while not stopping.is_set():
                with taking:
                    index, request = next(numbered, (-1, None))
                    submitted_ns = time.monotonic_ns()
                if request is None:
                    return
                try:
                    outcomes.put((index, self._answer(request, submitted_ns, stopping)))
                except JouleBedError as error:
                    outcomes.put((index, error))
                    return

        workers = [threading.Thread(target=work, name=f"slot-{i}", daemon=True) for i in range(concurrency)]
        done: dict[int, Completion] = {}
        try:
            for worker in workers:
                worker.start()
            while len(done) < len(requests):
                index, outcome = outcomes.get()
                if isinstance(outcome, JouleBedError):
                    raise outcome
                done[index] = outcome
                if on_completion is not None:
                    on_completion(outcome)
        finally:
            stopping.set()
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
        return [done[index] for index in range(len(requests))]

    def close(self) -> None:
        """See `Engine`."""
        server, self._server, self._max_concurrency = self._server, None, None
        del server
        gc.collect()  # the server ends its threads when the last reference goes
        if self._control is not None:
            self._control.close()
            self._control = None

    def _check_context(self, model: ModelSpec) -> None:
        n_ctx = self._options.n_ctx
        if n_ctx is not None and model.max_model_len not in (None, n_ctx):
            raise InvalidOptionError(
                f"model.max_model_len is {model.max_model_len} and engine option n_ctx is {n_ctx}: both are the "
                "context of a request. Leave one out."
            )

    def _answer(self, request: GenerationRequest, submitted_ns: int, stopping: threading.Event) -> Completion:
        sampling = request.sampling
        answer = _Answer(stopping)
        try:
            self._server.handle_chat_completions(
                {
                    "messages": [dict(message) for message in request.messages],
                    "chat_template_kwargs": {"date_string": self._template_date},
                    "max_tokens": sampling.max_tokens,
                    "temperature": sampling.temperature,
                    "top_p": sampling.top_p,
                    "samplers": _SAMPLERS,
                    "seed": request.seed,
                    "ignore_eos": sampling.ignore_eos,
                    "cache_prompt": False,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                    "timings_per_token": True,
                    "verbose": True,  # the last piece then carries the rendered prompt
                },
                answer.take,
            )
        except RuntimeError as error:
            raise EngineError(f"llama.cpp failed on request {request.request_id!r} ({error}). Try again.") from error
        finished_ns = time.monotonic_ns()
        self._refuse_incomplete(request, answer)
        return Completion(
            request_id=request.request_id,
            text="".join(answer.texts),
            prompt_sha256=hashlib.sha256(answer.prompt.encode()).hexdigest(),
            n_prompt_tokens=answer.usage["prompt_tokens"],
            n_output_tokens=answer.usage["completion_tokens"],
            finish_reason=answer.finish_reason,
            submitted_ns=submitted_ns,
            token_ns=tuple(answer.token_ns),
            finished_ns=finished_ns,
            engine_prefill_s=_seconds(answer.timings.get("prompt_ms")),
            engine_decode_s=_seconds(answer.timings.get("predicted_ms")),
        )

    def _refuse_incomplete(self, request: GenerationRequest, answer: _Answer) -> None:
        if answer.error is not None:
            if answer.error.get("type") == "exceed_context_size_error":
                raise prompt_too_long(request.request_id, answer.error["n_prompt_tokens"], answer.error["n_ctx"])
            raise EngineError(
                f"llama.cpp refused request {request.request_id!r}: {answer.error.get('message', answer.error)}. The "
                "trial's child.log has its own account."
            )
        if not answer.usage or not answer.prompt or not answer.finish_reason:
            raise EngineError(f"llama.cpp stopped in the middle of request {request.request_id!r}. Try again.")
        n_tokens, wanted = answer.usage["completion_tokens"], request.sampling.max_tokens
        if request.sampling.ignore_eos and n_tokens < wanted:
            raise answer_cut_short(request.request_id, n_tokens, wanted, self._slot_ctx)


def _seconds(ms: Any) -> float | None:
    return float(ms) / 1e3 if isinstance(ms, int | float) and ms >= 0 else None
