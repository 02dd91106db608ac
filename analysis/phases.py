"""Energy by phase and domain, one row each."""

from typing import TYPE_CHECKING

from analysis.columns import PHASE_COLUMNS, polars_schema
from analysis.experiment import Experiment, Reading

if TYPE_CHECKING:
    import polars as pl

assert tuple(PHASE_COLUMNS) == Reading._fields


def energy_by_phase(experiment: Experiment) -> "pl.DataFrame":
    """Every reading of every run with a result, in the columns of `PHASE_COLUMNS`; join it to `runs` on `run_id`.

    The sum of the rows with `is_added` in phase `measure` is the run's `energy_j`. Prefill and decode are a split of
    that sum, not of a domain: they are columns of `runs`.

    Args:
        experiment: from `load_runs`.
    """
    import polars as pl

    return pl.DataFrame(list(experiment.readings), schema=polars_schema(PHASE_COLUMNS), orient="row")
