"""How well a fit tells what it has not seen: errors of whole cells that were held out, and cells that fit no fit.

A cell is one clock and batch with all its repetitions: none of them is in the fit that tells it. There is no training
error anywhere here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from control.monotone_fit import CANDIDATES, Array, Sample, fit_grid, robust_scale, separable

N_FOLDS = 10
LEAVE_ONE_OUT_BELOW = 25
"""Cells below which each is a fold of its own."""
MIN_CELLS = 4
OUTLIER_Z = 4.5
OUTLIER_SHARE = 0.13

Progress = Callable[[str], None]
"""Called before each step, with its name."""


@dataclass(frozen=True)
class CrossValidation:
    """Held-out errors of all ways to fit.

    Attributes:
        predicted: way -> what was told for each cell without it, shape (N,).
        chosen: the way of the least mean absolute error in shares.
        honest: as `predicted`, and the way of each fold was chosen by the errors of the other folds: its error is no
            lower for the choice among several.
        n_folds: how many; equal to N: leave-one-out.
    """

    predicted: dict[str, Array]
    chosen: str
    honest: Array
    n_folds: int


def share_errors(predicted: Array, measured: Array) -> Array:
    """|predicted / measured - 1|."""
    return np.asarray(np.abs(predicted / measured - 1))


def cross_validate(
    sample: Sample, clock_mhz: Array, batch_size: Array, *, seed: int, progress: Progress = lambda _: None
) -> CrossValidation:
    """Hold out the cells in turn, for every way to fit.

    Args:
        sample: cells to be told.
        clock_mhz: rising, of the grid, shape (C,); holds all clocks of the sample.
        batch_size: rising, of the grid; holds all batches.
        seed: of the folds.
        progress: told of each fold.
    """
    n_cells = len(sample)
    n_folds = n_cells if n_cells < LEAVE_ONE_OUT_BELOW else N_FOLDS
    fold = np.random.default_rng(seed).permutation(n_cells) % n_folds
    ways = list(CANDIDATES)
    predicted = {name: np.empty(n_cells) for name in ways}
    for number in range(n_folds):
        progress(f"fold {number + 1} of {n_folds}")
        held = fold == number
        for name in ways:
            predicted[name][held] = _tell(name, sample, held, clock_mhz, batch_size)
    errors = {name: share_errors(predicted[name], sample.value) for name in ways}
    honest = np.empty(n_cells)
    for number in range(n_folds):
        held = fold == number
        best = min(ways, key=lambda name: float(errors[name][~held].mean()))
        honest[held] = predicted[best][held]
    chosen = min(ways, key=lambda name: float(errors[name].mean()))
    return CrossValidation(predicted, chosen, honest, n_folds)


def level_errors(name: str, sample: Sample, clock_mhz: Array, batch_size: Array, *, of_batch: bool) -> Array | None:
    """Errors where a whole level was held out: a batch size (or clock) that was never measured. Inner levels only.

    Args:
        name: of `CANDIDATES`.
        sample: cells.
        clock_mhz: of the grid.
        batch_size: of the grid.
        of_batch: batch sizes; else clocks.

    Returns:
        Of all cells of the inner levels; None where there are fewer than three levels.
    """
    levels = sample.batch_size if of_batch else sample.clock_mhz
    inner = np.unique(levels)[1:-1]
    if not len(inner):
        return None
    errors = []
    for level in inner[:: len(inner) // 12 + 1]:
        held = levels == level
        errors.append(share_errors(_tell(name, sample, held, clock_mhz, batch_size), sample.value[held]))
    return np.concatenate(errors)


def leave_one_out(sample: Sample) -> tuple[Array, Array]:
    """What all other cells make of each, by the separable fit, and how far it is off in robust deviations.

    Returns:
        Predictions, shape (N,); z = log(measured / predicted) over 1.4826 x the median absolute one, shape (N,).
    """
    predicted = np.empty(len(sample))
    everyone = np.arange(len(sample))
    for i in everyone:
        predicted[i] = separable(sample.take(everyone != i))(sample.clock_mhz[i : i + 1], sample.batch_size[i : i + 1])[
            0
        ]
    residual = np.log(sample.value / predicted)
    return predicted, residual / robust_scale(residual)


def outliers(z: Array, predicted: Array, measured: Array) -> NDArray[np.bool_]:
    """Cells that are far off among their like and in themselves: both, since a smooth table has a tiny spread.

    Args:
        z: of `leave_one_out`.
        predicted: the same.
        measured: values.
    """
    return np.asarray((np.abs(z) > OUTLIER_Z) & (share_errors(predicted, measured) > OUTLIER_SHARE))


def _tell(name: str, sample: Sample, held: NDArray[np.bool_], clocks: Array, batches: Array) -> Array:
    """What the fit of all other cells says of some, after the grid was made monotone."""
    grid = fit_grid(name, sample.take(~held), clocks, batches)
    rows = np.searchsorted(clocks, sample.clock_mhz[held])
    columns = np.searchsorted(batches, sample.batch_size[held])
    return np.asarray(grid[rows, columns])


def summary_errors(errors: Sequence[float] | Array) -> tuple[float, float, float, float]:
    """Mean, median, 90th percentile and largest."""
    values = np.asarray(errors)
    return float(values.mean()), float(np.median(values)), float(np.quantile(values, 0.9)), float(values.max())
