"""Keeps the comparison fresh: who computes it, when it is computed again, and what of it is shown meanwhile.

A new process reads the experiment when runs have ended since the last one did; when it is done it takes the old one's
place. So there are never two computations at once, questions are answered while one goes on, and memory is given back.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from contract.errors import UsageError
from orchestrator.dashboard.background import BackgroundError, end, let_go, read_line, start

ANALYST = "orchestrator.dashboard.analyst"

SHARE = 0.05
"""Of the time that computing may take."""

_MIN_PAUSE_S = 10.0
_IDLE_S = 900.0
"""A comparison that nobody asks gives its memory back."""

_LOOK_S = 2.0
"""The experiment is not asked for news more often."""


@dataclass
class _Reading:
    """A process that has read the experiment."""

    process: asyncio.subprocess.Process
    fingerprint: str


class Desk:
    """The comparison's state. All of it belongs to the event loop.

    Args:
        experiment: its folder.
        fingerprint: changes when other results are counted; it may block, and is called in a thread.
        background: held while a computation goes on.
        now: aware UTC.
        now_s: monotonic seconds.
    """

    def __init__(
        self,
        experiment: Path,
        fingerprint: Callable[[], str],
        *,
        background: asyncio.Lock,
        now: Callable[[], datetime],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._experiment = experiment
        self._fingerprint = fingerprint
        self._background = background
        self._now, self._now_s = now, now_s
        self._reading: _Reading | None = None
        self._task: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()
        self._looked_s = self._asked_s = self._ended_s = float("-inf")
        self._seen = ""
        self._idle: asyncio.TimerHandle | None = None
        self.first: dict[str, Any] | None = None
        """The overview and the view of all treatments, of the newest reading; None: there is none."""
        self.problem = ""
        """Why there is no newer one, in words."""
        self.at: datetime | None = None
        """When the newest reading was begun."""
        self.cost_s: float | None = None
        """What it took."""
        self.version = 0
        """Changes with each reading."""

    @property
    def is_making(self) -> bool:
        """Whether a computation goes on."""
        return self._task is not None and not self._task.done()

    @property
    def wait_s(self) -> float:
        """How long until computing again is within its share."""
        pause_s = max(_MIN_PAUSE_S, (self.cost_s or 0.0) * (1 / SHARE - 1))
        return max(0.0, self._ended_s + pause_s - self._now_s())

    async def nudge(self) -> None:
        """Somebody looks: begin a computation if there is news, and time for it."""
        self._rest_later()
        if self.is_making or self._now_s() - self._looked_s < _LOOK_S:
            return
        self._looked_s = self._now_s()
        self._seen = await asyncio.to_thread(self._fingerprint)
        # Another request may have begun it meanwhile.
        if self.is_making or not self.has_news or (self.version > 0 and self.wait_s > 0):
            return
        self._task = asyncio.create_task(self._make(self._seen))

    @property
    def has_news(self) -> bool:
        """Whether results were added or taken away since the newest reading."""
        return self._reading is None or self._reading.fingerprint != self._seen

    def status(self) -> dict[str, Any]:
        """What the page tells of it; cheap."""
        overview = self.first["overview"] if self.first is not None else None
        return {
            "version": self.version,
            "is_making": self.is_making,
            "at": self.at.isoformat() if self.at is not None else None,
            "n_counted": overview["n_counted"] if overview is not None else 0,
            "n_planned": overview["n_planned"] if overview is not None else 0,
            "cost_s": self.cost_s,
            "has_news": self.version > 0 and self._reading is not None and self.has_news,
            "wait_s": self.wait_s if self.version > 0 else 0.0,
            "problem": self.problem,
        }

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer of the newest reading.

        Raises:
            BackgroundError: there is none yet.
            UsageError: the question makes no sense.
        """
        await self.nudge()
        if self._reading is None and self.is_making and self._task is not None:
            # The first, or one after a rest: worth the wait.
            await asyncio.shield(self._task)
        async with self._asking:
            reading = self._reading
            if reading is None or self.first is None:
                raise BackgroundError(self.problem or "The comparison is not ready yet. Try again in a moment.")
            assert reading.process.stdin is not None
            try:
                reading.process.stdin.write(f"{json.dumps(question)}\n".encode())
                await reading.process.stdin.drain()
                said = await asyncio.shield(read_line(reading.process))
            except (ConnectionError, BackgroundError) as error:
                self._let_go()
                raise BackgroundError(f"The comparison's process is gone; a new one is begun. ({error})") from error
            except asyncio.CancelledError:
                # Its answer would be taken for that of the next question.
                self._let_go()
                raise
        if "failed" in said:
            raise UsageError(said["failed"])
        answer: dict[str, Any] = said["answer"]
        return answer

    async def close(self) -> None:
        """End what was started, and see it gone. Idempotent."""
        if self._idle is not None:
            self._idle.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._reading is not None:
            await end(self._reading.process)
        self._reading = None

    async def _make(self, fingerprint: str) -> None:
        async with self._background:
            at, begun_s = self._now(), self._now_s()
            process = await start(ANALYST, [str(self._experiment)])
            try:
                said = await read_line(process)
            except (BackgroundError, asyncio.CancelledError) as error:
                await end(process)
                self.problem = error.message if isinstance(error, BackgroundError) else ""
                self._ended_s, self.cost_s = self._now_s(), self._now_s() - begun_s
                self.version += 1
                if isinstance(error, asyncio.CancelledError):
                    raise
                return
            self._ended_s, self.cost_s = self._now_s(), self._now_s() - begun_s
            self.at = at
            self.version += 1
            async with self._asking:
                self._let_go()
                self._reading = _Reading(process, fingerprint)
                if "failed" in said:
                    self.first, self.problem = None, said["failed"]
                else:
                    self.first, self.problem = said, ""

    def _let_go(self) -> None:
        if self._reading is not None:
            let_go(self._reading.process)
        self._reading = None

    def _rest_later(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self._let_go)
