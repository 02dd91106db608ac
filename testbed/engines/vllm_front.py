"""Two ways to vLLM's engine: stepped by us in this process, or its asynchronous front with the engine beside it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

_CLOSE_S = 10.0


class Front(Protocol):
    """What `VllmEngine` needs of either. One call at a time, from one thread."""

    @property
    def config(self) -> Any:
        """`VllmConfig` of the loaded engine."""
        ...

    def reset_prefix_cache(self) -> None:
        """Forget the keys and values of all prompts."""
        ...

    def add(self, request_id: str, prompt_ids: list[int], params: Any) -> None:
        """Hand a request over; it is computed from the next boundary on.

        Args:
            request_id: unique among those in flight.
            prompt_ids: tokens.
            params: `SamplingParams` that want deltas.
        """
        ...

    def step(self) -> list[Any]:
        """Block until there are tokens, with requests in flight; their `RequestOutput`s.

        Raises:
            EngineDeadError: the engine has ended; and what else it raises.
        """
        ...

    def abort(self, request_ids: Sequence[str]) -> None:
        """End requests; nothing more comes of them."""
        ...

    def close(self) -> None:
        """End the engine. Once."""
        ...


class StepFront:
    """See `Front`. vLLM in this process: a step is taken when we say so, and nothing runs between two of them.

    Args:
        arguments: of `vllm.LLM`; a model's own code is never run.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        from vllm import LLM

        self._llm = LLM(**arguments, trust_remote_code=False)

    @property
    def config(self) -> Any:
        """See `Front`."""
        return self._llm.llm_engine.vllm_config

    def reset_prefix_cache(self) -> None:
        """See `Front`."""
        self._llm.reset_prefix_cache()

    def add(self, request_id: str, prompt_ids: list[int], params: Any) -> None:
        """See `Front`."""
        self._llm.llm_engine.add_request(request_id, {"prompt_token_ids": prompt_ids}, params)

    def step(self) -> list[Any]:
        """See `Front`."""
        return list(self._llm.llm_engine.step())

    def abort(self, request_ids: Sequence[str]) -> None:
        """See `Front`."""
        self._llm.llm_engine.abort_request(list(request_ids))

    def close(self) -> None:
        """See `Front`."""
        self._llm.llm_engine.engine_core.shutdown()


class AsyncFront:
    """See `Front`. `AsyncLLM`, as vLLM's own server has it: the engine steps by itself in a process of its own.

    Its event loop is ours, runs in this thread, and only inside of these methods: nothing of it disturbs a sleep. The
    engine goes on while we decide, so what is handed over at a boundary joins one step later than with `StepFront`,
    and a token's time has the way between two processes in it.

    Args:
        arguments: of `AsyncEngineArgs`; a model's own code is never run.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._outputs: asyncio.Queue[Any] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        try:
            self._engine = self._loop.run_until_complete(self._start(arguments))
        except BaseException:
            self._loop.close()
            raise

    async def _start(self, arguments: Mapping[str, Any]) -> Any:
        """Inside of the loop, so that the engine's own task for outputs begins in it."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        # The context decides vLLM's defaults, such as the tokens of a step: those of the other front.
        given = AsyncEngineArgs(**arguments, trust_remote_code=False)
        return AsyncLLM.from_engine_args(given, usage_context=UsageContext.LLM_CLASS)

    @property
    def config(self) -> Any:
        """See `Front`."""
        return self._engine.vllm_config

    def reset_prefix_cache(self) -> None:
        """See `Front`."""
        self._loop.run_until_complete(self._engine.reset_prefix_cache())

    def add(self, request_id: str, prompt_ids: list[int], params: Any) -> None:
        """See `Front`."""
        task = self._loop.create_task(self._answer(request_id, prompt_ids, params))
        self._tasks[request_id] = task
        task.add_done_callback(lambda done: self._ended(request_id, done))

    def step(self) -> list[Any]:
        """See `Front`."""
        found = self._loop.run_until_complete(self._next())
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return found

    def abort(self, request_ids: Sequence[str]) -> None:
        """See `Front`."""
        tasks = [self._tasks[each] for each in request_ids if each in self._tasks]
        for task in tasks:
            task.cancel()  # and vLLM tells its engine
        self._loop.run_until_complete(asyncio.wait(tasks) if tasks else asyncio.sleep(0))
        while not self._outputs.empty():
            self._outputs.get_nowait()

    def close(self) -> None:
        """See `Front`."""
        self.abort(list(self._tasks))
        self._engine.shutdown(timeout=_CLOSE_S)
        left = asyncio.all_tasks(self._loop)
        self._loop.run_until_complete(asyncio.wait(left, timeout=_CLOSE_S) if left else asyncio.sleep(0))
        self._loop.close()
        del self._engine  # it shuts itself down once more when it goes: now, and not at the interpreter's end

    async def _answer(self, request_id: str, prompt_ids: list[int], params: Any) -> None:
        async for output in self._engine.generate({"prompt_token_ids": prompt_ids}, params, request_id):
            self._outputs.put_nowait(output)

    def _ended(self, request_id: str, done: "asyncio.Task[None]") -> None:
        del self._tasks[request_id]
        if not done.cancelled() and (error := done.exception()) is not None:
            self._outputs.put_nowait(error)

    async def _next(self) -> list[Any]:
        """What one step of the engine gave: all of it wakes up together."""
        found = [await self._outputs.get()]
        while not self._outputs.empty():
            found.append(self._outputs.get_nowait())
        return found
