"""The fake engine: speed and failures to order; and what importing the engines costs."""

import subprocess
import sys

import pytest

from contract.errors import EngineError, UnknownNameError
from contract.trial_spec import ModelSpec, SamplingSpec
from testbed.engines.base import GenerationRequest
from testbed.engines.fake_engine import FakeEngine
from testbed.engines.registry import ENGINES

MODEL = ModelSpec(name="m", source="fake:small")


class SteppedClock:
    """Moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time_ns(self) -> int:
        return self.now_ns

    def sleep(self, duration_s: float) -> None:
        self.now_ns += round(duration_s * 1e9)


def requests(n: int, **sampling) -> list[GenerationRequest]:
    settings = SamplingSpec(**{"max_tokens": 10, "ignore_eos": True, **sampling})
    return [GenerationRequest(f"q{i}", ({"role": "user", "content": f"{i}?"},), settings, i) for i in range(n)]


def loaded(clock=None, max_concurrency=4, **options) -> FakeEngine:
    engine = FakeEngine(clock=clock, **options)
    engine.load(MODEL, max_concurrency=max_concurrency, seed=1)
    return engine


@pytest.mark.parametrize(("concurrency", "duration_s"), [(1, 8.0), (2, 4.0), (4, 2.0)])
def test_the_time_follows_from_the_speed(concurrency, duration_s):
    clock = SteppedClock()
    engine = loaded(clock, tokens_per_s=10.0)
    start_ns = clock.now_ns
    done = engine.generate(requests(8), concurrency=concurrency)
    assert (clock.now_ns - start_ns) / 1e9 == pytest.approx(duration_s)
    assert max(each.finished_ns for each in done) == clock.now_ns
    assert done[0].token_ns[0] - done[0].submitted_ns == 100_000_000


def test_a_load_takes_its_time_and_answers_none():
    clock = SteppedClock()
    report = FakeEngine(clock=clock, load_s=3.0).load(MODEL, max_concurrency=1, seed=1)
    assert report.load_s == pytest.approx(3.0)
    engine = loaded(clock)
    start_ns = clock.now_ns
    engine.generate(requests(50), concurrency=1)
    assert clock.now_ns == start_ns


def test_two_answers_are_given_about_equally_often():
    texts = [done.text.split()[0] for done in loaded(answers=["yes", "no"]).generate(requests(400), concurrency=1)]
    assert set(texts) == {"yes", "no"}
    assert 150 < texts.count("yes") < 250


def test_failing_on_a_request_lets_the_earlier_ones_through():
    seen = []
    with pytest.raises(EngineError, match="fail_on"):
        loaded(fail_on=2).generate(requests(5), concurrency=1, on_completion=seen.append)
    assert [done.request_id for done in seen] == ["q0", "q1"]


@pytest.mark.parametrize(("die", "status"), [("segv", -11), ("exit", 17)])
@pytest.mark.parametrize("die_on", [-1, 1])
def test_dying_ends_the_process(die, status, die_on):
    code = (
        "from tests.testbed.test_fake_engine import loaded, requests\n"
        f"engine = loaded(die={die!r}, die_on={die_on})\n"
        "engine.generate(requests(1), concurrency=1)\n"
        "print('alive', flush=True)\n"
        "engine.generate(requests(2), concurrency=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert done.stdout == ("alive\n" if die_on == 1 else "")


def test_hanging_neither_answers_nor_spins():
    class Impatient(SteppedClock):
        n_sleeps = 0

        def sleep(self, duration_s: float) -> None:
            super().sleep(duration_s)
            self.n_sleeps += duration_s > 1000
            if self.n_sleeps == 3:
                raise TimeoutError

    clock = Impatient()
    with pytest.raises(TimeoutError):
        loaded(clock, die="hang").generate(requests(1), concurrency=1)


def test_importing_the_registry_imports_no_engine():
    code = (
        "import sys, testbed.engines.registry as r, testbed.engines.model_source, testbed.engines.vllm_engine\n"
        "import testbed.engines.llama_cpp_engine, testbed.engines.transformers_engine\n"
        "r.ENGINES.create('fake')\n"
        "print({'torch', 'vllm', 'transformers', 'xllamacpp', 'huggingface_hub', 'numpy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


def test_the_registry_knows_its_engines():
    assert ENGINES.names == ["vllm", "llama_cpp", "transformers", "simulated", "simulated_orin", "fake"]
    with pytest.raises(UnknownNameError, match="vllm, llama_cpp, transformers, simulated, simulated_orin, fake"):
        ENGINES.create("tgi")
