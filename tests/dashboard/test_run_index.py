"""The light index shows what run_table.csv shows, and keeps up with every change."""

import csv
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.datastructures import QueryParams

from contract.attempt_state import AttemptState, RunState
from contract.errors import EngineError
from contract.node_info import NodeIdentity
from contract.trial_result import EnergyMethod, EnergySummary, SuspectReason, TaskScore, TrialResult, WorkloadReport
from contract.units import PROTOCOL_VERSION
from orchestrator.dashboard.run_index import FIGURES, LightAttempt, LightRun, RunIndex
from orchestrator.dashboard.run_table import RunQuery, find
from orchestrator.export import export_run_table
from orchestrator.store.control import CampaignControl
from orchestrator.store.sql_store import SqlStore
from tests.orchestrator.doubles import plan

N_RUNS = 8
AT = datetime(2026, 1, 1, tzinfo=UTC)
NODE = NodeIdentity(
    hostname="box",
    os="Linux",
    cpu_model="CPU",
    n_cpus=8,
    memory_bytes=2**34,
    python_version="3.11",
    hardware_sha256="0" * 64,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore.open(tmp_path / "run_table.sqlite", create=True)
    store.create_experiment(plan(N_RUNS, 1))
    yield store
    store.close()


def run_one(store: SqlStore, state: AttemptState, energy_j: float = 10.0) -> str:
    claim = store.claim_next("box")
    assert claim is not None
    for step in (AttemptState.SUBMITTED, AttemptState.MEASURING, AttemptState.COLLECTING):
        store.record_state(claim.attempt_id, step)
    if not state.has_result:
        store.finish(claim.attempt_id, state, error=EngineError("It broke.").body())
        return claim.run_id
    summary = EnergySummary(
        energy_j=energy_j,
        energy_net_j=energy_j / 2,
        cpu_energy_j=energy_j,
        gpu_energy_j=None,
        dram_energy_j=None,
        baseline_power_w=1.0,
        method=EnergyMethod.ESTIMATE,
        source="fake",
        domains=["cpu_package"],
    )
    workload = WorkloadReport(
        name="fake",
        source="made up",
        prompt_sha256="0" * 64,
        n_requests=4,
        n_prompt_tokens=5,
        n_output_tokens=6,
        score=TaskScore(n_items=4, n_correct=3, n_abstained=0, accuracy=0.75),
    )
    reasons = [SuspectReason(code="gap", message="A gap of 2 s.")] if state is AttemptState.SUSPECT else []
    measured = TrialResult(
        protocol_version=PROTOCOL_VERSION,
        attempt_id=claim.attempt_id,
        run_id=claim.run_id,
        spec_sha256=claim.spec.sha256(),
        state=state,
        reasons=reasons,
        started_at=AT,
        finished_at=AT,
        summary=summary,
        duration_s=2.5,
        tokens_per_s=6 / 2.5,
        workload=workload,
        node=NODE,
    )
    store.finish(claim.attempt_id, state, result=measured, reasons=reasons)
    return claim.run_id


def ids(store: SqlStore, address: str) -> list[str]:
    return [row.run_id for row in find(RunIndex(store), RunQuery.read(QueryParams(address))).rows]


def test_figures_are_those_of_the_exported_table(store: SqlStore, tmp_path: Path) -> None:
    for state, energy_j in (
        (AttemptState.SUCCEEDED, 12.5),
        (AttemptState.SUSPECT, 99.0),
        (AttemptState.FAILED, 0.0),
        (AttemptState.SUCCEEDED, 1e-7),
    ):
        run_one(store, state, energy_j)
    with export_run_table(store, tmp_path, "csv").open() as file:
        exported = {row["__run_id"]: row for row in csv.DictReader(file)}
    rows = RunIndex(store).rows()
    assert len(rows) == len(exported) == N_RUNS
    for row in rows:
        for name in FIGURES:
            value, told = getattr(row, name), exported[row.run_id][name].strip()
            assert (value is None) == (told == "")
            if value is not None:
                assert told == value if isinstance(value, str) else float(told) == value
        if row.n_attempts:
            assert row.state == exported[row.run_id]["state"]
        assert row.told == exported[row.run_id]["reasons"].strip()


def test_every_change_is_seen_and_nothing_else_is_read_again(store: SqlStore) -> None:
    index = RunIndex(store)
    assert {row.state for row in index.rows()} == {RunState.TODO}
    done = run_one(store, AttemptState.SUCCEEDED)
    failed = run_one(store, AttemptState.FAILED)
    states = {row.run_id: row.state for row in index.rows()}
    assert (states[done], states[failed]) == (RunState.DONE, RunState.FAILED)
    version = index.version
    index.rows()
    assert index.version == version
    CampaignControl(store).exclude(done, "the window was open", "Anna")
    excluded = next(row for row in index.rows() if row.run_id == done)
    assert excluded.exclusion is not None and excluded.exclusion.by == "Anna"
    CampaignControl(store).include(done, "Anna")
    assert all(row.exclusion is None for row in index.rows())
    CampaignControl(store).retry([failed], "Anna")
    assert {row.run_id: row.state for row in index.rows()}[failed] is RunState.TODO
    assert [vars_of(row) for row in index.rows()] == [vars_of(row) for row in RunIndex(store).rows()]


@pytest.mark.parametrize("sort", ["energy_j", "-energy_j", "state", "-position", "factor.number", "-factor.number"])
def test_kept_order_is_that_of_a_new_reading_after_every_change(store: SqlStore, sort: str) -> None:
    index, query = RunIndex(store), RunQuery(sort=sort)

    def check() -> None:
        kept, new = find(index, query).rows, find(RunIndex(store), query).rows
        assert [vars_of(row) for row in kept] == [vars_of(row) for row in new]

    check()
    done = run_one(store, AttemptState.SUCCEEDED, 5.0)
    check()
    run_one(store, AttemptState.FAILED)
    run_one(store, AttemptState.SUCCEEDED, 1.0)
    check()
    CampaignControl(store).exclude(done, "the window was open", "Anna")
    check()
    CampaignControl(store).include(done, "Anna")
    check()


def test_what_follows_from_all_rows_is_made_once_per_change(store: SqlStore) -> None:
    index, made = RunIndex(store), []

    def count(rows: Sequence[LightRun], attempts: Sequence[LightAttempt]) -> tuple[int, int]:
        made.append(len(rows))
        return len(rows), len(attempts)

    assert index.derived("sizes", count) == index.derived("sizes", count) == (N_RUNS, 0)
    run_one(store, AttemptState.SUCCEEDED)
    assert index.derived("sizes", count) == index.derived("sizes", count) == (N_RUNS, 1)
    assert len(made) == 2
    for i in range(300):  # an address may ask for anything
        find(index, RunQuery(sort=f"factor.{i}"))
    assert len(index._derived) < 100


def vars_of(row: object) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__slots__}  # type: ignore[attr-defined]


