"""Grid logs of an AGX Orin: one row for each (prefill clock, decode clock, batch) that was run, checked as it is read.

The columns are those of Zanatticus/EnergyLLM's logs. Two defects of its fan-on log are dealt with here: a cell that is
there twice is averaged, and a cell that is not there is interpolated from its neighbours; `repeated` and `missing` name
them.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contract.errors import JouleBedError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Cell = tuple[int, int, int]
"""Prefill bin, decode bin, batch."""

CLOCKS_MHZ = (306.0, 408.0, 510.0, 612.0, 714.0, 816.0, 918.0, 1020.0, 1122.0, 1224.0, 1300.5)
"""GPU clocks of an AGX Orin by bin, MHz."""

QUANTITIES = ("prefill_s", "decode_s", "prefill_power_w", "decode_power_w", "n_prompt_tokens", "n_output_tokens")
"""What a table has for each cell; energy and latency follow from these."""

_INDEX = {"prefill_bin": "prefill_freq_bin", "decode_bin": "decode_freq_bin", "batch": "effective_batch_size"}
_FIGURES = {
    "prefill_s": "prefill_time",
    "decode_s": "decode_time",
    "prefill_power_w": "prefill_power_w",
    "decode_power_w": "decode_power_w",
    "energy_j": "energy",
    "temp_c": "temperature",
    "duration_s": "inference_time",
    "n_prompt_tokens": "num_prompt_tokens",
    "n_output_tokens": "num_decode_tokens",
}
_ENERGY_TOLERANCE = 0.01


class OrinGridError(JouleBedError):
    """A grid log cannot be used; the message names the row and the column."""

    code = "orin_grid"
    http_status = 422


@dataclass(frozen=True, eq=False)
class OrinTable:
    """Every quantity for every cell, without holes.

    Attributes:
        prefill_bins: (P,), rising.
        decode_bins: (D,), rising.
        batches: (B,), rising; not every size need be there.
        values: for each of `QUANTITIES` an array (P, D, B).
        source: where it comes from.
    """

    prefill_bins: Ints
    decode_bins: Ints
    batches: Ints
    values: Mapping[str, Floats]
    source: str

    def at(self, quantity: str, prefill_bin: Ints, decode_bin: Ints, batch: Floats) -> Floats:
        """A quantity at clocks that were measured; between batches it is linear.

        Args:
            quantity: one of `QUANTITIES`.
            prefill_bin: (...), bins.
            decode_bin: (...), bins.
            batch: (...), between the smallest and the largest.

        Raises:
            OrinGridError: a bin that the table does not have, a batch outside its range.
        """
        rows = self._place("prefill bin", self.prefill_bins, prefill_bin)
        columns = self._place("decode bin", self.decode_bins, decode_bin)
        sizes = np.asarray(batch, dtype=float)
        outside = (sizes < self.batches[0]) | (sizes > self.batches[-1]) | ~np.isfinite(sizes)
        if outside.any():
            raise OrinGridError(
                f"{self.source}: no batch of {np.extract(outside, sizes)[0]:g}; the log has {self.batches[0]} to "
                f"{self.batches[-1]}. Choose one of these."
            )
        if self.batches.size == 1:
            only: Floats = self.values[quantity][rows, columns, np.zeros(sizes.shape, dtype=int)]
            return only
        above = np.clip(np.searchsorted(self.batches, sizes), 1, self.batches.size - 1)
        low, high = self.batches[above - 1], self.batches[above]
        share = (sizes - low) / (high - low)
        table = self.values[quantity]
        found: Floats = (1 - share) * table[rows, columns, above - 1] + share * table[rows, columns, above]
        return found

    def _place(self, name: str, known: Ints, wanted: Ints) -> Ints:
        asked = np.asarray(wanted)
        place = np.clip(np.searchsorted(known, asked), 0, known.size - 1)
        wrong = known[place] != asked
        if wrong.any():
            raise OrinGridError(
                f"{self.source}: no {name} {np.extract(wrong, asked)[0]}; there are "
                f"{', '.join(str(each) for each in known)}. Choose one of these."
            )
        return place.astype(np.int64)


@dataclass(frozen=True, eq=False)
class OrinGrid:
    """A log in the order of its file.

    Attributes:
        prefill_bin: (N,).
        decode_bin: (N,).
        batch: (N,).
        figures: by name, each (N,): those of `QUANTITIES`, `energy_j`, `temp_c`, and `duration_s`, which is the time
            from one row's start to its end, more than prefill and decode.
        source: the file's name.
    """

    prefill_bin: Ints
    decode_bin: Ints
    batch: Ints
    figures: Mapping[str, Floats]
    source: str

    def __len__(self) -> int:
        return int(self.batch.size)

    @property
    def cells(self) -> list[Cell]:
        """Of each row."""
        return list(zip(self.prefill_bin.tolist(), self.decode_bin.tolist(), self.batch.tolist(), strict=True))

    @property
    def latency_s(self) -> Floats:
        """(N,): prefill and decode."""
        return self.figures["prefill_s"] + self.figures["decode_s"]

    @property
    def mean_power_w(self) -> Floats:
        """(N,): energy over latency; the log's own `avg_power` is the plain mean of two phases of unequal length."""
        return self.figures["energy_j"] / self.latency_s

    @cached_property
    def repeated(self) -> tuple[Cell, ...]:
        """Cells with more than one row: the table has their mean."""
        seen: dict[Cell, int] = {}
        for cell in self.cells:
            seen[cell] = seen.get(cell, 0) + 1
        return tuple(sorted(cell for cell, n_rows in seen.items() if n_rows > 1))

    @cached_property
    def missing(self) -> tuple[Cell, ...]:
        """Cells between the measured ones without a row: the table interpolates them."""
        there = set(self.cells)
        axes = [np.unique(each).tolist() for each in (self.prefill_bin, self.decode_bin, self.batch)]
        return tuple((p, d, b) for p in axes[0] for d in axes[1] for b in axes[2] if (p, d, b) not in there)

    def rows(self, wanted: npt.NDArray[np.bool_]) -> "OrinGrid":
        """Some of the rows.

        Args:
            wanted: (N,).
        """
        figures = {name: values[wanted] for name, values in self.figures.items()}
        return OrinGrid(self.prefill_bin[wanted], self.decode_bin[wanted], self.batch[wanted], figures, self.source)

    def table(self) -> OrinTable:
        """Cells on axes: the mean of each cell's rows, and neighbours where there is none (`fill_holes`)."""
        axes = [np.unique(each) for each in (self.prefill_bin, self.decode_bin, self.batch)]
        place = tuple(
            np.searchsorted(axis, each)
            for axis, each in zip(axes, (self.prefill_bin, self.decode_bin, self.batch), strict=True)
        )
        shape = tuple(axis.size for axis in axes)
        count = np.zeros(shape)
        np.add.at(count, place, 1.0)
        values = {}
        for name in QUANTITIES:
            total = np.zeros(shape)
            np.add.at(total, place, self.figures[name])
            mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
            values[name] = fill_holes(mean, axes)
        return OrinTable(axes[0], axes[1], axes[2], values, self.source)


