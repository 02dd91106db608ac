"""Assumptions, Kruskal-Wallis, Dunn, adjustment and correlation, against other libraries and by hand."""

import numpy as np
import pingouin
import polars as pl
import pytest
import scikit_posthocs
from scipy import stats

from analysis.inference.adjust import adjust
from analysis.inference.assumptions import levene, shapiro_wilk
from analysis.inference.correlation import spearman, spearman_by
from analysis.inference.describe import describe
from analysis.inference.dunn import dunn
from analysis.inference.kruskal import kruskal_wallis
from analysis.inference.sample import ordered, treatment_means
from contract.errors import UsageError


def table(seed: int = 1, *, ties: bool = False) -> pl.DataFrame:
    """Three groups of 8, 12 and 20 values, shifted."""
    draws = np.random.default_rng(seed)
    sizes = {"7": 8, "10": 12, "3": 20}
    values = np.concatenate([draws.gamma(3, 1 + i, size) for i, size in enumerate(sizes.values())])
    return pl.DataFrame(
        {
            "size": [name for name, size in sizes.items() for _ in range(size)],
            "energy_j": np.round(values) if ties else values,
        }
    )


def test_levels_that_are_numbers_are_ordered_as_such() -> None:
    assert ordered(["10", "7", "3.2", "3"]) == ("3", "3.2", "7", "10")
    assert ordered(["WSC", "WiC", "BoolQ", "7B"]) == ("7B", "BoolQ", "WiC", "WSC")


@pytest.mark.parametrize("ties", [False, True])
def test_kruskal_wallis_is_what_pingouin_says(ties: bool) -> None:
    frame = table(ties=ties)
    found = kruskal_wallis(frame, "energy_j", "size")
    theirs = pingouin.kruskal(frame.to_pandas(), dv="energy_j", between="size")
    assert found.statistic == pytest.approx(theirs["H"].iloc[0])
    assert found.df == 2
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 2))
    # Tomczak and Tomczak: H (n + 1) / (n^2 - 1).
    assert found.epsilon_squared == pytest.approx(found.statistic * 41 / (40**2 - 1))
    assert "uneven" in found.warnings[0]


def test_epsilon_squared_is_one_where_groups_hold_all_the_order_there_is() -> None:
    # n groups of one value have nothing within them.
    frame = pl.DataFrame({"g": ["a", "b", "c", "d"], "y": [1.0, 2.0, 3.0, 4.0]})
    assert kruskal_wallis(frame, "y", "g").epsilon_squared == pytest.approx(1)


@pytest.mark.parametrize("ties", [False, True])
def test_dunn_is_what_scikit_posthocs_says(ties: bool) -> None:
    frame = table(ties=ties)
    theirs = scikit_posthocs.posthoc_dunn(frame.to_pandas(), val_col="energy_j", group_col="size", p_adjust="fdr_bh")
    plain = scikit_posthocs.posthoc_dunn(frame.to_pandas(), val_col="energy_j", group_col="size")
    found = dunn(frame, "energy_j", "size")
    assert [(pair.first, pair.second) for pair in found.pairs] == [("3", "7"), ("3", "10"), ("7", "10")]
    for pair in found.pairs:
        assert pair.p_value == pytest.approx(plain.loc[pair.first, pair.second])
        assert pair.p_adjusted == pytest.approx(theirs.loc[pair.first, pair.second])
        assert pair.p_value == pytest.approx(2 * stats.norm.sf(abs(pair.z)))
    assert found.pairs[0].z > 0  # the group "3" has the largest values
    assert [(pair.first, pair.second) for pair in found.successive()] == [("3", "7"), ("7", "10")]


def test_two_groups_make_dunn_and_kruskal_wallis_one_test() -> None:
    frame = table().filter(pl.col("size") != "10")
    pair = dunn(frame, "energy_j", "size").pairs[0]
    assert pair.z**2 == pytest.approx(kruskal_wallis(frame, "energy_j", "size").statistic)
    assert dunn(frame, "energy_j", "size", sides=1).pairs[0].p_value == pytest.approx(pair.p_value / 2)


def test_the_two_benjamini_hochbergs_differ_where_the_order_turns() -> None:
    p = [0.5, 0.01, 0.011]
    assert adjust(p, "bh") == pytest.approx([0.5, 0.0165, 0.0165])
    assert adjust(p, "bh_dunn_test") == pytest.approx([0.5, 0.03, 0.0165])
    assert adjust(p, "bonferroni") == pytest.approx([1.0, 0.03, 0.033])
    assert adjust(p, "holm") == pytest.approx([0.5, 0.03, 0.03])
    assert adjust(p, "none") == pytest.approx(p)


def test_without_the_minimum_nothing_more_is_found() -> None:
    p = np.random.default_rng(3).beta(0.4, 3, (200, 7))
    for family in p:
        assert (adjust(family, "bh_dunn_test") >= adjust(family, "bh") - 1e-15).all()


