"""From a spec to the engine that it asks for, held to its simulated memory."""

from contract.errors import InvalidOptionError
from contract.trial_spec import TrialSpec
from testbed.engines.base import Engine
from testbed.engines.limited_engine import LimitedEngine
from testbed.engines.registry import ENGINES
from testbed.memory_limit import cuda_memory_bytes, engine_options, mapped_weights_bytes, memory_limit

_EXIT_ENGINE = "transformers"


def build_engine(spec: TrialSpec, *, gpu: int | None = 0) -> Engine:
    """Build the engine of a trial; nothing is loaded.

    Args:
        spec: of the trial, or of one of its devices.
        gpu: index of the GPU whose memory is limited; None: it has none.

    Raises:
        InvalidOptionError: an option that is wrong, a memory larger than the GPU's, or `sampling.exit_layers` for an
            engine without early exit.
        UnknownNameError: there is no such engine.
        MissingPackageError: it is not installed.
    """
    if spec.sampling.exit_layers and spec.engine.name != _EXIT_ENGINE:
        raise InvalidOptionError(
            f"sampling.exit_layers asks for early exit, and the engine {spec.engine.name!r} knows none. Leave it out, "
            f"or take the engine {_EXIT_ENGINE}.",
            engine=spec.engine.name,
        )
    limit = memory_limit(spec, lambda: None if gpu is None else cuda_memory_bytes(spec, gpu))
    engine = ENGINES.create_from_spec(spec.engine.name, engine_options(spec, limit))
    return engine if limit is None else LimitedEngine(engine, limit, lambda: mapped_weights_bytes(spec))
