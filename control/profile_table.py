"""A profile: what a batch takes and draws at each clock, batch size and pair of lengths, as measured, and as a CSV."""

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from contract.errors import JouleBedError, UsageError

COLUMNS = (
    "clock_mhz",
    "batch_size",
    "input_len",
    "output_len",
    "latency_s",
    "power_w",
    "n_repetitions",
    "method",
    "domain",
    "flag",
)
ESTIMATE = "estimate"
NAMED = 8
"""Cells that a message names; of more it tells the number."""


class ProfileError(JouleBedError):
    """A profile is damaged, has holes, or says what cannot be; the message names the cell."""

    code = "profile"
    http_status = 400


LengthPair = tuple[int | None, int | None]
"""Tokens in and tokens out of each request; None: not known."""


@dataclass(frozen=True)
class ProfileCell:
    """One combination of clock, batch and lengths.

    Attributes:
        clock_mhz: of the GPU, or of what was profiled; None: it was not set, nor is it known.
        batch_size: requests that were computed together.
        n_input_tokens: tokens of each prompt; None: not known.
        n_output_tokens: tokens generated for each; None: not known.
        latency_s: from the start of the batch to its last token; mean over the repetitions.
        power_w: mean meanwhile; mean over the repetitions.
        n_repetitions: how many.
        method: how the energy came about: `counter`, `sampled`, `estimate`; `published` of others' tables.
        domain: what the power is of: `gpu`, or `total`.
        flag: why it is doubted; empty where it is not.
    """

    clock_mhz: float | None
    batch_size: int
    n_input_tokens: int | None
    n_output_tokens: int | None
    latency_s: float
    power_w: float
    n_repetitions: int = 1
    method: str = "published"
    domain: str = "gpu"
    flag: str = ""

    @property
    def lengths(self) -> LengthPair:
        """Tokens in and out."""
        return self.n_input_tokens, self.n_output_tokens

    def __str__(self) -> str:
        return cell_name(self.clock_mhz, self.batch_size, self.lengths)


@dataclass(frozen=True)
class Profile:
    """All cells of a device and a model.

    Attributes:
        cells: one for each combination, in order of lengths, clock and batch.
        source: where they came from, in words.
        sha256: of the file, or of the CSV that it would be.
        holes: combinations of the levels that nothing was measured for, in words.
    """

    cells: tuple[ProfileCell, ...]
    source: str
    sha256: str
    holes: tuple[str, ...] = ()

    @property
    def is_estimate(self) -> bool:
        """Whether any power in it was computed from a model instead of measured."""
        return any(ESTIMATE in cell.method for cell in self.cells)

    @property
    def pairs(self) -> tuple[LengthPair, ...]:
        """Pairs of lengths, in order."""
        return tuple(dict.fromkeys(cell.lengths for cell in self.cells))

    def of_lengths(self, lengths: LengthPair) -> tuple[ProfileCell, ...]:
        """The cells of one pair of lengths."""
        return tuple(cell for cell in self.cells if cell.lengths == lengths)


def cell_name(clock_mhz: float | None, batch_size: int, lengths: LengthPair = (None, None)) -> str:
    """A cell in words, as messages name it."""
    clock = "clock not known" if clock_mhz is None else f"{clock_mhz:g} MHz"
    return f"{clock}, batch {batch_size}{lengths_name(lengths)}"


def lengths_name(lengths: LengthPair) -> str:
    """What a cell's name ends in; empty where the lengths are not known."""
    return "" if lengths == (None, None) else f", {lengths[0]} in, {lengths[1]} out"


def named(cells: Sequence[str]) -> str:
    """The first of them and how many more there are."""
    more = f"; and {len(cells) - NAMED} more" if len(cells) > NAMED else ""
    return "; ".join(cells[:NAMED]) + more


def make_profile(cells: Iterable[ProfileCell], source: str, *, sha256: str = "", holes: Sequence[str] = ()) -> Profile:
    """A profile of checked cells, in order; several of one combination become their mean.

    Args:
        cells: as measured; those that are doubted (`flag`) never go into a mean with others.
        source: in words.
        sha256: of the file that they were read from; empty: of the CSV.
        holes: combinations that were planned and not measured, in words; those that are seen here are added.

    Raises:
        ProfileError: there are none, or one says what cannot be.
    """
    by_key: dict[tuple[LengthPair, float | None, int], list[ProfileCell]] = {}
    for cell in cells:
        _check(cell)
        by_key.setdefault((cell.lengths, cell.clock_mhz, cell.batch_size), []).append(cell)
    if not by_key:
        raise ProfileError(f"{source} has no cell. Measure some: orchestrator run runnerconfig/dvfs_profile.py")
    merged = [_mean(group) for group in by_key.values()]
    merged.sort(key=lambda cell: tuple(-1.0 if part is None else float(part) for part in _key(cell)))
    found = Profile(tuple(merged), source, sha256, tuple(dict.fromkeys([*holes, *_holes(merged)])))
    if sha256:
        return found
    return Profile(found.cells, source, hashlib.sha256(profile_csv(found).encode()).hexdigest(), found.holes)


