"""Writes a campaign down while it is shown: lines in the log, events in the run table, the driver's condition."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from contract.attempt_state import AttemptState
from contract.errors import JouleBedError, TestbedBusyError, TestbedUnreachableError
from contract.log_line import note_attempt
from contract.node_info import NodeInfo
from contract.trial_result import AttemptStatus
from orchestrator.campaign import CampaignOutcome
from orchestrator.campaign_view import AttemptEnd, CampaignView
from orchestrator.cooldown import CooldownProgress
from orchestrator.driver import Condition, Driver
from orchestrator.progress_view import describe_end
from orchestrator.store.base import Claim, RunLedger
from orchestrator.time_words import told_span

_log = logging.getLogger("orchestrator.campaign")

_REFRESH_S = 15.0
_WORTH_TELLING_S = 5.0
_HELD_UP = (Condition.UNREACHABLE, Condition.BUSY, Condition.WAITING)
_CONDITION_OF = {TestbedUnreachableError.code: Condition.UNREACHABLE, TestbedBusyError.code: Condition.BUSY}
_OVER = {
    Condition.UNREACHABLE: "the testbed answers again",
    Condition.BUSY: "the testbed is free again",
    Condition.WAITING: "it goes on",
}


def _utc_now() -> datetime:
    return datetime.now(UTC)


class RecordingView:
    """A `CampaignView` that passes everything on. A campaign without waits costs no write of its own.

    Args:
        shown: what a person sees.
        store: takes events and the driver's condition.
        driver: as it begins.
        unreachable_after_s: how long the campaign waits for a testbed that is away.
        stop_level: how often a person asked to stop.
        now: aware UTC.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        shown: CampaignView,
        store: RunLedger,
        driver: Driver,
        *,
        unreachable_after_s: float | None = None,
        stop_level: Callable[[], int] = lambda: 0,
        now: Callable[[], datetime] = _utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shown = shown
        self._store = store
        self._driver = driver
        self._unreachable_after_s = unreachable_after_s
        self._stop_level = stop_level
        self._now = now
        self._clock = clock
        self._written = Condition.WORKING
        self._written_s = clock()
        self._began_s = clock()
        self._answered_at: datetime | None = None
        self._level = 0
        self._state: AttemptState | None = None
        self._head = f"{driver.testbed}: " if driver.is_member else ""

    def began(self, message: str) -> None:
        """The campaign begins. Once, before anything else. Without a message, the driver is noted and no event."""
        if message:
            _log.info("%s", message)
        self._write(message)

    def ended(self, outcome: CampaignOutcome) -> None:
        """The campaign's loop ended in order."""
        note_attempt(None, None)
        if not self._driver.is_member:
            self._look_for_stop()
        told = outcome.told
        if self._driver.is_member:
            # A pool tells of its end once; of one of its testbeds only what is wrong with it.
            name, wrong = self._driver.testbed, outcome.message
            told = f"the testbed {name} is driven no more ({outcome.ending}): {wrong}" if wrong else ""
        if told:
            _log.log(logging.ERROR if outcome.message else logging.INFO, "%s", told)
        self._end(outcome.ending, outcome.message, told)

    def broke(self, error: BaseException) -> None:
        """The campaign could not begin, or ended by a fault of its own."""
        note_attempt(None, None)
        message = error.message if isinstance(error, JouleBedError) else f"{type(error).__name__}: {error}"
        _log.error("the campaign broke off: %s", message, exc_info=not isinstance(error, JouleBedError))
        self._end("broken", message, f"the campaign broke off: {message}")

    def note_node(self, info: NodeInfo) -> NodeInfo:
        """The testbed described itself; kept with the next write.

        Returns:
            The same.
        """
        self._answered_at = self._now()
        self._change(testbed_disk_free_bytes=info.disk_free_bytes, testbed_disk_total_bytes=info.disk_total_bytes)
        return info

    def attempt_started(self, claim: Claim) -> None:
        """See `CampaignView`."""
        self._go_on()
        note_attempt(claim.attempt_id, claim.run_id)
        self._state = claim.state
        self._change(attempt_id=claim.attempt_id, run_id=claim.run_id, condition=Condition.WORKING, since=self._now())
        if claim.state is AttemptState.CLAIMED:
            _log.info("attempt %d", claim.number)
        else:
            _log.info("attempt %d is taken up where it was left: %s", claim.number, claim.state)
        self._shown.attempt_started(claim)

    def cooling(self, progress: CooldownProgress) -> None:
        """See `CampaignView`."""
        self._go_on()
        condition = Condition.GATE if progress.is_gate else Condition.COOLING
        is_new = condition is not self._driver.condition
        if is_new:
            self._begin(condition, "")
            _log.info("%s", _cooling_text(progress))
        self._change(
            temp_c=progress.temp_c,
            idle_temp_c=progress.idle_temp_c,
            until=self._now() + timedelta(seconds=progress.left_s),
        )
        if (is_new and progress.left_s >= _WORTH_TELLING_S) or self._is_due():
            self._write()
        self._shown.cooling(progress)

    def status(self, status: AttemptStatus) -> None:
        """See `CampaignView`."""
        self._answered_at = self._now()
        self._go_on()
        if status.state is not self._state:
            self._state = status.state
            _log.info("%s", status.state)
        self._shown.status(status)

    def waiting(self, message: str, code: str = "") -> None:
        """See `CampaignView`."""
        self._look_for_stop()
        reason = message.partition(" Trying again for ")[0]
        condition = _CONDITION_OF.get(code, Condition.WAITING)
        if condition is not self._driver.condition or (
            condition is Condition.WAITING and reason != self._driver.message
        ):
            self._begin(condition, reason)
            self._change(last_answer_at=self._answered_at)
            if condition is Condition.UNREACHABLE and self._unreachable_after_s is not None:
                self._change(until=self._now() + timedelta(seconds=self._unreachable_after_s))
            _log.warning("%swaiting: %s", self._head, message)
            self._write(f"{self._head}waiting: {reason}")
        elif self._is_due():
            self._write()
        self._shown.waiting(message, code)

    def attempt_ended(self, end: AttemptEnd) -> None:
        """See `CampaignView`."""
        self._go_on()
        is_fine = end.state is AttemptState.SUCCEEDED
        _log.log(logging.INFO if is_fine else logging.WARNING, "%s", describe_end(end))
        if not is_fine and end.error is not None and end.error.detail:
            _log.debug("detail: %s", end.error.detail)
        note_attempt(None, None)
        self._change(attempt_id=None, run_id=None)
        self._shown.attempt_ended(end)

    def _begin(self, condition: Condition, message: str) -> None:
        self._began_s = self._clock()
        self._change(condition=condition, since=self._now(), message=message, until=None)

    def _go_on(self) -> None:
        """Whatever held it up is over."""
        self._look_for_stop()
        before = self._driver.condition
        if before not in _HELD_UP:
            return
        message = f"{self._head}{_OVER[before]} after {told_span(self._clock() - self._began_s)}"
        self._begin(Condition.WORKING, "")
        _log.info("%s", message)
        self._write(message)

    def _look_for_stop(self) -> None:
        level = self._stop_level()
        if level == self._level or self._driver.is_member:
            return
        self._level = level
        message = "asked to stop after the current trial" if level == 1 else "asked to cancel the current trial"
        _log.warning("%s", message)
        self._write(message)

    def _end(self, ending: str, message: str, told: str) -> None:
        if self._driver.condition is Condition.UNREACHABLE:
            self._change(last_answer_at=self._driver.last_answer_at or self._driver.since)
        self._begin(Condition.ENDED, message)
        self._change(ending=str(ending), attempt_id=None, run_id=None)
        self._write(told)

    def _is_due(self) -> bool:
        return self._written is self._driver.condition and self._clock() - self._written_s >= _REFRESH_S

    def _change(self, **values: Any) -> None:
        self._driver = self._driver.model_copy(update=values)

    def _write(self, message: str = "") -> None:
        """Keep the driver's condition; with a message, as an event too."""
        self._change(seen_at=self._now())
        driver = self._driver
        self._written, self._written_s = driver.condition, self._clock()
        value = driver.model_dump(mode="json")
        try:
            self._store.remember(driver.key, value, message, attempt_id=driver.attempt_id, run_id=driver.run_id)
        except JouleBedError as error:
            # The controller's own writes meet the same fault, and decide what follows from it.
            _log.warning("The campaign's condition cannot be written down: %s", error.message)


def _cooling_text(progress: CooldownProgress) -> str:
    if not progress.is_gate:
        return f"cooling down, {progress.left_s:.0f} s left"
    now = "?" if progress.temp_c is None else f"{progress.temp_c:.1f}"
    idle = "?" if progress.idle_temp_c is None else f"{progress.idle_temp_c:.1f}"
    return f"thermal gate: {now} °C, idle {idle} °C, at most {progress.left_s:.0f} s"
