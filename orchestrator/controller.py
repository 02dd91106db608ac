"""The loop of a campaign on one testbed: claim a run, have it driven, until none is left.

It may be killed at any point and started again: attempts are claimed in the run table before the testbed hears of them.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import JsonValue

from contract.attempt_state import RunState
from contract.errors import (
    JouleBedError,
    ProtocolMismatchError,
    TestbedBusyError,
    TestbedUnreachableError,
    UnauthorizedError,
)
from orchestrator.artifacts import ArtifactFolder
from orchestrator.attempt_driver import AttemptDriver, GivenBackError
from orchestrator.campaign import CampaignOutcome, ControllerSettings, Ending, FailureStreak
from orchestrator.campaign_view import AttemptEnd, CampaignView
from orchestrator.clients.base import TestbedClient
from orchestrator.cooldown import CooldownWait
from orchestrator.held_attempt import HeldAttempt
from orchestrator.leftover import LeftoverSettler
from orchestrator.membership import Alone, Membership
from orchestrator.patience import Patience
from orchestrator.settlement import Settlement
from orchestrator.stop_request import StoppedError, StopRequest
from orchestrator.store.base import Leftover, RunStore, RunTableError
from orchestrator.suspicion import ON_SUSPECT_KEY

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

IDLE_TEMP_KEY = "idle_temp_c"
"""Remembered fact: testbed -> its idle temperature in degrees Celsius at the campaign's start."""

_OTHERS_PAUSE_S = 5.0
_COLLEAGUES_PAUSE_S = 1.0
_PAUSED_LOOK_S = 2.0


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
        self._testbed = testbed
        self._cooldown = cooldown
        self._view = view
        self._stop = stop
        self._export = export
        self._settings = settings
        self._clock = clock
        self._next_export_s = clock() + settings.export_every_s
        self._streak = FailureStreak()
        self._patience = Patience(
            settings.unreachable_after_s,
            clock=clock,
            sleep=stop.sleep_unless_cancelled,
            on_wait=self._wait_for_testbed,
            on_away=self._look_whether_needed,
        )
        self._membership = membership or Alone(store)
        settlement = Settlement(
            store,
            client,
            testbed=testbed,
            artifacts=artifacts,
            patience=self._patience,
            on_suspect=settings.on_suspect,
            ended=self._ended,
        )
        for attempt_id in safe:
            settlement.acknowledger.add(attempt_id)
        self._acknowledger = settlement.acknowledger
        self._leftovers = LeftoverSettler(store, client, artifacts, testbed, self._patience.ask, leftovers)
        self._driver = AttemptDriver(
            client,
            settlement=settlement,
            leftovers=self._leftovers,
            cooldown=cooldown,
            patience=self._patience,
            view=view,
            stop=stop,
            settings=settings,
            streak=self._streak,
            clock=clock,
        )
        # As far as this process knows: for when the run table cannot be asked any more.
        self._counts = dict.fromkeys(RunState, 0)

    def run(self) -> CampaignOutcome:
        """Run until nothing is left, or until the campaign cannot go on; blocking."""
        message = ""
        try:
            try:
                ending = self._loop()
            except RunTableError:
                self._driver.drop_unsettled()
                raise
            finally:
                self._driver.settle()
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
            self._acknowledger.tell_all()
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
                besides = self._driver.unsettled_id
                claim = self._store.claim_next(self._testbed, self._membership.choice, besides=besides)
            if claim is None:
                if not self._driver.settle() and not self._wait_for_others():
                    return Ending.FINISHED
                continue
            self._driver.drive(HeldAttempt(self._store, claim, clock=self._clock, renew_s=self._settings.renew_s))
            if self._streak.is_hopeless(self._settings):
                return Ending.HOPELESS
            self._export_if_due()
            self._pause_after_failure()
        return Ending.STOPPED

    def _wait_for_others(self) -> bool:
        """Wait while the campaign is paused, or others hold the runs that are left; False: none are left.

        Whoever is gone without an end leaves its lease to run out, and then the run is ours.
        """
        self._driver.rest()
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
            self._driver.previous_end_s = self._clock()

    def _idle_temperatures(self) -> dict[str, JsonValue]:
        known = self._store.recall(IDLE_TEMP_KEY)
        return dict(known) if isinstance(known, dict) else {}

    def _settle_leftovers(self) -> None:
        """What was given up on this testbed: it may still be at work on it; waits until the testbed answers."""
        if self._leftovers.are_there():
            self._driver.rest()
            self._driver.settle()
            self._leftovers.settle_all()

    def _look_whether_needed(self, away_s: float) -> None:
        """While the testbed is away: whether another is to take its run, or the campaign is over without it."""
        if not self._membership.has_colleagues:
            return
        if not self._driver.has_attempt:
            counts = self._membership.look().counts
            if counts[RunState.TODO] + counts[RunState.RUNNING] == 0:
                raise _NothingLeftError("The campaign has ended without this testbed.")
        elif away_s >= self._settings.give_back_after_s and self._membership.may_give_back():
            raise GivenBackError(
                f"The testbed {self._testbed} has not answered for {away_s:.0f} s: its run goes back, for another one."
            )

    def _ended(self, end: AttemptEnd) -> None:
        if end.run_state is not RunState.TODO and self._counts[RunState.TODO] > 0:
            self._counts[RunState.TODO] -= 1
            self._counts[end.run_state] += 1
        self._streak.note(end)
        self._membership.ended(end)
        self._view.attempt_ended(end)

    def _wait_for_testbed(self, message: str) -> None:
        self._driver.settle()
        self._driver.renew()
        self._view.waiting(message, TestbedUnreachableError.code)

    def _export_if_due(self) -> None:
        begin_s = self._clock()
        if begin_s < self._next_export_s:
            return
        self._export()
        end_s = self._clock()
        # In a large table an export takes seconds: it may not take more than a hundredth of the campaign.
        self._next_export_s = end_s + max(self._settings.export_every_s, 100 * (end_s - begin_s))
