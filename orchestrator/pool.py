"""A campaign on several testbeds, driven by one process: a controller for each, in a thread of its own.

Controllers wait most of the time, for long polls and cooldowns, each with its own patience: a testbed that is slow or
dead delays no other. What they share is the run table, the screen, the request to stop, and one export.
"""

import logging
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.attempt_state import RunState
from contract.errors import JouleBedError, TestbedUnreachableError, UsageError
from contract.routes import MAX_ACKNOWLEDGED
from orchestrator.artifacts import ArtifactFolder
from orchestrator.campaign import CampaignOutcome, ControllerSettings, Ending
from orchestrator.config import Cooldown
from orchestrator.controller import Controller
from orchestrator.cooldown import CooldownWait
from orchestrator.membership import Colleagues, Member
from orchestrator.patience import Patience
from orchestrator.pool_member import PoolMember, allows, has_kinds, join
from orchestrator.pool_view import GONE, IDLE, MemberView, PoolScreen
from orchestrator.preflight import outline
from orchestrator.recorded_campaign import Recorder
from orchestrator.recording_view import RecordingView
from orchestrator.stop_request import StoppedError, StopRequest
from orchestrator.store.balance import Balance
from orchestrator.store.base import Plan
from orchestrator.store.sql_store import LEASE_S, SqlStore
from orchestrator.suspicion import ON_SUSPECT_KEY

_log = logging.getLogger("orchestrator.campaign")

_LOOK_S = 0.2
_SWITCH_S = 0.001
_RENEW_S = LEASE_S / 4
_FILES_PER_TESTBED = 3
_OTHER_FILES = 128
_WORST = (Ending.BROKEN, Ending.HOPELESS, Ending.REFUSED, Ending.UNREACHABLE, Ending.STOPPED)


class _NotNeededError(JouleBedError):
    """The campaign ended while a testbed was away. Never leaves this module."""

    code = "not_needed"


@dataclass(frozen=True)
class PoolParts:
    """What the testbeds of a campaign share.

    Attributes:
        store: holds the plan.
        plan: what is run.
        cooldown: before trials.
        folder: the experiment's.
        screen: is told what happens.
        recorder: writes it down.
        stop: what a person asked for.
        export: writes the run table as a file for people.
        settings: patience.
        kept: see `ArtifactFolder`.
    """

    store: SqlStore
    plan: Plan
    cooldown: Cooldown
    folder: Path
    screen: PoolScreen
    recorder: Recorder
    stop: StopRequest
    export: Callable[[], None]
    settings: ControllerSettings
    kept: Callable[[Path], None] = lambda folder: None