def test_assumptions_are_tested_on_residuals_and_about_the_median() -> None:
    frame = table()
    groups = [part["energy_j"].to_numpy() for _, part in frame.group_by("size")]
    residuals = np.concatenate([group - group.mean() for group in groups])
    assert shapiro_wilk(frame, "energy_j", ["size"]).p_value == pytest.approx(stats.shapiro(residuals).pvalue)
    assert shapiro_wilk(frame, "energy_j").p_value == pytest.approx(stats.shapiro(frame["energy_j"]).pvalue)
    found = levene(frame, "energy_j", ["size"])
    theirs = pingouin.homoscedasticity(frame.to_pandas(), dv="energy_j", group="size", method="levene", center="median")
    assert found.p_value == pytest.approx(theirs["pval"].iloc[0])
    assert found.df == (2, 37)
    assert levene(frame, "energy_j", ["size"], centre="mean").p_value != pytest.approx(found.p_value)


def test_describe_is_polars() -> None:
    row = describe(pl.DataFrame({"g": ["a"] * 3, "y": [1.0, 2.0, 6.0]}), "y", ["g"]).row(0, named=True)
    assert row == pytest.approx({"g": "a", "n": 3, "mean": 3, "median": 2, "var": 7, "sd": 7**0.5, "min": 1, "max": 6})


def test_spearman_is_what_pingouin_says() -> None:
    draws = np.random.default_rng(5)
    x = draws.normal(size=60)
    y = np.round(x + draws.normal(size=60), 1)
    theirs = pingouin.corr(x, y, method="spearman")
    found = spearman(x, y)
    assert found.rho == pytest.approx(theirs["r"].iloc[0])
    assert found.p_value == pytest.approx(stats.spearmanr(x, y).pvalue)
    assert found.low is not None and found.high is not None
    assert found.low < found.rho < found.high


def test_spearman_sees_order_only_and_makes_no_interval_at_one() -> None:
    x = np.arange(1.0, 13)
    assert spearman(x, np.exp(x)).rho == pytest.approx(1)
    assert spearman(x, -(x**3)).rho == pytest.approx(-1)
    assert spearman(x, np.exp(x)).high is None


def test_spearman_by_group_is_adjusted_over_the_groups_and_doubts_repetitions() -> None:
    draws = np.random.default_rng(6)
    frame = pl.DataFrame(
        {
            "g": ["a"] * 40 + ["b"] * 40,
            "x": np.concatenate([np.repeat(np.arange(4.0), 10), draws.normal(size=40)]),
            "y": draws.normal(size=80),
        }
    )
    a, b = spearman_by(frame, "x", "y", "g")
    assert [a.p_adjusted, b.p_adjusted] == pytest.approx(adjust([a.p_value, b.p_value]))
    assert "4 distinct values" in a.warnings[0] and not b.warnings


GOOD = pl.DataFrame({"g": ["a", "a", "b", "b"], "y": [1.0, 2.0, 3.0, 4.0]})


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (GOOD.with_columns(y=pl.Series([1.0, None, 3.0, 4.0])), "1 missing"),
        (GOOD.with_columns(y=pl.Series([1.0, float("nan"), 3.0, 4.0])), "1 missing"),
        (GOOD.with_columns(y=pl.lit(1.0)), "the same everywhere"),
        (GOOD.with_columns(g=pl.lit("a")), "one level"),
        (GOOD.with_columns(g=pl.Series(["a", "a", "b", None])), "no g"),
        (GOOD.clear(), "no rows"),
        (GOOD.drop("y"), "no column y"),
        (GOOD.with_columns(y=pl.lit("much")), "not a number"),
    ],
)
def test_bad_input_is_refused_in_words(frame: pl.DataFrame, says: str) -> None:
    for test in (kruskal_wallis, dunn):
        with pytest.raises(UsageError, match=says):
            test(frame, "y", "g")


@pytest.mark.parametrize(("p", "method"), [([0.1, 1.2], "bh"), ([], "bh"), ([0.1, float("nan")], "bh"), ([0.1], "fdr")])
def test_p_values_that_are_none_are_refused(p: list[float], method: str) -> None:
    with pytest.raises(UsageError):
        adjust(p, method)


def test_constants_and_single_values_are_refused() -> None:
    with pytest.raises(UsageError, match="does not vary within"):
        shapiro_wilk(GOOD.with_columns(y=pl.Series([1.0, 1.0, 5.0, 5.0])), "y", ["g"])
    with pytest.raises(UsageError, match="at least 2"):
        levene(GOOD.head(3), "y", ["g"])
    with pytest.raises(UsageError, match="name at least one factor"):
        levene(GOOD, "y", [])
    with pytest.raises(UsageError, match="same everywhere"):
        spearman([1, 1, 1, 1], [1, 2, 3, 4])
    with pytest.raises(UsageError, match="pairs"):
        spearman([1, 2, 3], [1, 2, 3, 4])


def test_treatment_means_count_their_repetitions() -> None:
    means = treatment_means(GOOD, ["y"], ["g"])
    assert means.to_dicts() == [
        {"g": "a", "y": 1.5, "n_repetitions": 2},
        {"g": "b", "y": 3.5, "n_repetitions": 2},
    ]


def test_levene_needs_more_than_two_values_in_a_cell() -> None:
    frame = pl.DataFrame({"group": ["a", "a", "b", "b"], "energy_j": [1.0, 2.0, 5.0, 9.0]})
    with pytest.raises(UsageError, match="two values"):
        levene(frame, "energy_j", ["group"])
