"""Shows a campaign on several testbeds: one screen for all, and how many of them do what."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from contract.errors import TestbedBusyError, TestbedUnreachableError
from contract.trial_result import AttemptStatus
from orchestrator.campaign_view import AttemptEnd
from orchestrator.cooldown import CooldownProgress
from orchestrator.membership import Colleagues
from orchestrator.progress_view import Tally, describe_end
from orchestrator.store.base import Claim
from orchestrator.time_left import time_left
from orchestrator.time_words import told_span

WORKING = "working"
COOLING = "cooling down"
AWAY = "unreachable"
BUSY = "busy with another's trial"
WAITING = "waiting"
IDLE = "idle"
GONE = "left out"

_ENDS_KEPT = 1000
_LEFT_EVERY_S = 5.0


class PoolScreen:
    """What a person sees of all testbeds. Thread-safe: each testbed's thread tells of its own.

    Args:
        console: where it goes.
        tally: of the campaign.
        n_testbeds: of the pool.
        wants_bars: False shows lines even in a terminal.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        console: Console,
        tally: Tally,
        n_testbeds: int,
        *,
        wants_bars: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._tally = tally
        self._n_testbeds = n_testbeds
        self._doing: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._took_s: deque[float] = deque(maxlen=_ENDS_KEPT)
        self._left, self._left_s = "", float("-inf")
        self._progress: Progress | None = None
        self._runs: TaskID | None = None
        self._console = console
        if wants_bars and console.is_terminal:
            # One bar for all: a line per testbed would not fit, and one refresh a second is enough.
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[count]}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=console,
                refresh_per_second=1,
                transient=True,
            )
            self._runs = self._progress.add_task(
                "[bold]runs", total=tally.n_runs, completed=tally.n_ended, count="", left=""
            )
            self._console = self._progress.console

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    @property
    def doing(self) -> Counter[str]:
        """How many testbeds do what."""
        with self._lock:
            return Counter(self._doing.values())

    def does(self, testbed: str, what: str) -> None:
        """A testbed does something now."""
        with self._lock:
            if self._doing.get(testbed) == what:
                return
            self._doing[testbed] = what
            self._show()

    def tell(self, line: str) -> None:
        """A line for the person."""
        with self._lock:
            self._print(line)

    def waiting(self, testbed: str, what: str, message: str) -> None:
        """A testbed waits; told once per reason."""
        self.does(testbed, what)
        reason = message.partition(" Trying again for ")[0]
        with self._lock:
            if self._told.get(testbed) != reason:
                self._told[testbed] = reason
                self._print(f"{testbed}: waiting: {message}")

    def ended(self, testbed: str, end: AttemptEnd, took_s: float) -> None:
        """An attempt on a testbed is over."""
        with self._lock:
            self._tally.note(end)
            self._took_s.append(took_s)
            self._told.pop(testbed, None)
            if self._progress is None or end.error is not None or end.reasons:
                head = "" if self._progress is not None else f"[{self._tally.n_ended}/{self._tally.n_runs}] "
                self._print(f"{head}{testbed}: {describe_end(end)}")
            self._show()

    def _show(self) -> None:
        if self._progress is None or self._runs is None:
            return
        now_s = self._clock()
        if now_s - self._left_s >= _LEFT_EVERY_S:
            self._left_s = now_s
            n_left = self._tally.n_runs - self._tally.n_ended
            found = time_left(list(self._took_s), n_left, n_at_once=min(self._n_testbeds, max(n_left, 1)))
            self._left = f"{told_span(found.left_s)} left" if found is not None else ""
        told = ", ".join(f"{n} {what}" for what, n in Counter(self._doing.values()).most_common())
        self._progress.update(
            self._runs,
            description=f"[bold]runs[/] on {self._n_testbeds} testbeds ({told})",
            completed=self._tally.n_ended,
            count=" ".join(
                part for part in (f"{self._tally.n_ended}/{self._tally.n_runs}", self._tally.suspects) if part
            ),
            left=self._left,
        )

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class MemberView:
    """A `CampaignView` of one testbed: tells the screen, and its colleagues whether it answers.

    Args:
        screen: of all.
        colleagues: of the pool.
        testbed: its name.
        clock: monotonic seconds.
    """

    def __init__(
        self, screen: PoolScreen, colleagues: Colleagues, testbed: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._screen = screen
        self._colleagues = colleagues
        self._testbed = testbed
        self._clock = clock
        self._began_s = clock()
        self._is_away = False

    def attempt_started(self, claim: Claim) -> None:
        """See `CampaignView`."""
        self._began_s = self._clock()
        self._screen.does(self._testbed, WORKING)

    def cooling(self, progress: CooldownProgress) -> None:
        """See `CampaignView`."""
        self._screen.does(self._testbed, COOLING)

    def status(self, status: AttemptStatus) -> None:
        """See `CampaignView`."""
        self._answers(True)
        self._screen.does(self._testbed, WORKING)

    def waiting(self, message: str, code: str = "") -> None:
        """See `CampaignView`."""
        self._answers(code != TestbedUnreachableError.code)
        what = {TestbedUnreachableError.code: AWAY, TestbedBusyError.code: BUSY}.get(code, WAITING)
        self._screen.waiting(self._testbed, what, message)

    def attempt_ended(self, end: AttemptEnd) -> None:
        """See `CampaignView`."""
        if end.error is None or end.error.code != TestbedUnreachableError.code:
            self._answers(True)
        self._screen.ended(self._testbed, end, self._clock() - self._began_s)
        self._screen.does(self._testbed, IDLE)

    def _answers(self, does: bool) -> None:
        if does == self._is_away:
            self._is_away = not does
            self._colleagues.note_away(self._testbed, self._is_away)
