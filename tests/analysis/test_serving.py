"""The serving study's table: intervals over seeds, and nothing learned without its baselines."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from analysis.experiment import Exclusion, Experiment, runs_frame
from analysis.figures.serving import serving_figure
from analysis.figures.style import save_figure
from analysis.serving import ABLATION, BASELINE, LEARNED, role_of, serving_cases
from analysis.serving_text import seeds_csv, serving_csv, serving_json, serving_text
from contract.errors import UsageError
from contract.serving import ServingReport, Spread

FACTORS = ("policy", "slo_s", "arrival_seed")
JOULES = {"static_high": 200.0, "fixed_clock": 115.0, "deadline": 118.0, "learned": 103.0, "ablation: no RL": 130.0}
SEEDS = (0, 1, 2)


def report(policy: str, seed: int, **changes: Any) -> ServingReport:
    """A hundred requests; a seed of one more costs a joule more, to every policy."""
    joules = JOULES.get(policy, 150.0) + seed
    fields: dict[str, Any] = {
        "policy": policy if not policy.startswith("ablation") else "learned",
        "slo_s": 11.0,
        "n_arrived": 100,
        "n_served": 100,
        "n_lost": 0,
        "n_unfinished": 0,
        "n_judged": 100,
        "n_met": 98,
        "slo_share": 0.98,
        "latency": Spread(n=100, mean_s=7.0, p50_s=7.0, p99_s=10.0),
        "ttft": Spread(n=0),
        "tpot": Spread(n=0),
        "throughput_per_s": 0.8,
        "n_batches": 20,
        "service_energy_per_request_j": joules,
        "study_energy_per_request_j": 5 * joules,
        "energy_per_request_j": joules + 10,
        "is_simulated": True,
    }
    return ServingReport.model_validate(fields | changes)


def experiment(
    *policies: str, slos_s: tuple[float, ...] = (11.0,), failed: tuple[str, ...] = (), **changes: Any
) -> Experiment:
    rows, reports, excluded = [], {}, []
    for policy in policies:
        for slo_s in slos_s:
            for seed in SEEDS:
                run_id = f"run_{len(rows)}_repetition_0"
                is_done = run_id not in failed
                state = "DONE" if is_done else "FAILED"
                row = {"run_id": run_id, "repetition": 0, "position": len(rows), "state": state, "counted": is_done}
                rows.append({**row, "policy": policy, "slo_s": slo_s, "arrival_seed": seed})
                if is_done:
                    reports[run_id] = report(policy, seed, slo_s=slo_s, **changes)
                else:
                    excluded.append(Exclusion(run_id, "FAILED", "failed, last attempt FAILED, engine: it died"))
    return Experiment(
        name="serving",
        source="made up",
        factors=FACTORS,
        runs=runs_frame(rows, list(FACTORS)),
        excluded=tuple(excluded),
        facts={},
        design={},
        seed=0,
        software_version="0",
        serving=reports,
    )


def test_means_have_intervals_over_seeds_and_savings_are_paired_by_seed() -> None:
    (case,) = serving_cases(experiment(*JOULES))
    rows = {row.policy: row for row in case.rows}
    fixed = rows["fixed_clock"]
    assert fixed.seeds == SEEDS and fixed.mean("service_energy_per_request_j") == pytest.approx(116.0)
    assert fixed.mean("study_energy_per_request_j") == pytest.approx(580.0)
    # Student's t with two degrees of freedom: 4.303 x sd 1 / sqrt(3).
    assert fixed.means["service_energy_per_request_j"].half_width == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert fixed.mean("efficiency_per_kj") == pytest.approx(sum(980 / (125 + s) for s in SEEDS) / 3)
    # What a seed adds to both is no part of their difference.
    assert fixed.saving is not None and fixed.saving.mean is not None and fixed.saving.half_width is not None
    assert fixed.saving.mean == pytest.approx(sum(85 / (210 + s) for s in SEEDS) / 3)
    assert fixed.saving.half_width < 0.01
    assert rows["static_high"].saving is None


def test_constants_come_first_and_ablations_last() -> None:
    (case,) = serving_cases(experiment("ablation: no RL", "learned", "reactive", "deadline", "static_high"))
    assert [row.policy for row in case.rows] == ["static_high", "deadline", "reactive", "learned", "ablation: no RL"]
    assert role_of("ablation: no RL", "learned") == ABLATION
    assert role_of("ppo", "learned") == LEARNED and role_of("reactive", "reactive") == BASELINE


@pytest.mark.parametrize(
    ("others", "named"), [((), "no constant setting and no deadline rule"), (("static_high",), "no deadline rule")]
)
def test_a_learned_policy_is_never_shown_alone(others: tuple[str, ...], named: str) -> None:
    (case,) = serving_cases(experiment("learned", *others))
    assert [row.policy for row in case.rows] == list(others)
    assert named in case.withheld[0]
    assert "learned is not shown" in serving_text([case])
    assert "103" not in serving_csv([case])


def test_a_baseline_that_has_not_run_is_no_baseline() -> None:
    (case,) = serving_cases(
        experiment("deadline", "static_high", "learned", failed=tuple(f"run_{i}_repetition_0" for i in range(3)))
    )
    assert [row.policy for row in case.rows] == ["static_high", "deadline"] and case.withheld
    rule = case.rows[1]
    assert rule.problem and rule.mean("slo_share") is None
    assert "it died" in serving_text([case])


def test_each_objective_is_a_case_of_its_own() -> None:
    cases = serving_cases(experiment("static_high", "deadline", slos_s=(11.0, 20.0)))
    assert [case.slo_s for case in cases] == [11.0, 20.0]
    assert len(list(csv.DictReader(io.StringIO(serving_csv(cases))))) == 4
    per_seed = list(csv.DictReader(io.StringIO(seeds_csv(cases))))
    assert len(per_seed) == 12 and {row["arrival_seed"] for row in per_seed} == {"0", "1", "2"}


def test_text_says_what_is_simulated_and_what_was_not_measured(tmp_path: Path) -> None:
    cases = serving_cases(experiment(*JOULES))
    text = serving_text(cases)
    assert "SIMULATED" in text and "Fewer than ten seeds" in text and "nobody can save it" in text
    assert "SIMULATED" not in serving_text(serving_cases(experiment(*JOULES, is_simulated=False)))
    unmeasured = serving_cases(experiment("static_high", service_energy_per_request_j=None, energy_per_request_j=None))
    row = next(csv.DictReader(io.StringIO(serving_csv(unmeasured))))
    assert row["service_energy_per_request_j"] == "" and row["slo_share"] == "0.98"
    with pytest.raises(UsageError, match="no policy has an energy"):
        serving_figure(unmeasured[0])
    save_figure(serving_figure(cases[0]), tmp_path / "case")
    assert (tmp_path / "case.png").stat().st_size > 1000


def test_first_tokens_have_a_table_of_their_own_where_they_were_measured() -> None:
    assert "TTFT" not in serving_text(serving_cases(experiment("static_high")))
    measured = experiment("static_high", ttft=Spread(n=100, mean_s=1.0, p50_s=1.0, p99_s=1.25), ttft_share=0.75)
    text = serving_text(serving_cases(measured))
    assert "TTFT in time %" in text and "75.0 ± 0.0" in text and "1.25" in text


def test_json_is_complete_and_finite() -> None:
    (case,) = serving_json(serving_cases(experiment(*JOULES)))
    told = json.loads(json.dumps(case, allow_nan=False))
    assert {row["policy"] for row in told["policies"]} == set(JOULES)
    assert told["policies"][0]["figures"]["slo_share"]["n"] == 3


def test_what_is_no_serving_study_is_told() -> None:
    good = experiment("static_high")
    with pytest.raises(UsageError, match="no factor policy"):
        serving_cases(Experiment(**{**vars(good), "factors": ("slo_s",)}))
    with pytest.raises(UsageError, match="has served anything"):
        serving_cases(Experiment(**{**vars(good), "serving": {}}))
