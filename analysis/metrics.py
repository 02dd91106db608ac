"""Derived figures, one expression each, over all rows at once."""

from typing import TYPE_CHECKING

from analysis.columns import METRIC_COLUMNS

if TYPE_CHECKING:
    import polars as pl


def with_metrics(runs: "pl.DataFrame") -> "pl.DataFrame":
    """The runs with the columns of `METRIC_COLUMNS` added.

    A figure is None where one of its parts was not measured or where it would divide by zero (no tokens, no
    correct answer): never infinite.

    Args:
        runs: `Experiment.runs` or some of its rows.
    """
    import polars as pl

    energy_j, duration_s = pl.col("energy_j"), pl.col("duration_s")

    def per(count: str) -> pl.Expr:
        return pl.when(pl.col(count) > 0).then(energy_j / pl.col(count))

    metrics = {
        "mean_power_w": per("duration_s"),
        "energy_per_output_token_j": per("n_output_tokens"),
        "energy_per_request_j": per("n_requests"),
        "energy_per_correct_j": per("n_correct"),
        # Gonzalez and Horowitz, 1996: energy-delay product; squared delay after Martin et al., 2001.
        "edp_js": energy_j * duration_s,
        "ed2p_js2": energy_j * duration_s**2,
    }
    assert metrics.keys() == METRIC_COLUMNS.keys()
    return runs.with_columns(**metrics)
