"""Hugging Face Transformers inside this process, on CPU or CUDA: static batches, our own loop over the tokens."""

import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

from contract.errors import (
    EngineError,
    InvalidOptionError,
    MemoryExhaustedError,
    MissingPackageError,
    ModelLoadError,
)
from contract.trial_result import LoadReport
from contract.trial_spec import ModelSpec
from testbed.edge_control.phased import PhasedBatch
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.checks import answer_cut_short, check_concurrency, prompt_too_long
from testbed.engines.early_exit import BatchExit, ExitRule, RowExit, exit_rule, request_rule
from testbed.engines.model_source import check_model, find_model
from testbed.engines.pruning import CALIBRATION, Pruned, prune
from testbed.engines.token_choice import TokenChooser
from testbed.engines.transformers_settings import TransformersOptions, read_back
from testbed.engines.weights_cache import cache_root, require_unpacker, unpacked_gguf, weights_revision
from testbed.options import parse_options

_KINDS = ("folder", "gguf")


@dataclass
class _Row:
    """A request in a batch."""

    index: int
    request: GenerationRequest
    prompt_ids: list[int]
    prompt_sha256: str
    chooser: TokenChooser
    submitted_ns: int = 0
    tokens: list[int] = field(default_factory=list)
    token_ns: list[int] = field(default_factory=list)
    finish_reason: str = ""
    early: RowExit | None = None