def profile_csv(profile: Profile) -> str:
    """The cells as a CSV of `COLUMNS`; an empty cell is not known. Read back by `read_profile` to the same numbers."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in profile.cells:
        values = (
            None if cell.clock_mhz is None else float(cell.clock_mhz),
            cell.batch_size,
            cell.n_input_tokens,
            cell.n_output_tokens,
            cell.latency_s,
            cell.power_w,
            cell.n_repetitions,
            cell.method,
            cell.domain,
            cell.flag,
        )
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def write_profile(profile: Profile, path: Path) -> None:
    """Write the CSV.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(profile_csv(profile), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}). Give another file with -o.") from error


def read_rows(path: Path) -> tuple[list[Mapping[str, str]], str]:
    """The rows of a CSV and the SHA-256 of the file.

    Raises:
        ProfileError: it cannot be read, is empty, names a column twice, or a row is not as wide as the header.
    """
    try:
        content = path.read_bytes()
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProfileError(f"{path} cannot be read as a CSV ({error}). Give a profile or a table as a file.") from error
    rows = [line for line in lines if line]
    if len(rows) < 2:
        raise ProfileError(f"{path} has no rows below a header. Give a profile: python -m control profile EXPERIMENT")
    header = rows[0]
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise ProfileError(f"{path} has the column {twice[0]!r} twice. Leave one.")
    for i, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise ProfileError(
                f"{path}, row {i}, has {len(row)} cells, and the header {len(header)}: half a line? Write it anew."
            )
    return [dict(zip(header, row, strict=True)) for row in rows[1:]], hashlib.sha256(content).hexdigest()


def number(path: Path, row: int, column: str, text: str) -> float:
    """A finite number of a table.

    Args:
        path: for the message.
        row: the same; the header is row 1.
        column: the same.
        text: of the cell.

    Raises:
        ProfileError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ProfileError(
            f"{path}, row {row}, column {column}: {text!r} is no number. Correct it, or leave the row out."
        )
    return value


def whole(path: Path, row: int, column: str, text: str) -> int:
    """A whole number of a table; see `number`."""
    value = number(path, row, column, text)
    if value != int(value):
        raise ProfileError(f"{path}, row {row}, column {column}: {text!r} is no whole number. Correct it.")
    return int(value)


def _key(cell: ProfileCell) -> tuple[float | None, ...]:
    return (cell.n_input_tokens, cell.n_output_tokens, cell.clock_mhz, cell.batch_size)


def _check(cell: ProfileCell) -> None:
    for what, value in (("latency_s", cell.latency_s), ("power_w", cell.power_w)):
        if not (math.isfinite(value) and value > 0):
            raise ProfileError(
                f"{what} of the cell {cell} is {value:g}: it must be above 0. Measure the cell again, or leave it out."
            )
    if cell.batch_size < 1 or cell.n_repetitions < 1 or (cell.clock_mhz is not None and not cell.clock_mhz > 0):
        raise ProfileError(f"The cell {cell} with {cell.n_repetitions} repetitions cannot be: correct the table.")


def _mean(group: Sequence[ProfileCell]) -> ProfileCell:
    kept = [cell for cell in group if not cell.flag] or list(group)
    n = sum(cell.n_repetitions for cell in kept)
    first = kept[0]
    return ProfileCell(
        first.clock_mhz,
        first.batch_size,
        first.n_input_tokens,
        first.n_output_tokens,
        # One cell stays what it was: a product and a quotient would change its last digit.
        first.latency_s if len(kept) == 1 else sum(cell.latency_s * cell.n_repetitions for cell in kept) / n,
        first.power_w if len(kept) == 1 else sum(cell.power_w * cell.n_repetitions for cell in kept) / n,
        n,
        "+".join(dict.fromkeys(cell.method for cell in kept)),
        "+".join(dict.fromkeys(cell.domain for cell in kept)),
        first.flag,
    )


def _holes(cells: Sequence[ProfileCell]) -> list[str]:
    """Combinations of the levels of each pair of lengths that have no cell."""
    missing = []
    for lengths in dict.fromkeys(cell.lengths for cell in cells):
        own = [cell for cell in cells if cell.lengths == lengths]
        known = {(cell.clock_mhz, cell.batch_size) for cell in own}
        clocks = dict.fromkeys(cell.clock_mhz for cell in own)
        batches = sorted({cell.batch_size for cell in own})
        missing += [cell_name(*each, lengths) for each in product(clocks, batches) if each not in known]
    return missing
