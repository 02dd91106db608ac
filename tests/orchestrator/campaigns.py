"""Campaigns on a real run table and a scripted testbed; no time passes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from contract.attempt_state import AttemptState, RunState
from contract.errors import (
    JouleBedError,
    TestbedUnreachableError,
)
from contract.routes import MAX_ACKNOWLEDGED
from contract.trial_result import AttemptStatus
from contract.trial_spec import TrialSpec
from orchestrator.artifacts import ArtifactFolder
from orchestrator.campaign import CampaignOutcome, ControllerSettings
from orchestrator.campaign_view import AttemptEnd, SilentView
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.config import Cooldown
from orchestrator.controller import Controller
from orchestrator.cooldown import CooldownWait
from orchestrator.membership import Membership
from orchestrator.stop_request import StopRequest
from orchestrator.store.base import Claim
from orchestrator.store.outage import ServerWait
from orchestrator.store.sql_store import SqlStore
from tests.orchestrator.doubles import Clock, plan, spec

NO_COOLDOWN = Cooldown(floor_s=0.0, max_wait_s=0.0)
AWAY = TestbedUnreachableError("No answer from the testbed.")


class Collector(SilentView):
    def __init__(self) -> None:
        self.ends: list[AttemptEnd] = []
        self.waits: list[str] = []
        self.on_status: Callable[[AttemptStatus], None] = lambda status: None
        self.on_end: Callable[[AttemptEnd], None] = lambda end: None

    def status(self, status: AttemptStatus) -> None:
        self.on_status(status)

    def waiting(self, message: str, code: str = "") -> None:
        self.waits.append(message)

    def attempt_ended(self, end: AttemptEnd) -> None:
        self.ends.append(end)
        self.on_end(end)


class Campaign:
    """One experiment in a folder, its run table there or in a database; `run` may be called again, as a new process
    would."""

    def __init__(
        self, folder: Path, n_runs: int = 3, max_attempts: int = 3, address: str = "", wait_s: float = 0.0
    ) -> None:
        self.folder = folder
        self.clock = Clock()
        self.view = Collector()
        self.stop = StopRequest(clock=self.clock, sleep=self.clock.sleep)
        self.n_exports = 0
        self.export = self.count_export
        self.address = address or folder / "run_table.sqlite"
        self.told: list[str] = []
        # Of a server: in real time, which is all that it knows.
        server = ServerWait(wait_s, tell=self.told.append)
        self.store = SqlStore.open(self.address, create=True, server=server)
        self.store.create_experiment(plan(n_runs, max_attempts))

    def run(
        self,
        client: FakeClient,
        cooldown: Cooldown = NO_COOLDOWN,
        testbed: str = "fake",
        membership: Membership | None = None,
        **settings: Any,
    ) -> CampaignOutcome:
        return Controller(
            self.store,
            client,
            testbed=testbed,
            cooldown=CooldownWait(
                cooldown, lambda: client.node().temperatures, clock=self.clock, sleep=self.stop.sleep
            ),
            artifacts=ArtifactFolder(self.folder),
            view=self.view,
            stop=self.stop,
            export=self.export,
            settings=ControllerSettings(**settings),
            clock=self.clock,
            membership=membership,
            leftovers=self.store.leftovers().get(testbed, ()),
            safe=self.store.last_results(MAX_ACKNOWLEDGED).get(testbed, ()),
        ).run()

    def count_export(self) -> None:
        self.n_exports += 1

    def states(self) -> list[RunState]:
        return [row.state for row in self.store.runs()]

    def attempts(self) -> list[AttemptState]:
        return [attempt.state for row in self.store.runs() for attempt in row.attempts]


def scripted(*trials: FakeTrial) -> Callable[[TrialSpec, int], FakeTrial]:
    """The trials of the first run, one per attempt; all else succeeds."""

    def script(trial: TrialSpec, n_before: int) -> FakeTrial:
        return trials[n_before] if trial.run_id == spec(0).run_id and n_before < len(trials) else FakeTrial()

    return script


def failing(error: JouleBedError) -> FakeTrial:
    return FakeTrial(state=AttemptState.FAILED, error=error.body())


def leave(campaign: Campaign, client: FakeClient, state: AttemptState) -> Claim:
    claim = campaign.store.claim_next("fake")
    assert claim is not None
    client.submit(claim.attempt_id, claim.spec)
    campaign.store.record_state(claim.attempt_id, state)
    return claim
