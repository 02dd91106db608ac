"""Ways to fit one quantity over clock and batch, all monotone in both: what cross-validation chooses from.

Latency falls (or stays) with the clock and rises (or stays) with the batch; power rises with both. All ways work on
log values, since errors are judged as shares, and end on a grid that is exactly monotone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, nnls

Array = NDArray[np.float64]
Predict = Callable[[Array, Array], Array]
"""Clocks in MHz and batch sizes, of equal length -> values."""

_ROUNDS = 40
_MHZ = 1000.0
_CLOCK_SCALES_MHZ = (60.0, 150.0)
_BATCH_SCALES = (0.7, 1.5)
_NUGGETS = (0.03, 0.1, 0.3, 1.0, 3.0)
_ENOUGH = 200
"""Cells that widths are chosen on."""
_TAKE_NO_NOTICE = 6.0
"""Deviations, in robust standard deviations, from which a cell has no say in a fit."""


@dataclass(frozen=True)
class Sample:
    """What is fitted.

    Attributes:
        clock_mhz: of each cell, shape (N,).
        batch_size: the same.
        value: in the quantity's unit, above 0.
        weight: repetitions of each.
        falls_with_clock: True for latency, False for power.
    """

    clock_mhz: Array
    batch_size: Array
    value: Array
    weight: Array
    falls_with_clock: bool

    def __len__(self) -> int:
        return len(self.value)

    def take(self, mask: NDArray[np.bool_]) -> "Sample":
        """Some of the cells."""
        return Sample(
            self.clock_mhz[mask], self.batch_size[mask], self.value[mask], self.weight[mask], self.falls_with_clock
        )


def physics(sample: Sample) -> Predict:
    """Sums of what the device does, with coefficients of at least 0, by non-negative least squares on shares.

    Latency: (1, log batch, batch, batch²) x (1/clock, 1): work of the cores beside waiting for the memory. Power: the
    same batches x (1, clock, clock³, hinges): leakage, switching at a fixed and at a rising voltage (P = C V² f), with
    hinges where the voltage begins to rise.
    """
    knots = np.quantile(np.unique(sample.clock_mhz), (0.2, 0.4, 0.6, 0.8)) / _MHZ
    top = max(float(sample.batch_size.max()), 2.0)

    def terms(clock_mhz: Array, batch: Array) -> Array:
        clock, one = clock_mhz / _MHZ, np.ones_like(batch)
        of_batch = np.stack([one, np.log(batch) / math.log(top), batch / top, (batch / top) ** 2], 1)
        if sample.falls_with_clock:
            of_clock = np.stack([one, 1 / clock], 1)
        else:
            of_clock = np.stack([one, clock, clock**3, *(np.clip(clock - knot, 0, None) for knot in knots)], 1)
        return np.asarray((of_batch[:, :, None] * of_clock[:, None, :]).reshape(len(batch), -1))

    matrix = terms(sample.clock_mhz, sample.batch_size) / sample.value[:, None]
    robust = np.ones(len(sample))
    for _ in range(10):
        weight = np.sqrt(robust * sample.weight)
        coefficients, _ = nnls(matrix * weight[:, None], weight)
        robust = _robust_weight(np.log(np.maximum(matrix @ coefficients, 1e-9)))
    return lambda clock_mhz, batch: np.maximum(terms(clock_mhz, batch) @ coefficients, 1e-9)


def separable(sample: Sample) -> Predict:
    """A curve of the clock times a curve of the batch, both monotone: pool-adjacent-violators in turn, on logs."""
    clocks, i = np.unique(sample.clock_mhz, return_inverse=True)
    batches, j = np.unique(sample.batch_size, return_inverse=True)
    log = np.log(sample.value)
    of_clock, of_batch = np.zeros(len(clocks)), np.full(len(batches), np.median(log))
    robust = np.ones(len(sample))
    for _ in range(_ROUNDS):
        weight = robust * sample.weight
        of_clock = _monotone_curve(i, log - of_batch[j], weight, len(clocks), rises=not sample.falls_with_clock)
        of_clock -= of_clock.mean()
        of_batch = _monotone_curve(j, log - of_clock[i], weight, len(batches), rises=True)
        robust = _robust_weight(log - of_clock[i] - of_batch[j])
    # Between batches, latency is nearer to a line than its logarithm is.
    level = np.exp(of_batch)
    return lambda clock_mhz, batch: (
        np.exp(_line(clock_mhz, clocks, of_clock)) * np.maximum(_line(batch, batches, level), level.min() / 2)
    )


def smoothed(base: Callable[[Sample], Predict]) -> Callable[[Sample], Predict]:
    """A fit, and what it leaves over, smoothed over near clocks and batches (kernel ridge, that is kriging).

    Widths and noise are chosen by the closed form of the leave-one-out residual, (K⁻¹ r)_i / (K⁻¹)_ii (Rasmussen and
    Williams, Gaussian Processes for Machine Learning, 2006, eq. 5.12).
    """

    def fit(sample: Sample) -> Predict:
        rough = base(sample)
        left = np.log(sample.value / rough(sample.clock_mhz, sample.batch_size))
        kept = _robust_weight(left) > 0.01
        if kept.sum() < 4:
            return rough
        clock, batch, left = sample.clock_mhz[kept], np.log(sample.batch_size[kept]), left[kept]

        def kernel(clock_mhz: Array, log_batch: Array, scale_mhz: float, scale: float) -> Array:
            apart = ((clock_mhz[:, None] - clock) / scale_mhz) ** 2 + ((log_batch[:, None] - batch) / scale) ** 2
            return np.asarray(np.exp(-apart / 2))

        best: tuple[float, float, float, Array] | None = None
        least = math.inf
        for scale_mhz in _CLOCK_SCALES_MHZ:
            for scale in _BATCH_SCALES:
                near = kernel(clock, batch, scale_mhz, scale)
                for nugget in _NUGGETS:
                    inverse = np.linalg.inv(near + np.diag(nugget / sample.weight[kept]))
                    share = inverse @ left
                    error = float(np.mean(np.abs(share / np.diag(inverse))))
                    if error < least:
                        least, best = error, (scale_mhz, scale, nugget, share)
        assert best is not None
        scale_mhz, scale, _, share = best
        return lambda clock_mhz, batches: (
            rough(clock_mhz, batches) * np.exp(kernel(clock_mhz, np.log(batches), scale_mhz, scale) @ share)
        )

    return fit


CANDIDATES: Mapping[str, Callable[[Sample], Predict]] = {
    "physics": physics,
    "separable": separable,
    "physics, smoothed rest": smoothed(physics),
    "separable, smoothed rest": smoothed(separable),
}


def fit_grid(name: str, sample: Sample, clock_mhz: Array, batch_size: Array) -> Array:
    """Fit, and evaluate on a grid that is made monotone.

    Args:
        name: of `CANDIDATES`.
        sample: to be fitted.
        clock_mhz: rising, shape (C,).
        batch_size: rising, shape (B,).

    Returns:
        Values, shape (C, B), in the quantity's unit.
    """
    predict = CANDIDATES[name](sample)
    clock, batch = np.meshgrid(clock_mhz, batch_size, indexing="ij")
    values = predict(clock.ravel(), batch.ravel()).reshape(clock.shape)
    return monotone_grid(values, falls_with_clock=sample.falls_with_clock)


def monotone_grid(values: Array, *, falls_with_clock: bool) -> Array:
    """The monotone grid next to one, in least squares of the logs: Dykstra's alternating projections.

    Args:
        values: above 0, shape (C, B), clocks and batches rising.
        falls_with_clock: else it rises.

    Returns:
        Exactly monotone in both directions; equal to `values` where those are monotone.
    """
    z = np.log(values if not falls_with_clock else values[::-1])
    if (np.diff(z, axis=0) < 0).any() or (np.diff(z, axis=1) < 0).any():
        rest = [np.zeros_like(z), np.zeros_like(z)]
        for _ in range(200):
            before = z
            for axis in (0, 1):
                wanted = z + rest[axis]
                z = np.apply_along_axis(lambda line: isotonic_regression(line).x, axis, wanted)
                rest[axis] = wanted - z
            if np.abs(z - before).max() < 1e-9:
                break
        # What rounding leaves: a running maximum in one direction keeps the order in the other.
        values = np.maximum.accumulate(np.maximum.accumulate(np.exp(z), axis=0), axis=1)
        return values if not falls_with_clock else values[::-1].copy()
    return values


def robust_scale(residual: Array) -> float:
    """Standard deviation of the bulk: 1.4826 x the median absolute value; at least a millionth."""
    return 1.4826 * float(np.median(np.abs(residual))) + 1e-6


@dataclass(frozen=True)
class _Near:
    """The cells that others are near to."""

    clock_mhz: Array
    log_batch: Array

    def kernel(self, clock_mhz: Array, log_batch: Array, scale_mhz: float, scale: float) -> Array:
        clock_apart = (clock_mhz[:, None] - self.clock_mhz) / scale_mhz
        batch_apart = (log_batch[:, None] - self.log_batch) / scale
        return np.asarray(np.exp(-(clock_apart**2 + batch_apart**2) / 2))


def _scales(near: _Near, left: Array, noise: Array) -> tuple[float, float, float]:
    """Widths in MHz and in log batch, and noise, of the least leave-one-out residual."""
    # Of large tables a part: the cost grows with the third power.
    part = slice(None, None, len(left) // _ENOUGH + 1)
    near, left, noise = _Near(near.clock_mhz[part], near.log_batch[part]), left[part], noise[part]
    best, least = (_CLOCK_SCALES_MHZ[0], _BATCH_SCALES[0], _NUGGETS[-1]), math.inf
    for scale_mhz, scale in product(_CLOCK_SCALES_MHZ, _BATCH_SCALES):
        kernel = near.kernel(near.clock_mhz, near.log_batch, scale_mhz, scale)
        for nugget in _NUGGETS:
            inverse = np.linalg.inv(kernel + np.diag(nugget * noise))
            error = float(np.mean(np.abs(inverse @ left / np.diag(inverse))))
            if error < least:
                best, least = (scale_mhz, scale, nugget), error
    return best


def _robust_weight(residual: Array) -> Array:
    """Huber's weights at 1.5 deviations, and next to none beyond `_TAKE_NO_NOTICE`."""
    apart = np.abs(residual) / robust_scale(residual)
    return np.where(apart > _TAKE_NO_NOTICE, 1e-4, np.minimum(1.0, 1.5 / np.maximum(apart, 1e-9)))


def _monotone_curve(level: NDArray[np.intp], value: Array, weight: Array, n: int, *, rises: bool) -> Array:
    sums = np.bincount(level, weight, n)
    means = np.bincount(level, weight * value, n) / sums
    return np.asarray(isotonic_regression(means, weights=sums, increasing=rises).x)


def _line(x: Array, knots: Array, values: Array) -> Array:
    """Linear between knots, and on beyond the outer ones: held-out cells may be outer ones."""
    if len(knots) == 1:
        return np.full_like(x, values[0])
    i = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    share = (x - knots[i]) / (knots[i + 1] - knots[i])
    return np.asarray(values[i] + share * (values[i + 1] - values[i]))
