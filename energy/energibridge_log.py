"""EnergiBridge's CSV, in the dialects of its platforms.

`Time` is unix milliseconds at the start of a sample; `Delta` the milliseconds until the row was printed, of no use
here. The first two rows share a `Time`. Cumulative columns are joules; power columns milliwatts or watts. Its own
summary line is not read: it is CPU-only, drops the last interval, and is absent when a counter wrapped.
"""

import csv
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from contract.errors import LogFormatError
from contract.trial_result import EnergyMethod
from energy.trace import FloatArray, Gauge, Trace

SOURCE = "energibridge"

Component = Literal["cpu", "gpu", "dram", "system", "part"]


@dataclass(frozen=True)
class _Column:
    pattern: re.Pattern[str]
    domain: str
    component: Component
    kind: Literal["counter", "power"]
    scale: float = 1.0


_COLUMNS = (
    # Intel: one package column, however many packages the machine has; cores and uncore are parts of it.
    _Column(re.compile(r"PACKAGE_ENERGY \(J\)"), "cpu_package", "cpu", "counter"),
    _Column(re.compile(r"PP0_ENERGY \(J\)"), "cpu_core", "part", "counter"),
    _Column(re.compile(r"PP1_ENERGY \(J\)"), "cpu_uncore", "part", "counter"),
    _Column(re.compile(r"DRAM_ENERGY \(J\)"), "dram", "dram", "counter"),
    # AMD: the package, and each core, which is a part of it.
    _Column(re.compile(r"CPU_ENERGY \(J\)"), "cpu_package", "cpu", "counter"),
    _Column(re.compile(r"CORE(\d+)_ENERGY \(J\)"), "cpu_core:{}", "part", "counter"),
    # macOS.
    _Column(re.compile(r"CPU_POWER \(Watts\)"), "cpu_package", "cpu", "power"),
    _Column(re.compile(r"SYSTEM_POWER \(Watts\)"), "psys", "system", "power"),
    # NVIDIA.
    _Column(re.compile(r"GPU(\d+)_POWER \(mWatts\)"), "gpu:{}", "gpu", "power", 1e-3),
)


_ALWAYS_DRAWS = ("cpu", "gpu")


@dataclass(frozen=True)
class EnergiBridgeLog:
    """What a log holds.

    Attributes:
        traces: times in unix seconds.
        n_rows: rows used, the shared first `Time` counted once.
        notes: what was tolerated, in words.
        gauges: GPU temperature, utilisation and memory, where they are logged.
        n_duplicates: rows left out because the next one has the same `Time`; the first pair always has.
    """

    traces: tuple[Trace, ...]
    n_rows: int
    notes: tuple[str, ...]
    gauges: tuple[Gauge, ...] = ()
    n_duplicates: int = 0


def read_energibridge_log(
    path: Path, *, separator: str = ",", method: EnergyMethod | None = None, note: str = ""
) -> EnergiBridgeLog:
    """Read a log.

    A last line that was cut off is left out, and noted. DRAM, parts and the whole system that are 0 throughout are
    absent sensors; a processor or GPU of 0 is kept, since it always draws power and so its sensor is broken.

    Args:
        path: the CSV.
        separator: as given to EnergiBridge.
        method: overrides the method of all traces, for a log that is no measurement.
        note: goes into every trace, with what was tolerated.

    Raises:
        LogFormatError: the file is missing, empty, has no energy columns, or a line that cannot be read; names file
            and line.
    """
    header, rows, notes = _read_rows(path, separator)
    if "Time" not in header:
        raise _error(path, 1, "there is no column Time. Is it an EnergiBridge log, and the separator right?")
    time_s = _numbers(path, header, rows, "Time") / 1e3
    if time_s.size and np.any(np.diff(time_s) < 0):
        line = int(np.flatnonzero(np.diff(time_s) < 0)[0]) + 3
        raise _error(path, line, "Time runs backwards: the clock was set during the run.")
    # The earlier of two rows with one Time is the one that was taken before the clock of the samples started.
    keep = np.append(np.diff(time_s) > 0, True) if time_s.size else np.zeros(0, dtype=np.bool_)
    traces = []
    for name in header:
        trace = _trace(path, header, rows, name, time_s, keep)
        if trace is not None:
            words = "; ".join(text for text in (note, *notes) if text)
            traces.append(replace(trace, method=method or trace.method, note=words))
    if not traces:
        raise _error(path, 1, "no column holds energy or power. Has EnergiBridge access to the sensors?")
    return EnergiBridgeLog(tuple(traces), int(keep.sum()), tuple(notes), n_duplicates=int((~keep).sum()))


def _read_rows(path: Path, separator: str) -> tuple[list[str], list[list[str]], list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise _error(path, 0, "there is no such file. Did EnergiBridge start?") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _error(path, 0, f"it cannot be read: {error}") from error
    notes = []
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if row]
    if not rows:
        raise _error(path, 1, "the file is empty. EnergiBridge was ended before its first sample.")
    header, *body = rows
    if body and not text.endswith("\n"):
        # A row that was being printed when the program ended: even a full count of fields may end in half a number.
        body.pop()
        notes.append("the last line was cut off and is left out")
    if not body:
        raise _error(path, 2, "there is no complete row. EnergiBridge was ended before its first sample.")
    for number, row in enumerate(body, start=2):
        if len(row) < len(header):
            raise _error(path, number, f"{len(row)} fields, but the header has {len(header)}.")
    return header, body, notes


def _numbers(path: Path, header: list[str], rows: list[list[str]], name: str) -> FloatArray:
    index = header.index(name)
    try:
        return np.array([float(row[index]) for row in rows])
    except ValueError:
        for number, row in enumerate(rows, start=2):
            try:
                float(row[index])
            except ValueError as error:
                raise _error(path, number, f"{name} is {row[index]!r}, not a number.") from error
        raise


def _trace(
    path: Path, header: list[str], rows: list[list[str]], name: str, time_s: FloatArray, keep: np.ndarray
) -> Trace | None:
    for column in _COLUMNS:
        match = column.pattern.fullmatch(name)
        if match is None:
            continue
        values = _numbers(path, header, rows, name) * column.scale
        if not np.isfinite(values).all():
            line = int(np.flatnonzero(~np.isfinite(values))[0]) + 2
            raise _error(path, line, f"{name} is not finite.")
        if not values.any() and column.component not in _ALWAYS_DRAWS:
            return None
        return Trace(
            domain=column.domain.format(*match.groups()),
            component=column.component,
            kind=column.kind,
            method=EnergyMethod.COUNTER if column.kind == "counter" else EnergyMethod.SAMPLED,
            source=SOURCE,
            time_s=time_s[keep],
            values=values[keep],
        )
    return None


def _error(path: Path, line: int, what: str) -> LogFormatError:
    where = f"{path}, line {line}" if line else str(path)
    return LogFormatError(f"{where}: {what}", file=str(path), line=line)
