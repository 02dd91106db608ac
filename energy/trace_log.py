"""Traces and gauges on disk: a long CSV of each per meter, a row per sample, complete enough to compute and doubt every
joule again.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from contract.errors import LogFormatError
from contract.trial_result import EnergyMethod
from energy.trace import Gauge, Quantity, Trace

COLUMNS = ("domain", "component", "kind", "method", "source", "wrap_j", "is_headline", "note", "time_s", "value")
GAUGE_COLUMNS = ("domain", "quantity", "source", "time_s", "value")


def write_traces(path: Path, traces: Sequence[Trace]) -> None:
    """Write traces; floats in full precision.

    Args:
        path: is replaced.
        traces: may be empty.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for trace in traces:
            head = [trace.domain, trace.component, trace.kind, trace.method.value, trace.source]
            head += ["" if trace.wrap_j is None else repr(trace.wrap_j), str(trace.is_headline), trace.note]
            writer.writerows(
                [*head, repr(time_s), repr(value)]
                for time_s, value in zip(trace.time_s.tolist(), trace.values.tolist(), strict=True)
            )


def read_traces(path: Path) -> list[Trace]:
    """Read what `write_traces` wrote.

    Raises:
        LogFormatError: names the file and the line.
    """
    return [_trace(path, head, *samples) for head, samples in _read_series(path, COLUMNS).items()]


def write_gauges(path: Path, gauges: Sequence[Gauge]) -> None:
    """Write gauges; floats in full precision.

    Args:
        path: is replaced.
        gauges: may be empty.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(GAUGE_COLUMNS)
        for gauge in gauges:
            writer.writerows(
                (gauge.domain, gauge.quantity, gauge.source, repr(time_s), repr(value))
                for time_s, value in zip(gauge.time_s.tolist(), gauge.values.tolist(), strict=True)
            )


def read_gauges(path: Path) -> list[Gauge]:
    """Read what `write_gauges` wrote.

    Raises:
        LogFormatError: names the file and the line.
    """
    return [_gauge(path, head, *samples) for head, samples in _read_series(path, GAUGE_COLUMNS).items()]


def _read_series(path: Path, columns: Sequence[str]) -> dict[tuple[str, ...], tuple[list[float], list[float]]]:
    """Rows of equal first columns -> their times and values, the last two columns."""
    try:
        return _read_rows(path, columns)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LogFormatError(
            f"{path}: it is not a log of JouleBed, or is damaged ({error}).", file=str(path)
        ) from error


def _read_rows(path: Path, columns: Sequence[str]) -> dict[tuple[str, ...], tuple[list[float], list[float]]]:
    series: dict[tuple[str, ...], tuple[list[float], list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        if tuple(next(reader, ())) != tuple(columns):
            raise LogFormatError(f"{path}, line 1: not a log of JouleBed.", file=str(path), line=1)
        for row in reader:
            try:
                *head, time_text, value_text = row
                if len(row) != len(columns):
                    raise ValueError(f"{len(row)} fields, not {len(columns)}")
                time_s, value = float(time_text), float(value_text)
                if not (math.isfinite(time_s) and math.isfinite(value)):
                    raise ValueError(f"{time_text}, {value_text} is not finite")
            except ValueError as error:
                raise LogFormatError(
                    f"{path}, line {reader.line_num}: {error}.", file=str(path), line=reader.line_num
                ) from error
            times_s, values = series.setdefault(tuple(head), ([], []))
            times_s.append(time_s)
            values.append(value)
    return series


def _gauge(path: Path, head: tuple[str, ...], times_s: list[float], values: list[float]) -> Gauge:
    domain, quantity, source = head
    if quantity not in get_args(Quantity):
        raise LogFormatError(f"{path}: {domain} has the quantity {quantity!r}.", file=str(path))
    return Gauge(domain, quantity, source, np.array(times_s), np.array(values))  # type: ignore[arg-type]


def _trace(path: Path, head: tuple[str, ...], times_s: list[float], values: list[float]) -> Trace:
    domain, component, kind, method, source, wrap_j, is_headline, note = head
    if component not in ("cpu", "gpu", "dram", "system", "part") or kind not in ("counter", "power"):
        raise LogFormatError(f"{path}: {domain} has component {component!r} and kind {kind!r}.", file=str(path))
    try:
        known_method, modulus_j = EnergyMethod(method), float(wrap_j) if wrap_j else None
    except ValueError as error:
        raise LogFormatError(f"{path}: {domain}: {error}.", file=str(path)) from error
    return Trace(
        domain=domain,
        component=component,  # type: ignore[arg-type]
        kind=kind,  # type: ignore[arg-type]
        method=known_method,
        source=source,
        time_s=np.array(times_s),
        values=np.array(values),
        wrap_j=modulus_j,
        is_headline=is_headline == "True",
        note=note,
    )
