"""The aligned rank transform: what alignment must do, an independent computation, and its error rate."""

import numpy as np
import polars as pl
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from analysis.inference.aligned_rank import art_anova, art_contrasts, leakage
from contract.errors import UsageError

FACTORS = ("a", "b")


def table(seed: int = 1, n: int = 6, *, a: float = 0, b: float = 0, ab: float = 0) -> pl.DataFrame:
    """3 x 2 cells of n skewed values, with shifts by factor."""
    draws = np.random.default_rng(seed)
    rows = [(i, j) for i in range(3) for j in range(2) for _ in range(n)]
    y = [
        a * i + b * j + ab * i * j + each for (i, j), each in zip(rows, draws.exponential(size=len(rows)), strict=True)
    ]
    return pl.DataFrame({"a": [f"a{i}" for i, _ in rows], "b": [f"b{j}" for _, j in rows], "y": y})


def f_of(frame: pl.DataFrame) -> dict[tuple[str, ...], float]:
    return {each.term: each.f for each in art_anova(frame, "y", FACTORS).terms}


def test_alignment_leaves_no_other_effect() -> None:
    frame = table(a=3, b=5, ab=2)
    for term in (("a",), ("b",), ("a", "b")):
        assert leakage(frame, "y", FACTORS, term) == pytest.approx(0, abs=1e-12)


def test_alignment_by_hand_and_anova_by_statsmodels() -> None:
    frame = table(a=0.7, b=-0.4, ab=0.5).to_pandas()
    grand, cell = frame.y.mean(), frame.groupby(["a", "b"]).y.transform("mean")
    mean_a, mean_b = frame.groupby("a").y.transform("mean"), frame.groupby("b").y.transform("mean")
    effects = {
        "C(a, Sum)": mean_a - grand,
        "C(b, Sum)": mean_b - grand,
        "C(a, Sum):C(b, Sum)": cell - mean_a - mean_b + grand,
    }
    found = art_anova(pl.from_pandas(frame), "y", FACTORS).terms
    for ours, (name, effect) in zip(found, effects.items(), strict=True):
        ranked = frame.assign(rank=(frame.y - cell + effect).rank())
        theirs = anova_lm(ols("rank ~ C(a, Sum) * C(b, Sum)", ranked).fit(), typ=3)
        assert ours.f == pytest.approx(theirs.loc[name, "F"])
        assert ours.p_value == pytest.approx(theirs.loc[name, "PR(>F)"])
        assert ours.df_residual == theirs.loc["Residual", "df"]
        share = theirs.loc[name, "sum_sq"] / (theirs.loc[name, "sum_sq"] + theirs.loc["Residual", "sum_sq"])
        assert ours.partial_eta_squared == pytest.approx(share)


def test_an_effect_does_not_depend_on_the_others() -> None:
    plain, shifted = f_of(table(a=1)), f_of(table(a=1, b=7))
    assert shifted[("a",)] == pytest.approx(plain[("a",)])
    assert shifted[("a", "b")] == pytest.approx(plain[("a", "b")])
    assert shifted[("b",)] > 10 * plain[("b",)]


@pytest.mark.parametrize(("unit", "zero"), [(1000, 7), (1e-12, 0), (3.6e6, -40)])
def test_unit_and_zero_of_the_response_do_not_matter(unit: float, zero: float) -> None:
    frame = table(a=1, ab=1)
    other = frame.with_columns(y=unit * pl.col("y") + zero)
    assert f_of(other) == pytest.approx(f_of(frame))


def test_order_of_rows_does_not_matter() -> None:
    frame = table(a=1, ab=1)
    assert f_of(frame.sample(fraction=1, shuffle=True, seed=3)) == pytest.approx(f_of(frame))


def test_one_factor_is_the_analysis_of_variance_of_the_ranks() -> None:
    frame = table(a=1)
    ranks = frame.with_columns(rank=pl.col("y").rank())
    theirs = stats.f_oneway(*(part["rank"].to_numpy() for _, part in ranks.group_by("a")))
    (ours,) = art_anova(frame, "y", ["a"]).terms
    assert (ours.f, ours.p_value) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_contrasts_of_all_factors_compare_the_cells_ranks() -> None:
    frame = table(a=1, b=1).with_columns(rank=pl.col("y").rank())
    found = art_contrasts(frame, "y", FACTORS, FACTORS, adjustment="none")
    assert len(found.pairs) == 15
    mean = {(a, b): part["rank"].mean() for (a, b), part in frame.group_by("a", "b")}
    for pair in found.pairs:
        assert pair.estimate == pytest.approx(mean[pair.first] - mean[pair.second])
        assert pair.p_adjusted == pair.p_value
    assert {(pair.first, pair.second) for pair in found.successive(same_others=True)} == {
        ((f"a{i}", f"b{j}"), (f"a{i + 1}", f"b{j}")) for i in range(2) for j in range(2)
    }
    assert len(found.successive()) == 8