class Pool:
    """Drives a campaign on its testbeds.

    Args:
        parts: what they share.
        members: that answered, and those that may join later.
    """

    def __init__(self, parts: PoolParts, members: Sequence[PoolMember]) -> None:
        self._parts = parts
        self._members = list(members)
        self._settings = parts.settings.of_pool(len(members))
        self._leftovers = parts.store.leftovers()
        self._safe = parts.store.last_results(MAX_ACKNOWLEDGED)
        self._asked = outline(parts.plan)
        kinds = {member.kind for member in members}
        may_run = allows if has_kinds(member.entry for member in members) else None
        self._colleagues = Colleagues(parts.store, Balance.of(parts.store, may_run, kinds))
        self._artifacts = ArtifactFolder(parts.folder, parts.kept)
        self._outcomes: dict[str, CampaignOutcome] = {}
        self._guard = threading.Lock()

    def run(self) -> CampaignOutcome:
        """Run until nothing is left, or until no testbed can go on; blocking. To be called in the main thread."""
        # A writer of the run table gives the interpreter away at each statement, and all others wait for the writer.
        sys.setswitchinterval(_SWITCH_S)
        self._note_policy()
        over = threading.Event()
        exporter = threading.Thread(target=self._export_now_and_then, args=(over,), name="export", daemon=True)
        renewer = threading.Thread(target=self._renew_now_and_then, args=(over,), name="leases", daemon=True)
        threads = []
        for member in self._members:
            # All of them before the first one begins: what one left open is not another's.
            membership = self._colleagues.member(member.name, member.kind)
            stop = self._parts.stop.part()
            threads.append(
                threading.Thread(
                    target=self._serve, args=(member, membership, stop), name=f"testbed {member.name}", daemon=True
                )
            )
        for thread in (exporter, renewer, *threads):
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(_LOOK_S)
            self._parts.stop.tell_parts()
        over.set()
        exporter.join()
        renewer.join()
        outcome = self._outcome()
        try:
            self._parts.export()
        except JouleBedError as error:
            message = outcome.message or error.message
            return CampaignOutcome(outcome.ending if outcome.message else Ending.BROKEN, message, outcome.counts)
        return outcome

    def _serve(self, member: PoolMember, membership: Member, stop: StopRequest) -> None:
        """Of one testbed's thread, from its beginning to its end."""
        parts = self._parts
        shown = MemberView(parts.screen, self._colleagues, member.name)
        outcome = CampaignOutcome(
            Ending.BROKEN, f"A fault of the orchestrator's own ended it: see {parts.folder / 'orchestrator.log'}.", {}
        )
        try:
            with parts.recorder.member(
                shown, parts.store, member, unreachable_after_s=parts.settings.unreachable_after_s, stop=stop
            ) as view:
                outcome = self._drive(member, membership, stop, view)
                view.ended(outcome)
        finally:
            # Whatever it leaves open is for its colleagues now.
            self._colleagues.left(member.name)
            with self._guard:
                self._outcomes[member.name] = outcome
            if outcome.message:
                parts.screen.tell(f"{member.name} is driven no more: {outcome.message}")
                parts.screen.does(member.name, GONE)
            else:
                parts.screen.does(member.name, IDLE)

    def _drive(self, member: PoolMember, membership: Member, stop: StopRequest, view: RecordingView) -> CampaignOutcome:
        parts = self._parts
        if member.info is None:
            refused = self._join(member, stop, view)
            if refused is not None:
                return refused
        client = member.client
        return Controller(
            parts.store,
            client,
            testbed=member.name,
            cooldown=CooldownWait(parts.cooldown, lambda: view.note_node(client.node()).temperatures, sleep=stop.sleep),
            artifacts=self._artifacts,
            view=view,
            stop=stop,
            settings=self._settings,
            membership=membership,
            leftovers=self._leftovers.get(member.name, ()),
            safe=self._safe.get(member.name, ()),
        ).run()

    def _join(self, member: PoolMember, stop: StopRequest, view: RecordingView) -> CampaignOutcome | None:
        """Wait for a testbed that did not answer at the beginning; an outcome: it does not take part."""
        parts = self._parts
        patience = Patience(
            parts.settings.unreachable_after_s,
            sleep=stop.sleep,
            on_wait=lambda message: view.waiting(message, TestbedUnreachableError.code),
            on_away=self._look_whether_needed,
        )
        ending, message = Ending.FINISHED, ""
        try:
            joined = patience.ask(lambda: join(member, self._asked, self._members))
        except _NotNeededError:
            pass
        except StoppedError:
            ending = Ending.STOPPED
        except TestbedUnreachableError as error:
            ending, message = Ending.UNREACHABLE, error.message
        except JouleBedError as error:
            ending, message = Ending.REFUSED, error.message
        else:
            if joined.info is not None:
                view.note_node(joined.info)
            return None
        return CampaignOutcome(ending, message, self._colleagues.look().counts)

    def _look_whether_needed(self, away_s: float) -> None:
        counts = self._colleagues.look().counts
        if counts[RunState.TODO] + counts[RunState.RUNNING] == 0:
            raise _NotNeededError("The campaign has ended without this testbed.")

    def _note_policy(self) -> None:
        """Once for all, where a thousand controllers would each find it unknown."""
        policy = str(self._parts.settings.on_suspect)
        known = self._parts.store.recall(ON_SUSPECT_KEY)
        if known != policy:
            was = f" (was: {known})" if known else ""
            self._parts.store.remember(ON_SUSPECT_KEY, policy, f"doubted results from now on: {policy}{was}")

    def _export_now_and_then(self, over: threading.Event) -> None:
        pause_s = self._parts.settings.export_every_s
        while not over.wait(pause_s):
            begin_s = time.monotonic()
            try:
                self._parts.export()
            except JouleBedError as error:
                # The run table is what counts, and the export at the end tells a person.
                _log.warning("The run table could not be exported: %s", error.message)
            # In a large table an export takes seconds: it may not take more than a hundredth of the campaign.
            pause_s = max(self._parts.settings.export_every_s, 100 * (time.monotonic() - begin_s))

    def _renew_now_and_then(self, over: threading.Event) -> None:
        """All leases in one write, where a thousand controllers would each make one every few seconds."""
        while not over.wait(_RENEW_S):
            try:
                self._parts.store.renew()
            except JouleBedError as error:
                _log.warning("The leases could not be renewed: %s", error.message)

    def _outcome(self) -> CampaignOutcome:
        try:
            counts = self._parts.store.counts()
        except JouleBedError:
            # The testbeds' own outcomes tell why: each of them met it too.
            counts = self._colleagues.last_counts()
        else:
            if counts[RunState.TODO] + counts[RunState.RUNNING] == 0:
                return CampaignOutcome(Ending.FINISHED, "", counts)
        endings = {outcome.ending for outcome in self._outcomes.values()}
        ending = next((each for each in _WORST if each in endings), Ending.FINISHED)
        if Ending.STOPPED in endings:
            ending = Ending.STOPPED
        told = Counter(outcome.message for outcome in self._outcomes.values() if outcome.message)
        lines = []
        for message, n in told.most_common(5):
            names = [name for name, outcome in self._outcomes.items() if outcome.message == message]
            others = f" and {n - 1} more" if n > 1 else ""
            lines.append(f"{names[0]}{others}: {message}")
        return CampaignOutcome(ending, "\n".join(lines), counts)


def require_files(n_testbeds: int) -> None:
    """See that this process may open a connection to each testbed; raises its own limit as far as it may.

    Raises:
        UsageError: the machine does not allow as many.
    """
    wanted = n_testbeds * _FILES_PER_TESTBED + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise UsageError(
            f"{n_testbeds} testbeds need {wanted} open files, and this user may have {hard}. Raise it: "
            f"`ulimit -Hn {wanted}` as root, or `nofile` in /etc/security/limits.conf."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
