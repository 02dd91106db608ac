"""Effect sizes with intervals, repetitions needed, and whether repetitions are repetitions."""

import math

import numpy as np
import pingouin
import polars as pl
import pytest

from analysis.inference.effect_size import effect_size, magnitude, pairwise_effect_sizes
from analysis.inference.independence import effective_n, identical_outputs, imbalance, imbalance_words
from analysis.inference.power import (
    advise,
    coefficient_of_variation,
    detectable_difference,
    repetitions_needed,
    simulated_power,
)
from contract.errors import UsageError

DRAWS = np.random.default_rng(11)
A, B = np.round(DRAWS.normal(1, 1, 30), 1), np.round(DRAWS.normal(0, 1, 45), 1)


def test_delta_and_a_are_counts_of_pairs() -> None:
    found = effect_size(A, B)
    above, below = (A[:, None] > B).mean(), (A[:, None] < B).mean()
    assert found.cliffs_delta == pytest.approx(above - below)
    assert found.vargha_delaney_a == pytest.approx(pingouin.compute_effsize(A, B, eftype="CLES"))
    assert found.delta_low is not None and found.delta_high is not None
    assert found.delta_low < found.cliffs_delta < found.delta_high
    assert (found.a_low, found.a_high) == pytest.approx(((found.delta_low + 1) / 2, (found.delta_high + 1) / 2))
    assert found.magnitude == magnitude(found.cliffs_delta)


def test_the_order_of_groups_turns_the_sign() -> None:
    one, other = effect_size(A, B, bootstrap="percentile"), effect_size(B, A, bootstrap="percentile")
    assert one.cliffs_delta == pytest.approx(-other.cliffs_delta)
    assert one.delta_low is not None and other.delta_high is not None
    assert one.delta_low == pytest.approx(-other.delta_high, abs=0.03)


def test_the_seed_is_the_interval() -> None:
    assert effect_size(A, B) == effect_size(A, B)
    assert effect_size(A, B).a_low != effect_size(A, B, seed=1).a_low


def test_the_interval_covers() -> None:
    draws = np.random.default_rng(12)
    truth = 0.5 * (1 + math.erf(0.5))  # P(x > y) for normal values one deviation apart
    covered = 0
    for _ in range(60):
        found = effect_size(
            draws.normal(math.sqrt(0.5), math.sqrt(0.5), 25), draws.normal(0, math.sqrt(0.5), 25), n_resamples=400
        )
        assert found.a_low is not None and found.a_high is not None
        covered += found.a_low <= truth <= found.a_high
    assert covered >= 51


def test_groups_apart_get_no_interval() -> None:
    found = effect_size([1, 2, 3, 4], [5, 6, 7, 8])
    assert (found.cliffs_delta, found.vargha_delaney_a, found.delta_low, found.a_high) == (-1, 0, None, None)
    assert "do not overlap" in found.warnings[0]


def test_magnitudes() -> None:
    assert [magnitude(x) for x in (0, -0.2, 0.4, -0.474)] == ["negligible", "small", "medium", "large"]


