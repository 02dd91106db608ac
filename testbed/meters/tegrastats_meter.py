"""NVIDIA Jetson through its own program `tegrastats`: the fallback where the rails' files cannot be read."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import psutil

from contract.errors import MeterError, MeterUnavailableError
from contract.trial_result import EnergyMethod
from energy.trace import Gauge, Trace
from testbed.clock import Clock, SystemClock
from testbed.meters.base import MeterProbe, MeterReport
from testbed.meters.jetson_rail import Component, check_rail_options, components
from testbed.meters.live_feed import LiveFeed, LiveSeries
from testbed.meters.sampler import Samples
from testbed.meters.tegrastats_line import TegrastatsLine, parse_line

_FIRST_LINE_S = 5.0
_END_S = 5.0
_LEAST_MS = 10

_HOW = "milliwatts of an INA3221 as tegrastats prints them, stamped when the line arrived"


class TegrastatsMeter:
    """See `Meter`. Runs `tegrastats --interval` beside the trial and reads its lines as they come.

    Watts are those of the moment of the line, not tegrastats' own average since its start. Which rails add up is as in
    the meter `jetson`.

    Args:
        period_s: interval of the lines; whole milliseconds.
        total_rail: rail that holds all others.
        added_rails: rail -> `cpu`, `gpu` or `dram`: these add up, the others are parts.
        program: tegrastats.
        clock: of the stamps.

    Raises:
        InvalidOptionError: both options at once, or one that is no rail's name or no component.
    """

    name = "tegrastats"

    def __init__(
        self,
        *,
        period_s: float = 0.2,
        total_rail: str | None = None,
        added_rails: Mapping[str, Component] | None = None,
        program: str = "tegrastats",
        clock: Clock | None = None,
    ) -> None:
        check_rail_options(self.name, total_rail, added_rails)
        self._period_ms = max(round(period_s * 1000), _LEAST_MS)
        self._total_rail, self._added_rails = total_rail, added_rails
        self._program = program
        self._clock = clock or SystemClock()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._told = threading.Event()
        """Set with each line."""
        self._samples: dict[str, Samples] = {}
        self._gauges: dict[tuple[str, str], Samples] = {}
        self._feed: LiveFeed | None = None
        self._n_unreadable = 0
        self._start_s = self._cpu_s = 0.0
        self._report: MeterReport | None = None

    def probe(self) -> MeterProbe:
        """See `Meter`. Asks the program for one line."""
        found = shutil.which(self._program)
        if found is None:
            return MeterProbe(False, f"There is no program {self._program}: this is no Jetson.")
        try:
            process = self._launch()
        except OSError as error:
            return MeterProbe(False, f"{found} cannot be started: {error}.")
        timer = threading.Timer(_FIRST_LINE_S, process.kill)
        timer.start()
        try:
            line = _stdout(process).readline()
        finally:
            timer.cancel()
            _end(process)
        domains = tuple(parse_line(line).power_w)
        if not domains:
            return MeterProbe(
                False, f"{found} tells no rail's power ({line.strip()[:80] or 'it says nothing'}). Try it with sudo."
            )
        added = [rail for rail, part in self._components(domains).items() if part != "part"]
        total = ", ".join(added) or "none: choose with total_rail or added_rails"
        return MeterProbe(True, f"tegrastats' rails: {', '.join(domains)}; in the sum: {total}", domains)

    def start(self, out_dir: Path) -> None:
        """See `Meter`."""
        if shutil.which(self._program) is None:
            raise MeterUnavailableError(self.probe().message, meter=self.name)
        try:
            self._process = self._launch()
        except OSError as error:
            raise MeterUnavailableError(f"{self._program} cannot be started: {error}.", meter=self.name) from error
        self._start_s = self._now_s()
        self._feed = LiveFeed(out_dir, self.name)
        self._reader = threading.Thread(target=self._read, name="tegrastats", daemon=True)
        self._reader.start()
        if not self._told.wait(_FIRST_LINE_S) or not self._samples:
            _end(self._process)
            raise MeterError(f"{self._program} told no rail's power within {_FIRST_LINE_S:g} s: run it by hand.")

    def latest_power_w(self) -> dict[str, float]:
        """See `Meter`."""
        parts = self._components(tuple(self._samples))
        return {rail: self._samples[rail].values[-1] for rail, part in parts.items() if part != "part"}

    def stop(self) -> MeterReport:
        """See `Meter`."""
        if self._report is None:
            process, reader = self._process, self._reader
            if process is None or reader is None:
                return MeterReport((), None)
            ended_early = process.poll()
            if ended_early is None:
                # One more line: what is measured must end before the last sample.
                self._told.clear()
                self._told.wait(_FIRST_LINE_S)
            cpu_s = _cpu_s(process.pid)
            window_s = self._now_s() - self._start_s
            _end(process)
            reader.join(_END_S)
            warnings = []
            if ended_early is not None:
                warnings.append(f"{self._program} ended by itself, with exit status {ended_early}")
            if self._n_unreadable:
                warnings.append(f"{self._n_unreadable} lines of {self._program} told no rail's power")
            parts = self._components(tuple(self._samples))
            self._report = MeterReport(
                traces=tuple(self._trace(rail, parts[rail]) for rail in self._samples),
                sampler_cpu_s=None if cpu_s is None else cpu_s + self._cpu_s,
                settings={
                    "period_s": self._period_ms / 1000,
                    "program": self._program,
                    "rails": ", ".join(parts),
                    "rails_in_sum": ", ".join(f"{rail} ({part})" for rail, part in parts.items() if part != "part"),
                },
                warnings=tuple(warnings),
                gauges=tuple(self._gauge(*key) for key in self._gauges),
                window_s=window_s,
            )
        return self._report

    def _launch(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self._program, "--interval", str(self._period_ms)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            # Line by line, and in the user's own language nothing changes a decimal point.
            bufsize=1,
            env={**os.environ, "LC_ALL": "C"},
        )

    def _read(self) -> None:
        """Until the program ends; waits in the kernel between lines."""
        assert self._process is not None
        for text in _stdout(self._process):
            if text.endswith("\n"):  # else it was ended in the middle of a line
                self._keep(parse_line(text), self._now_s())
            self._told.set()
            if self._feed is not None:
                self._feed.tell(self._now_s(), self._live_series)
            self._cpu_s = time.thread_time()
        self._told.set()
        if self._feed is not None:
            self._feed.close()

    def _live_series(self) -> Iterator[LiveSeries]:
        parts = self._components(tuple(self._samples))
        for rail, samples in self._samples.items():
            if parts[rail] != "part":
                yield LiveSeries(rail, "power_w", samples)
        for (domain, quantity), samples in self._gauges.items():
            yield LiveSeries(domain, quantity, samples)

    def _keep(self, line: TegrastatsLine, time_s: float) -> None:
        if not line.power_w:
            self._n_unreadable += 1
        for rail, power_w in line.power_w.items():
            _append(self._samples.setdefault(rail, Samples()), time_s, power_w)
        values = {(zone, "temp_c"): temp_c for zone, temp_c in line.temp_c.items()}
        for key, value in (
            (("gpu:0", "utilisation"), line.gpu_utilisation),
            (("gpu:0", "clock_mhz"), line.gpu_clock_mhz),
            (("ram", "memory_used_bytes"), line.memory_used_bytes),
        ):
            if value is not None:
                values[key] = value
        for key, value in values.items():
            _append(self._gauges.setdefault(key, Samples()), time_s, value)

    def _components(self, rails: tuple[str, ...]) -> dict[str, Component]:
        return components(rails, total_rail=self._total_rail, added_rails=self._added_rails)

    def _trace(self, rail: str, component: Component) -> Trace:
        time_s, values = self._samples[rail].arrays()
        return Trace(rail, component, "power", EnergyMethod.SAMPLED, self.name, time_s, values, note=_HOW)

    def _gauge(self, domain: str, quantity: str) -> Gauge:
        time_s, values = self._gauges[domain, quantity].arrays()
        return Gauge(domain, quantity, self.name, time_s, values)  # type: ignore[arg-type]

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9


def _append(samples: Samples, time_s: float, value: float) -> None:
    samples.time_s.append(time_s)
    samples.values.append(value)


def _stdout(process: "subprocess.Popen[str]") -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cpu_s(pid: int) -> float | None:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)
