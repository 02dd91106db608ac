"""Engines that tell when a batch's prompts are read, so that its decode may have a clock of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from testbed.engines.base import Completion, GenerationRequest


@dataclass(frozen=True)
class PhasedBatch:
    """A batch that was served.

    Attributes:
        completions: in the order of the requests. An engine without requests of its own, such as a simulated board,
            has one for the whole batch, with all its tokens.
        start_ns: monotonic.
        decode_ns: when the decode began; monotonic.
        end_ns: of the decode; monotonic.
        n_tokens: prompt and output.
        energy_j: of prefill and decode, where the engine knows it, which only a simulated one does; None: not known.
        entropy_nats: mean of the output tokens' entropy; None: not measured.
    """

    completions: Sequence[Completion]
    start_ns: int
    decode_ns: int
    end_ns: int
    n_tokens: int
    energy_j: float | None = None
    entropy_nats: float | None = None


@runtime_checkable
class PhasedEngine(Protocol):
    """An engine whose batches have two phases, and that may leave a model early. Optional: not every `Engine` is one.

    Attributes:
        n_layers: of the loaded model: the exit that is none.
    """

    n_layers: int

    def generate_phased(
        self,
        requests: Sequence[GenerationRequest],
        *,
        exit_layer: int,
        decode_mhz: float,
        on_decode: Callable[[], None],
    ) -> PhasedBatch:
        """Answer one batch, to its end; blocking.

        Args:
            requests: of the batch.
            exit_layer: layers that are run of each token.
            decode_mhz: what `on_decode` will set; only a simulated board needs to know.
            on_decode: called once, after the prompts were read and before the first token that is decoded.

        Raises:
            InvalidOptionError: the model has no such layer.
            EngineError: generation failed.
        """
        ...
