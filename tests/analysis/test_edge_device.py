"""The power profile of trials on several devices: a line for each, and one for the whole."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.detail import requests
from analysis.edge_profile import DOES_NOT_FIT, DeviceProfile, device_profiles
from analysis.edge_text import profile_text, runs_csv, summary_csv
from analysis.figures.edge import FIGURES, edge_figure
from analysis.load import load_runs
from contract.attempt_state import AttemptState
from contract.trial_result import DeviceResult, EnergyMethod, TrialResult
from contract.trial_spec import DeviceSpec, TrialSpec

NAMES = ("gpu:0", "cores:0")
WHOLE = "all: gpu:0 + cores:0"
GPU_W, WHOLE_W, SPEED = 200.0, 320.0, 50.0


@pytest.fixture
def table(write_experiment: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two lengths x two repetitions, planned on a GPU and a core."""
    from tests.analysis.conftest import RunTableWriter

    plain = RunTableWriter.spec

    def on_devices(self: Any, *given: Any) -> TrialSpec:
        return plain(self, *given).model_copy(update={"devices": [DeviceSpec(name=name) for name in NAMES]})

    monkeypatch.setattr(RunTableWriter, "spec", on_devices)
    return write_experiment("sweep", {"w_star": [100, 200]}, repetitions=2)


def measured(result_of: Callable[..., TrialResult], run_id: str, w_star: int, seconds: float) -> TrialResult:
    """The GPU makes its tokens at 50/s and then idles at 20 W, the core takes `seconds` and has no energy."""
    busy_s = w_star / SPEED
    result = result_of(run_id, energy_j=WHOLE_W * seconds, duration_s=seconds, n_output_tokens=2 * w_star)
    common = {"n_requests": 1, "n_output_tokens": w_star, "start_s": 2.0}
    gpu = DeviceResult(
        device="gpu:0",
        kind="NVIDIA H200",
        duration_s=busy_s,
        tokens_per_s=SPEED,
        energy_j=GPU_W * busy_s,
        energy_net_j=(GPU_W - 20.0) * busy_s,
        baseline_power_w=20.0,
        tail_s=seconds - busy_s,
        tail_energy_j=20.0 * (seconds - busy_s),
        energy_method=EnergyMethod.COUNTER,
        energy_source="nvml",
        start_temp_c=40.0,
        max_temp_c=61.0,
        **common,
    )
    core = DeviceResult(
        device="cores:0",
        kind="Example CPU, 1 core",
        duration_s=seconds,
        tokens_per_s=w_star / seconds,
        tail_s=0.0,
        energy_note="cores share one package counter: it cannot tell the joules of a set of them",
        **common,
    )
    return result.model_copy(update={"devices": [gpu, core]})


def profiles(table: Any, result_of: Callable[..., TrialResult]) -> dict[str, DeviceProfile]:
    for i, w_star in enumerate((100, 200)):
        for repetition in range(2):
            run_id = f"run_{i}_repetition_{repetition}"
            result = measured(result_of, run_id, w_star, seconds=w_star / 10.0)
            table.attempt(run_id, AttemptState.SUCCEEDED, result=result, run_state="DONE")
    return {profile.device: profile for profile in device_profiles(load_runs(table.folder))}


def test_each_device_has_its_own_figures_and_the_whole_has_the_trials(table: Any, result_of: Any) -> None:
    found = profiles(table, result_of)
    assert sorted(found) == [WHOLE, "cores:0", "gpu:0"]
    for i, w_star in enumerate((100, 200)):
        gpu, core, whole = (found[name].points[i] for name in ("gpu:0", "cores:0", WHOLE))
        assert gpu.mean("energy_per_output_token_j") == pytest.approx(GPU_W / SPEED)
        assert gpu.mean("mean_net_power_w") == pytest.approx(GPU_W - 20.0)
        assert gpu.mean("temp_rise_c") == pytest.approx(21.0)
        assert (gpu.n_counted, core.n_counted, whole.n_counted) == (2, 2, 2)
        assert core.mean("tokens_per_s") == pytest.approx(10.0)
        # No figure of the whole is passed off as the core's.
        assert core.mean("mean_power_w") is None and core.maxima["max_temp_c"] is None
        assert whole.mean("mean_power_w") == pytest.approx(WHOLE_W)
        assert whole.mean("energy_per_output_token_j") == pytest.approx(WHOLE_W * w_star / 10.0 / (2 * w_star))
    assert found["gpu:0"].kind == "NVIDIA H200"
    assert found["gpu:0"].methods == ("counter",) and found["cores:0"].methods == ()
    assert found["cores:0"].efficient is None


