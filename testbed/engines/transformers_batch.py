"""Answers static batches with a loaded model of Transformers: our own loop over the tokens."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from contract.errors import EngineError, MemoryExhaustedError
from contract.trial_spec import ModelSpec
from testbed.engines.base import Completion, GenerationRequest
from testbed.engines.checks import room_for_answer
from testbed.engines.early_exit import BatchExit, RowExit
from testbed.engines.exit_head import ExitHead
from testbed.engines.exit_rule import ExitRule, request_rule
from testbed.engines.token_choice import TokenChooser


@dataclass
class Row:
    """A request in a batch, and what is known of its answer."""

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


class BatchAnswerer:
    """Renders requests, and answers them batch by batch.

    Args:
        model: of transformers, loaded, as it will stay.
        tokenizer: of the model, with a chat template.
        spec: has the length of the context, where it is not the model's, and the date of the template.
        kv_cache: option of the engine.
        exit_rule: of requests that have none of their own; None: all layers, by the library's way.
        exit_head: which head rows with early exit take.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        spec: ModelSpec,
        *,
        kv_cache: Literal["dynamic", "static"],
        exit_rule: ExitRule | None,
        exit_head: ExitHead,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_model_len = spec.max_model_len or int(model.config.max_position_embeddings)
        # As Llama 3's chat templates print it.
        self._template_date = spec.chat_template_date.strftime("%d %b %Y")
        self._kv_cache = kv_cache
        self._exit_rule = exit_rule
        self._exit_head = exit_head
        ends = model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or ())
        self._end_ids = frozenset({*ends, tokenizer.eos_token_id} - {None})

    def render(self, requests: Sequence[GenerationRequest], concurrency: int) -> list[list[Row]]:
        """All batches, ready to be answered: every request is checked, and nothing is left to prepare.

        Raises:
            InvalidRequestError: a prompt or an answer does not fit, or an exit that the model does not have.
            InvalidOptionError: see `ExitHead`.
        """
        rows = [self._render(index, request) for index, request in enumerate(requests)]
        batches = [rows[begin : begin + concurrency] for begin in range(0, len(rows), concurrency)]
        for batch in batches:
            if (rules := self._rules(batch)) is not None:
                self._exit_head.of(rules)
        return batches

    def answer(self, rows: list[Row], on_decode: Callable[[], None] = lambda: None) -> Iterator[Row]:
        """Answer one batch; yields each row as it is complete.

        Args:
            rows: of `render`.
            on_decode: called when the first tokens are there.

        Raises:
            EngineError: generation failed.
            MemoryExhaustedError: memory ran out.
        """
        try:
            yield from self._steps(rows, on_decode)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise memory_exhausted(f"a batch of {len(rows)} requests", error) from error
            raise EngineError(
                f"Transformers failed while generating ({type(error).__name__}: {error}). The trial's child.log has "
                "its own account."
            ) from error

    def complete(self, row: Row) -> Completion:
        """The answer of a row that is done."""
        # What a model says after its end (`ignore_eos`) is work, and no part of the answer.
        end = next((i for i, token in enumerate(row.tokens) if token in self._end_ids), len(row.tokens))
        return Completion(
            request_id=row.request.request_id,
            text=self.tokenizer.decode(row.tokens[:end], skip_special_tokens=True),
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

    def _render(self, index: int, request: GenerationRequest) -> Row:
        text = self.tokenizer.apply_chat_template(
            [dict(message) for message in request.messages],
            tokenize=False,
            add_generation_prompt=True,
            date_string=self._template_date,
        )
        # The template has written the special tokens already.
        prompt_ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        room_for_answer(request, len(prompt_ids), self.max_model_len)
        chooser = TokenChooser(request.sampling, request.seed)
        return Row(index, request, prompt_ids, hashlib.sha256(text.encode()).hexdigest(), chooser)

    def _rules(self, rows: Sequence[Row]) -> list[ExitRule] | None:
        """Of each row; None: no row asks for early exit, nor does the engine."""
        if self._exit_rule is None and all(row.request.exit_layer is None for row in rows):
            return None
        return [request_rule(self.model, row.request, self._exit_rule) for row in rows]

    def _steps(self, rows: list[Row], on_decode: Callable[[], None]) -> Iterator[Row]:
        import torch

        submitted_ns = time.monotonic_ns()
        device = self.model.device
        width = max(len(row.prompt_ids) for row in rows)
        # Prompts end together: padding goes to the left, and is masked.
        padded = [[0] * (width - len(row.prompt_ids)) + row.prompt_ids for row in rows]
        ids = torch.tensor(padded, device=device)
        mask = torch.tensor(
            [[0] * (width - len(row.prompt_ids)) + [1] * len(row.prompt_ids) for row in rows], device=device
        )
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = self._new_cache(rows, width)
        rules = self._rules(rows)
        early = None if rules is None else BatchExit(self.model, cache, rules, self._exit_head.of(rules))
        for index, row in enumerate(rows):
            row.submitted_ns = submitted_ns
            row.early = early.rows[index] if early else None
        with torch.inference_mode():
            while True:
                if early is not None:
                    logits = early.logits(ids, mask, positions, [not row.finish_reason for row in rows])
                else:
                    logits = self.model(
                        input_ids=ids,
                        attention_mask=mask,
                        position_ids=positions,
                        past_key_values=cache,
                        use_cache=True,
                        logits_to_keep=1,
                    ).logits[:, -1]
                chosen = _choose(logits, rows)
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

    def _new_cache(self, rows: Sequence[Row], width: int) -> Any:
        from transformers import DynamicCache, StaticCache

        if self._kv_cache == "dynamic":
            return DynamicCache(config=self.model.config)
        longest = max(row.request.sampling.max_tokens for row in rows)
        return StaticCache(config=self.model.config, max_cache_len=min(width + longest, self.max_model_len))

    def _take(self, row: Row, token: int, now_ns: int) -> bool:
        """Note a row's token; whether the row is complete with it."""
        sampling = row.request.sampling
        row.tokens.append(token)
        row.token_ns.append(now_ns)
        if token in self._end_ids and not sampling.ignore_eos:
            row.finish_reason = "stop"
        elif len(row.tokens) >= min(sampling.max_tokens, self.max_model_len - len(row.prompt_ids)):
            row.finish_reason = "length"
        return bool(row.finish_reason)


def _choose(logits: Any, rows: Sequence[Row]) -> list[int]:
    """The next token of each row; bringing them to the CPU waits for the device, so their time is known."""
    if all(row.request.sampling.temperature == 0 for row in rows):
        return [int(token) for token in logits.argmax(-1).tolist()]
    return [row.chooser.choose(part) for row, part in zip(rows, logits, strict=True)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch says that memory ran out: on a GPU by its own class, on the CPU by its words."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def memory_exhausted(doing: str, error: BaseException) -> MemoryExhaustedError:
    """The error for it, at what was being done."""
    return MemoryExhaustedError(
        f"Memory ran out at {doing} ({error}). Lower concurrency or sampling.max_tokens, or take a smaller model or "
        "dtype."
    )
