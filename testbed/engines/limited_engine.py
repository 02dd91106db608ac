"""An engine inside the memory of a smaller device."""

import sys
from collections.abc import Callable, Sequence

from contract.errors import JouleBedError
from contract.trial_result import LoadReport
from contract.trial_spec import ModelSpec
from testbed.engines.base import Completion, Engine, GenerationRequest
from testbed.memory_limit import GIB, MemoryLimit

_FAILURES = (JouleBedError, MemoryError, RuntimeError, ImportError, OSError)
"""What engines raise when memory is refused them; a library that cannot be mapped is an ImportError."""


class LimitedEngine:
    """See `Engine`. Holds another engine to a simulated memory from its load to its end.

    A failure for want of memory becomes `MemoryExhaustedError`, whatever the engine called it: the model does not fit
    is what such a trial is to find out.

    Args:
        engine: does the work.
        limit: of the simulated device.
        mapped_bytes: asks for the bytes of the weights that the engine will map from a file.
    """

    def __init__(self, engine: Engine, limit: MemoryLimit, mapped_bytes: Callable[[], int]) -> None:
        self._engine = engine
        self._limit = limit
        self._mapped_bytes = mapped_bytes
        self.name = engine.name

    def check(self, model: ModelSpec) -> None:
        """See `Engine`."""
        self._engine.check(model)

    def load(self, model: ModelSpec, *, max_concurrency: int, seed: int) -> LoadReport:
        """See `Engine`.

        Raises:
            MemoryExhaustedError: it does not fit.
            InvalidOptionError: the GPU is smaller than what is to be simulated.
        """
        # Native code that is refused memory aborts: the testbed then finds the reason in this line of child.log.
        print(f"Held to {self._limit.limit_bytes / GIB:.3f} GiB by engine.memory_limit_gib", file=sys.stderr)
        self._limit.apply(self._mapped_bytes())
        try:
            report = self._engine.load(model, max_concurrency=max_concurrency, seed=seed)
        except _FAILURES as error:
            raise self._explained(error) from error
        settings = {
            **report.settings,
            "memory_limit_gib": self._limit.limit_bytes / GIB,
            "memory_limit_by": self._limit.means,
        }
        return report.model_copy(update={"settings": settings})

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        concurrency: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """See `Engine`.

        Raises:
            MemoryExhaustedError: it does not fit.
        """
        try:
            return self._engine.generate(requests, concurrency=concurrency, on_completion=on_completion)
        except _FAILURES as error:
            raise self._explained(error) from error

    def close(self) -> None:
        """See `Engine`."""
        self._engine.close()
        self._limit.release()

    def _explained(self, error: BaseException) -> BaseException:
        return self._limit.explain(error) or error
