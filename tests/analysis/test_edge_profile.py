"""The power profile: efficient w*, tables, files, battery life, from runs whose figures are known."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest

from analysis.columns import COLUMNS
from analysis.edge_battery import FORMULA, battery_life
from analysis.edge_profile import DOES_NOT_FIT, DeviceProfile, device_profiles
from analysis.edge_text import file_stem, profile_text, runs_csv, summary_csv
from analysis.experiment import Exclusion, Experiment, runs_frame
from analysis.figures.edge import FIGURES, edge_figure
from analysis.figures.style import save_figure
from contract.errors import UsageError

IDLE_W, ACTIVE_W, SPEED = 4.0, 14.0, 20.0
OVERHEAD_S = 1.0
"""Of each request, for its prompt: energy per token is 14 W x (1 / 20 s + 1 s / w*), which falls with w*."""


def run(w_star: int, repetition: int, **fields: Any) -> dict[str, Any]:
    n_tokens = 5 * w_star
    duration_s = n_tokens / SPEED + 5 * OVERHEAD_S
    return {
        "run_id": f"run_{w_star}_repetition_{repetition}",
        "repetition": repetition,
        "position": 0,
        "w_star": w_star,
        "state": "DONE",
        "counted": True,
        "attempt_id": "a",
        "energy_j": ACTIVE_W * duration_s * (1 + 0.001 * repetition),
        "energy_net_j": (ACTIVE_W - IDLE_W) * duration_s,
        "baseline_power_w": IDLE_W,
        "energy_method": "sampled",
        "energy_source": "jetson",
        "energy_domains": "VDD_IN",
        "duration_s": duration_s,
        "tokens_per_s": n_tokens / duration_s,
        "n_requests": 5,
        "n_output_tokens": n_tokens,
        "max_temp_c": 40 + w_star / 50,
        "is_steady": True,
        "device": "Orin Nano",
        "reasons": "",
        **fields,
    }


def experiment(rows: list[dict[str, Any]], why: dict[str, str] | None = None, *more: str) -> Experiment:
    return Experiment(
        name="sweep",
        source="made up",
        factors=("w_star", *more),
        runs=runs_frame(rows, ["w_star", *more]),
        excluded=tuple(Exclusion(run_id, "FAILED", text) for run_id, text in (why or {}).items()),
        facts={},
        design={},
        seed=0,
        software_version="0",
    )


def failed(w_star: int, why: str, **fields: Any) -> tuple[dict[str, Any], dict[str, str]]:
    row = dict.fromkeys(COLUMNS) | {"w_star": w_star, "run_id": f"run_{w_star}", "counted": False}
    return row | {"state": "FAILED", "repetition": 0, "position": 9, **fields}, {f"run_{w_star}": why}


def sweep(**fields: Any) -> list[dict[str, Any]]:
    return [run(w_star, i, **fields) for w_star in (50, 100, 200, 400, 700) for i in range(3)]


def only(rows: list[dict[str, Any]], why: dict[str, str] | None = None) -> DeviceProfile:
    (profile,) = device_profiles(experiment(rows, why))
    return profile


def test_figures_are_those_of_the_model() -> None:
    profile = only(sweep())
    for point in profile.points:
        assert point.mean("mean_net_power_w") == pytest.approx(ACTIVE_W - IDLE_W)
        assert point.mean("energy_per_output_token_j") == pytest.approx(
            ACTIVE_W * (1 / SPEED + OVERHEAD_S / point.w_star) * 1.001
        )
        assert point.maxima["max_temp_c"] == 40 + point.w_star / 50
        assert (point.n_planned, point.n_counted, point.n_steady) == (3, 3, 3)


def test_the_efficient_length_is_the_shortest_within_the_tolerance() -> None:
    best = only(sweep()).efficient
    assert best is not None
    # 1/20 + 1/w is within 5 % of 1/20 + 1/700 from w = 254 on: 400 is the first of the sweep.
    assert best.point.w_star == 400
    assert "700" in best.reason and "longer ones may be cheaper still" in best.reason


def test_a_throttled_point_is_not_efficient_and_is_named() -> None:
    rows = [row | {"throttled_share": 0.3 if row["w_star"] >= 400 else 0.0} for row in sweep()]
    best = only(rows).efficient
    assert best is not None and best.point.w_star == 200
    assert "throttled: w* = 400, 700" in best.reason


def test_what_does_not_fit_is_in_the_table_and_no_crash() -> None:
    row, why = failed(1000, "failed, last attempt FAILED, out_of_memory: Does not fit into 8 GiB", device=None)
    profile = only([*sweep(), row], why)
    assert profile.points[-1].problem == DOES_NOT_FIT
    text = profile_text([profile])
    (line,) = [each for each in text.splitlines() if each.split()[2:3] == ["1000"]]
    assert DOES_NOT_FIT in line and "a result, not a crash" in text


def test_another_failure_is_told_with_its_words() -> None:
    row, why = failed(1000, "failed, last attempt FAILED, model_load: damaged file")
    text = profile_text([only([*sweep(), row], why)])
    assert "no result" in text and "damaged file" in text


def test_the_table_has_the_columns_that_were_asked_for() -> None:
    lines = profile_text([only(sweep())]).splitlines()
    assert lines[0].split("  ")[0].startswith("Device")
    assert all(head in lines[0] for head in ("w*", "Net Power", "Energy/Token", "Max Temp", "Tokens/s"))
    assert "10.00 W" in lines[2] and "41.0 °C" in lines[2]


def test_an_estimate_is_never_shown_without_the_word() -> None:
    measured, estimated = only(sweep()), only(sweep(energy_method="estimate"))
    assert "estimate" not in profile_text([measured]).lower()
    text = profile_text([estimated])
    assert "ESTIMATE" in text and "efficient w* = 400 (estimate)" in text


def test_a_baseline_as_busy_as_the_work_is_told() -> None:
    assert "other work ran" not in profile_text([only(sweep())])
    assert "other work ran" in profile_text([only(sweep(energy_net_j=0.1))])


def test_variants_and_devices_are_profiles_of_their_own() -> None:
    rows = [row | {"dtype": dtype} for dtype in ("float16", "bfloat16") for row in sweep()]
    rows = [row | {"run_id": f"{row['run_id']}-{row['dtype']}"} for row in rows]
    profiles = device_profiles(experiment(rows, None, "dtype"))
    assert [profile.device for profile in profiles] == ["Orin Nano, dtype=bfloat16", "Orin Nano, dtype=float16"]
    assert all(point.n_counted == 3 for profile in profiles for point in profile.points)


def test_the_files_hold_every_run_and_every_point(tmp_path: Path) -> None:
    row, why = failed(1000, "failed, out_of_memory: Does not fit")
    profile = only([*sweep(), row], why)
    runs = list(csv.DictReader(io.StringIO(runs_csv(profile))))
    assert len(runs) == 16 and runs[-1]["energy_j"] == ""
    points = list(csv.DictReader(io.StringIO(summary_csv([profile]))))
    assert [each["w_star"] for each in points] == ["50", "100", "200", "400", "700", "1000"]
    assert [each["is_efficient"] for each in points].count("True") == 1
    assert points[-1]["problem"] == DOES_NOT_FIT and points[-1]["mean_power_w"] == ""
    assert file_stem("NVIDIA H200, dtype=bf16") == "NVIDIA_H200_dtype=bf16"


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn(name: str, tmp_path: Path) -> None:
    written = save_figure(edge_figure([only(sweep())], name), tmp_path / name)
    assert all(path.stat().st_size > 1000 for path in written)


def test_a_figure_without_data_is_refused() -> None:
    with pytest.raises(UsageError, match="max_temp_c"):
        edge_figure([only(sweep(max_temp_c=None))], "max_temp")


def test_an_experiment_without_lengths_is_no_sweep() -> None:
    with pytest.raises(UsageError, match="edge_power_profile"):
        device_profiles(experiment([run(50, 0)]).__class__(**{**vars(experiment([run(50, 0)])), "factors": ("task",)}))


def test_battery_life_is_the_formula() -> None:
    life = battery_life(50.0, 0.3, ACTIVE_W, IDLE_W, SPEED)
    assert life.mean_power_w == pytest.approx(0.3 * 14 + 0.7 * 4)
    assert life.hours == pytest.approx(50 / 7.0)
    # All energy that the duty's tokens and the idling take is the battery's.
    assert life.hours * life.mean_power_w == pytest.approx(50.0)
    assert life.n_tokens == pytest.approx(life.hours * 3600 * 0.3 * SPEED)
    profile = only(sweep())
    text = profile_text([profile], [(profile, life)])
    assert FORMULA in text and "7.143 h" in text and text.count("Assumed:") == 5


@pytest.mark.parametrize(
    ("capacity_wh", "duty", "active_w", "idle_w"),
    [(0, 0.5, 10, 1), (50, 1.5, 10, 1), (50, -0.1, 10, 1), (math.nan, 0.5, 10, 1), (50, 0.5, 10, -1), (50, 0, 10, 0)],
)
def test_impossible_batteries_are_refused(capacity_wh: float, duty: float, active_w: float, idle_w: float) -> None:
    with pytest.raises(UsageError):
        battery_life(capacity_wh, duty, active_w, idle_w, SPEED)


def test_more_duty_never_lasts_longer() -> None:
    hours = [battery_life(50, duty / 10, ACTIVE_W, IDLE_W, SPEED).hours for duty in range(11)]
    assert hours == sorted(hours, reverse=True)
    assert hours[0] == pytest.approx(50 / IDLE_W) and hours[-1] == pytest.approx(50 / ACTIVE_W)