def test_the_table_has_a_line_for_each_and_says_what_is_missing(table: Any, result_of: Any) -> None:
    text = profile_text(list(profiles(table, result_of).values()))
    lines = [line.split("  ")[0] for line in text.splitlines()]
    assert [lines.count(name) for name in (WHOLE, "gpu:0", "cores:0")] == [2, 2, 2]
    assert "gpu:0: NVIDIA H200." in text
    assert "cores:0: no energy of its own, cores share one package counter" in text
    # 8 s after 2 s of work, 16 s after 4 s: 12 s and 240 J on average.
    assert "gpu:0: done before the last device in 4 of 4 runs, by 12 s on average, in which it drew 240 J" in text


def test_the_files_have_each_device(table: Any, result_of: Any) -> None:
    found = profiles(table, result_of)
    rows = list(csv.DictReader(io.StringIO(runs_csv(found["gpu:0"]))))
    assert [float(row["energy_j"]) for row in rows] == [400.0, 400.0, 800.0, 800.0]
    assert [float(row["tail_energy_j"]) for row in rows] == [160.0, 160.0, 320.0, 320.0]
    bare = list(csv.DictReader(io.StringIO(runs_csv(found["cores:0"]))))
    assert all(row["energy_j"] == "" and "package counter" in row["energy_notes"] for row in bare)
    summary = list(csv.DictReader(io.StringIO(summary_csv(list(found.values())))))
    assert sorted({row["device"] for row in summary}) == [WHOLE, "cores:0", "gpu:0"]


def test_the_run_itself_names_all_that_computed(table: Any, result_of: Any) -> None:
    profiles(table, result_of)
    runs = load_runs(table.folder).runs
    assert runs["device"].unique().to_list() == ["NVIDIA H200 + Example CPU, 1 core"]
    assert runs.height == 4


def test_what_does_not_fit_one_device_is_its_result_alone(table: Any) -> None:
    error = {"code": "out_of_memory", "message": "Device gpu:0: Does not fit into 8 GiB of simulated memory (x)."}
    for i in range(2):
        for repetition in range(2):
            table.attempt(f"run_{i}_repetition_{repetition}", AttemptState.FAILED, error=error, run_state="FAILED")
    found = {profile.device: profile for profile in device_profiles(load_runs(table.folder))}
    assert [point.problem for point in found["gpu:0"].points] == [DOES_NOT_FIT] * 2
    assert [point.problem for point in found[WHOLE].points] == [DOES_NOT_FIT] * 2
    assert [point.problem for point in found["cores:0"].points] == ["another device of the trial failed (gpu:0)"] * 2


def test_runs_that_are_not_done_yet_have_their_lines(table: Any) -> None:
    found = device_profiles(load_runs(table.folder))
    assert [profile.device for profile in found] == [WHOLE, "cores:0", "gpu:0"]
    assert all(point.problem == "not run yet" for profile in found for point in profile.points)


@pytest.mark.parametrize("device", [None, "gpu:0"])
def test_requests_have_a_device_where_the_trial_names_some(
    write_experiment: Any, tmp_path: Path, device: str | None
) -> None:
    table = write_experiment("sweep", {"w_star": [100]}, repetitions=1)
    table.succeed("run_0_repetition_0")
    folder = table.folder / "runs" / "run_0_repetition_0" / "run_0_repetition_0-a1"
    folder.mkdir(parents=True)
    line = '{"item_id": "i-0", "submitted_s": 1.0, "finished_s": 2.0, "messages": [], "answer": "x"'
    line += f', "device": "{device}"}}' if device else "}"
    (folder / "requests.jsonl").write_text(line + "\n")
    frame = requests(load_runs(table.folder), "run_0_repetition_0")
    assert ("device" in frame.columns) is (device is not None)
    assert device is None or frame["device"].to_list() == [device]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_where_one_device_has_no_energy(table: Any, result_of: Any, name: str) -> None:
    assert edge_figure(list(profiles(table, result_of).values()), name).axes
