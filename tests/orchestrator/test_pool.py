"""A campaign on several scripted testbeds: who does what, and what one of them cannot do to the others."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from contract.attempt_state import AttemptState, RunState
from contract.errors import JouleBedError, ProtocolMismatchError, TestbedUnreachableError, UsageError
from contract.node_info import NodeInfo
from contract.trial_spec import EngineSpec, ModelSpec, WorkloadSpec
from contract.units import sha256_of
from orchestrator.campaign import CampaignOutcome, ControllerSettings, Ending
from orchestrator.clients.fake_client import FakeClient, FakeTrial
from orchestrator.config import Cooldown, Factor, RunnerConfig, RunTableModel, Treatment, Trial
from orchestrator.design import expand
from orchestrator.pool import Pool, PoolParts
from orchestrator.pool_file import PoolEntry
from orchestrator.pool_member import PoolMember, gather
from orchestrator.pool_view import PoolScreen
from orchestrator.progress_view import Tally
from orchestrator.recorded_campaign import Recorder
from orchestrator.stop_request import StopRequest
from orchestrator.store.base import Plan
from orchestrator.store.sql_store import SqlStore

NO_COOLDOWN = Cooldown(floor_s=0.0, max_wait_s=0.0)
AWAY = TestbedUnreachableError("No answer from the testbed.")


class Study(RunnerConfig):
    name = "pool"
    cooldown = NO_COOLDOWN

    def __init__(self, factors: list[Factor], repetitions: int) -> None:
        self._model = RunTableModel(factors=factors, repetitions=repetitions)

    def create_run_table_model(self) -> RunTableModel:
        return self._model

    def trial(self, treatment: Treatment) -> Trial:
        return Trial(
            model=ModelSpec(name="fake", source="fake:small"),
            engine=EngineSpec(name="fake"),
            workload=WorkloadSpec(name="fake"),
        )


class Box(FakeClient):
    """A scripted testbed of some hardware, which may be away."""

    def __init__(
        self,
        hardware: str = "same",
        script: Callable[..., FakeTrial] = lambda spec, n: FakeTrial(),
        pace_s: float = 0.0,
    ) -> None:
        super().__init__(script)
        self._hardware = hardware
        self._pace_s = pace_s
        self.is_away = False
        self.runs: list[str] = []

    def node(self) -> NodeInfo:
        info = super().node()
        identity = info.identity.model_copy(update={"hardware_sha256": sha256_of(self._hardware)})
        return info.model_copy(update={"identity": identity})

    def clock_offset_s(self) -> float | None:
        return None

    def submit(self, attempt_id, spec, **options):  # type: ignore[no-untyped-def]
        status = super().submit(attempt_id, spec, **options)
        self.runs.append(spec.run_id)
        time.sleep(self._pace_s)
        return status

    def _enter(self, method: str, attempt_id: str = "") -> None:
        if self.is_away:
            raise AWAY
        super()._enter(method, attempt_id)


class Lab:
    """Some testbeds and one experiment."""

    def __init__(self, folder: Path, plan: Plan, boxes: dict[str, Box], kinds: dict[str, str] | None = None) -> None:
        self.plan = plan
        self.boxes = boxes
        self.entries = [PoolEntry(f"http://{name}", None, name, (kinds or {}).get(name, "")) for name in boxes]
        self.folder = folder
        self.store = SqlStore.open(folder / "run_table.sqlite", create=True)
        self.store.create_experiment(plan)
        self.stop = StopRequest()
        self.console = Console(record=True, width=200)

    def gather(self) -> list[PoolMember]:
        return gather(self.entries, self.plan, lambda entry: self.boxes[entry.name])

    def run(self, **settings: float) -> CampaignOutcome:
        members = self.gather()
        screen = PoolScreen(self.console, Tally(self.store.counts(), Counter()), len(members), wants_bars=False)
        parts = PoolParts(
            store=self.store,
            plan=self.plan,
            cooldown=NO_COOLDOWN,
            folder=self.folder,
            screen=screen,
            recorder=Recorder("", NO_COOLDOWN, arguments=[]),
            stop=self.stop,
            export=lambda: None,
            settings=ControllerSettings(**{"retry_pause_s": 0.0, **settings}),  # type: ignore[arg-type]
        )
        return Pool(parts, members).run()

    def taken(self) -> Counter[tuple[str, str]]:
        """(testbed, treatment) -> accepted runs."""
        return Counter(
            (attempt.testbed, str(row.treatment))
            for row in self.store.runs()
            for attempt in row.attempts
            if attempt.accepted
        )


def study(n_levels: int, repetitions: int) -> Plan:
    return expand(Study([Factor("level", list(range(n_levels)))], repetitions))


def test_repetitions_are_balanced_over_the_testbeds(tmp_path: Path) -> None:
    boxes = {name: Box(pace_s=0.05) for name in ("a", "b")}
    lab = Lab(tmp_path, study(4, 6), boxes)
    assert lab.run().ending is Ending.FINISHED
    taken = lab.taken()
    assert taken.total() == 24
    # Three each were exact; a pace that is not quite equal may shift one, and at the end another.
    assert all(1 <= n <= 5 for n in taken.values())
    assert len(taken) == 8
    assert sorted(boxes["a"].runs + boxes["b"].runs) == sorted(run.run_id for run in lab.plan.runs)


def test_a_slow_testbed_delays_no_other(tmp_path: Path) -> None:
    slow = threading.Event()

    def wait(spec: object, n_before: int) -> FakeTrial:
        slow.wait(20)
        return FakeTrial()

    lab = Lab(tmp_path, study(2, 10), {"slow": Box(script=wait), "fast": Box()})
    lab.boxes["fast"].submit = releasing(lab.boxes["fast"], slow, 19)  # type: ignore[method-assign]
    assert lab.run().ending is Ending.FINISHED
    assert len(lab.boxes["slow"].runs) == 1


def releasing(box: Box, event: threading.Event, after: int) -> Callable[..., object]:
    """A box's `submit`, which sets an event with the n-th run."""
    submit = box.submit

    def counted(*arguments: object, **options: object) -> object:
        status = submit(*arguments, **options)
        if len(set(box.runs)) >= after:
            event.set()
        return status

    return counted


