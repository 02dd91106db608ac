"""Puts a campaign on record: who drives it, with which testbed, and how that ended."""

import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata

from contract.attempt_state import RunState
from contract.errors import JouleBedError
from contract.node_info import NodeInfo
from orchestrator.campaign_view import CampaignView
from orchestrator.config import Cooldown
from orchestrator.controller import RunStore
from orchestrator.driver import Condition, Driver, driver_key, drivers
from orchestrator.processes import ProcessState, host_of, pid_of, process_state
from orchestrator.recording_view import RecordingView
from orchestrator.stop_request import StopRequest
from orchestrator.store.base import RunLedger
from orchestrator.store.owner import this_owner

_log = logging.getLogger("orchestrator.campaign")


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
        for known in drivers(store):
            # Ended and gone ones have nothing more to tell than this one will.
            if known.condition is Condition.ENDED or process_state(known.owner) is ProcessState.GONE:
                store.forget(driver_key(known.owner))
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
