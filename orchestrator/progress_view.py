"""Shows a running campaign: bars in a terminal, one plain line per finished attempt elsewhere."""

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from contract.attempt_state import RunState
from contract.trial_result import AttemptStatus, EnergyMethod, TrialResult
from orchestrator.campaign_view import AttemptEnd, CampaignView, SilentView
from orchestrator.cooldown import CooldownProgress
from orchestrator.store.base import Claim
from orchestrator.suspicion import SuspectResultError, count_codes, reason_text, told_codes
from orchestrator.time_left import time_left
from orchestrator.time_words import told_span

_ENDED = (RunState.DONE, RunState.SUSPECT, RunState.FAILED)


class ShownView(CampaignView, Protocol):
    """A view that takes the screen for the length of a block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tally:
    """How many runs have ended, how many of them are suspect, and why.

    Args:
        counts: runs per state at the start.
        suspect_codes: reason code -> number of suspect runs at the start.
    """

    def __init__(self, counts: dict[RunState, int], suspect_codes: Counter[str]) -> None:
        self.n_runs = sum(counts.values())
        self.n_ended = sum(counts[state] for state in _ENDED)
        self._n_suspect = counts[RunState.SUSPECT]
        self._codes = Counter(suspect_codes)
        self._run_s: list[float] = []
        self._open_s: dict[str, float] = {}

    def note(self, end: AttemptEnd, took_s: float = 0.0) -> None:
        """Take an attempt's end into account.

        Args:
            end: of it.
            took_s: seconds that it took, its cooldown included.
        """
        self._open_s[end.claim.run_id] = self._open_s.get(end.claim.run_id, 0.0) + took_s
        if end.run_state in _ENDED:
            self.n_ended += 1
            self._run_s.append(self._open_s.pop(end.claim.run_id))
        if end.run_state is RunState.SUSPECT:
            self._n_suspect += 1
            self._codes += count_codes([end.reasons])

    @property
    def left(self) -> str:
        """`3 h 10 min left (2 h 50 min to 3 h 30 min)`, by the rule that the dashboard uses; empty: too early."""
        found = time_left(self._run_s, self.n_runs - self.n_ended)
        if found is None:
            return ""
        return f"{told_span(found.left_s)} left ({told_span(found.low_s)} to {told_span(found.high_s)})"

    @property
    def suspects(self) -> str:
        """`7 suspect: 5 started_warm, 2 gap`; empty when none is."""
        return f"{self._n_suspect} suspect: {told_codes(self._codes)}" if self._n_suspect else ""


def make_view(
    console: Console,
    counts: dict[RunState, int],
    *,
    wants_bars: bool,
    suspect_codes: Counter[str] | None = None,
) -> ShownView:
    """The view that fits where the output goes.

    Args:
        console: where it goes.
        counts: runs per state at the start.
        wants_bars: False shows lines even in a terminal.
        suspect_codes: reason code -> number of suspect runs at the start; None: there are none.
    """
    tally = Tally(counts, suspect_codes or Counter())
    return BarsView(console, tally) if wants_bars and console.is_terminal else LinesView(console, tally)


class LinesView(SilentView):
    """One line per ended attempt, and one whenever the reason for waiting changes."""

    def __init__(self, console: Console, tally: Tally) -> None:
        self._console = console
        self._tally = tally
        self._last_waiting = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def waiting(self, message: str, code: str = "") -> None:
        """See `CampaignView`."""
        reason = message.partition(" Trying again for ")[0]
        if reason != self._last_waiting:
            self._last_waiting = reason
            _print(self._console, f"Waiting: {message}")

    def attempt_ended(self, end: AttemptEnd) -> None:
        """See `CampaignView`."""
        self._tally.note(end)
        self._last_waiting = ""
        so_far = f" ({self._tally.suspects})" if end.run_state is RunState.SUSPECT else ""
        _print(self._console, f"[{self._tally.n_ended}/{self._tally.n_runs}] {describe_end(end)}{so_far}")


class _LeftColumn(TimeRemainingColumn):
    """The campaign's own estimate where a task has one, else the bar's, from its speed."""

    def render(self, task: Task) -> Text:
        left = task.fields.get("left")
        return Text(left, style="progress.remaining") if left is not None else super().render(task)


class BarsView(SilentView):
    """A bar for the campaign, one for the current trial; what failed or is doubtful stays above them as a line.

    Args:
        console: a terminal.
        tally: of the campaign.
        clock: monotonic seconds.
    """

    def __init__(self, console: Console, tally: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began_s = clock()
        # One refresh a second: a faster one would take processor time from a trial on this machine.
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            _LeftColumn(),
            console=console,
            refresh_per_second=1,
            transient=True,
        )
        self._tally = tally
        self._runs: TaskID = self._progress.add_task(
            "[bold]runs", total=tally.n_runs, completed=tally.n_ended, count=self._count(), left=""
        )
        self._trial: TaskID | None = None
        self._run_id = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def attempt_started(self, claim: Claim) -> None:
        """See `CampaignView`."""
        if self._trial is not None:
            self._progress.remove_task(self._trial)
        self._began_s = self._clock()
        again = f", attempt {claim.number}" if claim.number > 1 else ""
        self._run_id = escape(claim.run_id + again)
        self._trial = self._progress.add_task(self._run_id, total=None, count="")

    def cooling(self, progress: CooldownProgress) -> None:
        """See `CampaignView`."""
        if not progress.is_gate:
            self._tell(f"cooling down, {progress.left_s:.0f} s left")
            return
        now = "?" if progress.temp_c is None else f"{progress.temp_c:.1f}"
        idle = "?" if progress.idle_temp_c is None else f"{progress.idle_temp_c:.1f}"
        self._tell(f"thermal gate: {now} °C, idle {idle} °C, at most {progress.left_s:.0f} s more")

    def status(self, status: AttemptStatus) -> None:
        """See `CampaignView`."""
        if self._trial is None:
            return
        count = f"{status.n_requests_done}/{status.n_requests} requests" if status.n_requests else ""
        self._progress.update(
            self._trial,
            description=f"{self._run_id} {status.state.lower()}",
            total=status.n_requests or None,
            completed=status.n_requests_done,
            count=count,
        )

    def waiting(self, message: str, code: str = "") -> None:
        """See `CampaignView`."""
        self._tell(f"[yellow]waiting: {escape(message)}[/]")

    def attempt_ended(self, end: AttemptEnd) -> None:
        """See `CampaignView`."""
        self._tally.note(end, self._clock() - self._began_s)
        self._progress.update(self._runs, completed=self._tally.n_ended, count=self._count(), left=self._tally.left)
        if end.error is not None or end.reasons:
            _print(self._progress.console, describe_end(end))

    def _count(self) -> str:
        suspects = f" [yellow]{escape(self._tally.suspects)}[/]" if self._tally.suspects else ""
        return f"{self._tally.n_ended}/{self._tally.n_runs}{suspects}"

    def _tell(self, text: str) -> None:
        if self._trial is not None:
            self._progress.update(self._trial, description=f"{self._run_id} {text}", total=None, count="")


def describe_end(end: AttemptEnd) -> str:
    """An ended attempt in one line."""
    number = f" (attempt {end.claim.number})" if end.claim.number > 1 else ""
    head = f"{end.claim.run_id}{number}: {end.state}"
    again = " It will be tried again." if end.run_state is RunState.TODO else ""
    if end.error is not None and end.error.code != SuspectResultError.code:
        return f"{head}, {end.error.code}: {end.error.message}{again}"
    if end.result is None:
        return head
    refused = " The run counts as failed." if end.run_state is RunState.FAILED else ""
    parts = (head, describe_result(end.result), reason_text(end.reasons))
    return ", ".join(part for part in parts if part) + again + refused


def describe_result(result: TrialResult) -> str:
    """The figures of a result in a few words; an estimate says that it is one."""
    parts = []
    if result.duration_s is not None:
        parts.append(f"{result.duration_s:.1f} s")
    if result.summary is not None and result.summary.energy_j is not None:
        word = " (estimate)" if result.summary.method is EnergyMethod.ESTIMATE else ""
        parts.append(f"{result.summary.energy_j:.1f} J{word}")
    if result.tokens_per_s is not None:
        parts.append(f"{result.tokens_per_s:.1f} tokens/s")
    return ", ".join(parts)


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