def test_pairs_of_nine_hundred_rows() -> None:
    draws = np.random.default_rng(13)
    frame = pl.DataFrame({"g": np.repeat(["a", "b", "c"], 300), "y": draws.normal(size=900)})
    found = pairwise_effect_sizes(frame, "y", "g", n_resamples=999)
    assert [(each.first, each.second) for each in found] == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize(
    ("first", "options", "says"),
    [
        ([1.0], {}, "at least 2"),
        ([], {}, "at least 2"),
        ([1.0, float("nan")], {}, "missing"),
        (A, {"bootstrap": "t"}, "Unknown bootstrap"),
        (A, {"n_resamples": 1}, "n_resamples"),
    ],
)
def test_no_effect_size_from_bad_input(first: object, options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        effect_size(first, B, **options)  # type: ignore[arg-type]


def cv_for(effect: float, difference: float = 0.05) -> float:
    """The coefficient of variation that makes a difference this many deviations."""
    return math.sqrt(math.expm1((math.log1p(difference) / effect) ** 2))


def test_cohens_sixty_four() -> None:
    # Cohen, 1988, table 2.4.1: d 0.5, alpha 0.05 two-sided, power 0.8. And 0.8: 26; 0.2: 393 or 394 by rounding.
    assert repetitions_needed(cv_for(0.5), test="t").n == 64
    assert repetitions_needed(cv_for(0.8), test="t").n == 26
    assert repetitions_needed(cv_for(0.5)).n == math.ceil(64 * math.pi / 3)


@pytest.mark.parametrize("test", ["t", "mann_whitney"])
@pytest.mark.parametrize("cv", [0.03, 0.06])
def test_the_advice_gives_the_power_it_says(test: str, cv: float) -> None:
    advice = repetitions_needed(cv, 0.05, test=test)
    population = np.random.default_rng(14).lognormal(5, math.sqrt(math.log1p(cv**2)), 100_000)
    enough = simulated_power(population, advice.n, 0.05, test=test)
    fewer = simulated_power(population, max(4, advice.n // 2), 0.05, test=test)
    assert 0.77 < enough.power < 0.92
    assert fewer.power < 0.7
    assert simulated_power(population, advice.n, 1e-9, test=test).power < 0.07


def test_too_few_repetitions_can_never_show_anything_by_ranks() -> None:
    # 2 / C(6, 3) = 0.1: three against three never reach 0.05, however far apart.
    assert repetitions_needed(0.0001).n == 4
    assert repetitions_needed(0.0001, test="t").n == 2
    assert repetitions_needed(0.0001, n_comparisons=6).n == 5
    with pytest.raises(UsageError, match="cannot give"):
        detectable_difference(0.01, 3)


@pytest.mark.parametrize("test", ["t", "mann_whitney"])
def test_detectable_difference_is_the_inverse(test: str) -> None:
    for n in (6, 30, 200):
        seen = detectable_difference(0.04, n, test=test)
        assert repetitions_needed(0.04, seen * 1.0001, test=test).n == pytest.approx(n, abs=1)


def test_more_of_anything_needs_more_repetitions() -> None:
    base = repetitions_needed(0.1).n
    assert repetitions_needed(0.2).n > base
    assert repetitions_needed(0.1, 0.02).n > base
    assert repetitions_needed(0.1, power=0.95).n > base
    assert repetitions_needed(0.1, n_comparisons=10).n > base


def test_advice_by_treatment() -> None:
    draws = np.random.default_rng(15)
    y = np.concatenate([draws.normal(100, 1, 8), draws.normal(100, 8, 8)])
    frame = pl.DataFrame({"model": ["a"] * 8 + ["b"] * 8, "energy_j": y})
    found = advise(frame, "energy_j", ["model"])
    assert found[("a",)].coefficient_of_variation == pytest.approx(coefficient_of_variation(y[:8]))
    assert found[("a",)].n < found[("b",)].n
    assert "comes from 8 repetitions" in found[("a",)].warnings[1]
    with pytest.raises(UsageError, match="of c: "):
        advise(pl.concat([frame, pl.DataFrame({"model": ["c"], "energy_j": [1.0]})]), "energy_j", ["model"])


@pytest.mark.parametrize(
    ("cv", "difference", "options"),
    [
        (0.0, 0.05, {}),
        (float("nan"), 0.05, {}),
        (0.1, 0.0, {}),
        (0.1, -1.0, {}),
        (0.1, 0.05, {"power": 1.0}),
        (0.1, 0.05, {"test": "z"}),
        (0.1, 0.05, {"n_comparisons": 0}),
        (0.5, 1e-7, {}),
    ],
)
def test_advice_out_of_range_is_refused(cv: float, difference: float, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        repetitions_needed(cv, difference, **options)  # type: ignore[arg-type]


def test_no_advice_from_constants_or_negatives() -> None:
    with pytest.raises(UsageError, match="all the same"):
        simulated_power([1, 1, 1], 5)
    with pytest.raises(UsageError, match="0 or below"):
        coefficient_of_variation([1, -1])
    with pytest.raises(UsageError, match="at least 2"):
        coefficient_of_variation([1])


def test_identical_outputs_are_told_in_words() -> None:
    frame = pl.DataFrame(
        {"model": ["a"] * 4 + ["b"] * 4, "output_sha256": ["x"] * 4 + ["p", "q", "q", "r"]},
    )
    found = identical_outputs(frame, ["model"], "output_sha256")
    assert [(each.treatment, each.n, each.effective_n) for each in found.treatments] == [(("a",), 4, 1), (("b",), 4, 3)]
    assert "not independent: in 2 of 2" in found.warnings[0]
    assert "model a, 1 distinct of 4" in found.warnings[0]
    assert "worth 4" in found.warnings[0]
    different = frame.with_columns(output_sha256=pl.int_range(8).cast(pl.String))
    assert identical_outputs(different, ["model"], "output_sha256").warnings == ()


def test_imbalance_is_told_in_words() -> None:
    assert imbalance_words({"a": 10, "b": 14}) == ()
    assert "15 at b, 10 at a" in imbalance_words({"a": 10, "b": 15})[0]
    frame = pl.DataFrame({"a": ["x", "x", "y"], "b": ["u", "v", "u"]})
    assert imbalance(frame, ["a", "b"]) == ("1 of 4 cells of a x b are empty: not a full crossing.",)


def test_effective_n_runs_from_units_to_rows() -> None:
    assert effective_n(900, 30, 0) == 900
    assert effective_n(900, 30, 1) == 30
