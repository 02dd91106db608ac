"""A simulated memory: what fits runs, what does not is `out_of_memory`, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from contract.errors import EngineError, InvalidOptionError, MemoryExhaustedError, ModelLoadError
from contract.trial_spec import EngineSpec, TrialSpec
from testbed.child_verdict import death
from testbed.memory_limit import GIB, MemoryLimit, engine_options, memory_limit
from tests.testbed.test_trial_run import SPEC

LIMITED = """
import sys
import numpy as np
from contract.errors import MemoryExhaustedError
from contract.trial_spec import ModelSpec
from testbed.engines.fake_engine import FakeEngine
from testbed.engines.limited_engine import LimitedEngine
from testbed.memory_limit import MemoryLimit

class Hungry(FakeEngine):
    def load(self, model, **rest):
        self.block = np.ones(int(sys.argv[2]) * 2**20 // 8)
        return super().load(model, **rest)

engine = LimitedEngine(Hungry(), MemoryLimit(int(sys.argv[1]) * 2**20), lambda: int(sys.argv[3]) * 2**20)
try:
    report = engine.load(ModelSpec(name="m", source="fake:m"), max_concurrency=1, seed=0)
    print("fits", report.settings["memory_limit_gib"])
except MemoryExhaustedError as error:
    print(error.code, error.message)
engine.close()
after = np.ones(600 * 2**20 // 8)
print("released", after.size > 0)
"""


def limited(limit_mib: int, taken_mib: int, mapped_mib: int = 0) -> list[str]:
    if not sys.platform.startswith("linux"):
        pytest.skip("RLIMIT_DATA counts mappings on Linux only")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit_mib), str(taken_mib), str(mapped_mib)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    return done.stdout.splitlines()


def test_what_fits_runs_and_the_limit_is_on_record() -> None:
    assert limited(512, 100) == ["fits 0.5", "released True"]


def test_what_does_not_fit_is_out_of_memory_and_the_limit_is_released() -> None:
    first, second = limited(512, 600)
    assert first.startswith("out_of_memory Does not fit into 0.5 GiB") and second == "released True"


def test_mapped_weights_are_taken_off_the_limit() -> None:
    assert limited(512, 100, mapped_mib=450)[0].startswith("out_of_memory")
    assert "weights alone" in limited(512, 0, mapped_mib=512)[0]


def spec_of(engine: EngineSpec) -> TrialSpec:
    return SPEC.model_copy(update={"engine": engine})


def test_a_gpu_is_shared_by_the_ratio_of_the_memories() -> None:
    spec = spec_of(EngineSpec(name="vllm", memory_limit_gib=8.0))
    limit = memory_limit(spec, lambda: 80 * GIB)
    assert limit is not None and limit.gpu_share == pytest.approx(0.1)
    assert engine_options(spec, limit) == {"gpu_memory_utilization": pytest.approx(0.1)}
    smaller = spec_of(EngineSpec(name="vllm", memory_limit_gib=8.0, options={"gpu_memory_utilization": 0.05}))
    assert engine_options(smaller, limit) == {"gpu_memory_utilization": 0.05}
    transformers = spec_of(EngineSpec(name="transformers", memory_limit_gib=8.0, options={"device": "cuda"}))
    assert engine_options(transformers, limit) == {"device": "cuda"}


def test_a_larger_device_cannot_be_simulated_on_a_smaller_gpu() -> None:
    limit = MemoryLimit(16 * GIB, gpu_total=8 * GIB)
    with pytest.raises(InvalidOptionError, match="larger device"):
        limit.apply()


def test_without_a_limit_nothing_changes() -> None:
    spec = spec_of(EngineSpec(name="vllm", options={"dtype": "auto"}))
    assert memory_limit(spec, lambda: 8 * GIB) is None
    assert engine_options(spec, None) == {"dtype": "auto"}


def test_only_failures_for_want_of_memory_are_explained_by_the_limit(tmp_path: Path) -> None:
    limit = MemoryLimit(8 * GIB)
    for error in (MemoryError(), MemoryExhaustedError("no more")):
        told = limit.explain(error)
        assert told is not None and told.code == "out_of_memory" and "8 GiB" in told.message
    assert limit.explain(EngineError("a bug")) is None
    assert limit.explain(ModelLoadError("a damaged file")) is None


def test_native_code_that_aborts_for_want_of_memory_is_told_from_other_aborts() -> None:
    held = "Held to 0.240 GiB by engine.memory_limit_gib"
    abort = "terminate called after throwing an instance of 'std::system_error'"
    for lines, code in (([held, "loading", abort], "out_of_memory"), ([abort], "child_died"), ([held], "child_died")):
        assert death(pid=1, returncode=-6, tail=lines).code == code
