"""From a profile to a device model: outliers out, every way to fit judged by held-out cells, the best one kept."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from control.device_model import (
    QUANTITIES,
    DeviceModel,
    DeviceModelError,
    HeldOutCell,
    HeldOutErrors,
    LengthModel,
    Outlier,
    Quantity,
    QuantityModel,
)
from control.held_out import (
    MIN_CELLS,
    CrossValidation,
    cross_validate,
    leave_one_out,
    level_errors,
    outliers,
    share_errors,
    summary_errors,
)
from control.monotone_fit import Array, Sample, fit_grid
from control.profile_table import LengthPair, Profile, ProfileCell, lengths_name, named

STEPS_PER_QUANTITY = 13
"""Steps that `fit_device_model` tells of, for each quantity of each pair of lengths, at most."""
_MIN_FOR_OUTLIERS = 12
_FALLS_SHARE = 0.1

Progress = Callable[[str], None]
_UNITS = {"latency_s": "s", "power_w": "W"}


def find_outliers(cells: Sequence[ProfileCell]) -> list[Outlier]:
    """Cells of one pair of lengths that all others speak against, with what probably happened.

    Args:
        cells: of one pair, with clocks; fewer than 12 tell nothing.
    """
    if len(cells) < _MIN_FOR_OUTLIERS or len({cell.clock_mhz for cell in cells}) < 2:
        return []
    found = []
    for quantity in QUANTITIES:
        sample = _sample(cells, quantity)
        predicted, z = leave_one_out(sample)
        for i in np.flatnonzero(outliers(z, predicted, sample.value)):
            cell, measured = cells[i], float(sample.value[i])
            assert cell.clock_mhz is not None
            found.append(
                Outlier(
                    clock_mhz=cell.clock_mhz,
                    batch_size=cell.batch_size,
                    quantity=quantity,
                    measured=measured,
                    predicted=float(predicted[i]),
                    z=float(z[i]),
                    reason=_reason(quantity, measured, float(predicted[i]), float(z[i])),
                )
            )
    return found


def fit_device_model(
    profile: Profile, *, seed: int = 0, fills_holes: bool = False, progress: Progress = lambda _: None
) -> DeviceModel:
    """Fit latency and power for each pair of lengths.

    Args:
        profile: measured, or imported.
        seed: of the folds.
        fills_holes: whether cells that were not measured may be told by the model.
        progress: told of each step.

    Raises:
        DeviceModelError: holes; a cell without a clock; one batch size only; too few cells to hold any out.
    """
    unknown = [str(cell) for cell in profile.cells if cell.clock_mhz is None]
    if unknown:
        raise DeviceModelError(
            f"The clock of {_count(len(unknown), 'cell')} is not known ({unknown[0]}). Where it cannot be set, say "
            "what it was: python -m control profile ... --clock-mhz MHZ"
        )
    if profile.holes and not fills_holes:
        raise DeviceModelError(
            f"The profile has {_count(len(profile.holes), 'hole')}: {named(profile.holes)}. Measure them, or let the "
            "model tell them, as well as it tells held-out cells: --fill-holes."
        )
    return DeviceModel(
        source=profile.source,
        profile_sha256=profile.sha256,
        power_of="+".join(dict.fromkeys(cell.domain for cell in profile.cells)),
        is_estimate=profile.is_estimate,
        methods=sorted({cell.method for cell in profile.cells}),
        lengths=[_fit_lengths(profile.of_lengths(pair), pair, seed, profile.holes, progress) for pair in profile.pairs],
    )


def _fit_lengths(
    cells: Sequence[ProfileCell], lengths: LengthPair, seed: int, holes: Sequence[str], progress: Progress
) -> LengthModel:
    what = "" if lengths == (None, None) else f" of {lengths[0]}/{lengths[1]} tokens"
    clocks = np.unique([float(cell.clock_mhz or 0) for cell in cells])
    batches = np.unique([cell.batch_size for cell in cells])
    if len(batches) < 2:
        raise DeviceModelError(
            f"The profile{what} has one batch size, {batches[0]}: nothing tells how latency and power rise with it. "
            "Profile another, batch 1 among them."
        )
    if len(cells) < MIN_CELLS:
        raise DeviceModelError(
            f"The profile{what} has {len(cells)} cells, and {MIN_CELLS} are the least that some can be held out of: "
            f"{named([str(cell) for cell in cells])}. Profile more clocks or batch sizes."
        )
    every_batch = np.arange(batches[0], batches[-1] + 1)
    found = find_outliers(cells)
    left_out = _left_out(cells, found)
    if len(cells) - left_out.sum() < MIN_CELLS:
        raise DeviceModelError(f"Too few cells of the profile{what} are sound: measure those again that are flagged.")
    models = {
        name: _fit_quantity(name, cells, left_out, clocks, every_batch, seed, what, progress) for name in QUANTITIES
    }
    return LengthModel(
        n_input_tokens=lengths[0],
        n_output_tokens=lengths[1],
        clock_mhz=clocks.tolist(),
        batch_sizes=every_batch.tolist(),
        measured_batch_sizes=batches.tolist(),
        latency_s=models["latency_s"],
        power_w=models["power_w"],
        outliers=found,
        limitations=_limitations(cells, clocks, batches, lengths, holes, found),
    )


def _fit_quantity(
    name: Quantity,
    cells: Sequence[ProfileCell],
    left_out: NDArray[np.bool_],
    clocks: Array,
    every_batch: NDArray[np.int64],
    seed: int,
    what: str,
    progress: Progress,
) -> QuantityModel:
    everything, batches = _sample(cells, name), every_batch.astype(float)
    sample = everything.take(~left_out)
    told = f"{name}{what}"
    result = cross_validate(
        sample, clocks, batches, seed=seed, progress=lambda step: progress(f"{told}: held-out cells, {step}")
    )
    progress(f"{told}: held-out batch sizes and clocks")
    unseen = [level_errors(result.chosen, sample, clocks, batches, of_batch=each) for each in (True, False)]
    progress(f"{told}: the fit")
    values = fit_grid(result.chosen, sample, clocks, batches)
    rows = np.searchsorted(clocks, everything.clock_mhz[left_out])
    columns = np.searchsorted(batches, everything.batch_size[left_out])
    errors = share_errors(result.honest, sample.value)
    with_outliers = [*errors, *share_errors(values[rows, columns], everything.value[left_out])]
    return QuantityModel(
        way=result.chosen,
        values=values.tolist(),
        held_out=_told_errors(sample, result, errors, with_outliers, unseen, seed),
    )


def _told_errors(
    sample: Sample,
    result: CrossValidation,
    errors: Array,
    with_outliers: Sequence[float],
    unseen: Sequence[Array | None],
    seed: int,
) -> HeldOutErrors:
    mean, median, p90, largest = summary_errors(errors)
    return HeldOutErrors(
        n_cells=len(sample),
        n_folds=result.n_folds,
        seed=seed,
        mape=mean,
        median=median,
        p90=p90,
        largest=largest,
        mape_with_outliers=float(np.mean(with_outliers)),
        mape_by_way={way: float(share_errors(told, sample.value).mean()) for way, told in result.predicted.items()},
        mape_unseen_batch=None if unseen[0] is None else float(unseen[0].mean()),
        mape_unseen_clock=None if unseen[1] is None else float(unseen[1].mean()),
        cells=[
            HeldOutCell(
                clock_mhz=float(sample.clock_mhz[i]),
                batch_size=int(sample.batch_size[i]),
                measured=float(sample.value[i]),
                predicted=float(result.honest[i]),
            )
            for i in range(len(sample))
        ],
    )


def _sample(cells: Sequence[ProfileCell], name: Quantity) -> Sample:
    return Sample(
        clock_mhz=np.array([cell.clock_mhz for cell in cells], dtype=float),
        batch_size=np.array([cell.batch_size for cell in cells], dtype=float),
        value=np.array([getattr(cell, name) for cell in cells], dtype=float),
        weight=np.array([cell.n_repetitions for cell in cells], dtype=float),
        falls_with_clock=name == "latency_s",
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _left_out(cells: Sequence[ProfileCell], found: Sequence[Outlier]) -> NDArray[np.bool_]:
    """Both quantities: where the latency is wrong, the power was averaged over another time, and the reverse."""
    wrong = {(each.clock_mhz, each.batch_size) for each in found}
    return np.array([bool(cell.flag) or (cell.clock_mhz, cell.batch_size) in wrong for cell in cells])


def _reason(quantity: Quantity, measured: float, predicted: float, z: float) -> str:
    unit = _UNITS[quantity]
    told = (
        f"{measured:.4g} {unit} is {measured / predicted:.0%} of the {predicted:.4g} {unit} that all other cells make "
        f"(robust z {z:.1f})"
    )
    if quantity == "latency_s":
        return told + (": the answers ended early" if measured < predicted else ": the batch was disturbed")
    return told + (": idle time is in the mean, probably" if measured < predicted else ": something else drew power")


def _limitations(
    cells: Sequence[ProfileCell],
    clocks: Array,
    batches: NDArray[np.int64],
    lengths: LengthPair,
    holes: Sequence[str],
    found: Sequence[Outlier],
) -> list[str]:
    told = []
    if len(clocks) == 1:
        told.append(
            f"One clock, {clocks[0]:g} MHz: the model tells batches only, and makes no table to choose clocks from."
        )
    if batches[0] != 1:
        told.append(f"The smallest batch is {batches[0]}: without batch 1 there is no table for a queue.")
    if len(cells) < 20:
        told.append(f"{len(cells)} cells: the held-out error itself is known roughly only.")
    own = [hole for hole in holes if hole.endswith(lengths_name(lengths))]
    if own:
        told.append(f"Not measured, and told by the model: {named(own)}.")
    left = {(each.clock_mhz, each.batch_size) for each in found}
    flagged = [f"{each} ({each.flag})" for each in cells if each.flag and (each.clock_mhz, each.batch_size) not in left]
    if flagged:
        told.append(f"Left out, as the profile flags them: {named(flagged)}.")
    kept = [cell for cell in cells if not cell.flag and (cell.clock_mhz, cell.batch_size) not in left]
    by_clock: dict[float | None, dict[int, float]] = {}
    for cell in kept:
        by_clock.setdefault(cell.clock_mhz, {})[cell.batch_size] = cell.power_w
    drops = [1 - row[max(row)] / max(row.values()) for row in by_clock.values() if len(row) > 1]
    if drops and float(np.median(drops)) > _FALLS_SHARE:
        told.append(
            f"The measured power falls with the batch, by {float(np.median(drops)):.0%} from the highest to the "
            "largest batch at the median clock, which no device does at work: idle time is in its mean, probably. "
            "The model is monotone all the same, and its error says so."
        )
    return told
