"""Shows a running campaign: bars in a terminal, one plain line per finished attempt elsewhere."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from contract.attempt_state import RunState
from contract.trial_result import AttemptStatus, EnergyMethod, TrialResult
from orchestrator.campaign_view import AttemptEnd, CampaignView, SilentView
from orchestrator.cooldown import CooldownProgress
from orchestrator.store.base import Claim

_ENDED = (RunState.DONE, RunState.SUSPECT, RunState.FAILED)
_ETA_WINDOW_S = 6 * 3600


class ShownView(CampaignView, Protocol):
    """A view that takes the screen for the length of a block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_view(console: Console, counts: dict[RunState, int], *, wants_bars: bool) -> ShownView:
    """The view that fits where the output goes.

    Args:
        console: where it goes.
        counts: runs per state at the start.
        wants_bars: False shows lines even in a terminal.
    """
    n_runs = sum(counts.values())
    n_ended = sum(counts[state] for state in _ENDED)
    if wants_bars and console.is_terminal:
        return BarsView(console, n_ended, n_runs)
    return LinesView(console, n_ended, n_runs)


class LinesView(SilentView):
    """One line per ended attempt, and one whenever the reason for waiting changes."""

    def __init__(self, console: Console, n_ended: int, n_runs: int) -> None:
        self._console = console
        self._n_ended = n_ended
        self._n_runs = n_runs
        self._last_waiting = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def waiting(self, message: str) -> None:
        """See `CampaignView`."""
        reason = message.partition(" Trying again for ")[0]
        if reason != self._last_waiting:
            self._last_waiting = reason
            _print(self._console, f"Waiting: {message}")

    def attempt_ended(self, end: AttemptEnd) -> None:
        """See `CampaignView`."""
        self._n_ended += end.run_state in _ENDED
        self._last_waiting = ""
        _print(self._console, f"[{self._n_ended}/{self._n_runs}] {describe_end(end)}")


class BarsView(SilentView):
    """A bar for the campaign, one for the current trial; what failed or is doubtful stays above them as a line."""

    def __init__(self, console: Console, n_ended: int, n_runs: int) -> None:
        self._console = console
        # One refresh a second: a faster one would take processor time from a trial on this machine.
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=1,
            speed_estimate_period=_ETA_WINDOW_S,
            transient=True,
        )
        self._n_ended = n_ended
        self._n_runs = n_runs
        self._runs: TaskID = self._progress.add_task(
            "[bold]runs", total=n_runs, completed=n_ended, count=f"{n_ended}/{n_runs}"
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

    def waiting(self, message: str) -> None:
        """See `CampaignView`."""
        self._tell(f"[yellow]waiting: {escape(message)}[/]")

    def attempt_ended(self, end: AttemptEnd) -> None:
        """See `CampaignView`."""
        self._n_ended += end.run_state in _ENDED
        self._progress.update(self._runs, completed=self._n_ended, count=f"{self._n_ended}/{self._n_runs}")
        if end.error is not None or (end.result is not None and end.result.reasons):
            _print(self._progress.console, describe_end(end))

    def _tell(self, text: str) -> None:
        if self._trial is not None:
            self._progress.update(self._trial, description=f"{self._run_id} {text}", total=None, count="")


def describe_end(end: AttemptEnd) -> str:
    """An ended attempt in one line."""
    number = f" (attempt {end.claim.number})" if end.claim.number > 1 else ""
    head = f"{end.claim.run_id}{number}: {end.state}"
    if end.error is not None:
        again = " It will be tried again." if end.run_state is RunState.TODO else ""
        return f"{head}, {end.error.code}: {end.error.message}{again}"
    if end.result is None:
        return head
    figures = describe_result(end.result)
    reasons = "; ".join(reason.message for reason in end.result.reasons)
    return ", ".join(part for part in (head, figures, reasons) if part)


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