def test_the_contrast_of_a_factor_of_two_levels_is_its_f_test() -> None:
    frame = table(a=1, b=1)
    (pair,) = art_contrasts(frame, "y", FACTORS, ["b"]).pairs
    assert pair.t**2 == pytest.approx(f_of(frame)[("b",)])


def repeated(seed: int, *, a: float = 0) -> pl.DataFrame:
    """3 x 2 cells of two units each, with ten repetitions that differ little."""
    draws = np.random.default_rng(seed)
    rows = [(i, j, k) for i in range(3) for j in range(2) for k in range(2)]
    return pl.concat(
        pl.DataFrame(
            {
                "a": [f"a{i}"] * 10,
                "b": [f"b{j}"] * 10,
                "unit": [f"{i}{j}{k}"] * 10,
                "y": a * i + draws.exponential() + 0.1 * draws.normal(size=10),
            }
        )
        for i, j, k in rows
    )


def test_repetitions_do_not_make_degrees_of_freedom() -> None:
    found = art_anova(repeated(1), "y", FACTORS, "unit")
    assert [each.df_residual for each in found.terms] == pytest.approx([6, 6, 6])
    assert found.n == 120 and found.n_units == 12
    assert art_anova(repeated(1), "y", FACTORS).terms[0].df_residual == 114


def test_the_error_rate_is_kept_with_units_and_lost_without() -> None:
    n = 60
    with_units = [art_anova(repeated(seed), "y", ["a"], "unit").terms[0].p_value for seed in range(n)]
    without = [art_anova(repeated(seed), "y", ["a"]).terms[0].p_value for seed in range(n)]
    assert np.mean(np.asarray(with_units) < 0.05) < 0.15
    assert np.mean(np.asarray(without) < 0.05) > 0.5


def test_repetitions_that_are_all_equal_count_once() -> None:
    frame = repeated(1).with_columns(y=pl.col("y").mean().over("unit"))
    found = art_anova(frame, "y", ["a"], "unit")
    means = frame.group_by("unit", "a").agg(pl.col("y").first())
    ranks = means.with_columns(pl.col("y").rank())
    theirs = stats.f_oneway(*(part["y"].to_numpy() for _, part in ranks.group_by("a")))
    assert found.terms[0].f == pytest.approx(theirs.statistic)
    assert any("counts once" in words for words in found.warnings)


def test_cells_with_a_single_unit_are_told() -> None:
    frame = repeated(1).filter((pl.col("unit") == "000") | pl.col("unit").str.ends_with("1"))
    found = art_anova(frame, "y", FACTORS, "unit")
    assert found.terms[0].df_residual == pytest.approx(1)
    assert any("Only 1 of 6 cells" in words for words in found.warnings)


def test_uneven_cells_get_a_warning() -> None:
    frame = table(a=3, b=5, ab=4, n=12).filter(~((pl.col("a") == "a2") & (pl.col("b") == "b1") & (pl.col("y") > 19.4)))
    warnings = art_anova(frame, "y", FACTORS).warnings
    assert any("leaves other effects in" in words for words in warnings)


@pytest.mark.parametrize(
    ("frame", "unit", "says"),
    [
        (table().filter((pl.col("a") != "a1") | (pl.col("b") != "b1")), None, "1 of 6 cells .* empty"),
        (table(n=1), None, "nothing is left"),
        (table().with_columns(y=pl.lit(1.0)), None, "same everywhere"),
        (table().with_columns(y=pl.when(pl.col("b") == "b1").then(None).otherwise("y")), None, "missing"),
        (table().with_row_index("unit"), "unit", "one row"),
        (repeated(1).filter(pl.col("unit").str.ends_with("1")), "unit", "no unit is left"),
        (table().with_columns(b=pl.lit("b0")), None, "one level"),
        (table().drop("b"), None, "no column b"),
    ],
)
def test_what_carries_no_test_is_refused(frame: pl.DataFrame, unit: str | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        art_anova(frame, "y", FACTORS, unit)


def test_contrasts_of_what_is_not_in_the_design_are_refused() -> None:
    for compare in (["c"], [], ["a", "a"]):
        with pytest.raises(UsageError, match="compare names"):
            art_contrasts(table(), "y", FACTORS, compare)
