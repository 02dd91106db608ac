"""vLLM's asynchronous engine behind the engine seam: its outputs, its ends and its death; once with the real one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from contract.errors import EngineError
from testbed.engines.base import Completion
from testbed.engines.vllm_front import AsyncFront
from tests.seams.engine_cases import CASES
from tests.seams.test_engines import Plan, most_in_flight, questions


class Engine:
    """Stands in for `AsyncLLM`: makes a token for all that are in flight when it is told to; `fail` ends it."""

    def __init__(self) -> None:
        self.vllm_config = "the configuration"
        self.ended: list[str] = []
        self.closed = 0
        self._queues: dict[str, asyncio.Queue[Any]] = {}

    async def generate(self, prompt: dict[str, Any], params: Any, request_id: str) -> AsyncIterator[Any]:
        queue = self._queues[request_id] = asyncio.Queue()
        if len(self._queues) == params:
            asyncio.get_running_loop().call_soon(self.tick)
        try:
            for _ in prompt["prompt_token_ids"]:
                token = await queue.get()
                if isinstance(token, Exception):
                    raise token
                yield (request_id, token)
        finally:
            self.ended.append(request_id)
            del self._queues[request_id]

    def tick(self, token: Any = "token") -> None:
        for queue in self._queues.values():
            queue.put_nowait(token)

    def shutdown(self, timeout: float) -> None:
        self.closed += 1


class Front(AsyncFront):
    """Of the stand-in."""

    async def _start(self, arguments: Any) -> Engine:
        self.made = Engine()
        return self.made


@pytest.fixture
def front() -> Front:
    return Front({})


def test_what_a_step_gave_comes_together_and_an_end_is_an_end(front: Front) -> None:
    for name in ("a", "b", "c"):
        # The third one that begins has the engine make the first token of all.
        front.add(name, [1, 2], 3)
    assert sorted(front.step()) == [("a", "token"), ("b", "token"), ("c", "token")]
    front.made.tick()
    assert len(front.step()) == 3
    front.abort(["a", "b", "c"])  # they have ended
    assert sorted(front.made.ended) == ["a", "b", "c"]
    front.close()
    assert front.made.closed == 1


def test_nothing_comes_of_those_that_are_aborted(front: Front) -> None:
    front.add("a", [1] * 9, 1)
    front.step()
    front.made.tick()
    front.abort(["a"])
    assert front.made.ended == ["a"]
    front.add("b", [1], 1)
    assert front.step() == [("b", "token")]
    front.close()


def test_a_failure_of_any_kind_ends_the_step_instead_of_hanging_it(front: Front) -> None:
    front.add("a", [1, 2, 3], 2)
    front.add("b", [1, 2, 3], 2)
    front.step()
    front.made.tick(LookupError("the engine is gone"))
    with pytest.raises(LookupError, match="gone"):
        front.step()
    front.abort(["a", "b"])
    front.close()


@pytest.mark.vllm
def test_the_real_asynchronous_engine_serves_cancels_and_tells_of_its_death() -> None:
    """One load for all: it takes most of the time."""
    pytest.importorskip("vllm")
    case = CASES["vllm"]
    engine = case.build(drive="async")
    before = set(psutil.Process().children(recursive=True))
    report = engine.load(case.model(), max_concurrency=4, seed=7)
    beside = [each for each in psutil.Process().children(recursive=True) if each not in before]
    try:
        assert report.settings["drive"] == "async" and report.settings["threads"] is None
        assert report.settings["load_format"] == "safetensors"
        first, again = (engine.generate(questions(3), concurrency=1) for _ in range(2))
        assert [each.request_id for each in first] == ["q0", "q1", "q2"]
        assert [each.text for each in first] == [each.text for each in again]

        done: list[Completion] = []
        asked = questions(4, max_tokens=24, ignore_eos=True)
        engine.serve(asked, Plan([0], [], [1, 2], [], [3]), on_completion=done.append)
        by_id = {each.request_id: each for each in done}
        assert sorted(by_id) == ["q0", "q1", "q2", "q3"] and {each.n_output_tokens for each in done} == {24}
        assert by_id["q0"].submitted_ns < by_id["q1"].submitted_ns < by_id["q0"].finished_ns
        assert most_in_flight(done) == 4
        assert all(len(set(each.token_ns)) >= 12 and each.submitted_ns < each.token_ns[0] for each in done)

        class Stop(Exception):
            pass

        class StopAtThird(Plan):
            def take(self, n_in_flight: int) -> list[int]:
                if len(self.in_flight) == 3:
                    raise Stop
                return super().take(n_in_flight)

        with pytest.raises(Stop):
            engine.serve(asked, StopAtThird([0, 1]), on_completion=done.append)
        assert len(engine.generate(questions(2), concurrency=2)) == 2  # those that were cancelled are gone

        class KillAtThird(Plan):
            def take(self, n_in_flight: int) -> list[int]:
                if len(self.in_flight) == 3:
                    for each in beside:
                        each.kill()
                return super().take(n_in_flight)

        with pytest.raises(EngineError, match=r"process has ended.*child\.log"):
            engine.serve(questions(2, max_tokens=200, ignore_eos=True), KillAtThird([0, 1]), on_completion=done.append)
    finally:
        engine.close()
        engine.close()
    assert not [each for each in beside if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
