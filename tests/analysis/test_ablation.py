"""Configurations of an ablation: totals over the work, ranks with intervals, words, the sweet spot, the report."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.ablation import Ablation, ablate, chains, explain, is_ablation, ratio, scaling
from analysis.cli import main
from analysis.load import load_runs
from analysis.summary import summarise
from contract.errors import UsageError
from tests.analysis.report.page import Page

SUITES = {"short": 1.0, "long": 4.0}
FACTORS = {"n_threads": [1, 2], "n_gpu_layers": [0], "n_batch": [128, 512], "suite": list(SUITES)}


def measured(treatment: dict[str, Any], repetition: int) -> dict[str, Any]:
    """Two threads halve the time at 1.5 times the power; the batch does nothing."""
    wobble = 1.0 + 0.01 * ((repetition + treatment["n_batch"] // 128) % 3 - 1)
    duration_s = 10.0 * SUITES[treatment["suite"]] / treatment["n_threads"] * wobble
    power_w = 10.0 * (1.0 + 0.5 * (treatment["n_threads"] - 1))
    return {"duration_s": duration_s, "energy_j": power_w * duration_s, "n_output_tokens": 100, "n_items": 8}


@pytest.fixture
def table(write_experiment: Callable[..., Any]) -> Any:
    table = write_experiment("threads", FACTORS, repetitions=5)
    table.succeed_all(measured)
    return table


@pytest.fixture
def found(table: Any) -> Ablation:
    return ablate(summarise(load_runs(table.folder)), seed=1)


def levels(each: Any) -> tuple[Any, Any]:
    return each.levels["n_threads"], each.levels["n_batch"]


def test_joules_and_seconds_are_totals_over_the_work(found: Ablation) -> None:
    one = next(each for each in found.configurations if levels(each) == (1, 128))
    assert found.settings == ("n_threads", "n_batch")
    assert found.fixed == {"n_gpu_layers": 0}
    assert (found.work, found.n_works) == (("suite",), 2)
    assert one.n_runs == 10
    # 10 s and 40 s at 10 W, with a wobble that has no mean over three repetitions.
    for joules, seconds in zip(one.energies, one.durations, strict=True):
        assert joules == pytest.approx(10.0 * seconds)
        assert seconds == pytest.approx(50.0, rel=0.011)
    assert one.latency_s.mean == pytest.approx(one.duration_s.mean / 16)  # type: ignore[operator]
    products = [joules * seconds for joules, seconds in zip(one.energies, one.durations, strict=True)]
    assert one.edp_js.mean == pytest.approx(math.fsum(products) / 5)
    squares = [joules * seconds**2 for joules, seconds in zip(one.energies, one.durations, strict=True)]
    assert one.ed2p_js2.mean == pytest.approx(math.fsum(squares) / 5)


def test_ranks_and_ties(found: Ablation) -> None:
    assert [levels(each)[0] for each in found.configurations] == [2, 2, 1, 1]
    assert [each.rank for each in found.configurations] == [1, 2, 3, 4]
    # The batch does nothing: neither of the two best is surely the first, and neither ever falls behind one thread.
    for each in found.configurations[:2]:
        assert (each.rank_low, each.rank_high, each.is_tied) == (1, 2, True)
    assert not any(each.is_tied for each in found.configurations[2:])
    # Of two that are tied the smaller one is enough.
    assert levels(found.sweet_spot) == (2, 128)
    assert levels(found.reference) == (1, 128)


def test_the_seed_decides_the_bootstrap(table: Any) -> None:
    summary = summarise(load_runs(table.folder))
    assert ablate(summary, seed=3) == ablate(summary, seed=3)


def test_each_configuration_is_explained(found: Ablation) -> None:
    texts = {levels(each): explain(each, found.reference) for each in found.configurations}
    assert texts[1, 128] == "the reference that the others are held against"
    assert texts[1, 512].startswith("not distinguishable from the reference")
    assert texts[2, 128].startswith("faster (-50 %")
    assert "cheaper (-25 %" in texts[2, 128]
    assert "mean power is 1.50 times the reference's: the time saved pays for it" in texts[2, 128]


def test_a_repetition_that_lacks_a_suite_is_no_total(write_experiment: Callable[..., Any]) -> None:
    table = write_experiment("holes", FACTORS, repetitions=3)
    for i, treatment in enumerate(table.treatments):
        for repetition in range(3):
            is_hole = treatment["n_threads"] == 1 and treatment["suite"] == "long" and repetition != 1
            if not is_hole:
                table.succeed(f"run_{i}_repetition_{repetition}", **measured(treatment, repetition))
    found = ablate(summarise(load_runs(table.folder)), seed=1)
    for each in found.configurations:
        assert len(each.energies) == (1 if each.levels["n_threads"] == 1 else 3)
        assert (each.rank_low, each.rank_high) == (None, None)


def test_a_ratio_against_welch_by_hand() -> None:
    value = ratio([math.e**3, math.e**5], [math.e, math.e**3])
    # Means of the logarithms 4 and 2, variances 2 and 2: error sqrt(2), two degrees of freedom, t = 4.302653.
    assert value.value == pytest.approx(math.e**2)
    assert value.low == pytest.approx(math.exp(2 - 4.302653 * math.sqrt(2)), rel=1e-5)
    assert value.high == pytest.approx(math.exp(2 + 4.302653 * math.sqrt(2)), rel=1e-5)
    assert not value.is_clear
    assert not ratio([2.0], [1.0]).is_clear
    assert ratio([2.0, 2.0], [1.0, 1.0]).is_clear


def test_neighbours_differ_in_one_setting(found: Ablation) -> None:
    pairs = [(levels(first), levels(second)) for first, second in chains(found, "n_threads")]
    assert sorted(pairs) == [((1, 128), (2, 128)), ((1, 512), (2, 512))]


def test_scaling_has_a_line_per_other_combination(table: Any) -> None:
    lines = scaling(summarise(load_runs(table.folder)), "n_threads", "duration_s")
    assert len(lines) == 4
    for points in lines.values():
        assert [x for x, _ in points] == [1.0, 2.0]
        assert points[0][1].mean == pytest.approx(2 * points[1][1].mean)  # type: ignore[operator]
    assert scaling(summarise(load_runs(table.folder)), "n_gpu_layers", "duration_s") == {}


def test_other_experiments_are_none(quickstart: Any) -> None:
    summary = summarise(load_runs(quickstart.folder))
    assert not is_ablation(summary)
    with pytest.raises(UsageError, match="varies no setting of an engine"):
        ablate(summary, seed=1)


def test_the_report_has_the_section(table: Any, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(table.folder), "--out", str(out)]) == 0
    page = Page(out.read_text())
    assert "Configurations" in page.text
    assert "Sweet spot: 2 threads, batch 128" in page.text
    assert "ED²P" in page.text
    assert "n_gpu_layers 0 throughout" in page.text
    assert "Prefill and decode are not timed apart: the requests of the runs are not here" in page.text
    assert "Not drawn: n_gpu_layers has fewer than two levels" in page.text
    assert len(page.ids) == len(set(page.ids))


def test_prefill_and_decode_are_timed_apart(table: Any, tmp_path: Path) -> None:
    # By the engine 100 prompt tokens in 0.5 s and 21 tokens in 2 s; by the tokens 20 more in 1.6 s after the first.
    line = {
        "item_id": "a",
        "messages": [{"role": "user", "content": "x"}],
        "submitted_s": 10.0,
        "first_token_s": 10.8,
        "finished_s": 12.4,
        "n_prompt_tokens": 100,
        "n_output_tokens": 21,
        "engine_prefill_s": 0.5,
        "engine_decode_s": 2.0,
    }
    energy = "index,prefill_s,decode_s,energy_j,prefill_energy_j,decode_energy_j\n0,0.8,1.6,1,1,1\n"
    for i in range(len(table.treatments)):
        for repetition in range(5):
            run_id = f"run_{i}_repetition_{repetition}"
            folder = table.folder / "runs" / run_id / f"{run_id}-a1"
            folder.mkdir(parents=True)
            (folder / "requests.jsonl").write_text(json.dumps(line) + "\n")
            (folder / "request_energy.csv").write_text(energy)
    out = tmp_path / "report.html"
    assert main(["report", str(table.folder), "--out", str(out)]) == 0
    text = " ".join(Page(out.read_text()).text.split())
    assert "2 threads, batch 128 200.0 10.50 0.8000 12.50" in text
    assert "The batch cannot act where every prompt fits into the smallest one, 128 tokens: short (100 tokens)" in text


def test_a_report_without_settings_has_none(quickstart: Any, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(quickstart.folder), "--out", str(out)]) == 0
    assert "Sweet spot" not in Page(out.read_text()).text
