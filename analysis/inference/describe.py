"""Mean, median, spread and range by group."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.inference.sample import checked, has_columns

if TYPE_CHECKING:
    import polars as pl


def describe(frame: "pl.DataFrame", response: str, by: Sequence[str]) -> "pl.DataFrame":
    """One row per group: n, mean, median, var, sd (both n - 1; null below two values), min, max.

    Args:
        frame: one row per observation.
        response: column of numbers; its unit is that of mean, median, sd, min and max.
        by: columns that name the group; the rows are sorted by them.

    Raises:
        UsageError: a value is missing.
    """
    import polars as pl

    has_columns(frame, [response, *by])
    checked(frame[response].to_numpy(), response)
    value = pl.col(response).cast(pl.Float64)
    return (
        frame.group_by(by)
        .agg(
            n=pl.len(),
            mean=value.mean(),
            median=value.median(),
            var=value.var(),
            sd=value.std(),
            min=value.min(),
            max=value.max(),
        )
        .sort(by)
    )
