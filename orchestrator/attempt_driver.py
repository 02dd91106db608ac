"""Drives one attempt after the other on one testbed: cool down, submit, follow, collect.

Every step may be repeated after a kill at any point: submission is idempotent, and a result stays on the testbed until
it is here and accepted.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from contract.attempt_state import AttemptState
from contract.errors import (
    AttemptNotFoundError,
    ErrorBody,
    JouleBedError,
    ProtocolMismatchError,
    StorageError,
    TestbedBusyError,
    TestbedUnreachableError,
    UnauthorizedError,
)
from contract.trial_result import AttemptStatus
from orchestrator.campaign import ControllerSettings, FailureStreak
from orchestrator.campaign_view import CampaignView
from orchestrator.clients.base import TestbedClient
from orchestrator.cooldown import CooldownOutcome, CooldownProgress, CooldownWait
from orchestrator.held_attempt import HeldAttempt
from orchestrator.leftover import LeftoverSettler
from orchestrator.patience import Patience
from orchestrator.settlement import Measured, Settlement, begins_measured
from orchestrator.stop_request import StoppedError, StopRequest
from orchestrator.store.base import Claim, RunTableError, TakenOverError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_PASSING_S = 0.1
_BUSY_PAUSE_S = 1.0
_LONGEST_BUSY_PAUSE_S = 15.0


class GivenBackError(TestbedUnreachableError):
    """The attempt is given up, so that another testbed can take its run."""


class AttemptDriver:
    """Drives attempts on one testbed; of one controller.

    A sound trial may wait for its settlement until the testbed has the next one: see `settle`.

    Args:
        client: the testbed; its errors are told apart, see `orchestrator.clients.base`.
        settlement: ends attempts.
        leftovers: takes what is given up.
        cooldown: waits before trials; its sleep should be the stop request's.
        patience: with the testbed.
        view: is told what happens.
        stop: is looked at between polls, and while waiting.
        settings: patience.
        streak: of failures.
        clock: monotonic seconds, the same as the cooldown's.

    Attributes:
        previous_end_s: when the last trial on the testbed ended; None: nobody knows of one.
    """

    def __init__(
        self,
        client: TestbedClient,
        *,
        settlement: Settlement,
        leftovers: LeftoverSettler,
        cooldown: CooldownWait,
        patience: Patience,
        view: CampaignView,
        stop: StopRequest,
        settings: ControllerSettings,
        streak: FailureStreak,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._settlement = settlement
        self._leftovers = leftovers
        self._cooldown = cooldown
        self._patience = patience
        self._view = view
        self._stop = stop
        self._settings = settings
        self._streak = streak
        self._clock = clock
        self.previous_end_s: float | None = None
        self._held: HeldAttempt | None = None
        self._unsettled: Measured | None = None
        self._settling: Claim | None = None

    @property
    def unsettled_id(self) -> str | None:
        """The attempt that waits for its settlement."""
        return self._unsettled.claim.attempt_id if self._unsettled is not None else None

    @property
    def has_attempt(self) -> bool:
        """Whether one is driven or settled at this moment."""
        return self._held is not None or self._settling is not None

    def drive(self, held: HeldAttempt) -> None:
        """Drive an attempt until it is over, or measured and waiting to be settled; blocking.

        Raises:
            JouleBedError: the campaign cannot go on now; the attempt stays as it is.
        """
        self._held = held
        if self._unsettled is None:
            self._view.attempt_started(held.claim)  # else when that one has ended
        elif begins_measured(held.claim.spec):
            self.settle()
        try:
            self._drive(held)
        finally:
            if self._unsettled is not None and self._unsettled.claim is not held.claim:
                self._held = None  # it did not begin
                self.settle()

    def rest(self) -> None:
        """No attempt is in hand: what comes is no waiting for one of them."""
        self._held = None

    def renew(self) -> None:
        """Keep the lease of the attempt in hand."""
        if self._held is not None:
            self._held.renew()

    def drop_unsettled(self) -> None:
        """There is no run table to settle it in: the next orchestrator takes it up."""
        self._unsettled = None

    def settle(self) -> bool:
        """Settle the trial before this one, if it waits for that; whether it did."""
        measured, self._unsettled = self._unsettled, None
        if measured is None:
            return False
        self._settling = measured.claim
        try:
            with self._unless_taken_over(measured.claim):
                try:
                    self._settlement.settle(measured)
                except GivenBackError as given_back:
                    self._give_back(measured.claim, measured.cooled, given_back)
        finally:
            self._settling = None
        if self._held is not None:
            self._view.attempt_started(self._held.claim)
        return True

    def _drive(self, held: HeldAttempt) -> None:
        with self._unless_taken_over(held.claim):
            try:
                status = self._look_for(held.claim)
                if status is None:
                    status = self._start(held)
                if status is not None:
                    status = self._follow(held, status)
                    self._collect(held, status)
            except GivenBackError as given_back:
                self._give_back(held.claim, held.cooled, given_back)
            except AttemptNotFoundError:
                self.settle()
                self._settlement.lost(held.claim, held.cooled)

    def _look_for(self, claim: Claim) -> AttemptStatus | None:
        """Where the testbed has the attempt; None: it is to be submitted.

        Raises:
            AttemptNotFoundError: it was submitted, and is not there.
        """
        if claim.state is AttemptState.CLAIMED and self._cooldown.is_nothing and claim.cooldown is None:
            return None  # submitting asks the same
        try:
            return self._patience.ask(lambda: self._client.status(claim.attempt_id))
        except AttemptNotFoundError:
            if claim.state is not AttemptState.CLAIMED:
                raise
            return None

    def _start(self, held: HeldAttempt) -> AttemptStatus | None:
        """Cool down and submit; None when the attempt ended here."""
        cooled = self._attempt(
            held, lambda: self._patience.ask(lambda: self._cooldown.wait(self.previous_end_s, self._cooling))
        )
        if cooled is None:
            return None
        if not self._cooldown.is_nothing:
            held.note_cooldown(cooled)
        return self._attempt(held, lambda: self._submit(held, cooled))

    def _attempt(self, held: HeldAttempt, step: Callable[[], _T]) -> _T | None:
        """A step before the trial; None when it failed for a reason of the run's own, which ended the attempt."""
        try:
            return step()
        except StoppedError:
            error = StoppedError("Stopped by the user before the trial began. Run the same command again to continue.")
            self._end(held, AttemptState.CANCELLED, error.body())
            raise
        except (
            TestbedUnreachableError,
            TestbedBusyError,
            UnauthorizedError,
            ProtocolMismatchError,
            TakenOverError,
            RunTableError,
            StorageError,
        ):
            raise
        except JouleBedError as error:
            self._end(held, AttemptState.FAILED, error.body())
            return None

    def _submit(self, held: HeldAttempt, cooled: CooldownOutcome) -> AttemptStatus:
        begin_s = self._clock()
        pause_s = _BUSY_PAUSE_S
        while True:
            try:
                return self._patience.ask(lambda: self._put(held.claim))
            except TestbedBusyError as error:
                self.settle()
                if self._clock() - begin_s >= self._settings.busy_after_s:
                    raise
                self._view.waiting(error.message, error.code)
                held.renew()
                self._stop.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_BUSY_PAUSE_S)
            # Somebody else's trial has warmed the machine. Cooling down once more would let the other in again and
            # again: it is looked at, and a warm start is marked.
            looked = self._cooldown.look_again(cooled)
            if looked != cooled:
                cooled = looked
                held.note_cooldown(cooled)

    def _put(self, claim: Claim) -> AttemptStatus:
        acknowledger = self._settlement.acknowledger
        safe = acknowledger.next()
        # While the testbed prepares this trial, the last one is written down.
        wait_s = _PASSING_S if self._unsettled is None else 0.0
        status = self._client.submit(claim.attempt_id, claim.spec, wait_s=wait_s, acknowledges=safe)
        acknowledger.told(safe)
        return status

    def _follow(self, held: HeldAttempt, status: AttemptStatus) -> AttemptStatus:
        """Poll to the end, and note the states on the way."""
        attempt_id = held.claim.attempt_id
        self._stop.cancel_with(lambda: self._cancel(attempt_id))
        try:
            self._settle_beside(attempt_id)
            while not status.state.is_final:
                self._view.status(status)
                if self._stop.level >= 2:
                    self._cancel(attempt_id)
                if status.state is not held.state:
                    # A state that is over at once is not worth a commit.
                    newer = self._poll(status, self._settings.passing_s)
                    if newer.version != status.version:
                        status = newer
                        continue
                held.record(status.state)
                status = self._poll(status, self._settings.poll_wait_s)
        finally:
            self._stop.cancel_with(None)
        self.previous_end_s = self._clock()
        return status

    def _settle_beside(self, attempt_id: str) -> None:
        try:
            self.settle()
        except StoppedError:
            # It had to wait, and was not waited for: nobody follows this trial either.
            self._cancel(attempt_id)
            raise

    def _poll(self, status: AttemptStatus, wait_s: float) -> AttemptStatus:
        return self._patience.ask(
            lambda: self._client.status(
                status.attempt_id, after_version=status.version, wait_s=wait_s, with_result=True
            )
        )

    def _cancel(self, attempt_id: str) -> None:
        try:
            self._client.cancel(attempt_id)
        except JouleBedError as error:
            _log.warning("Attempt %s could not be cancelled: %s", attempt_id, error.message)

    def _collect(self, held: HeldAttempt, status: AttemptStatus) -> None:
        held.renew()  # whoever has taken it over takes its files as well
        result = status.result or self._patience.ask(lambda: self._client.result(held.claim.attempt_id))
        measured = Measured(held.claim, result, held.cooled)
        has_come = status.result is not None  # and its small files with it
        # A cooldown leaves time enough, and after a failure the next trial may have to wait.
        is_in_order = self._cooldown.is_nothing and self._stop.level == 0 and self._streak.n_passing == 0
        if has_come and is_in_order and self._settlement.may_wait(measured):
            self._unsettled, self._held = measured, None
        else:
            self._settlement.settle(measured)

    def _give_back(self, claim: Claim, cooled: CooldownOutcome | None, why: GivenBackError) -> None:
        # Not the run's fault: what is cancelled is no try of it.
        self._leftovers.give_up(claim)
        self._settlement.end(claim, AttemptState.CANCELLED, cooled, error=why.body())

    def _end(self, held: HeldAttempt, state: AttemptState, error: ErrorBody) -> None:
        self.settle()  # in the order in which they were
        self._settlement.end(held.claim, state, held.cooled, error=error)

    @contextmanager
    def _unless_taken_over(self, claim: Claim) -> Iterator[None]:
        """An attempt that is another orchestrator's by now, at any of these steps, is let go."""
        try:
            yield
        except TakenOverError as error:
            self._leftovers.note_taken_over(claim)
            self._view.waiting(error.message, error.code)

    def _cooling(self, progress: CooldownProgress) -> None:
        self.renew()
        self._view.cooling(progress)
