"""EnergiBridge's columns on its platforms, and the separator of a header that holds them."""

import csv
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from energy.trace import Quantity

Component = Literal["cpu", "gpu", "dram", "system", "part"]

_MEBIBYTE = float(1 << 20)


@dataclass(frozen=True)
class EnergyColumn:
    """A column of joules or watts.

    Attributes:
        pattern: of the name; its group, if any, is the index in `domain`.
        domain: as in `Trace.domain`; `{}` takes the index.
        component: as in `Trace.component`.
        kind: as in `Trace.kind`.
        scale: from the column's unit to J or W.
    """

    pattern: re.Pattern[str]
    domain: str
    component: Component
    kind: Literal["counter", "power"]
    scale: float = 1.0


@dataclass(frozen=True)
class GaugeColumn:
    """A column of what is not energy.

    Attributes:
        pattern: as in `EnergyColumn`.
        domain: as in `EnergyColumn`.
        quantity: as in `Gauge.quantity`.
        scale: from the column's unit to that of `quantity`.
    """

    pattern: re.Pattern[str]
    domain: str
    quantity: Quantity
    scale: float = 1.0


ENERGY_COLUMNS = (
    # Intel: one package column, however many packages the machine has; cores and uncore are parts of it. Early
    # releases misspell it.
    EnergyColumn(re.compile(r"(?:PACKAGE|PACAKGE)_ENERGY \(J\)"), "cpu_package", "cpu", "counter"),
    EnergyColumn(re.compile(r"PP0_ENERGY \(J\)"), "cpu_core", "part", "counter"),
    EnergyColumn(re.compile(r"PP1_ENERGY \(J\)"), "cpu_uncore", "part", "counter"),
    EnergyColumn(re.compile(r"DRAM_ENERGY \(J\)"), "dram", "dram", "counter"),
    # AMD: the package, and each core, which is a part of it.
    EnergyColumn(re.compile(r"CPU_ENERGY \(J\)"), "cpu_package", "cpu", "counter"),
    EnergyColumn(re.compile(r"CORE([0-9]+)_ENERGY \(J\)"), "cpu_core:{}", "part", "counter"),
    # macOS.
    EnergyColumn(re.compile(r"CPU_POWER \(Watts\)"), "cpu_package", "cpu", "power"),
    EnergyColumn(re.compile(r"SYSTEM_POWER \(Watts\)"), "psys", "system", "power"),
    # NVIDIA.
    EnergyColumn(re.compile(r"GPU([0-9]+)_POWER \(mWatts\)"), "gpu:{}", "gpu", "power", 1e-3),
)

GAUGE_COLUMNS = (
    GaugeColumn(re.compile(r"GPU([0-9]+)_TEMPERATURE"), "gpu:{}", "temp_c"),
    GaugeColumn(re.compile(r"GPU([0-9]+)_USAGE"), "gpu:{}", "utilisation", 1e-2),
    # EnergiBridge divides NVML's bytes by 1024 twice (its src/gpu/nvidia.rs); TOTAL_MEMORY and the like are bytes.
    GaugeColumn(re.compile(r"GPU([0-9]+)_MEMORY_USED"), "gpu:{}", "memory_used_bytes", _MEBIBYTE),
)

_OTHER_NAMES = (
    r"Delta|Time|CPU_(?:FREQUENCY|USAGE)_[0-9]+|GPU[0-9]+_MEMORY_TOTAL|(?:TOTAL|USED)_(?:MEMORY|SWAP)|CORE[0-9]+_[A-Z]+"
)
_KNOWN_NAME = re.compile(
    r"(?<!\w)(?:"
    + "|".join([*(column.pattern.pattern for column in (*ENERGY_COLUMNS, *GAUGE_COLUMNS)), _OTHER_NAMES])
    + r")(?!\w)"
)
_EDGE = re.compile(r"\W+")
_UNIT_AFTER_SPACE = re.compile(r" (?=\((?:J|Watts|mWatts)\))")