def fill_holes(values: Floats, axes: Sequence[Ints]) -> Floats:
    """Put neighbours where an array has none: linear along each axis between the two nearest, and the mean of that.

    A hole with no neighbours on both sides along any axis takes the mean of the nearest along each.

    Args:
        values: (P, D, B), NaN at the holes.
        axes: positions along each of the three.

    Raises:
        OrinGridError: a hole that has no measured cell along any axis.
    """
    filled = values.copy()
    for hole in np.argwhere(np.isnan(values)):
        between: list[float] = []
        nearest: list[float] = []
        for axis, positions in enumerate(axes):
            line = values[tuple(slice(None) if i == axis else int(hole[i]) for i in range(values.ndim))]
            there = np.flatnonzero(~np.isnan(line))
            if there.size == 0:
                continue
            estimate = float(np.interp(positions[hole[axis]], positions[there], line[there]))
            (between if there[0] < hole[axis] < there[-1] else nearest).append(estimate)
        if not between and not nearest:
            raise OrinGridError(
                f"cell {tuple(int(axis[i]) for axis, i in zip(axes, hole, strict=True))} has no measured neighbour "
                "along any axis. Measure more of the grid."
            )
        filled[tuple(hole)] = float(np.mean(between or nearest))
    return filled


def read_orin_grid(path: Path) -> OrinGrid:
    """Read a grid log.

    Columns that are not needed may be there. Times and powers must be above 0, energy must be power times time of the
    two phases within 1 %, and bins must be 0 to 10.

    Args:
        path: a CSV file.

    Raises:
        OrinGridError: the file cannot be read, a column is missing, or a cell is not what it must be.
    """
    name = path.name
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OrinGridError(f"{path}: cannot be read as text ({error}). Give the path of a grid log.") from error
    reader = csv.reader(io.StringIO(text))
    header = [each.strip() for each in next(reader, [])]
    needed = (*_INDEX.values(), *_FIGURES.values())
    if lacking := [each for each in needed if each not in header]:
        raise OrinGridError(f"{name}: no column {', '.join(lacking)}. A grid log has {', '.join(needed)}.")
    place = {column: header.index(column) for column in needed}
    rows = []
    for line in reader:
        if line:
            if len(line) != len(header):
                raise OrinGridError(
                    f"{name}: row {reader.line_num} has {len(line)} of {len(header)} columns. It looks cut off: copy "
                    "the file again, or remove the row.",
                    row=reader.line_num,
                )
            rows.append(_row(name, reader.line_num, {column: line[at] for column, at in place.items()}))
    if not rows:
        raise OrinGridError(f"{name}: no rows. Give a grid log with one row for each cell.")
    index = {key: np.array([row[key] for row in rows], dtype=np.int64) for key in _INDEX}
    figures = {key: np.array([row[key] for row in rows]) for key in _FIGURES}
    return OrinGrid(index["prefill_bin"], index["decode_bin"], index["batch"], figures, name)


def _row(name: str, number: int, texts: Mapping[str, str]) -> dict[str, float]:
    def fail(column: str, why: str) -> OrinGridError:
        return OrinGridError(
            f"{name}: row {number}, column {column}: {texts[column]!r} {why}. Correct it, or remove the row.",
            row=number,
            column=column,
        )

    def number_of(column: str) -> float:
        try:
            value = float(texts[column])
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise fail(column, "is not a number of 0 or above")
        return value

    found: dict[str, float] = {}
    for key, column in _INDEX.items():
        value = number_of(column)
        if not value.is_integer() or (key == "batch" and value < 1):
            raise fail(column, "is not a whole number" + (" of 1 or above" if key == "batch" else ""))
        if key != "batch" and value >= len(CLOCKS_MHZ):
            raise fail(column, f"is no bin; there are 0 to {len(CLOCKS_MHZ) - 1}")
        found[key] = value
    for key, column in _FIGURES.items():
        found[key] = number_of(column)
        if found[key] == 0:
            raise fail(column, "must be above 0")
    energy_j = found["prefill_s"] * found["prefill_power_w"] + found["decode_s"] * found["decode_power_w"]
    if abs(found["energy_j"] / energy_j - 1) > _ENERGY_TOLERANCE:
        raise fail("energy", f"J is not the power times time of its phases, {energy_j:.6g} J")
    return found
