"""How long a batch takes and what power it draws, for every clock and batch size: the whole of a simulated server."""

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contract.errors import JouleBedError

Floats = npt.NDArray[np.float64]

_CLOCK, _BATCH, _LATENCY, _POWER = "gpu_frequency_mhz", "batch_size", "latency_s", "power_w"
_INPUT, _OUTPUT = "input_len", "output_len"
_NEEDED = (_CLOCK, _BATCH, _LATENCY, _POWER)
_LENGTHS = (_INPUT, _OUTPUT)


class ServiceTableError(JouleBedError):
    """A table of latency and power cannot be used; the message names the row and the column."""

    code = "service_table"
    http_status = 422


@dataclass(frozen=True, eq=False)
class ServiceTable:
    """Latency and power by clock and batch size, without holes.

    Attributes:
        clock_mhz: (C,), rising, at least two; one where the clock is left alone.
        batch_sizes: (B,), every size 1 to B.
        latency_s: (C, B), from the start of a batch to its end; every request of it ends then.
        power_w: (C, B), mean over the batch.
        source: where the figures come from, such as a file's name.
        n_input_tokens: prompt tokens of each request; None: not known, or mixed.
        n_output_tokens: generated tokens of each request; None: not known, or mixed.
        is_clock_left_alone: one clock is what was meant: of a device whose clock nobody sets, for policies that choose
            batches alone. Else one clock is refused, as there would be nothing to choose.

    Raises:
        ServiceTableError: shapes that do not fit, one clock where several were meant, a batch size left out, a figure
            that is not finite and above 0.
    """

    clock_mhz: Floats
    batch_sizes: npt.NDArray[np.int64]
    latency_s: Floats
    power_w: Floats
    source: str
    n_input_tokens: int | None = None
    n_output_tokens: int | None = None
    is_clock_left_alone: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("clock_mhz", float), ("batch_sizes", np.int64), ("latency_s", float), ("power_w", float)):
            array = np.array(getattr(self, name), dtype=kind)  # a copy: nobody else's array changes this one
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        n_clocks, n_batches = self.clock_mhz.size, self.batch_sizes.size
        if n_clocks < (1 if self.is_clock_left_alone else 2):
            raise ServiceTableError(
                f"{self.source}: {n_clocks} clock(s); there is nothing to choose between. Profile two clocks at least."
            )
        if np.any(np.diff(self.clock_mhz) <= 0) or self.clock_mhz[0] <= 0 or not np.isfinite(self.clock_mhz[-1]):
            raise ServiceTableError(f"{self.source}: the clocks must be above 0 and rising; sort the table by clock.")
        if n_batches < 1 or not np.array_equal(self.batch_sizes, np.arange(1, n_batches + 1)):
            raise ServiceTableError(f"{self.source}: {_missing_batches(self.batch_sizes.tolist())}")
        for name in ("latency_s", "power_w"):
            self._check(name, getattr(self, name))

    def _check(self, name: str, array: Floats) -> None:
        shape = (self.clock_mhz.size, self.batch_sizes.size)
        if array.shape != shape:
            raise ServiceTableError(f"{self.source}: {name} has shape {array.shape}, but clock x batch is {shape}.")
        bad = np.argwhere(~(np.isfinite(array) & (array > 0)))
        if bad.size:
            clock, batch = bad[0]
            raise ServiceTableError(
                f"{self.source}: {name} is {array[clock, batch]:g} at {self.clock_mhz[clock]:g} MHz, batch "
                f"{self.batch_sizes[batch]}; it must be a number above 0. Measure this cell again, or leave it to the "
                "device model.",
                clock_mhz=float(self.clock_mhz[clock]),
                batch_size=int(self.batch_sizes[batch]),
                column=name,
            )

    @property
    def n_clocks(self) -> int:
        """C."""
        return int(self.clock_mhz.size)

    @property
    def max_batch(self) -> int:
        """B: the largest batch."""
        return int(self.batch_sizes.size)

    @cached_property
    def energy_j(self) -> Floats:
        """(C, B), of a whole batch."""
        return self.latency_s * self.power_w

    def column(self, batch: int) -> int:
        """Index of a batch size along the second axis.

        Raises:
            ServiceTableError: no such batch size.
        """
        if not 1 <= batch <= self.max_batch:
            raise ServiceTableError(f"{self.source}: no batch of {batch}; the table has 1 to {self.max_batch}.")
        return batch - 1

    def row(self, clock_mhz: float) -> int:
        """Index of a clock along the first axis.

        Raises:
            ServiceTableError: no such clock.
        """
        found = int(np.searchsorted(self.clock_mhz, clock_mhz))
        if found == self.n_clocks or self.clock_mhz[found] != clock_mhz:
            known = ", ".join(f"{each:g}" for each in self.clock_mhz)
            raise ServiceTableError(f"{self.source}: no clock of {clock_mhz:g} MHz; the table has {known}.")
        return found

    @cached_property
    def sha256(self) -> str:
        """Of the figures, not of the file they came in: two files with the same numbers have the same."""
        digest = hashlib.sha256()
        for array in (self.clock_mhz, self.batch_sizes, self.latency_s, self.power_w):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def to_csv(self) -> str:
        """As `read_service_table` reads it; every figure comes back exactly."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        lengths: list[tuple[str, int]] = []
        if self.n_input_tokens is not None and self.n_output_tokens is not None:
            lengths = [(_INPUT, self.n_input_tokens), (_OUTPUT, self.n_output_tokens)]
        writer.writerow([_CLOCK, _BATCH, *(name for name, _ in lengths), _LATENCY, _POWER])
        for row, clock in enumerate(self.clock_mhz.tolist()):
            for column, batch in enumerate(self.batch_sizes.tolist()):
                cell = (float(self.latency_s[row, column]), float(self.power_w[row, column]))
                # 1410.0 as 1410: clocks are whole MHz in the tables that people share.
                writer.writerow([f"{clock!r}".removesuffix(".0"), batch, *(n for _, n in lengths), *map(repr, cell)])
        return out.getvalue()

    def write(self, path: Path) -> None:
        """Write it as a CSV file."""
        path.write_text(self.to_csv(), encoding="utf-8")


def read_service_table(
    path: Path,
    n_input_tokens: int | None = None,
    n_output_tokens: int | None = None,
    *,
    is_clock_left_alone: bool = False,
) -> ServiceTable:
    """Read a table of `gpu_frequency_mhz,batch_size,latency_s,power_w[,input_len,output_len]`, rows in any order.

    Args:
        path: a CSV file; every clock with every batch size 1 to the largest, once.
        n_input_tokens: which prompt length to take, of a table with several.
        n_output_tokens: which output length to take, of a table with several.
        is_clock_left_alone: one clock will do, see `ServiceTable`.

    Raises:
        ServiceTableError: the file cannot be read, a column is missing or unknown, a line is cut off, a figure is no
            number above 0, a cell is there twice or not at all, one clock only, or the lengths are not settled.
    """
    name = path.name
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceTableError(f"{path}: cannot be read as text ({error}). Give the path of a CSV table.") from error
    header, lines = _lines(name, text)
    _refuse_cut_end(name, text, lines)
    wanted = {_INPUT: n_input_tokens, _OUTPUT: n_output_tokens}
    rows = _of_lengths(name, [_row(name, header, number, line) for number, line in lines], header, wanted)
    cells: dict[tuple[float, int], _Row] = {}
    for row in rows:
        if earlier := cells.get((row.clock_mhz, row.batch)):
            raise ServiceTableError(
                f"{name}: lines {earlier.line} and {row.line} are both {row.clock_mhz:g} MHz, batch {row.batch}. "
                "Keep one, or average them."
            )
        cells[row.clock_mhz, row.batch] = row
    clocks, batches = sorted({clock for clock, _ in cells}), sorted({batch for _, batch in cells})
    if batches != list(range(1, len(batches) + 1)):
        raise ServiceTableError(f"{name}: {_missing_batches(batches)}")
    holes = [(clock, batch) for clock in clocks for batch in batches if (clock, batch) not in cells]
    if holes:
        told = ", ".join(f"{clock:g} MHz x batch {batch}" for clock, batch in holes[:5])
        raise ServiceTableError(
            f"{name}: {len(holes)} of {len(clocks) * len(batches)} cells are missing: {told}"
            f"{', ...' if len(holes) > 5 else ''}. Measure them, or make a full table from what is there: "
            "python -m control fit.",
            n_holes=len(holes),
        )
    return ServiceTable(
        clock_mhz=np.array(clocks),
        batch_sizes=np.array(batches),
        latency_s=np.array([[cells[clock, batch].latency_s for batch in batches] for clock in clocks]),
        power_w=np.array([[cells[clock, batch].power_w for batch in batches] for clock in clocks]),
        source=name,
        n_input_tokens=rows[0].lengths[0] if rows[0].lengths else n_input_tokens,
        n_output_tokens=rows[0].lengths[1] if rows[0].lengths else n_output_tokens,
        is_clock_left_alone=is_clock_left_alone,
    )


@dataclass(frozen=True)
class _Row:
    line: int
    clock_mhz: float
    batch: int
    latency_s: float
    power_w: float
    lengths: tuple[int, int] | None


def _lines(name: str, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    reader = csv.reader(io.StringIO(text))
    lines = [(reader.line_num, line) for line in reader if line]
    if len(lines) < 2:
        raise ServiceTableError(f"{name}: no rows. The first line names the columns: {','.join(_NEEDED)}.")
    header = [each.strip() for each in lines[0][1]]
    if missing := [each for each in _NEEDED if each not in header]:
        raise ServiceTableError(f"{name}: no column {', '.join(missing)}; the columns are {', '.join(header)}.")
    if unknown := [each for each in header if each not in _NEEDED + _LENGTHS]:
        raise ServiceTableError(
            f"{name}: unknown column {', '.join(unknown)}. Remove it, or import the file first: python -m control fit.",
            columns=unknown,
        )
    if len(set(header)) < len(header) or (_INPUT in header) != (_OUTPUT in header):
        raise ServiceTableError(f"{name}: each column once, and {_INPUT} and {_OUTPUT} together; got {header}.")
    return header, lines[1:]


def _refuse_cut_end(name: str, text: str, lines: Sequence[tuple[int, list[str]]]) -> None:
    """A last figure cut off inside (`159.8` -> `15`) is still a number: without a line end it is compared."""
    if text.endswith("\n") or len(lines) < 2 or not (lines[-1][1] and lines[-2][1]):
        return
    try:
        last, before = float(lines[-1][1][-1]), float(lines[-2][1][-1])
    except ValueError:
        return  # told with its line and column when the row is read
    if last < before / 2:
        raise ServiceTableError(
            f"{name}: line {lines[-1][0]} has no line end, and its last figure, {lines[-1][1][-1]}, looks cut off "
            f"(the line before has {lines[-2][1][-1]}). Copy the file again; if it is whole, end its last line."
        )


def _row(name: str, header: Sequence[str], number: int, line: Sequence[str]) -> _Row:
    if len(line) != len(header):
        raise ServiceTableError(
            f"{name}: line {number} has {len(line)} of {len(header)} columns: {','.join(line)!r}. It looks cut off: "
            "copy the file again, or remove the line.",
            line=number,
        )
    cells = dict(zip(header, line, strict=True))

    def figure(column: str, *, is_whole: bool = False) -> float:
        try:
            value = float(cells[column])
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0) or (is_whole and not value.is_integer()):
            raise ServiceTableError(
                f"{name}: line {number}, column {column}: {cells[column]!r} is not a {'whole ' if is_whole else ''}"
                "number above 0. Correct it, or measure this cell again.",
                line=number,
                column=column,
            )
        return value

    lengths = None
    if _INPUT in cells:
        lengths = (int(figure(_INPUT, is_whole=True)), int(figure(_OUTPUT, is_whole=True)))
    batch = int(figure(_BATCH, is_whole=True))
    return _Row(number, figure(_CLOCK), batch, figure(_LATENCY), figure(_POWER), lengths)


def _of_lengths(name: str, rows: list[_Row], header: Sequence[str], wanted: dict[str, int | None]) -> list[_Row]:
    """The rows of one (input, output) length."""
    if _INPUT not in header:
        return rows
    kept = [
        row
        for row in rows
        if row.lengths and wanted[_INPUT] in (None, row.lengths[0]) and wanted[_OUTPUT] in (None, row.lengths[1])
    ]
    found = sorted({row.lengths for row in (kept or rows) if row.lengths})
    if not kept or len(found) > 1:
        pairs = ", ".join(f"{one}/{other}" for one, other in found)
        fault = "several lengths" if kept else "no rows of the lengths asked for"
        raise ServiceTableError(f"{name}: {fault}; choose one input/output length of {pairs} tokens.")
    return kept


def _missing_batches(batches: Iterable[int]) -> str:
    there = set(batches)
    missing = [str(each) for each in range(1, max(there, default=1) + 1) if each not in there]
    if not missing:
        return "the batch sizes must rise, each once."
    return (
        f"batch size {', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''} is missing; every size from 1 to "
        "the largest is needed. Fit a device model, which fills them in: python -m control fit."
    )
