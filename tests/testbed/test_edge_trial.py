"""A trial of edge control in this process: record, stages, overhead, devices put back; and what is refused."""

import csv
import io
import os
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from contract.attempt_state import AttemptState
from contract.edge import ChooserSpec, EdgeReport, EdgeSpace, EdgeSpec
from contract.errors import InvalidOptionError
from contract.trial_result import TrialResult
from contract.trial_spec import ActuatorSpec, EngineSpec, MeterSpec, ModelSpec, TrialSpec, WorkloadSpec
from testbed import attempt_folder
from testbed.clock import SystemClock
from testbed.collect import collect
from testbed.edge_control.grpo import GrpoLearner
from testbed.edge_control.grpo_checkpoint import GrpoConfig
from testbed.edge_control.task import N_FEATURES
from testbed.edge_trial import build_chooser, edge_parts
from testbed.engines.build import build_engine
from testbed.identity import identify
from testbed.model_runner import ModelRunner
from testbed.reclaim import MARK
from testbed.simulation.orin_grid import CLOCKS_MHZ

SPACE = EdgeSpace(
    clocks_mhz=list(CLOCKS_MHZ),
    prefill_bins=[0, 5, 10],
    decode_bins=[0, 5, 10],
    batches=[1, 13, 31],
    exit_layers=[9, 16],
)
HOT = {"prefill_bin": 10, "decode_bin": 10, "batch": 31, "exit_layer": 16}


def spec_of(chooser: ChooserSpec, **edge: Any) -> TrialSpec:
    return TrialSpec(
        experiment="edge",
        run_id="run_0_repetition_0",
        repetition=0,
        treatment={"chooser": chooser.name},
        seed=1,
        model=ModelSpec(name="orin", source="fake:orin"),
        engine=EngineSpec(name="simulated_orin"),
        workload=WorkloadSpec(name="length_sweep", concurrency=31, options={"n_output_tokens": 100, "n_items": 4}),
        meter=MeterSpec(name="simulated", period_s=10.0),
        actuators=[
            ActuatorSpec(name="simulated_orin", domain="gpu:0", setting={"clock_mhz": 1300.5}),
            ActuatorSpec(name="simulated_fan", domain="fan:0", setting={"fan_duty": 1.0}),
        ],
        warmup_requests=0,
        edge=EdgeSpec(
            **{"chooser": chooser, "space": SPACE, "n_batches": 10, "fan_domain": "fan:0", "seed": 4, **edge}
        ),
    )


def run(spec: TrialSpec, folder: Path) -> TrialResult:
    folder.mkdir(exist_ok=True)
    path = folder / attempt_folder.SPEC
    path.write_text(spec.model_dump_json())
    ModelRunner(SystemClock()).run(path, folder, ["simulated"])
    now = datetime.now(UTC)
    return collect(folder, attempt_id="a", spec=spec, node=identify(), started_at=now, finished_at=now)


def report_of(result: TrialResult) -> EdgeReport:
    assert result.error is None and result.reasons == [] and result.state is AttemptState.SUCCEEDED
    assert result.edge is not None
    return result.edge


def test_the_fan_stops_and_the_board_warms_and_both_are_put_back(tmp_path: Path) -> None:
    result = run(spec_of(ChooserSpec(name="fixed", options=dict(HOT)), n_batches=30, fan_off_at=10), tmp_path / "a")
    report = report_of(result)
    assert report.is_simulated and "simulated" in report.energy_note
    assert report.fan_on is not None and report.fan_off is not None and report.late is not None
    assert (report.fan_on.n_batches, report.fan_off.n_batches, report.late.n_batches) == (10, 20, 6)
    assert report.fan_on.hottest_c is not None and report.fan_off.hottest_c is not None
    assert report.fan_off.hottest_c > report.fan_on.hottest_c
    assert [each.is_restored for each in result.settings] == [True, True]
    assert result.settings[1].at_end == {"fan_duty": 0.0}
    # All time and all energy is some stage's, but for what flows in the gaps.
    assert report.fan_on.duration_s + report.fan_off.duration_s == pytest.approx(result.duration_s)
    assert result.summary is not None and result.summary.energy_j is not None
    assert report.fan_on.energy_j is not None and report.fan_off.energy_j is not None
    served_j = report.fan_on.energy_j + report.fan_off.energy_j
    assert 0.8 * result.summary.energy_j < served_j < result.summary.energy_j
    assert result.conditions is not None and result.conditions.max_temp_sensor == "board (simulated)"


def test_a_colder_limit_is_violated_for_as_long_as_it_is(tmp_path: Path) -> None:
    spec = spec_of(ChooserSpec(name="fixed", options=dict(HOT)), limits={"temp_c": 60.5})
    report = report_of(run(spec, tmp_path / "a"))
    assert report.fan_on is not None
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a" / "edge_batches.csv").read_text())))
    above = [float(row["temp_c"]) > 60.5 for row in rows]
    assert any(above) and not all(above)
    spans = [float(b["start_s"]) - float(a["start_s"]) for a, b in pairwise(rows)]
    last_s = report.fan_on.duration_s - sum(spans)
    expected = sum(span for span, is_above in zip([*spans, last_s], above, strict=True) if is_above)
    assert report.fan_on.violation_s == pytest.approx(expected)


