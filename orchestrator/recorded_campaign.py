"""Puts a campaign on record: who drives it, with which testbed, and how that ended."""

import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata

from contract.attempt_state import RunState
from contract.errors import JouleBedError
from contract.node_info import NodeInfo
from orchestrator.campaign import CampaignOutcome
from orchestrator.campaign_view import CampaignView
from orchestrator.config import Cooldown
from orchestrator.driver import Condition, Driver, driver_key, drivers
from orchestrator.pool_member import PoolMember
from orchestrator.processes import ProcessState, host_of, pid_of, process_state
from orchestrator.recording_view import RecordingView
from orchestrator.stop_request import StopRequest
from orchestrator.store.base import RunLedger, RunStore
from orchestrator.store.owner import this_owner

_log = logging.getLogger("orchestrator.campaign")

_NAMED = 10
_POOL_KEY = "pool"
"""Remembered fact: the last that was told of the pool."""


class Recorder:
    """Of one process.

    Args:
        url: of the testbed, as it was given.
        cooldown: of the experiment.
        arguments: this process was started with, for whoever has to start it again. They hold no secrets: there is no
            flag for one.
        owner: this process.
    """

    def __init__(
        self, url: str, cooldown: Cooldown, *, arguments: Sequence[str] | None = None, owner: str | None = None
    ) -> None:
        now = datetime.now(UTC)
        self._command = shlex.join(["orchestrator", *(sys.argv[1:] if arguments is None else arguments)])
        self._driver = Driver(
            owner=owner or this_owner(),
            testbed=url,
            url=url,
            command=self._command,
            version=metadata.version("joulebed"),
            started_at=now,
            condition=Condition.WORKING,
            since=now,
            seen_at=now,
            delta_c=cooldown.delta_c,
        )

    def note_refusal(self, store: RunLedger, error: JouleBedError) -> None:
        """A campaign that was begun earlier could not be continued: nobody may be there to read why."""
        driver = self._driver.model_copy(
            update={"condition": Condition.ENDED, "ending": error.code, "message": error.message}
        )
        message = f"the campaign could not be continued ({error.code}): {error.message}"
        _log.error("%s", message)
        store.remember(driver_key(driver.owner), driver.model_dump(mode="json"), message)

    def clear(self, store: RunStore) -> None:
        """Forget drivers that have ended or are gone: they have nothing more to tell than this one will."""
        for known in drivers(store):
            if known.condition is Condition.ENDED or process_state(known.owner) is ProcessState.GONE:
                store.forget(known.key)

    @contextmanager
    def member(
        self,
        shown: CampaignView,
        store: RunStore,
        member: PoolMember,
        *,
        unreachable_after_s: float,
        stop: StopRequest,
    ) -> Iterator[RecordingView]:
        """The same as `recorded` for one testbed of a pool, whose beginning and end `told_of_pool` tells.

        Args:
            shown: is told too.
            store: the run table.
            member: of the pool.
            unreachable_after_s: how long the campaign waits for a testbed that is away.
            stop: what a person asked for.
        """
        info = member.info
        driver = self._driver.model_copy(
            update={
                "testbed": member.name,
                "url": member.entry.url,
                "clock_offset_s": member.clock_offset_s,
                "testbed_disk_free_bytes": info.disk_free_bytes if info else None,
                "testbed_disk_total_bytes": info.disk_total_bytes if info else None,
                "is_member": True,
            }
        )
        view = RecordingView(
            shown, store, driver, unreachable_after_s=unreachable_after_s, stop_level=lambda: stop.level
        )
        view.began("")
        try:
            yield view
        except BaseException as error:
            view.broke(error)
            raise

    @contextmanager
    def told_of_pool(
        self, store: RunStore, members: Sequence[PoolMember]
    ) -> Iterator[Callable[[CampaignOutcome], None]]:
        """Events of a pool's beginning and end.

        Yields:
            To be told how it ended.
        """
        self.clear(store)
        counts = store.counts()
        left = counts[RunState.TODO] + counts[RunState.RUNNING]
        names = ", ".join(member.name for member in members[:_NAMED]) + (" ..." if len(members) > _NAMED else "")
        driver = self._driver
        _tell(
            store,
            logging.INFO,
            f"joulebed {driver.version} began on {host_of(driver.owner)}, process {pid_of(driver.owner)}: {left} of "
            f"{sum(counts.values())} runs left, {len(members)} testbeds ({names})",
        )
        outcomes: list[CampaignOutcome] = []
        try:
            yield outcomes.append
        except BaseException as error:
            _tell(store, logging.ERROR, f"the campaign broke off: {type(error).__name__}: {error}")
            raise
        for outcome in outcomes:
            _tell(store, logging.ERROR if outcome.message else logging.INFO, outcome.told)

    @contextmanager
    def recorded(
        self,
        shown: CampaignView,
        store: RunStore,
        info: NodeInfo,
        *,
        url: str,
        clock_offset_s: float | None,
        unreachable_after_s: float,
        stop: StopRequest,
    ) -> Iterator[RecordingView]:
        """A view that writes down what it is told, for the length of a block.

        Args:
            shown: is told too.
            store: the run table.
            info: of the testbed.
            url: where the testbed is.
            clock_offset_s: its clock less ours.
            unreachable_after_s: how long the campaign waits for a testbed that is away.
            stop: what a person asked for.
        """
        self.clear(store)
        driver = self._driver.model_copy(
            update={
                "testbed": info.identity.hostname,
                "url": url,
                "clock_offset_s": clock_offset_s,
                "testbed_disk_free_bytes": info.disk_free_bytes,
                "testbed_disk_total_bytes": info.disk_total_bytes,
            }
        )
        view = RecordingView(
            shown, store, driver, unreachable_after_s=unreachable_after_s, stop_level=lambda: stop.level
        )
        counts = store.counts()
        left = counts[RunState.TODO] + counts[RunState.RUNNING]
        offset = "" if clock_offset_s is None else f", its clock {clock_offset_s:+.0f} s against this one"
        view.began(
            f"joulebed {driver.version} began on {host_of(driver.owner)}, process {pid_of(driver.owner)}: {left} of "
            f"{sum(counts.values())} runs left, testbed {driver.testbed} at {url} (joulebed {info.software_version}"
            f"{offset})"
        )
        try:
            yield view
        except BaseException as error:
            view.broke(error)
            raise


def _tell(store: RunLedger, level: int, message: str) -> None:
    """Into the log and the story."""
    _log.log(level, "%s", message)
    try:
        store.remember(_POOL_KEY, message, message)
    except JouleBedError as error:
        # The controllers' own writes meet the same fault, and decide what follows from it.
        _log.warning("The campaign's story cannot be written on: %s", error.message)