def test_a_dead_testbeds_run_goes_to_another_and_it_comes_back(tmp_path: Path) -> None:
    dying = Box()
    lab = Lab(tmp_path, study(2, 3), {"dying": dying, "well": Box(pace_s=0.05)})

    def die(spec: object, n_before: int) -> FakeTrial:
        dying.is_away = True
        return FakeTrial()

    dying._script = die
    outcome = lab.run(give_back_after_s=0.1)
    assert outcome.ending is Ending.FINISHED, outcome
    assert outcome.counts[RunState.DONE] == 6
    given_back = [
        attempt for row in lab.store.runs() for attempt in row.attempts if attempt.state is AttemptState.CANCELLED
    ]
    assert [attempt.testbed for attempt in given_back] == ["dying"]
    assert given_back[0].error is not None
    assert given_back[0].error.code == "testbed_unreachable"


def test_who_is_away_at_the_beginning_joins_later(tmp_path: Path) -> None:
    late = Box()
    late.is_away = True
    there = Box(pace_s=0.02)
    lab = Lab(tmp_path, study(2, 100), {"there": there, "late": late})
    submit = there.submit

    def count(*arguments: object, **options: object) -> object:
        if len(there.runs) == 5:
            late.is_away = False
        return submit(*arguments, **options)  # type: ignore[arg-type]

    there.submit = count  # type: ignore[assignment,method-assign]
    assert lab.run().ending is Ending.FINISHED
    assert late.runs


def test_a_broken_testbed_stops_and_the_others_go_on(tmp_path: Path) -> None:
    error = JouleBedError("The GPU fell off the bus.").body()
    broken = Box(
        script=lambda spec, n: FakeTrial(state=AttemptState.FAILED, error=error.model_copy(update={"retryable": True}))
    )
    third = threading.Event()

    def wait(spec: object, n_before: int) -> FakeTrial:
        third.wait(20)
        return FakeTrial()

    lab = Lab(tmp_path, study(3, 4), {"broken": broken, "well": Box(script=wait)})
    broken.submit = releasing(broken, third, 3)  # type: ignore[method-assign]
    outcome = lab.run()
    assert outcome.counts[RunState.DONE] == 12, outcome
    assert len(broken.runs) == 3, "each run once: tries are not used up where they fail"
    assert "broken is driven no more" in lab.console.export_text()


