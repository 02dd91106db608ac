"""The testbed as a block: found where it is there, not where it is not, and told in words."""

import numpy as np
import polars as pl
import pytest

from analysis.inference.block_effect import block_effect
from contract.errors import UsageError


def runs(n_each: int, factor: float, seed: int = 1, n_treatments: int = 6) -> pl.DataFrame:
    """Treatments of very unlike energy on two testbeds; those of the second measure `factor` as much."""
    chance = np.random.default_rng(seed)
    rows = [
        {
            "treatment": f"t{i}",
            "testbed": testbed,
            "energy_j": 10.0 ** (i % 4) * (factor if testbed == "b" else 1.0) * float(np.exp(0.02 * chance.normal())),
        }
        for i in range(n_treatments)
        for testbed in ("a", "b")
        for _ in range(n_each)
    ]
    return pl.DataFrame(rows)


def test_a_testbed_that_measures_more_is_found_and_sized() -> None:
    found = block_effect(runs(5, 1.05), "energy_j", "treatment", "testbed", seed=1)
    assert found.p_value < 0.01
    assert found.ratios["b"] / found.ratios["a"] == pytest.approx(1.05, rel=0.01)
    assert found.share > 0.5
    assert (found.n, found.n_alone) == (60, 0)


def test_equal_testbeds_are_called_different_as_often_as_was_said() -> None:
    p_values = [
        block_effect(runs(3, 1.0, seed, 3), "energy_j", "treatment", "testbed", seed=seed).p_value for seed in range(60)
    ]
    # Binomial(60, 0.05): more than 9 has a chance of 0.1 %.
    assert sum(p < 0.05 for p in p_values) <= 9
    assert max(p_values) > 0.5


def test_unbalanced_testbeds_are_no_effect() -> None:
    """What each testbed ran more of, the costly or the cheap treatments, is not its own."""
    full = runs(10, 1.0, seed=3, n_treatments=4).with_row_index()
    costly = pl.col("treatment").is_in(["t2", "t3"])
    is_b = pl.col("testbed") == "b"
    kept = full.filter((costly == is_b) | (pl.col("index") % 5 == 0))
    assert block_effect(kept, "energy_j", "treatment", "testbed", seed=1).p_value > 0.05


def test_a_treatment_on_one_testbed_tells_nothing() -> None:
    frame = runs(4, 1.0)
    alone = frame.filter((pl.col("treatment") != "t0") | (pl.col("testbed") == "a"))
    found = block_effect(alone, "energy_j", "treatment", "testbed", seed=1)
    assert (found.n_alone, found.n) == (1, 40)
    apart = frame.filter((pl.col("treatment").is_in(["t0", "t1"])) == (pl.col("testbed") == "a"))
    with pytest.raises(UsageError, match="No treatment was run by two"):
        block_effect(apart, "energy_j", "treatment", "testbed", seed=1)
