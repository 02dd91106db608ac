"""From a spec to its engine: what is refused before anything is loaded."""

import pytest

from contract.errors import InvalidOptionError
from contract.trial_spec import EngineSpec, SamplingSpec
from testbed.engines.build import build_engine
from tests.contract.test_contract import spec


@pytest.mark.parametrize("name", ["fake", "llama_cpp", "vllm", "simulated"])
def test_exit_layers_for_an_engine_without_early_exit_are_refused(name: str) -> None:
    early = spec(engine=EngineSpec(name=name), sampling=SamplingSpec(exit_layers=(9,)))
    with pytest.raises(InvalidOptionError, match=rf"'{name}' knows none. Leave it out, or take the engine transform"):
        build_engine(early)