def test_unlike_hardware_is_refused_unless_it_is_a_factor(tmp_path: Path) -> None:
    boxes = {"a": Box("x"), "b": Box("y")}
    lab = Lab(tmp_path, study(2, 1), boxes)
    with pytest.raises(UsageError, match="2 kinds of hardware") as caught:
        lab.gather()
    assert "factor" in caught.value.message
    plan = expand(Study([Factor("hardware", ["x", "y"]), Factor("level", [1, 2])], 3))
    (tmp_path / "factor").mkdir()
    lab = Lab(tmp_path / "factor", plan, boxes, {"a": "x", "b": "y"})
    assert lab.run().ending is Ending.FINISHED
    for (testbed, treatment), n in lab.taken().items():
        assert ("'x'" in treatment) == (testbed == "a")
        assert n == 3


@pytest.mark.parametrize(
    ("factors", "kinds", "expected"),
    [
        ([Factor("level", [1])], {"a": "x", "b": "x"}, "no factor"),
        ([Factor("hardware", ["x", "z"])], {"a": "x", "b": "x"}, "'z'"),
        ([Factor("hardware", ["x"])], {"a": "x", "b": "w"}, "'w'"),
        ([Factor("hardware", ["x"])], {"a": "x", "b": "x"}, "2 kinds of hardware"),
    ],
)
def test_kinds_and_levels_must_agree(
    tmp_path: Path, factors: list[Factor], kinds: dict[str, str], expected: str
) -> None:
    lab = Lab(tmp_path, expand(Study(factors, 1)), {"a": Box("x"), "b": Box("y")}, kinds)
    with pytest.raises(UsageError, match=expected):
        lab.gather()


def test_another_version_and_nobody_at_all_are_refused(tmp_path: Path) -> None:
    lab = Lab(tmp_path, study(2, 1), {"a": Box(), "b": Box()})
    lab.boxes["b"]._failures["node"] = [ProtocolMismatchError("It speaks version 9. Upgrade joulebed.")]
    with pytest.raises(ProtocolMismatchError, match="http://b: It speaks version 9"):
        lab.gather()
    for box in lab.boxes.values():
        box.is_away = True
    with pytest.raises(TestbedUnreachableError, match="None of the 2"):
        lab.gather()


def test_a_person_stops_all_of_them(tmp_path: Path) -> None:
    lab = Lab(tmp_path, study(2, 100), {"a": Box(pace_s=0.02), "b": Box(pace_s=0.02)})
    timer = threading.Timer(0.5, lab.stop.request)
    timer.start()
    outcome = lab.run()
    timer.join()
    assert outcome.ending is Ending.STOPPED
    assert outcome.counts[RunState.RUNNING] == 0
    assert outcome.counts[RunState.TODO] > 0


def test_a_pool_takes_up_what_another_process_left_where_it_was(tmp_path: Path) -> None:
    lab = Lab(tmp_path, study(2, 2), {"a": Box(), "b": Box()})
    left = {}
    for name in ("a", "b"):
        gone = SqlStore.open(tmp_path / "run_table.sqlite", create=False, owner=f"elsewhere-{name}:1:1")
        claim = gone.claim_next(name)
        assert claim is not None
        lab.boxes[name].submit(claim.attempt_id, claim.spec)
        gone.record_state(claim.attempt_id, AttemptState.SUBMITTED)
        left[claim.attempt_id] = name
    with gone._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE attempt SET lease_until = '2020-01-01T00:00:00.000000+00:00'")
    assert lab.run().ending is Ending.FINISHED
    accepted = {
        attempt.attempt_id: attempt.testbed for row in lab.store.runs() for attempt in row.attempts if attempt.accepted
    }
    assert left.items() <= accepted.items()
    assert len(accepted) == 4