class TransformersEngine:
    """See `Engine` and `PhasedEngine`. `concurrency` requests make a batch; the next one begins when all are answered.

    A row that is answered stays in its batch, as in the library's own `generate`: its work is part of the batch's
    energy. With one request in flight nothing is padded.

    Args:
        cache: folder of the caches; None means JOULEBED_CACHE or the user's.
        **options: see `TransformersOptions`.

    Raises:
        InvalidOptionError: an unknown or impossible option.
    """

    name = "transformers"

    def __init__(self, *, cache: Path | None = None, **options: Any) -> None:
        self._options = parse_options("engine", self.name, TransformersOptions, options)
        self._cache = cache or cache_root()
        self._model: Any = None
        self._tokenizer: Any = None
        self._max_concurrency: int | None = None
        self._max_model_len = 0
        self._end_ids: frozenset[int] = frozenset()
        self._template_date = ""
        self._exit_rule: ExitRule | None = None

    def check(self, model: ModelSpec) -> None:
        """See `Engine`.

        Raises:
            MissingPackageError: a GGUF file, without the packages that unpack it, or 8 bits without theirs.
        """
        self._require_quantizer()
        files = check_model(model, _KINDS)
        if files is not None and files.kind == "gguf":
            require_unpacker(files.path)

    def load(self, model: ModelSpec, *, max_concurrency: int, seed: int) -> LoadReport:
        """See `Engine`. The engine draws nothing by itself: each request brings its seed."""
        start_ns = time.monotonic_ns()
        self._require_quantizer()
        files = find_model(model)
        revision = weights_revision(files, self._cache)
        folder = unpacked_gguf(files.path, self._cache) if files.kind == "gguf" else files.path
        try:
            self._start(folder)
        except (ValueError, KeyError, OSError, RuntimeError, ImportError) as error:
            self.close()
            if is_out_of_memory(error):
                raise _memory_exhausted(f"loading {model.name!r}", error) from error
            raise ModelLoadError(
                f"Transformers could not load {model.name!r} from {folder} ({type(error).__name__}: {error}). The "
                "trial's child.log has its own account.",
                model=model.name,
            ) from error
        if self._tokenizer.chat_template is None:
            self.close()
            raise ModelLoadError(
                f"Model {model.name!r} has no chat template: it is a base model. Choose its instruct version.",
                model=model.name,
            )
        try:
            pruned = self._prune()
            self._exit_rule = self._find_exit_rule()
        except (InvalidOptionError, ModelLoadError):
            self.close()
            raise
        known_len = int(self._model.config.max_position_embeddings)
        if (model.max_model_len or 0) > known_len:
            self.close()
            raise ModelLoadError(
                f"Model {model.name!r} has a context of {known_len} tokens; {model.max_model_len} were asked for. "
                "Lower model.max_model_len.",
                model=model.name,
            )
        self._max_model_len = model.max_model_len or known_len
        self._max_concurrency = max_concurrency
        # As Llama 3's chat templates print it.
        self._template_date = model.chat_template_date.strftime("%d %b %Y")
        weights = "bfloat16, unpacked from GGUF" if files.kind == "gguf" else "safetensors"
        return LoadReport(
            engine=self.name,
            engine_version=f"transformers {metadata.version('transformers')}",
            model_name=model.name,
            model_source=model.source,
            model_revision=revision,
            max_model_len=self._max_model_len,
            load_s=(time.monotonic_ns() - start_ns) / 1e9,
            settings=read_back(self._model, self._options, weights, self._exit_rule, pruned),
        )

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """See `Engine`. All prompts are rendered and checked before the first batch."""
        check_concurrency(concurrency, self._max_concurrency)
        rows = [self._render(index, request) for index, request in enumerate(requests)]
        for request in requests:
            request_rule(self._model, request, self._exit_rule)
        done: dict[int, Completion] = {}
        for begin in range(0, len(rows), concurrency):
            for row in self._answer(rows[begin : begin + concurrency]):
                done[row.index] = self._complete(row)
                if on_completion is not None:
                    on_completion(done[row.index])
        return [done[index] for index in range(len(requests))]

    @property
    def n_layers(self) -> int:
        """See `PhasedEngine`; 0 while no model is loaded."""
        return 0 if self._model is None else int(self._model.config.num_hidden_layers)

    def generate_phased(
        self,
        requests: Sequence[GenerationRequest],
        *,
        exit_layer: int,
        decode_mhz: float,
        on_decode: Callable[[], None],
    ) -> PhasedBatch:
        """See `PhasedEngine`. The first token comes out of the prompts' pass: decode begins after it."""
        check_concurrency(len(requests), self._max_concurrency)
        asked = [replace(request, exit_layer=exit_layer) for request in requests]
        rows = [self._render(index, request) for index, request in enumerate(asked)]
        decode_ns = 0

        def decode() -> None:
            nonlocal decode_ns
            decode_ns = time.monotonic_ns()
            on_decode()

        start_ns = time.monotonic_ns()
        for _ in self._answer(rows, decode):
            pass
        end_ns = time.monotonic_ns()
        done = [self._complete(row) for row in rows]
        entropies = [nats for each in done for nats in each.token_entropy_nats or ()]
        return PhasedBatch(
            done,
            start_ns,
            decode_ns,
            end_ns,
            n_tokens=sum(each.n_prompt_tokens + each.n_output_tokens for each in done),
            entropy_nats=fmean(entropies) if entropies else None,
        )

    def close(self) -> None:
        """See `Engine`."""
        if self._model is None and self._tokenizer is None:
            return
        import torch

        self._model, self._tokenizer, self._max_concurrency = None, None, None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _require_quantizer(self) -> None:
        if self._options.quantization is None:
            return
        from importlib.util import find_spec

        missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
        if missing:
            raise MissingPackageError(
                f"Option quantization {self._options.quantization!r} needs more packages. On the testbed, run: "
                f"pip install {' '.join(missing)}",
                packages=missing,
            )

    def _prune(self) -> Pruned | None:
        options = self._options
        if options.prune is None or options.sparsity is None:
            return None
        return prune(
            self._model,
            options.prune,
            options.sparsity,
            layer_rule=options.prune_rule or "deep",
            calibration_ids=[self._tokenizer(text)["input_ids"] for text in CALIBRATION],
        )

    def _find_exit_rule(self) -> ExitRule | None:
        options = self._options
        return exit_rule(
            self._model,
            exit_layer=options.exit_layer,
            exit_entropy=options.exit_entropy,
            exit_hysteresis=options.exit_hysteresis,
            exit_min_layer=options.exit_min_layer,
        )

    def _start(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

        options = self._options
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        device = options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("option device is 'cuda', and torch finds no GPU: install a CUDA build of torch")
        self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        quantization = (
            {} if options.quantization is None else {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
        )
        self._model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=options.dtype if options.dtype == "auto" else getattr(torch, options.dtype),
            attn_implementation=options.attention,
            trust_remote_code=False,
            use_safetensors=True,
            **quantization,
        )
        if options.quantization is None:
            self._model.to(device)
        self._model.eval()
        ends = self._model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or ())
        self._end_ids = frozenset({*ends, self._tokenizer.eos_token_id} - {None})

    def _render(self, index: int, request: GenerationRequest) -> _Row:
        text = self._tokenizer.apply_chat_template(
            [dict(message) for message in request.messages],
            tokenize=False,
            add_generation_prompt=True,
            date_string=self._template_date,
        )
        # The template has written the special tokens already.
        prompt_ids = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        room = self._max_model_len - len(prompt_ids)
        if room < 1:
            raise prompt_too_long(request.request_id, len(prompt_ids), self._max_model_len)
        if request.sampling.ignore_eos and room < request.sampling.max_tokens:
            raise answer_cut_short(request.request_id, room, request.sampling.max_tokens, self._max_model_len)
        chooser = TokenChooser(request.sampling, request.seed)
        return _Row(index, request, prompt_ids, hashlib.sha256(text.encode()).hexdigest(), chooser)

    def _answer(self, rows: list[_Row], on_decode: Callable[[], None] = lambda: None) -> Iterator[_Row]:
        """Answer one batch; yields each row as it is complete."""
        try:
            yield from self._steps(rows, on_decode)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise _memory_exhausted(f"a batch of {len(rows)} requests", error) from error
            raise EngineError(
                f"Transformers failed while generating ({type(error).__name__}: {error}). The trial's child.log has "
                "its own account."
            ) from error

    def _steps(self, rows: list[_Row], on_decode: Callable[[], None]) -> Iterator[_Row]:
        import torch

        submitted_ns = time.monotonic_ns()
        device = self._model.device
        width = max(len(row.prompt_ids) for row in rows)
        # Prompts end together: padding goes to the left, and is masked.
        padded = [[0] * (width - len(row.prompt_ids)) + row.prompt_ids for row in rows]
        ids = torch.tensor(padded, device=device)
        mask = torch.tensor(
            [[0] * (width - len(row.prompt_ids)) + [1] * len(row.prompt_ids) for row in rows], device=device
        )
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = self._new_cache(rows, width)
        early = None
        if self._exit_rule is not None or any(row.request.exit_layer is not None for row in rows):
            rules = [request_rule(self._model, row.request, self._exit_rule) for row in rows]
            early = BatchExit(self._model, cache, rules)
        for index, row in enumerate(rows):
            row.submitted_ns = submitted_ns
            row.early = early.rows[index] if early else None
        with torch.inference_mode():
            while True:
                if early is not None:
                    logits = early.logits(ids, mask, positions, [not row.finish_reason for row in rows])
                else:
                    logits = self._model(
                        input_ids=ids,
                        attention_mask=mask,
                        position_ids=positions,
                        past_key_values=cache,
                        use_cache=True,
                        logits_to_keep=1,
                    ).logits[:, -1]
                chosen = self._choose(logits, rows)
                now_ns = time.monotonic_ns()
                for row, token in zip(rows, chosen, strict=True):
                    if not row.finish_reason and self._take(row, token, now_ns):
                        yield row
                if mask.shape[1] == width:
                    on_decode()
                if all(row.finish_reason for row in rows):
                    return
                ids = torch.tensor([[token] for token in chosen], device=device)
                mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=-1)
                positions = positions[:, -1:] + 1

    def _new_cache(self, rows: Sequence[_Row], width: int) -> Any:
        from transformers import DynamicCache, StaticCache

        if self._options.kv_cache == "dynamic":
            return DynamicCache(config=self._model.config)
        longest = max(row.request.sampling.max_tokens for row in rows)
        return StaticCache(config=self._model.config, max_cache_len=min(width + longest, self._max_model_len))

    def _choose(self, logits: Any, rows: Sequence[_Row]) -> list[int]:
        """The next token of each row; bringing them to the CPU waits for the device, so their time is known."""
        if all(row.request.sampling.temperature == 0 for row in rows):
            return [int(token) for token in logits.argmax(-1).tolist()]
        return [row.chooser.choose(part) for row, part in zip(rows, logits, strict=True)]

    def _take(self, row: _Row, token: int, now_ns: int) -> bool:
        """Note a row's token; whether the row is complete with it."""
        sampling = row.request.sampling
        row.tokens.append(token)
        row.token_ns.append(now_ns)
        if token in self._end_ids and not sampling.ignore_eos:
            row.finish_reason = "stop"
        elif len(row.tokens) >= min(sampling.max_tokens, self._max_model_len - len(row.prompt_ids)):
            row.finish_reason = "length"
        return bool(row.finish_reason)

    def _complete(self, row: _Row) -> Completion:
        # What a model says after its end (`ignore_eos`) is work, and no part of the answer.
        end = next((i for i, token in enumerate(row.tokens) if token in self._end_ids), len(row.tokens))
        return Completion(
            request_id=row.request.request_id,
            text=self._tokenizer.decode(row.tokens[:end], skip_special_tokens=True),
            prompt_sha256=row.prompt_sha256,
            n_prompt_tokens=len(row.prompt_ids),
            n_output_tokens=len(row.tokens),
            finish_reason=row.finish_reason,
            submitted_ns=row.submitted_ns,
            token_ns=tuple(row.token_ns),
            finished_ns=row.token_ns[-1],
            token_exit_layer=None if row.early is None else tuple(row.early.layers),
            token_entropy_nats=None if row.early is None else tuple(row.early.entropies_nats),
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch says that memory ran out: on a GPU by its own class, on the CPU by its words."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _memory_exhausted(doing: str, error: BaseException) -> MemoryExhaustedError:
    return MemoryExhaustedError(
        f"Memory ran out at {doing} ({error}). Lower concurrency or sampling.max_tokens, or take a smaller model or "
        "dtype."
    )
