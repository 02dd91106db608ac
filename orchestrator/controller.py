"""The loop of a campaign: claim a run, cool down, submit, follow, collect, finish.

Every step may be repeated after a kill at any point: attempts are claimed in the run table before the testbed hears
of them, submission is idempotent, and a result stays on the testbed until it is here and accepted.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from pydantic import JsonValue

from contract.attempt_state import AttemptState, RunState
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
from orchestrator.artifacts import ArtifactFolder
from orchestrator.campaign import CampaignOutcome, ControllerSettings, Ending, FailureStreak
from orchestrator.campaign_view import AttemptEnd, CampaignView
from orchestrator.clients.base import TestbedClient
from orchestrator.cooldown import CooldownOutcome, CooldownProgress, CooldownWait
from orchestrator.held_attempt import HeldAttempt
from orchestrator.leftover import LeftoverSettler
from orchestrator.membership import Alone, Membership
from orchestrator.patience import Patience
from orchestrator.settlement import Measured, Settlement, begins_measured
from orchestrator.stop_request import StoppedError, StopRequest
from orchestrator.store.base import Claim, Leftover, RunLedger, RunReader, RunTableError, TakenOverError
from orchestrator.suspicion import ON_SUSPECT_KEY

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

IDLE_TEMP_KEY = "idle_temp_c"
"""Remembered fact: testbed -> its idle temperature in degrees Celsius at the campaign's start."""

_PASSING_S = 0.1
_OTHERS_PAUSE_S = 5.0
_COLLEAGUES_PAUSE_S = 1.0
_PAUSED_LOOK_S = 2.0
_BUSY_PAUSE_S = 1.0
_LONGEST_BUSY_PAUSE_S = 15.0


class RunStore(RunLedger, RunReader, Protocol):
    """The run table, to write and to read."""


class _GivenBackError(TestbedUnreachableError):
    """The attempt is given up, so that another testbed can take its run."""


class _NothingLeftError(TestbedUnreachableError):
    """The testbed is away, and the campaign needs it no more."""


