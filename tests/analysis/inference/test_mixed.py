"""The random intercept: textbook data, classical designs, and the library."""

import numpy as np
import polars as pl
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from analysis.inference.mixed import mixed_model
from analysis.inference.random_intercept import fit
from contract.errors import UsageError

# Davies, 1947: yield of dyestuff, six batches of five samples. lme4's documentation prints the REML fit.
DYESTUFF = [
    *(1545, 1440, 1440, 1520, 1580),
    *(1540, 1555, 1490, 1560, 1495),
    *(1595, 1550, 1605, 1510, 1560),
    *(1445, 1440, 1595, 1465, 1545),
    *(1595, 1630, 1515, 1635, 1625),
    *(1520, 1455, 1450, 1480, 1445),
]
# Box and Tiao, 1973: the same design, simulated, where the estimate of the batch variance is 0.
DYESTUFF2 = [
    *(7.298, 3.846, 2.434, 9.566, 7.990),
    *(5.220, 6.556, 0.608, 11.788, -0.892),
    *(0.110, 10.386, 13.434, 5.510, 8.166),
    *(2.212, 4.852, 7.092, 9.288, 4.980),
    *(0.282, 9.014, 4.458, 9.446, 7.198),
    *(1.722, 4.782, 8.106, 0.758, 3.758),
]
BATCH = np.repeat(np.arange(6), 5)


def batches(values: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"yield": np.asarray(values, dtype=float), "batch": BATCH})


def test_dyestuff_is_what_lme4_prints() -> None:
    found = mixed_model(batches(DYESTUFF), "yield", [], "batch")
    assert found.variance_unit == pytest.approx(1764, abs=0.5)
    assert found.variance_residual == pytest.approx(2451, abs=0.5)
    (intercept,) = found.coefficients
    assert intercept.estimate == pytest.approx(1527.5)
    assert intercept.standard_error == pytest.approx(19.38, abs=0.005)
    assert intercept.df == pytest.approx(5)  # batches less one
    assert not found.warnings
    # Kish: 30 / (1 + 4 ICC)
    assert found.effective_n == pytest.approx(30 / (1 + 4 * found.intraclass_correlation))


def test_dyestuff2_lies_at_the_edge() -> None:
    found = mixed_model(batches(DYESTUFF2), "yield", [], "batch")
    assert found.variance_unit == 0
    assert found.variance_residual == pytest.approx(13.806, abs=0.001)
    assert found.coefficients[0].estimate == pytest.approx(5.6656, abs=1e-4)
    assert "No variance between" in found.warnings[0]


def test_a_paired_design_is_the_paired_t_test() -> None:
    draws = np.random.default_rng(2)
    unit = np.tile(np.arange(12), 2)
    y = draws.normal(0, 3, 12)[unit] + draws.normal(size=24) + np.repeat([0, 1.0], 12)
    x = np.stack([np.repeat([1.0, 0], 12), np.repeat([0, 1.0], 12)], axis=1)
    theirs = stats.ttest_rel(y[12:], y[:12])
    ours = fit(y, x, unit).t_test(np.array([-1.0, 1.0]))
    assert ours.t == pytest.approx(theirs.statistic)
    assert ours.p_value == pytest.approx(theirs.pvalue)
    assert ours.df == pytest.approx(11)


def test_nested_repetitions_are_the_test_on_unit_means() -> None:
    draws = np.random.default_rng(4)
    unit = np.repeat(np.arange(15), 30)
    group = unit // 5
    y = draws.normal(0, 2, 15)[unit] + draws.normal(size=450) + group
    x = (group[:, None] == np.arange(3)).astype(float)
    means = np.asarray([y[unit == i].mean() for i in range(15)])
    theirs = stats.f_oneway(means[:5], means[5:10], means[10:])
    ours = fit(y, x, unit).f_test(np.array([[1.0, -1, 0], [0, 1, -1]]))
    assert (ours.f, ours.df, ours.p_value) == pytest.approx((theirs.statistic, 2, theirs.pvalue))
    assert ours.df_residual == pytest.approx(12)


def test_uneven_units_are_what_statsmodels_fits() -> None:
    draws = np.random.default_rng(7)
    unit = np.repeat(np.arange(9), [2, 3, 7, 4, 9, 3, 12, 5, 6])
    z = draws.normal(size=unit.size)
    y = 3 + 0.5 * z + draws.normal(0, 1.5, 9)[unit] + draws.normal(size=unit.size)
    x = np.stack([np.ones(unit.size), z], axis=1)
    ours = fit(y, x, unit)
    theirs = MixedLM(y, x, groups=unit).fit(reml=True, gtol=1e-10)
    assert ours.variance_unit == pytest.approx(float(theirs.cov_re[0, 0]), rel=1e-3)
    assert ours.variance_residual == pytest.approx(theirs.scale, rel=1e-3)
    assert ours.coefficients == pytest.approx(theirs.fe_params, rel=1e-3)
    # The intercept is told by units, the slope by rows.
    assert 5 < ours.t_test(np.array([1.0, 0])).df < 9
    assert 35 < ours.t_test(np.array([0, 1.0])).df < 50