@pytest.mark.parametrize("name", ["grpo", "random", "tpe"])
def test_those_that_seek_use_no_more_than_their_evaluations_and_tell_what_it_cost(tmp_path: Path, name: str) -> None:
    if name == "tpe":
        pytest.importorskip("optuna")
    report = report_of(run(spec_of(ChooserSpec(name=name), n_evaluations=25, n_batches=4), tmp_path / "a"))
    assert report.n_evaluations == (20 if name == "grpo" else 25)
    assert report.search is not None and report.search.n_batches == report.n_evaluations
    assert report.recommended is not None and report.regret is not None and report.regret >= -1e-12
    cost = report.overhead
    assert cost.n_selections == 4 and cost.n_updates == {"grpo": 2, "random": 3, "tpe": 25}[name]
    assert cost.selection_s > 0 and 0 < cost.update_max_s <= cost.update_s
    assert cost.energy_j is not None and cost.inference_energy_j is not None and cost.note.startswith("estimate")
    assert 0 < cost.energy_j < cost.inference_energy_j
    assert (tmp_path / "a" / "edge_updates.csv").exists()


def test_phases_have_their_own_clocks(tmp_path: Path) -> None:
    options = {**HOT, "decode_bin": 0}
    report = report_of(run(spec_of(ChooserSpec(name="fixed", options=options)), tmp_path / "a"))
    assert report.n_clock_switches == 2 * 10 - 1  # it begins at the prefill's


def test_the_same_trial_is_the_same_again(tmp_path: Path) -> None:
    spec = spec_of(ChooserSpec(name="random"), n_evaluations=5, n_batches=3)
    one, two = (report_of(run(spec, tmp_path / name)) for name in ("a", "b"))
    assert one.search is not None and two.search is not None
    # To the nanosecond: simulated time begins at the real one.
    assert one.search.model_dump() == pytest.approx(two.search.model_dump(), rel=1e-9, abs=1e-8)
    assert one.recommended == two.recommended


def checkpoint(folder: Path, space: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    GrpoLearner(space, N_FEATURES, GrpoConfig(hidden=(4,))).save(folder / "p.safetensors", {"guard_c": 0.25})
    return "p.safetensors"


def test_a_checkpoint_chooses_without_learning_and_one_of_another_space_is_refused(tmp_path: Path) -> None:
    spec = spec_of(ChooserSpec(name="fixed", options=dict(HOT)))
    assert spec.edge is not None
    task = edge_parts(spec, build_engine(spec), {}).task
    name = checkpoint(tmp_path / "policies", task.space)
    edge = spec.edge.model_copy(update={"chooser": ChooserSpec(name="learned", file=name)})
    chooser = build_chooser(edge, task, 0, {MARK: str(tmp_path)})
    assert len(chooser.propose(100)) == 0 and chooser.settings()["guard_c"] == 0.25
    assert tuple(task.space.meaning(chooser.choose(_Seen()))) in set(
        map(tuple, task.space.meaning(task.space.all_choices()))
    )
    other = replace(task, space=replace(task.space, values=(*task.space.values[:3], (8, 16))))
    with pytest.raises(InvalidOptionError, match="another action space"):
        build_chooser(edge, other, 0, {MARK: str(tmp_path)})
    wrong = edge.model_copy(update={"chooser": ChooserSpec(name="learned", file=name, file_sha256="0" * 64)})
    with pytest.raises(InvalidOptionError, match="has the hash"):
        build_chooser(wrong, task, 0, {MARK: str(tmp_path)})


class _Seen:
    temp_c = 94.0
    is_fan_on = False


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"chooser": ChooserSpec(name="nobody")}, "no chooser named 'nobody'"),
        ({"chooser": ChooserSpec(name="fixed", options={**HOT, "batch": 2})}, "no batch 2 in the trial's space"),
        ({"chooser": ChooserSpec(name="fixed", options=dict(HOT), file="x.safetensors")}, "has no file"),
        ({"chooser": ChooserSpec(name="learned")}, "is read from a file"),
        ({"limits": {"temp_f": 200.0}}, "temp_c"),
        ({"weights": {"latency": -1.0}}, "0 or above"),
        ({"space": SPACE.model_copy(update={"clocks_mhz": [306.0] * 11})}, "give these as clocks_mhz"),
    ],
)
def test_what_is_not_possible_is_told(changes: dict[str, Any], told: str) -> None:
    spec = spec_of(**{"chooser": ChooserSpec(name="fixed", options=dict(HOT)), **changes})
    with pytest.raises(Exception, match=told):
        edge_parts(spec, build_engine(spec), os.environ)


def test_an_engine_without_phases_is_refused() -> None:
    spec = spec_of(ChooserSpec(name="governor")).model_copy(update={"engine": EngineSpec(name="fake")})
    with pytest.raises(InvalidOptionError, match="does not tell when a batch's prompts are read"):
        edge_parts(spec, build_engine(spec), {})


def test_a_spec_whose_fan_or_clock_nobody_holds_is_no_spec() -> None:
    for changes, told in (
        ({"fan_domain": None, "fan_off_at": 3}, "names none"),
        ({"fan_domain": "fan:1"}, "fan_duty of 'fan:1'"),
        ({"clock_domain": "gpu:1"}, "clock_mhz of 'gpu:1'"),
        ({"fan_off_at": 10}, "only 10 batches"),
        ({"space": SPACE.model_copy(update={"batches": [64]})}, "raise workload.concurrency"),
    ):
        with pytest.raises(ValueError, match=told):
            spec_of(ChooserSpec(name="governor"), **changes)