def test_rows_are_filtered(store: SqlStore) -> None:
    done = [run_one(store, AttemptState.SUCCEEDED) for _ in range(2)]
    doubted = run_one(store, AttemptState.SUSPECT)
    broken = run_one(store, AttemptState.FAILED)
    assert ids(store, "state=DONE") == done
    assert ids(store, "reason=gap") == [doubted]
    assert ids(store, "reason=engine&state=FAILED") == [broken]
    assert ids(store, f"search={broken.upper()}") == [broken]
    assert ids(store, "state=EXCLUDED") == []
    assert ids(store, "factor.number=1") == [done[1]]
    assert ids(store, "factor.nothing=1") == []


@pytest.mark.parametrize("column", ["energy_j", "-energy_j"])
def test_rows_without_a_value_come_last_either_way(store: SqlStore, column: str) -> None:
    measured = [run_one(store, AttemptState.SUCCEEDED, energy_j) for energy_j in (5.0, 1.0, 3.0)]
    expected = [measured[1], measured[2], measured[0]]
    found = ids(store, f"sort={column}")
    assert found[:3] == (expected if column == "energy_j" else expected[::-1])
    assert len(found) == N_RUNS


def test_pages_hold_every_row_once(store: SqlStore) -> None:
    everything = ids(store, "sort=-position")
    assert everything == [row.run_id for row in RunIndex(store).rows()][::-1]
    parts = [ids(store, f"sort=-position&limit=3&offset={offset}") for offset in (0, 3, 6)]
    assert [run_id for part in parts for run_id in part] == everything
    assert ids(store, "sort=-position&limit=3&offset=600") == parts[-1]


@pytest.mark.parametrize(
    "address", ["offset=-1", "offset=x", "limit=0", "limit=99999999999", "sort=no", "state=NO", "sort=-"]
)
def test_address_that_makes_no_sense_shows_the_table(store: SqlStore, address: str) -> None:
    assert ids(store, address)


def test_address_tells_what_was_asked() -> None:
    asked = "state=DONE&sort=-energy_j&offset=50&factor.model=a%2Fb+c"
    assert dict(QueryParams(RunQuery.read(QueryParams(asked)).address().partition("?")[2])) == dict(QueryParams(asked))