class HeaderError(Exception):
    """What is wrong with a header; the caller knows in which file and line."""


@dataclass(frozen=True)
class Header:
    """A header that can be read.

    Attributes:
        names: of all columns, in the file's order; all different, but for empty ones.
        wanted: indices in `names` of Time and of the columns to read, ascending.
        separator: of names and fields.
    """

    names: tuple[str, ...]
    wanted: tuple[int, ...]
    separator: str


@lru_cache(maxsize=1024)
def energy_column(name: str) -> tuple[EnergyColumn, str] | None:
    """The energy column of a name, and its domain; None for any other name."""
    for column in ENERGY_COLUMNS:
        if match := column.pattern.fullmatch(name):
            return column, column.domain.format(*match.groups())
    return None


@lru_cache(maxsize=1024)
def gauge_column(name: str) -> tuple[GaugeColumn, str] | None:
    """The gauge column of a name, and its domain; None for any other name."""
    for column in GAUGE_COLUMNS:
        if match := column.pattern.fullmatch(name):
            return column, column.domain.format(*match.groups())
    return None


# The logs of a study have one header, or a few.
@lru_cache(maxsize=16)
def parse_header(line: str, separator: str | None, with_gauges: bool) -> Header:
    """Read a header.

    Args:
        line: without its end.
        separator: None: found in the line.
        with_gauges: whether gauges are wanted.

    Raises:
        HeaderError: no separator can be told, there is no column Time, or one is there twice.
        ValueError: `separator` can be none.
    """
    if separator is not None and (not separator or re.search(r'[\w"\r\n]', separator)):
        raise ValueError(f"{separator!r} can be no separator")
    found = separator or find_separator(line)
    if found is None:
        raise HeaderError(
            "no separator can be told from it. Is it the header of an EnergiBridge log? If so, give the separator."
        )
    try:
        # Where the separator is a space, the one before a unit is none.
        text = _UNIT_AFTER_SPACE.sub("\0", line) if found.isspace() and '"' not in line else line
        names = [clean(name).replace("\0", " ") for name in split_line(text, found)]
    except csv.Error as error:
        raise HeaderError(f"its quotes do not match: {error}.") from error
    if "Time" not in names:
        raise HeaderError("there is no column Time. Is it an EnergiBridge log, and the separator right?")
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise HeaderError(f"column {twice[0]} is there twice, and nothing tells which one is right.")
    wanted = (
        index
        for index, name in enumerate(names)
        if name == "Time" or energy_column(name) or (with_gauges and gauge_column(name))
    )
    return Header(tuple(names), tuple(wanted), found)


def split_line(line: str, separator: str) -> list[str]:
    """The fields of a header or a row, as they are written; `clean` them.

    Raises:
        csv.Error: quotes that do not match.
    """
    if '"' in line and len(separator) == 1:
        return next(csv.reader([line], delimiter=separator, strict=True))
    return line.split(separator)


def clean(field: str) -> str:
    """A field without quotes and the spaces around it."""
    return field.strip().removeprefix('"').removesuffix('"').strip()


def find_separator(header: str) -> str | None:
    """What stands between known column names, in any order; None where that is not one and the same text.

    Args:
        header: the line, quoted or not.
    """
    matches = list(_KNOWN_NAME.finditer(header))
    between = [header[one.end() : other.start()].replace('"', "") for one, other in pairwise(matches)]
    # Neighbours say it best. Where each pair has an unknown column between it, the edges of what is between say it.
    found = {text for text in between if text and not re.search(r"\w", text)}
    if not found:
        edges = [(_EDGE.match(text), _EDGE.match(text[::-1])) for text in between]
        found = {edge.group() if edge else "" for pair in edges for edge in pair}
    # "Time, Delta" and "Time,Delta" are the same: spaces around a field mean nothing, unless they are all there is.
    found = {text.strip(" ") or text for text in found}
    return found.pop() or None if len(found) == 1 else None
