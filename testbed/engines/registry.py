"""The engines, by name. Importing this imports none of them."""

from testbed.engines.base import Engine
from testbed.registry import Entry, Registry

ENGINES: Registry[Engine] = Registry(
    "engine",
    {
        "vllm": Entry("testbed.engines.vllm_engine:VllmEngine", extra="vllm", module="vllm"),
        "llama_cpp": Entry("testbed.engines.llama_cpp_engine:LlamaCppEngine", extra="llama-cpp", module="xllamacpp"),
        "transformers": Entry(
            "testbed.engines.transformers_engine:TransformersEngine", extra="transformers", module="transformers"
        ),
        "simulated": Entry("testbed.engines.simulated_engine:SimulatedEngine"),
        "simulated_orin": Entry("testbed.engines.simulated_orin_engine:SimulatedOrinEngine"),
        "fake": Entry("testbed.engines.fake_engine:FakeEngine"),
    },
)
"""Factories take `EngineSpec.options` as keyword arguments."""