def test_f_of_one_contrast_is_t_squared() -> None:
    draws = np.random.default_rng(8)
    unit = np.repeat(np.arange(8), [2, 3, 7, 4, 9, 3, 5, 4])
    x = np.stack([np.ones(unit.size), draws.normal(size=unit.size), (unit < 4) * 1.0], axis=1)
    found = fit(draws.normal(0, 1, 8)[unit] + draws.normal(size=unit.size), x, unit)
    for row in np.eye(3):
        f, t = found.f_test(row[None, :]), found.t_test(row)
        assert (f.f, f.df_residual) == pytest.approx((t.t**2, t.df))
        assert f.p_value == pytest.approx(t.p_value)


def test_kenward_roger_by_whole_matrices() -> None:
    """Uneven units, with n x n matrices as the paper writes them, and the derivative taken by steps."""
    draws = np.random.default_rng(10)
    unit = np.repeat(np.arange(7), [2, 3, 7, 4, 9, 3, 5])
    n = unit.size
    x = np.stack([np.ones(n), draws.normal(size=n), (unit < 3) * 1.0], axis=1)
    found = fit(draws.normal(0, 1, 7)[unit] + draws.normal(size=n), x, unit)
    assert found.variance_unit is not None and found.variance_unit > 0
    parts = [(unit[:, None] == unit).astype(float), np.eye(n)]
    variances = np.array([found.variance_unit, found.variance_residual])

    def covariance(of: np.ndarray) -> np.ndarray:
        return np.linalg.inv(x.T @ np.linalg.inv(of[0] * parts[0] + of[1] * parts[1]) @ x)

    v = np.linalg.inv(variances[0] * parts[0] + variances[1] * parts[1])
    phi = covariance(variances)
    p = v - v @ x @ phi @ x.T @ v
    w = np.linalg.inv([[np.trace(p @ a @ p @ b) / 2 for b in parts] for a in parts])
    assert found.covariance == pytest.approx(phi)
    for row in np.eye(3):
        steps = 1e-5 * np.eye(2)
        slope = [(row @ (covariance(variances + h) - covariance(variances - h)) @ row) / 2e-5 for h in steps]
        assert found.t_test(row).df == pytest.approx(2 * (row @ phi @ row) ** 2 / (slope @ w @ slope), rel=1e-5)
    first = [-x.T @ v @ a @ v @ x for a in parts]
    middle = sum(
        w[i, j] * (x.T @ v @ parts[i] @ v @ parts[j] @ v @ x - first[i] @ phi @ first[j])
        for i in range(2)
        for j in range(2)
    )
    assert found.covariance_adjusted == pytest.approx(phi + 2 * phi @ middle @ phi)


def test_rows_that_only_repeat_count_once() -> None:
    unit = np.repeat(np.arange(6), 10)
    means = np.array([1.0, 2.0, 4.0, 3.0, 5.0, 7.0])
    x = np.stack([unit < 3, unit >= 3], axis=1).astype(float)
    found = fit(means[unit], x, unit)
    theirs = stats.ttest_ind(means[:3], means[3:])
    ours = found.t_test(np.array([1.0, -1.0]))
    assert (ours.t, ours.df, ours.p_value) == pytest.approx((theirs.statistic, 4, theirs.pvalue))
    assert found.variance_residual == 0 and found.intraclass_correlation == 1


def runs(n_testbeds: int = 6) -> pl.DataFrame:
    draws = np.random.default_rng(9)
    testbed = np.repeat(np.arange(n_testbeds), 20)
    quantised = np.tile([0, 1], testbed.size // 2)
    log_energy = 5 + draws.normal(0, 0.2, n_testbeds)[testbed] + 0.05 * draws.normal(size=testbed.size)
    return pl.DataFrame(
        {
            "energy_j": np.exp(log_energy + np.log(0.7) * quantised),
            "quantisation": np.where(quantised, "int4", "bf16"),
            "testbed": [f"node{i}" for i in testbed],
        }
    )


def test_the_logarithm_makes_effects_ratios() -> None:
    found = mixed_model(runs(), "energy_j", ["quantisation"], "testbed", log=True)
    effect = found.coefficients[1]
    assert effect.name == "quantisation=int4"
    assert np.exp(effect.low) < 0.7 < np.exp(effect.high)
    assert np.exp(effect.estimate) == pytest.approx(0.7, rel=0.03)
    assert found.intraclass_correlation > 0.8
    # Within testbeds: rows less testbeds less one effect.
    assert effect.df == pytest.approx(120 - 6 - 1, abs=0.5)


def test_few_testbeds_get_a_warning() -> None:
    assert "Only 3 levels" in mixed_model(runs(3), "energy_j", ["quantisation"], "testbed").warnings[0]


@pytest.mark.parametrize(
    ("frame", "fixed", "says"),
    [
        (runs().with_columns(testbed=pl.lit("node0")), ["quantisation"], "one level"),
        (runs().with_row_index("testbed_").drop("testbed").rename({"testbed_": "testbed"}), [], "one row"),
        (runs().with_columns(same=pl.col("quantisation")), ["quantisation", "same"], "cannot be told apart"),
        (runs().with_columns(energy_j=pl.lit(3.0)), ["quantisation"], "Nothing varies"),
        (runs().with_columns(energy_j=-pl.col("energy_j")), ["quantisation"], "no logarithm"),
        (runs().with_columns(copy=pl.col("testbed")), ["copy"], "no unit is left"),
    ],
)
def test_what_cannot_be_fitted_is_refused(frame: pl.DataFrame, fixed: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        mixed_model(frame, "energy_j", fixed, "testbed", log=True)