class Controller:
    """Drives a campaign on one testbed.

    Args:
        store: holds the plan.
        client: the testbed; its errors are told apart, see `orchestrator.clients.base`.
        testbed: its name in the run table.
        cooldown: waits before trials; its sleep should be the stop request's.
        artifacts: takes the files.
        view: is told what happens.
        stop: is looked at between trials, and while waiting.
        export: writes the run table as a file for people.
        settings: patience.
        clock: monotonic seconds, the same as the cooldown's.
        membership: of a pool; alone by default.
        leftovers: of earlier attempts on this testbed, see `RunReader.leftovers`.
        safe: ended attempts of this testbed that it may not know to be safe, see `RunReader.last_results`.
    """

    def __init__(
        self,
        store: RunStore,
        client: TestbedClient,
        *,
        testbed: str,
        cooldown: CooldownWait,
        artifacts: ArtifactFolder,
        view: CampaignView,
        stop: StopRequest,
        export: Callable[[], None] = lambda: None,
        settings: ControllerSettings = ControllerSettings(),  # noqa: B008 (frozen)
        clock: Callable[[], float] = time.monotonic,
        membership: Membership | None = None,
        leftovers: Sequence[Leftover] = (),
        safe: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._client = client
        self._testbed = testbed
        self._cooldown = cooldown
        self._view = view
        self._stop = stop
        self._export = export
        self._settings = settings
        self._clock = clock
        self._previous_end_s: float | None = None
        self._next_export_s = clock() + settings.export_every_s
        self._streak = FailureStreak()
        self._held: HeldAttempt | None = None
        self._patience = Patience(
            settings.unreachable_after_s,
            clock=clock,
            sleep=stop.sleep_unless_cancelled,
            on_wait=self._wait_for_testbed,
            on_away=self._look_whether_needed,
        )
        self._membership = membership or Alone(store)
        self._settlement = Settlement(
            store,
            client,
            testbed=testbed,
            artifacts=artifacts,
            patience=self._patience,
            on_suspect=settings.on_suspect,
            ended=self._ended,
        )
        self._unsettled: Measured | None = None
        self._settling: Claim | None = None
        for attempt_id in safe:
            self._settlement.acknowledger.add(attempt_id)
        self._leftovers = list(leftovers)
        self._taken_over: list[Leftover] = []
        self._settler = LeftoverSettler(store, client, artifacts, testbed, self._patience.ask)
        # As far as this process knows: for when the run table cannot be asked any more.
        self._counts = dict.fromkeys(RunState, 0)

    def run(self) -> CampaignOutcome:
        """Run until nothing is left, or until the campaign cannot go on; blocking."""
        message = ""
        try:
            try:
                ending = self._loop()
            except RunTableError:
                self._unsettled = None  # there is no table to settle it in: the next orchestrator takes it up
                raise
            finally:
                self._settle()
        except StoppedError:
            ending = Ending.STOPPED
        except _NothingLeftError:
            ending = Ending.FINISHED
        except (TestbedUnreachableError, TestbedBusyError) as error:
            ending, message = Ending.UNREACHABLE, error.message
        except (UnauthorizedError, ProtocolMismatchError) as error:
            ending, message = Ending.REFUSED, error.message
        except JouleBedError as error:
            ending, message = Ending.BROKEN, error.message
        if ending is Ending.HOPELESS:
            message = (
                f"Every run fails with {self._streak.code!r}: {self._streak.message} "
                f"Stopped after {len(self._streak.runs)} runs."
            )
        if ending in (Ending.FINISHED, Ending.STOPPED, Ending.HOPELESS):
            self._settlement.acknowledger.tell_all()
        try:
            self._export()
        except JouleBedError as error:
            # The run table is what counts; what ended the campaign before is what matters.
            ending, message = (ending, message) if message else (Ending.BROKEN, error.message)
        try:
            return CampaignOutcome(ending, message, self._membership.look().counts)
        except JouleBedError as error:
            # The run table cannot be asked, which may be why the campaign ended.
            return CampaignOutcome(ending if message else Ending.BROKEN, message or error.message, self._counts)

    def _loop(self) -> Ending:
        counts = self._membership.look().counts
        self._counts = dict(counts)
        self._streak.is_over = self._membership.has_results(counts)
        if counts[RunState.TODO] + counts[RunState.RUNNING] == 0:
            self._settle_leftovers()
            return Ending.FINISHED
        self._note_policy()
        self._find_idle_temperature(is_new=counts[RunState.TODO] == sum(counts.values()))
        while self._stop.level == 0:
            self._settle_leftovers()
            claim = None
            if self._membership.is_worth_claiming():
                besides = self._unsettled.claim.attempt_id if self._unsettled else None
                claim = self._store.claim_next(self._testbed, self._membership.choice, besides=besides)
            if claim is None:
                if not self._settle() and not self._wait_for_others():
                    return Ending.FINISHED
                continue
            held = HeldAttempt(self._store, claim, clock=self._clock, renew_s=self._settings.renew_s)
            self._held = held
            if self._unsettled is None:
                self._view.attempt_started(claim)  # else when that one has ended
            elif begins_measured(claim.spec):
                self._settle()
            try:
                self._drive(held)
            finally:
                if self._unsettled is not None and self._unsettled.claim is not claim:
                    self._held = None  # it did not begin
                    self._settle()
            if self._streak.is_hopeless(self._settings):
                return Ending.HOPELESS
            self._export_if_due()
            self._pause_after_failure()
        return Ending.STOPPED

    def _wait_for_others(self) -> bool:
        """Wait while the campaign is paused, or others hold the runs that are left; False: none are left.

        Whoever is gone without an end leaves its lease to run out, and then the run is ours.
        """
        self._held = None
        counts, pause = self._membership.look()
        n_left = counts[RunState.TODO] + counts[RunState.RUNNING]
        if n_left == 0:
            return False
        if pause is not None:
            self._view.waiting(f"The campaign is {pause.words}. `orchestrator resume` lets it go on.")
            self._stop.sleep(_PAUSED_LOOK_S)
            return True
        if self._membership.has_colleagues:
            # Idle, and no news: the colleagues are at work on what is left.
            self._stop.sleep(_COLLEAGUES_PAUSE_S)
            return True
        what = "1 run that is left is" if n_left == 1 else f"{n_left} runs that are left are"
        self._view.waiting(f"The {what} being driven by another orchestrator: `orchestrator status` says by which.")
        self._stop.sleep(_OTHERS_PAUSE_S)
        return True

    def _pause_after_failure(self) -> None:
        """Give what may pass time to pass, the longer the more attempts failed one after the other."""
        pause_s = self._streak.pause_s(self._settings)
        if pause_s > 0 and self._stop.level == 0:
            self._view.waiting(f"{self._streak.message} Going on in {pause_s:.0f} s.", self._streak.code)
            self._stop.sleep(pause_s)

    def _note_policy(self) -> None:
        known, policy = self._store.recall(ON_SUSPECT_KEY), self._settings.on_suspect
        if known != policy:
            was = f" (was: {known})" if known else ""
            self._store.remember(ON_SUSPECT_KEY, str(policy), f"doubted results from now on: {policy}{was}")

    def _find_idle_temperature(self, *, is_new: bool) -> None:
        found = self._idle_temperatures().get(self._testbed)
        if isinstance(found, int | float):
            self._cooldown.idle_temp_c = float(found)
        elif (measured := self._patience.ask(self._cooldown.measure_idle)) is not None:
            with self._membership.lock:
                self._store.remember(IDLE_TEMP_KEY, {**self._idle_temperatures(), self._testbed: measured})
        if not is_new:
            # When the last trial ended is not known to this process; the machine may be warm from it.
            self._previous_end_s = self._clock()

    def _idle_temperatures(self) -> dict[str, JsonValue]:
        known = self._store.recall(IDLE_TEMP_KEY)
        return dict(known) if isinstance(known, dict) else {}

    def _settle_leftovers(self) -> None:
        """What was given up on this testbed: it may still be at work on it; waits until the testbed answers."""
        if self._taken_over:
            # Whoever took them drives them on, or has given them up by now.
            given_up = self._store.leftovers().get(self._testbed, [])
            self._leftovers += [left for left in given_up if left in self._taken_over]
            self._taken_over = [left for left in self._taken_over if left not in given_up]
        while self._leftovers:
            self._held = None
            self._settle()
            self._settler.settle(self._leftovers[0])
            self._leftovers.pop(0)

    def _look_whether_needed(self, away_s: float) -> None:
        """While the testbed is away: whether another is to take its run, or the campaign is over without it."""
        if not self._membership.has_colleagues:
            return
        if self._held is None and self._settling is None:
            counts = self._membership.look().counts
            if counts[RunState.TODO] + counts[RunState.RUNNING] == 0:
                raise _NothingLeftError("The campaign has ended without this testbed.")
        elif away_s >= self._settings.give_back_after_s and self._membership.may_give_back():
            raise _GivenBackError(
                f"The testbed {self._testbed} has not answered for {away_s:.0f} s: its run goes back, for another one."
            )

    def _drive(self, held: HeldAttempt) -> None:
        try:
            status = self._look_for(held.claim)
            if status is None:
                status = self._start(held)
            if status is not None:
                status = self._follow(held, status)
                self._collect(held, status)
        except _GivenBackError as given_back:
            self._give_back(held.claim, held.cooled, given_back)
        except AttemptNotFoundError:
            self._settle()
            self._settlement.lost(held.claim, held.cooled)
        except TakenOverError as error:
            self._note_taken_over(held.claim, error)

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
            held, lambda: self._patience.ask(lambda: self._cooldown.wait(self._previous_end_s, self._cooling))
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
                self._settle()
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
        self._previous_end_s = self._clock()
        return status

    def _settle_beside(self, attempt_id: str) -> None:
        try:
            self._settle()
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

    def _settle(self) -> bool:
        """Settle the trial before this one, if it waits for that."""
        measured, self._unsettled = self._unsettled, None
        if measured is None:
            return False
        self._settling = measured.claim
        try:
            self._settlement.settle(measured)
        except _GivenBackError as given_back:
            self._give_back(measured.claim, measured.cooled, given_back)
        except TakenOverError as error:
            self._note_taken_over(measured.claim, error)
        finally:
            self._settling = None
        if self._held is not None:
            self._view.attempt_started(self._held.claim)
        return True

    def _give_back(self, claim: Claim, cooled: CooldownOutcome | None, why: _GivenBackError) -> None:
        # Not the run's fault: what is cancelled is no try of it.
        self._leftovers.append(Leftover(claim.attempt_id, claim.run_id))
        self._settlement.end(claim, AttemptState.CANCELLED, cooled, error=why.body())

    def _end(self, held: HeldAttempt, state: AttemptState, error: ErrorBody) -> None:
        self._settle()  # in the order in which they were
        self._settlement.end(held.claim, state, held.cooled, error=error)

    def _ended(self, end: AttemptEnd) -> None:
        if end.run_state is not RunState.TODO and self._counts[RunState.TODO] > 0:
            self._counts[RunState.TODO] -= 1
            self._counts[end.run_state] += 1
        self._streak.note(end)
        self._membership.ended(end)
        self._view.attempt_ended(end)

    def _note_taken_over(self, claim: Claim, error: TakenOverError) -> None:
        self._taken_over.append(Leftover(claim.attempt_id, claim.run_id))
        self._view.waiting(error.message, error.code)

    def _renew(self) -> None:
        if self._held is not None:
            self._held.renew()

    def _cooling(self, progress: CooldownProgress) -> None:
        self._renew()
        self._view.cooling(progress)

    def _wait_for_testbed(self, message: str) -> None:
        self._settle()
        self._renew()
        self._view.waiting(message, TestbedUnreachableError.code)

    def _export_if_due(self) -> None:
        begin_s = self._clock()
        if begin_s < self._next_export_s:
            return
        self._export()
        end_s = self._clock()
        # In a large table an export takes seconds: it may not take more than a hundredth of the campaign.
        self._next_export_s = end_s + max(self._settings.export_every_s, 100 * (end_s - begin_s))
