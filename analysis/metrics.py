"""Derived figures, one expression each, over all rows at once."""

import math
from typing import TYPE_CHECKING

from analysis.columns import CARBON_COLUMNS, COST_COLUMNS, METRIC_COLUMNS
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

J_PER_KWH = 3.6e6


def with_metrics(runs: "pl.DataFrame") -> "pl.DataFrame":
    """The runs with the columns of `METRIC_COLUMNS` added.

    A figure is None where one of its parts was not measured or where it would divide by zero (no tokens, no
    correct answer): never infinite. Net figures are None without an idle baseline.

    Args:
        runs: `Experiment.runs` or some of its rows.
    """
    import polars as pl

    duration_s = pl.col("duration_s")
    metrics: dict[str, pl.Expr] = {}
    for net in ("", "_net"):
        energy_j = pl.col(f"energy{net}_j")
        metrics |= {
            f"mean{net}_power_w": _per(energy_j, "duration_s"),
            f"energy{net}_per_output_token_j": _per(energy_j, "n_output_tokens"),
            f"energy{net}_per_request_j": _per(energy_j, "n_requests"),
            f"energy{net}_per_correct_j": _per(energy_j, "n_correct"),
            # Gonzalez and Horowitz, 1996: energy-delay product; squared delay after Martin et al., 2001.
            f"edp{net}_js": energy_j * duration_s,
            f"ed2p{net}_js2": energy_j * duration_s**2,
        }
    assert metrics.keys() == METRIC_COLUMNS.keys()
    return runs.with_columns(**{name: metrics[name] for name in METRIC_COLUMNS})


def with_cost(runs: "pl.DataFrame", price_per_kwh: float, currency: str = "") -> "pl.DataFrame":
    """The runs with the columns of `COST_COLUMNS` added: what the measured phase's electricity costs.

    Args:
        runs: `Experiment.runs` or some of its rows.
        price_per_kwh: in the currency, at least 0.
        currency: a name for the column, such as EUR.

    Raises:
        UsageError: the price is no price.
    """
    import polars as pl

    cost = pl.col("energy_j") / J_PER_KWH * _checked(price_per_kwh, "price per kWh")
    added = {"cost": cost, "cost_per_correct": _per(cost, "n_correct"), "cost_currency": pl.lit(currency)}
    assert added.keys() == COST_COLUMNS.keys()
    return runs.with_columns(**added)


def with_carbon(runs: "pl.DataFrame", grid_g_per_kwh: float) -> "pl.DataFrame":
    """The runs with the columns of `CARBON_COLUMNS` added: the emissions of the measured phase's electricity.

    Nothing is looked up: which intensity is right depends on place, time and accounting, and is the author's to state.

    Args:
        runs: `Experiment.runs` or some of its rows.
        grid_g_per_kwh: grams of CO2 equivalent per kWh, at least 0.

    Raises:
        UsageError: the intensity is none.
    """
    import polars as pl

    grid = _checked(grid_g_per_kwh, "grid intensity")
    carbon_g = pl.col("energy_j") / J_PER_KWH * grid
    added = {
        "carbon_g": carbon_g,
        "carbon_per_correct_g": _per(carbon_g, "n_correct"),
        "grid_intensity_g_per_kwh": pl.lit(grid, dtype=pl.Float64),
    }
    assert added.keys() == CARBON_COLUMNS.keys()
    return runs.with_columns(**added)


def _per(value: "pl.Expr", count: str) -> "pl.Expr":
    import polars as pl

    return pl.when(pl.col(count) > 0).then(value / pl.col(count))


def _checked(value: float, what: str) -> float:
    if not math.isfinite(value) or value < 0:
        raise UsageError(f"The {what} is {value}: give a finite number of at least 0.")
    return float(value)
