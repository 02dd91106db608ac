"""vLLM on CUDA or CPU: loops over the engine's own steps, in this process, or beside it as its server does."""

import gc
import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from contract.errors import EngineError, InvalidOptionError, ModelLoadError
from contract.trial_result import LoadReport
from contract.trial_spec import ModelSpec
from testbed.engines.base import Completion, GenerationRequest, RequestSource
from testbed.engines.checks import check_concurrency, check_no_exit, room_for_answer
from testbed.engines.model_source import ModelFiles, check_model, find_model
from testbed.engines.vllm_front import AsyncFront, Front, StepFront
from testbed.engines.vllm_settings import VllmOptions, prepare_environment, read_back, version
from testbed.engines.weights_cache import cache_root, require_unpacker, unpacked_gguf, weights_revision
from testbed.options import parse_options

_KINDS = ("folder", "gguf")


@dataclass
class _Flight:
    """A request that is being answered."""

    index: int
    prompt_ids: list[int]
    prompt_sha256: str
    submitted_ns: int = 0
    texts: list[str] = field(default_factory=list)
    has_ended: bool = False
    token_ns: list[int] = field(default_factory=list)


class VllmEngine:
    """See `Engine`.

    Args:
        cache: folder of the caches; None means JOULEBED_CACHE or the user's.
        **options: see `VllmOptions`.

    Raises:
        InvalidOptionError: an unknown or impossible option.
    """

    name = "vllm"

    def __init__(self, *, cache: Path | None = None, **options: Any) -> None:
        self._options = parse_options("engine", self.name, VllmOptions, options)
        self._cache = cache or cache_root()
        self._front: Front | None = None
        self._tokenizer: Any = None
        self._started = False
        self._template_date = ""
        self._max_concurrency: int | None = None
        self._call_ids = itertools.count()

    def check(self, model: ModelSpec) -> None:
        """See `Engine`.

        Raises:
            MissingPackageError: a GGUF file, without the packages that unpack it.
        """
        files = check_model(model, _KINDS)
        if files is not None and files.kind == "gguf":
            require_unpacker(files.path)

    def load(self, model: ModelSpec, *, max_concurrency: int, seed: int) -> LoadReport:
        """See `Engine`. The first load of a GGUF file unpacks it, which is part of `load_s`."""
        start_ns = time.monotonic_ns()
        max_num_seqs = self._options.max_num_seqs or max_concurrency
        if max_num_seqs < max_concurrency:
            raise InvalidOptionError(
                f"max_num_seqs {max_num_seqs} is less than the {max_concurrency} requests that are to be in flight: "
                "they would queue inside vLLM. Raise max_num_seqs, or leave it out."
            )
        files = find_model(model)
        revision = weights_revision(files, self._cache)
        prepare_environment(self._options.threads, self._options.kv_cache_gib)
        folder = unpacked_gguf(files.path, self._cache) if files.kind == "gguf" else files.path
        self._start(model, folder, max_num_seqs, seed)
        settings = read_back(self._loaded.config, self._options.drive)
        self._refuse_other_threads(settings.get("threads"))
        # As Llama 3's chat templates print it.
        self._template_date = model.chat_template_date.strftime("%d %b %Y")
        self._max_concurrency = max_concurrency
        return LoadReport(
            engine=self.name,
            engine_version=version(),
            model_name=model.name,
            model_source=model.source,
            model_revision=revision,
            max_model_len=self._max_model_len,
            load_s=(time.monotonic_ns() - start_ns) / 1e9,
            settings={**settings, "weights": _describe(files)},
        )

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """See `Engine`. All prompts are rendered and checked before the first is sent."""
        check_concurrency(concurrency, self._max_concurrency)
        check_no_exit(requests, self.name)
        waiting = deque(self._render(index, request) for index, request in enumerate(requests))
        # A warm engine would otherwise answer a repetition out of the keys and values of the one before.
        front = self._loaded
        front.reset_prefix_cache()
        call = next(self._call_ids)
        in_flight: dict[str, _Flight] = {}
        done: dict[int, Completion] = {}
        try:
            while waiting or in_flight:
                while waiting and len(in_flight) < concurrency:
                    self._begin(call, waiting.popleft(), requests, in_flight)
                for index, completion in self._advance(requests, in_flight):
                    done[index] = completion
                    if on_completion is not None:
                        on_completion(completion)
        finally:
            if in_flight:
                front.abort(list(in_flight))
        return [done[index] for index in range(len(requests))]

    def serve(
        self,
        requests: Sequence[GenerationRequest],
        source: RequestSource,
        *,
        on_completion: Callable[[Completion], None],
    ) -> None:
        """See `ContinuousEngine`. Requests join vLLM's running batch between two of its steps."""
        check_no_exit(requests, self.name)
        rendered = [self._render(index, request) for index, request in enumerate(requests)]
        front = self._loaded
        front.reset_prefix_cache()
        call = next(self._call_ids)
        in_flight: dict[str, _Flight] = {}
        try:
            while True:
                for index in source.take(len(in_flight)):
                    check_concurrency(len(in_flight) + 1, self._max_concurrency)
                    self._begin(call, rendered[index], requests, in_flight)
                if in_flight:
                    for _, completion in self._advance(requests, in_flight):
                        on_completion(completion)
                elif not source.wait():
                    return
        finally:
            if in_flight:
                front.abort(list(in_flight))

    def _begin(
        self, call: int, flight: _Flight, requests: Sequence[GenerationRequest], in_flight: dict[str, _Flight]
    ) -> None:
        engine_id = f"{call}-{flight.index}"
        flight.submitted_ns = time.monotonic_ns()
        in_flight[engine_id] = flight
        self._submit(engine_id, flight, requests[flight.index])

    def _advance(
        self, requests: Sequence[GenerationRequest], in_flight: dict[str, _Flight]
    ) -> Iterator[tuple[int, Completion]]:
        """One step of vLLM; what it finished, out of `in_flight`."""
        outputs = self._step()
        now_ns = time.monotonic_ns()
        for output in outputs:
            flight = in_flight[output.request_id]
            part = output.outputs[0]
            if not flight.has_ended:
                # What a model says after its end (`ignore_eos`) is work, and no part of the answer.
                flight.texts.append(part.text)
                flight.has_ended = self._tokenizer.eos_token_id in part.token_ids
            flight.token_ns += [now_ns] * len(part.token_ids)
            if output.finished:
                del in_flight[output.request_id]
                yield flight.index, _complete(flight, requests[flight.index], part.finish_reason, now_ns)

    def close(self) -> None:
        """See `Engine`."""
        if not self._started:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        if self._front is not None:
            self._front.close()
        self._front, self._tokenizer, self._max_concurrency, self._started = None, None, None, False
        gc.collect()
        cleanup_dist_env_and_memory()

    @property
    def _loaded(self) -> Front:
        assert self._front is not None  # check_concurrency has seen to it
        return self._front

    @property
    def _max_model_len(self) -> int:
        return int(self._loaded.config.model_config.max_model_len)

    def _start(self, model: ModelSpec, folder: Path, max_num_seqs: int, seed: int) -> None:
        from transformers import AutoTokenizer
        from vllm.platforms import current_platform

        options = self._options
        eager = current_platform.is_cpu() if options.enforce_eager is None else options.enforce_eager
        optional = {
            "gpu_memory_utilization": options.gpu_memory_utilization,
            "enable_prefix_caching": options.prefix_caching,
            "max_model_len": model.max_model_len,
        }
        self._started = True  # a load that fails half-way leaves process groups behind, too
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            self._front = (AsyncFront if options.drive == "async" else StepFront)(
                {
                    "model": str(folder),
                    # Its own choice falls back on pickled weights, which may run code.
                    "load_format": "safetensors",
                    "dtype": options.dtype,
                    "enforce_eager": eager,
                    "max_num_seqs": max_num_seqs,
                    "tensor_parallel_size": options.tensor_parallel_size,
                    "disable_log_stats": True,
                    "seed": seed,
                    **{name: value for name, value in optional.items() if value is not None},
                }
            )
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            raise ModelLoadError(
                f"vLLM could not load {model.name!r} from {folder} ({type(error).__name__}: {error}). If memory ran "
                "out, lower model.max_model_len or gpu_memory_utilization; the trial's child.log has vLLM's account.",
                model=model.name,
            ) from error
        if self._tokenizer.chat_template is None:
            self.close()
            raise ModelLoadError(
                f"Model {model.name!r} has no chat template: it is a base model. Choose its instruct version.",
                model=model.name,
            )

    def _refuse_other_threads(self, taken: JsonValue) -> None:
        """vLLM fixes the number of threads once in the life of a process; None: not on a CPU."""
        wanted = self._options.threads
        if wanted is not None and taken is not None and taken != wanted:
            self.close()
            raise ModelLoadError(
                f"vLLM computes with {taken} threads in this process, and {wanted} were asked for. Start a fresh "
                "process: engine.lifetime 'trial', or the same option threads in all trials of a block.",
            )

    def _render(self, index: int, request: GenerationRequest) -> _Flight:
        text = self._tokenizer.apply_chat_template(
            [dict(message) for message in request.messages],
            tokenize=False,
            add_generation_prompt=True,
            date_string=self._template_date,
        )
        # The template has written the special tokens already.
        prompt_ids = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        room_for_answer(request, len(prompt_ids), self._max_model_len)
        return _Flight(index, prompt_ids, hashlib.sha256(text.encode()).hexdigest())

    def _submit(self, engine_id: str, flight: _Flight, request: GenerationRequest) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            ignore_eos=sampling.ignore_eos,
            seed=request.seed,
            output_kind=RequestOutputKind.DELTA,
        )
        self._loaded.add(engine_id, flight.prompt_ids, params)

    def _step(self) -> list[Any]:
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            return self._loaded.step()
        except (EngineDeadError, EngineGenerateError, RuntimeError) as error:
            what = "The engine's process has ended" if isinstance(error, EngineDeadError) else "vLLM failed"
            raise EngineError(
                f"{what} while generating ({type(error).__name__}: {error}). If memory ran out, lower concurrency "
                "or model.max_model_len; the trial's child.log has vLLM's own account."
            ) from error


def _describe(files: ModelFiles) -> str:
    return "bfloat16, unpacked from GGUF" if files.kind == "gguf" else "safetensors"


def _complete(flight: _Flight, request: GenerationRequest, finish_reason: str | None, now_ns: int) -> Completion:
    return Completion(
        request_id=request.request_id,
        text="".join(flight.texts),
        prompt_sha256=flight.prompt_sha256,
        n_prompt_tokens=len(flight.prompt_ids),
        n_output_tokens=len(flight.token_ns),
        finish_reason=finish_reason or "stop",
        submitted_ns=flight.submitted_ns,
        token_ns=tuple(flight.token_ns),
        finished_ns=now_ns,
    )
