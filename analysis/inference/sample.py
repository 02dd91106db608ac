"""Values on their way into a test: checked, split by factor level, averaged over repetitions."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
Level = str


def checked(values: ArrayLike, what: str, minimum: int = 1) -> Floats:
    """The values as a vector of finite floats.

    Args:
        values: any shape; flattened. None counts as missing.
        what: how to name them in an error.
        minimum: the fewest that will do.

    Raises:
        UsageError: a value is missing, infinite or not a number, or there are too few.
    """
    try:
        found = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} holds something that is not a number: {error}.") from error
    n_bad = int(np.count_nonzero(~np.isfinite(found)))
    if n_bad:
        raise UsageError(
            f"{what} holds {n_bad} missing or infinite of {found.size} values. Drop these rows, and say so, or find "
            "out why they were not measured."
        )
    if found.size < minimum:
        raise UsageError(f"{what} holds {found.size} values; at least {minimum} are needed.")
    return found


def ordered(levels: Iterable[object]) -> tuple[Level, ...]:
    """Distinct levels as text: by number where all are numbers (7 before 10), else by alphabet, capitals or not."""
    texts = {str(level) for level in levels}
    try:
        return tuple(sorted(texts, key=lambda text: (float(text), text)))
    except ValueError:
        return tuple(sorted(texts, key=lambda text: (text.casefold(), text)))


def has_columns(frame: "pl.DataFrame", names: Sequence[str]) -> None:
    """Refuse a table that lacks a column or a row, or is asked for the same column twice.

    Raises:
        UsageError: says which column, and what there is.
    """
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise UsageError(f"The table has no column {', '.join(missing)}. It has: {', '.join(frame.columns)}.")
    if len(set(names)) < len(names):
        raise UsageError(f"The same column is named twice: {', '.join(names)}.")
    if frame.height == 0:
        raise UsageError("The table has no rows.")


def labels(frame: "pl.DataFrame", factor: str) -> NDArray[np.str_]:
    """The factor's level in each row, as text.

    Raises:
        UsageError: a row has no level.
    """
    column = frame[factor]
    if column.null_count():
        raise UsageError(f"{column.null_count()} rows have no {factor}. Drop them, and say so.")
    return np.asarray([str(value) for value in column.to_list()], dtype=np.str_)


def split(
    frame: "pl.DataFrame", response: str, factor: str, levels: Sequence[Level] | None = None, minimum: int = 1
) -> dict[Level, Floats]:
    """The response's values by factor level, in the order of the levels.

    Args:
        frame: one row per observation.
        response: column of numbers.
        factor: column of levels.
        levels: those wanted, in the order wanted; all, in `ordered`, by default.
        minimum: the fewest values a level may have.

    Raises:
        UsageError: a value is missing, a level has too few, or there are fewer than two levels.
    """
    has_columns(frame, [response, factor])
    level_of, values = labels(frame, factor), frame[response].to_numpy()
    wanted = ordered(level_of) if levels is None else tuple(levels)
    if len(wanted) < 2:
        raise UsageError(f"{factor} has one level, {wanted[0] if wanted else '-'}: there is nothing to compare.")
    return {level: checked(values[level_of == level], f"{response} at {factor} {level}", minimum) for level in wanted}


def not_constant(samples: Mapping[Level, Floats], what: str) -> None:
    """Refuse values that are all the same: no test has anything to say of them.

    Raises:
        UsageError: they are.
    """
    if np.ptp(np.concatenate(list(samples.values()))) == 0:
        raise UsageError(f"{what} is the same everywhere: no test can be made. Was it measured?")


def treatment_means(frame: "pl.DataFrame", responses: Sequence[str], by: Sequence[str]) -> "pl.DataFrame":
    """One row per treatment: the means of the responses over its repetitions, and `n_repetitions`.

    Args:
        frame: one row per run.
        responses: columns of numbers.
        by: columns that name the treatment.

    Raises:
        UsageError: a response is missing somewhere.
    """
    import polars as pl

    has_columns(frame, [*responses, *by])
    for response in responses:
        checked(frame[response].to_numpy(), response)
    means = [pl.col(response).cast(pl.Float64).mean() for response in responses]
    return frame.group_by(by).agg(*means, n_repetitions=pl.len()).sort(by)


def cells(frame: "pl.DataFrame", factors: Sequence[str]) -> tuple[list[tuple[Level, ...]], NDArray[np.intp]]:
    """The full crossing of the factors' levels, and for each row the index of its cell.

    Args:
        frame: one row per observation.
        factors: columns of levels; the last one varies fastest.

    Raises:
        UsageError: a factor has one level, or a cell is empty.
    """
    columns = {factor: labels(frame, factor) for factor in factors}
    levels = {factor: ordered(column) for factor, column in columns.items()}
    for factor, found in levels.items():
        if len(found) < 2:
            raise UsageError(f"{factor} has one level, {found[0]}: there is nothing to compare. Leave it out.")
    crossing = list(product(*levels.values()))
    index_of = {cell: i for i, cell in enumerate(crossing)}
    rows = [tuple(map(str, row)) for row in zip(*columns.values(), strict=True)]
    index = np.asarray([index_of[row] for row in rows], dtype=np.intp)
    empty = [" x ".join(crossing[i]) for i in np.flatnonzero(np.bincount(index, minlength=len(crossing)) == 0)]
    if empty:
        raise UsageError(
            f"{len(empty)} of {len(crossing)} cells of {' x '.join(factors)} are empty ({', '.join(empty[:4])}"
            f"{', ...' if len(empty) > 4 else ''}). A factorial test needs all: drop a level, or join factors into one."
        )
    return crossing, index
