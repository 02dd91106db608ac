"""Traces on disk: one long CSV per meter, a row per sample, complete enough to compute every joule again."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contract.errors import LogFormatError
from contract.trial_result import EnergyMethod
from energy.trace import Trace

COLUMNS = ("domain", "component", "kind", "method", "source", "wrap_j", "is_headline", "note", "time_s", "value")


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
    series: dict[tuple[str, ...], tuple[list[float], list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        if tuple(next(reader, ())) != COLUMNS:
            raise LogFormatError(f"{path}, line 1: not a trace log of JouleBed.", file=str(path), line=1)
        for row in reader:
            try:
                time_s, value = float(row[8]), float(row[9])
                if not (math.isfinite(time_s) and math.isfinite(value)):
                    raise ValueError(f"{row[8]}, {row[9]} is not finite")
            except (IndexError, ValueError) as error:
                raise LogFormatError(
                    f"{path}, line {reader.line_num}: {error}.", file=str(path), line=reader.line_num
                ) from error
            times_s, values = series.setdefault(tuple(row[:8]), ([], []))
            times_s.append(time_s)
            values.append(value)
    return [_trace(path, head, *samples) for head, samples in series.items()]


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
