"""Threads that are started before they are needed, and a call that is given up when it takes too long."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

_T = TypeVar("_T")


class ReadyThread:
    """A thread for one piece of work. To start one takes longer than to wake one: it can be started ahead.

    It sees the context variables of whoever starts it, and ends with the process.
    """

    def __init__(self) -> None:
        self._orders: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it waits for its work, or does it."""
        return self._thread is not None and self._thread.is_alive()

    def prepare(self) -> None:
        """Start it; it waits for `run`. Idempotent."""
        if self._thread is None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=lambda: context.run(self._orders.get()), daemon=True)
            self._thread.start()

    def run(self, work: Callable[[], object], name: str) -> None:
        """Have it do the work; to be called once.

        Args:
            work: its exceptions go to `threading.excepthook`.
            name: of the thread from now on.
        """
        self.prepare()
        assert self._thread is not None
        self._thread.name = name
        self._orders.put(work)

    def join(self) -> None:
        """Wait for the end of the work."""
        if self._thread is not None:
            self._thread.join()


class BoundedCall(Generic[_T]):
    """One call, in a thread of its own, which is left behind when it takes too long: no thread can be ended.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = ReadyThread()
        self._is_overdue = False

    @property
    def goes_on(self) -> bool:
        """After `call`: whether it was given up, and still runs."""
        return self._is_overdue and self._thread.is_alive

    def prepare(self) -> None:
        """Start the thread ahead of `call`, where the time does not matter. Idempotent."""
        self._thread.prepare()

    def call(self, work: Callable[[], _T], limit_s: float) -> _T:
        """What the work returns, or raises. To be called once.

        Raises:
            OverdueError: it takes longer than the limit.
        """
        future: Future[_T] = Future()

        def answer() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 (raised again where it was asked for)
                future.set_exception(error)
            else:
                future.set_result(result)

        self._thread.run(answer, self._name)
        try:
            return future.result(limit_s)
        except TimeoutError:
            if future.done():
                raise  # the work's own: a network drive may raise it
            self._is_overdue = True
            raise OverdueError from None


class OverdueError(Exception):
    """The call was given up."""
