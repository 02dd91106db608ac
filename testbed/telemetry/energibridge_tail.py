"""EnergiBridge's log while it is written: the file is the program's own, and is only read."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.telemetry.source import Points

if TYPE_CHECKING:
    from energy.energibridge_columns import Header

_PAST_BYTES = 128 * 1024
_CHUNK_BYTES = 256 * 1024
_STEP_S = 0.09
_SOURCE = "energibridge"
_ALWAYS_DRAWS = ("cpu", "gpu")


class EnergiBridgeTail:
    """Reads the rows that are added. Rows that make no sense are left out: the real reader says so after the trial.

    Args:
        path: energibridge.csv; may not exist yet.
        unix_minus_monotonic_s: maps the log's wall time to the machine's monotonic clock.
    """

    def __init__(self, path: Path, unix_minus_monotonic_s: float) -> None:
        self._path = path
        self._offset_s = unix_minus_monotonic_s
        self._header: Header | None = None
        self._position = 0
        self._part = b""
        self._last: dict[str, tuple[float, float]] = {}

    def new(self) -> Iterator[Points]:
        """The rows since the last call; at first, those of the file's end."""
        try:
            lines = self._lines()
        except OSError:
            return
        series: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for line in lines:
            for domain, quantity, time_s, value in self._row(line):
                series.setdefault((domain, quantity), []).append((time_s, value))
        for (domain, quantity), points in series.items():
            yield Points(domain, quantity, _SOURCE, tuple(points))

    def _lines(self) -> list[bytes]:
        with self._path.open("rb") as file:
            if self._header is None:
                # Here, since the columns bring the numerics along, which most testbeds' API needs for nothing.
                from energy.energibridge_columns import HeaderError, parse_header

                first = file.readline(_CHUNK_BYTES)
                if not first.endswith(b"\n"):
                    return []
                try:
                    self._header = parse_header(first.decode(errors="replace").strip(), None, True)
                except HeaderError:
                    return []
                end = file.seek(0, 2)
                self._position = max(len(first), end - _PAST_BYTES)
                if self._position > len(first):
                    file.seek(self._position)
                    self._position += len(file.readline(_CHUNK_BYTES))  # the rest of a row
            file.seek(self._position)
            new = file.read(_CHUNK_BYTES)
        self._position += len(new)
        *lines, self._part = (self._part + new).split(b"\n")
        return lines

    def _row(self, line: bytes) -> Iterator[tuple[str, str, float, float]]:
        from energy.energibridge_columns import clean, energy_column, gauge_column, split_line

        header = self._header
        assert header is not None  # or there were no lines
        fields = split_line(line.decode(errors="replace").strip(), header.separator)
        if len(fields) < len(header.names):
            return
        try:
            row = {header.names[index]: float(clean(fields[index])) for index in header.wanted}
        except ValueError:
            return
        time_s = row.pop("Time") / 1e3 - self._offset_s
        for name, raw in row.items():
            last_s, last = self._last.get(name, (None, 0.0))
            if last_s is not None and time_s - last_s < _STEP_S:
                continue
            self._last[name] = (time_s, raw)
            if energy := energy_column(name):
                column, domain = energy
                if column.component == "part" or (raw == 0 and column.component not in _ALWAYS_DRAWS):
                    continue  # DRAM of 0 J is an absent sensor
                if column.kind == "power":
                    yield domain, "power_w", time_s, raw * column.scale
                elif last_s is not None and raw >= last:  # not across a wrap: nobody needs the one point
                    yield domain, "power_w", time_s, (raw - last) * column.scale / (time_s - last_s)
            elif gauge := gauge_column(name):
                yield gauge[1], gauge[0].quantity, time_s, raw * gauge[0].scale
