"""The engine seam: loads a model and generates text, with the time of every token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from contract.trial_result import LoadReport
from contract.trial_spec import ModelSpec, SamplingSpec

NOT_TAKEN = "not_taken"
"""Key of `LoadReport.settings`: option -> what the engine did in place of it. Any makes the attempt SUSPECT."""


@dataclass(frozen=True)
class GenerationRequest:
    """One chat request.

    Attributes:
        request_id: unique within the call.
        messages: chat messages, each {"role": ..., "content": ...}; the engine renders them through the model's
            own chat template, with the model spec's pinned date.
        sampling: how tokens are drawn.
        seed: seed of this request's sampling.
        exit_layer: after how many layers all of its tokens leave the model; None: as the engine's options say. An
            engine without early exit refuses a number.
    """

    request_id: str
    messages: tuple[dict[str, str], ...]
    sampling: SamplingSpec
    seed: int
    exit_layer: int | None = None


@dataclass(frozen=True)
class Completion:
    """One answer. Times are `time.monotonic_ns()` of this machine.

    Attributes:
        prompt_sha256: hash of the rendered prompt, template included.
        n_prompt_tokens: tokens of the rendered prompt, by the model's tokenizer.
        text: the answer; with `ignore_eos`, what came before the first end-of-sequence token where there was one.
        n_output_tokens: generated tokens, an end-of-sequence token included when the engine counts it.
        finish_reason: `stop` (end of sequence) or `length` (max_tokens).
        submitted_ns: when it was handed to the engine.
        token_ns: when each output token became known; its length may be less than n_output_tokens when several
            arrive together (they share the time), never more. The first is the first-token time.
        finished_ns: when it was complete.
        engine_prefill_s: how long the engine says that it read the prompt; None where it does not say.
        engine_decode_s: how long it says that it generated.
        token_exit_layer: after how many layers each token left the model; None without early exit.
        token_entropy_nats: entropy of the distribution that each token was chosen from, before temperature.
    """

    request_id: str
    text: str
    prompt_sha256: str
    n_prompt_tokens: int
    n_output_tokens: int
    finish_reason: str
    submitted_ns: int
    token_ns: tuple[int, ...]
    finished_ns: int
    engine_prefill_s: float | None = None
    engine_decode_s: float | None = None
    token_exit_layer: tuple[int, ...] | None = None
    token_entropy_nats: tuple[float, ...] | None = None


class Engine(Protocol):
    """An inference engine with at most one model loaded. Not thread-safe; one call at a time.

    Built by the registry with the options of `EngineSpec.options`; an unknown or impossible option raises
    `InvalidOptionError` when built, before any model is touched. Building is cheap and imports no heavy library
    beyond the one that the registry entry names.
    """

    name: str

    def check(self, model: ModelSpec) -> None:
        """Whether the model could be loaded: its files are here, or can be had. Fast; opens no weights.

        Raises:
            ModelNotFoundError: as `load`.
        """
        ...

    def load(self, model: ModelSpec, *, max_concurrency: int, seed: int) -> LoadReport:
        """Load a model; blocking, seconds to minutes. Called once.

        Args:
            model: which weights; the report names the exact revision.
            max_concurrency: the most requests that `generate` will be asked to keep in flight.
            seed: the engine's own seed, where it has one.

        Raises:
            ModelNotFoundError: the files are not here; the message names what was looked for and how to get it.
            ModelLoadError: the files are here but do not load.
        """
        ...

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """Answer all requests, keeping `concurrency` in flight (a closed loop); blocking.

        Starts them in order. Never spins while it waits. Calls `on_completion` from this thread as answers
        complete, in any order.

        Returns:
            Completions in the order of `requests`.

        Raises:
            EngineError: generation failed.
            InvalidRequestError: a prompt does not fit the context; the message names the request and both lengths.
        """
        ...

    def close(self) -> None:
        """Free the model and its memory. Idempotent; also after a failed load."""
        ...


class RequestSource(Protocol):
    """Where a continuous engine's requests come from, at its own boundaries."""

    def take(self, n_in_flight: int) -> Sequence[int]:
        """Indices of the requests that begin now; returns at once, but for a change of the device's clock.

        Args:
            n_in_flight: that are being answered.
        """
        ...

    def wait(self) -> bool:
        """Nothing is in flight and nothing was taken: sleep until that may change.

        Returns:
            False: nothing will come any more.
        """
        ...


@runtime_checkable
class ContinuousEngine(Protocol):
    """An engine that lets requests join those in flight. Optional: not every `Engine` is one."""

    def serve(
        self,
        requests: Sequence[GenerationRequest],
        source: RequestSource,
        *,
        on_completion: Callable[[Completion], None],
    ) -> None:
        """Answer requests as the source hands them over; blocking, until it has no more.

        All prompts are checked before the first is taken. Asks the source between its own steps, and never spins.

        Args:
            requests: all that may come.
            source: says which begin when.
            on_completion: called from this thread as answers complete.

        Raises:
            EngineError: generation failed.
            InvalidRequestError: a prompt does not fit the context, or the source handed over too many.
        """
        ...
