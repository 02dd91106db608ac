"""EnergiBridge's CSV, in the dialects of its platforms.

`Time` is unix milliseconds at the start of a sample; `Delta` the milliseconds until the row was printed, of no use
here. The first two rows share a `Time`. Cumulative columns are joules; power columns milliwatts or watts. Its own
summary line is not read: it is CPU-only, drops the last interval, and is absent when a counter wrapped.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.errors import LogFormatError
from contract.trial_result import EnergyMethod
from energy.energibridge_columns import energy_column, gauge_column
from energy.energibridge_rows import Table, log_error
from energy.energibridge_table import read_table, read_tables
from energy.trace import Gauge, Trace

SOURCE = "energibridge"

_ALWAYS_DRAWS = ("cpu", "gpu")


@dataclass(frozen=True)
class EnergiBridgeLog:
    """What a log holds.

    Attributes:
        traces: times in unix seconds; counters raw, as logged.
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
    path: Path,
    *,
    separator: str | None = None,
    method: EnergyMethod | None = None,
    note: str = "",
    with_gauges: bool = True,
) -> EnergiBridgeLog:
    """Read a log.

    A last line that was cut off is left out, and noted, as are lines that EnergiBridge itself printed between the
    rows, fields beyond the header's, and decimal commas where the separator is none. DRAM, parts, the whole system
    and temperatures that are 0 throughout are absent sensors; a processor or GPU of 0 W is kept, since it always
    draws power and so its sensor is broken.

    Args:
        path: the CSV.
        separator: as given to EnergiBridge; None: found in the header.
        method: overrides the method of all traces, for a log that is no measurement.
        note: goes into every trace, with what was tolerated.
        with_gauges: False saves the time to read them.

    Raises:
        LogFormatError: the file is missing, empty, has no energy columns, or a line that cannot be read; names file
            and line.
        ValueError: the separator can be none.
    """
    table = read_table(path, separator=separator, with_gauges=with_gauges)
    return _log(path, table, method, note)


def read_energibridge_logs(
    paths: Iterable[Path], *, separator: str | None = None, with_gauges: bool = True
) -> Iterator[tuple[Path, EnergiBridgeLog | LogFormatError]]:
    """Read many logs, in order, each with what came of it. Faster than one by one; holds a few at a time.

    Args:
        paths: the CSVs.
        separator: as in `read_energibridge_log`.
        with_gauges: as in `read_energibridge_log`.

    Raises:
        ValueError: the separator can be none.
    """
    for path, table in read_tables(paths, separator=separator, with_gauges=with_gauges):
        yield path, table if isinstance(table, LogFormatError) else _log_or_error(path, table)


def _log_or_error(path: Path, table: Table) -> EnergiBridgeLog | LogFormatError:
    try:
        return _log(path, table, None, "")
    except LogFormatError as error:
        return error


def _log(path: Path, table: Table, method: EnergyMethod | None, note: str) -> EnergiBridgeLog:
    time_s = table.columns["Time"] / 1e3
    steps_s = np.diff(time_s)
    if np.any(steps_s < 0):
        line = table.lines[int(np.flatnonzero(steps_s < 0)[0]) + 1]
        raise log_error(path, line, "Time runs backwards: the clock was set during the run.")
    # The earlier of two rows with one Time is the one that was taken before the clock of the samples started.
    keep = np.append(steps_s > 0, True)
    time_s = time_s[keep]
    words = "; ".join(text for text in (note, *table.notes) if text)
    traces: list[Trace] = []
    gauges: list[Gauge] = []
    name_of: dict[str, str] = {}
    for name, raw in table.columns.items():
        if energy := energy_column(name):
            column, domain = energy
            if domain in name_of:
                what = f"{name_of[domain]} and {name} are both the energy of {domain}, which must count once."
                raise log_error(path, table.header_line, what)
            name_of[domain] = name
            if column.component not in _ALWAYS_DRAWS and not raw.any():
                continue
            of_kind = EnergyMethod.COUNTER if column.kind == "counter" else EnergyMethod.SAMPLED
            traces.append(
                Trace(
                    domain=domain,
                    component=column.component,
                    kind=column.kind,
                    method=method or of_kind,
                    source=SOURCE,
                    time_s=time_s,
                    values=raw[keep] * column.scale,
                    note=words,
                )
            )
        elif gauge := gauge_column(name):
            quantity = gauge[0].quantity
            if quantity != "temp_c" or raw.any():
                gauges.append(Gauge(gauge[1], quantity, SOURCE, time_s, raw[keep] * gauge[0].scale))
    if not traces:
        what = "no column holds energy or power. Has EnergiBridge access to the sensors?"
        raise log_error(path, table.header_line, what)
    return EnergiBridgeLog(tuple(traces), time_s.size, table.notes, tuple(gauges), int((~keep).sum()))
