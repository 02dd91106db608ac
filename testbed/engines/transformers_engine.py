"""Hugging Face Transformers inside this process, on CPU or CUDA: static batches."""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

from contract.errors import MissingPackageError, ModelLoadError
from contract.trial_result import LoadReport
from contract.trial_spec import ModelSpec
from testbed.edge_control.phased import PhasedBatch
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.checks import check_concurrency
from testbed.engines.exit_head import ExitHead
from testbed.engines.exit_rule import exit_rule
from testbed.engines.model_source import check_model, find_model
from testbed.engines.pruning import CALIBRATION, Pruned, prune
from testbed.engines.transformers_batch import BatchAnswerer, is_out_of_memory, memory_exhausted
from testbed.engines.transformers_settings import TransformersOptions, read_back
from testbed.engines.weights_cache import cache_root, require_unpacker, unpacked_gguf, weights_revision
from testbed.options import parse_options

_KINDS = ("folder", "gguf")


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
        self._answerer: BatchAnswerer | None = None
        self._max_concurrency: int | None = None

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
        loaded, tokenizer = self._start(model, folder)
        pruned = self._prune(loaded, tokenizer)
        rule = exit_rule(
            loaded,
            exit_layer=self._options.exit_layer,
            exit_entropy=self._options.exit_entropy,
            exit_hysteresis=self._options.exit_hysteresis,
            exit_min_layer=self._options.exit_min_layer,
        )
        head = ExitHead(loaded, self._options.exit_head)
        # Also with an option of its own: what cannot be had is told now, and not at the first request.
        rules = () if rule is None else (rule,)
        told_head = head.choose(rules) if rules or self._options.exit_head else None
        self._answerer = BatchAnswerer(
            loaded,
            tokenizer,
            model,
            kv_cache=self._options.kv_cache,
            exit_rule=rule,
            exit_head=head,
        )
        self._max_concurrency = max_concurrency
        weights = "bfloat16, unpacked from GGUF" if files.kind == "gguf" else "safetensors"
        return LoadReport(
            engine=self.name,
            engine_version=f"transformers {metadata.version('transformers')}",
            model_name=model.name,
            model_source=model.source,
            model_revision=revision,
            max_model_len=self._answerer.max_model_len,
            load_s=(time.monotonic_ns() - start_ns) / 1e9,
            settings=read_back(loaded, self._options, weights, rule, told_head, pruned),
        )

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """See `Engine`. All prompts are rendered and checked before the first batch."""
        answerer = self._ready(concurrency)
        done: dict[int, Completion] = {}
        for batch in answerer.render(requests, concurrency):
            for row in answerer.answer(batch):
                done[row.index] = answerer.complete(row)
                if on_completion is not None:
                    on_completion(done[row.index])
        return [done[index] for index in range(len(requests))]

    @property
    def n_layers(self) -> int:
        """See `PhasedEngine`; 0 while no model is loaded."""
        return 0 if self._answerer is None else int(self._answerer.model.config.num_hidden_layers)

    def generate_phased(
        self,
        requests: Sequence[GenerationRequest],
        *,
        exit_layer: int,
        decode_mhz: float,
        on_decode: Callable[[], None],
    ) -> PhasedBatch:
        """See `PhasedEngine`. The first token comes out of the prompts' pass: decode begins after it."""
        answerer = self._ready(len(requests))
        asked = [replace(request, exit_layer=exit_layer) for request in requests]
        (rows,) = answerer.render(asked, len(requests))
        decode_ns = 0

        def decode() -> None:
            nonlocal decode_ns
            decode_ns = time.monotonic_ns()
            on_decode()

        start_ns = time.monotonic_ns()
        for _ in answerer.answer(rows, decode):
            pass
        end_ns = time.monotonic_ns()
        done = [answerer.complete(row) for row in rows]
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
        self._answerer = self._max_concurrency = None
        gc.collect()
        # A load that failed has left memory too; without torch there was none.
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _ready(self, n_in_flight: int) -> BatchAnswerer:
        check_concurrency(n_in_flight, self._max_concurrency)
        assert self._answerer is not None  # check_concurrency has seen to it
        return self._answerer

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

    def _prune(self, model: Any, tokenizer: Any) -> Pruned | None:
        options = self._options
        if options.prune is None or options.sparsity is None:
            return None
        return prune(
            model,
            options.prune,
            options.sparsity,
            layer_rule=options.prune_rule or "deep",
            calibration_ids=[tokenizer(text)["input_ids"] for text in CALIBRATION],
        )

    def _start(self, spec: ModelSpec, folder: Path) -> tuple[Any, Any]:
        """Model and tokenizer, of which a chat can be made."""
        try:
            model, tokenizer = self._read(folder)
        except (ValueError, KeyError, OSError, RuntimeError, ImportError) as error:
            if is_out_of_memory(error):
                raise memory_exhausted(f"loading {spec.name!r}", error) from error
            raise ModelLoadError(
                f"Transformers could not load {spec.name!r} from {folder} ({type(error).__name__}: {error}). The "
                "trial's child.log has its own account.",
                model=spec.name,
            ) from error
        if tokenizer.chat_template is None:
            raise ModelLoadError(
                f"Model {spec.name!r} has no chat template: it is a base model. Choose its instruct version.",
                model=spec.name,
            )
        known_len = int(model.config.max_position_embeddings)
        if (spec.max_model_len or 0) > known_len:
            raise ModelLoadError(
                f"Model {spec.name!r} has a context of {known_len} tokens; {spec.max_model_len} were asked for. "
                "Lower model.max_model_len.",
                model=spec.name,
            )
        return model, tokenizer

    def _read(self, folder: Path) -> tuple[Any, Any]:
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
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        quantization = (
            {} if options.quantization is None else {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
        )
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=options.dtype if options.dtype == "auto" else getattr(torch, options.dtype),
            attn_implementation=options.attention,
            trust_remote_code=False,
            use_safetensors=True,
            **quantization,
        )
        if options.quantization is None:
            model.to(device)
        return model.eval(), tokenizer
