"""EnergiBridge v0.0.7: wrapped around a trial's own process, or beside a warm engine.

Either way the program writes energibridge.csv into the attempt's folder, which is the evidence; it measures for as
long as its child lives. Its summary line is never read.
"""

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import psutil

from contract.errors import JouleBedError, MeterError, MeterUnavailableError
from contract.trial_result import EnergyMethod
from energy.energibridge_log import read_energibridge_log
from testbed import attempt_folder
from testbed.child_process import kill_group, run_bounded, wait_bounded
from testbed.clock import Clock, SystemClock
from testbed.meters.base import MeterProbe, MeterReport
from testbed.meters.energibridge_panic import advice_on, explain_panic

PROGRAM_VARIABLE = "JOULEBED_ENERGIBRIDGE"
"""Environment variable with the program's path, where it is not on the PATH."""

STAND_IN = "stand-in"
"""A version text that contains this replays power and measures nothing: all its figures are estimates."""

_PROBE_LIMIT_S = 20.0
_END_LIMIT_S = 10.0
_ARM = ("aarch64", "arm64", "armv7l")
_NONE_FOR_ARM = "There is no release of EnergiBridge for Linux on ARM. Use the meter jetson (or estimate) here."


class EnergiBridgeMeter:
    """Drives the program.

    Args:
        period_s: its sampling period; it takes whole milliseconds.
        program: path or name; the environment's JOULEBED_ENERGIBRIDGE, or `energibridge` on the PATH, by default.
        gpu: whether to ask for NVIDIA columns; None asks if an NVIDIA driver is loaded or it is a stand-in.
        machine: processor architecture; this machine's by default.
        clock: maps the log's wall time.
    """

    name = "energibridge"

    def __init__(
        self,
        *,
        period_s: float = 0.2,
        program: str | None = None,
        gpu: bool | None = None,
        machine: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._interval_ms = max(round(period_s * 1e3), 1)
        self._program = program or os.environ.get(PROGRAM_VARIABLE) or "energibridge"
        self._gpu = gpu
        self._is_arm_linux = sys.platform == "linux" and (machine or platform.machine()) in _ARM
        self._clock = clock or SystemClock()
        self._version: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_file: TextIO | None = None
        self._out_dir = Path()
        self._unix_minus_monotonic_s = 0.0
        self._report: MeterReport | None = None
        self._start_s = 0.0

    def probe(self) -> MeterProbe:
        """See `Meter`: asks for the version, then measures the program `true`."""
        path = shutil.which(self._program)
        if path is None:
            if self._is_arm_linux:
                return MeterProbe(False, _NONE_FOR_ARM)
            return MeterProbe(
                False,
                f"There is no program {self._program!r}. Install EnergiBridge v0.0.7 and put it on the PATH, or its "
                f"path into {PROGRAM_VARIABLE}.",
            )
        with tempfile.TemporaryDirectory(prefix="energibridge-probe-") as folder:
            out_dir = Path(folder)
            try:
                done = _ask(self.wrap(["sleep", "0.5"], out_dir))
                (out_dir / attempt_folder.CHILD_LOG).write_text(done.stdout + done.stderr)
                problem = self.explain_exit(done.returncode, out_dir)
                if problem is not None:
                    return MeterProbe(False, problem.message)
                log = read_energibridge_log(out_dir / attempt_folder.ENERGIBRIDGE_LOG)
            except (OSError, subprocess.TimeoutExpired, JouleBedError) as error:
                return MeterProbe(False, f"EnergiBridge does not measure here: {error}")
        domains = tuple(trace.domain for trace in log.traces if trace.values.any())
        if not domains:
            return MeterProbe(False, "EnergiBridge runs, but reads 0 from every sensor (a VM has none).")
        return MeterProbe(True, f"{self.version()}: {', '.join(domains)}", domains)

    def version(self) -> str:
        """What the program says of itself; asked once."""
        if self._version is None:
            try:
                answer = _ask([self._program, "--version"])
                self._version = answer.stdout.strip() or "energibridge (unknown version)"
            except (OSError, subprocess.TimeoutExpired):
                self._version = "energibridge (unknown version)"
        return self._version

    def wrap(self, command: list[str], out_dir: Path) -> list[str]:
        """The command line that runs `command` inside EnergiBridge.

        Args:
            command: program and arguments.
            out_dir: takes energibridge.csv.
        """
        log = out_dir / attempt_folder.ENERGIBRIDGE_LOG
        options = ["-o", str(log), "-i", str(self._interval_ms), "--summary"]
        if self._wants_gpu():
            options.append("--gpu")
        return [self._program, *options, "--", *command]

    def explain_exit(self, returncode: int, out_dir: Path) -> JouleBedError | None:
        """What an exit status means: None unless EnergiBridge itself panicked.

        A panic is told by its status and its words, which are in child.log: a child may exit with 101 too.

        Args:
            returncode: of the wrapped process.
            out_dir: the attempt's folder.
        """
        log = out_dir / attempt_folder.CHILD_LOG
        return explain_panic(returncode, log.read_text(errors="replace") if log.exists() else "")

    def start(self, out_dir: Path) -> None:
        """See `Meter`: runs around a process that only holds the window."""
        if shutil.which(self._program) is None:
            raise MeterUnavailableError(self.probe().message)
        self._out_dir = out_dir
        monotonic_ns = self._clock.monotonic_ns()
        self._unix_minus_monotonic_s = (self._clock.time_ns() - monotonic_ns) / 1e9
        self._log_file = (out_dir / attempt_folder.ENERGIBRIDGE_SUMMARY).open("w", encoding="utf-8")
        try:
            self._process = subprocess.Popen(
                self.wrap([sys.executable, "-S", str(Path(__file__).with_name("window_holder.py"))], out_dir),
                stdin=subprocess.PIPE,
                stdout=self._log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._log_file.close()
            raise MeterUnavailableError(
                f"{self._program} cannot be started: {error}. Is it the release for this machine's processor? "
                f"{_NONE_FOR_ARM if self._is_arm_linux else ''}".rstrip()
            ) from error
        log = out_dir / attempt_folder.ENERGIBRIDGE_LOG
        end_ns = monotonic_ns + int(_END_LIMIT_S * 1e9)
        # Its first row is there within an interval or two; before that nothing of the trial may run.
        while not (log.exists() and log.read_bytes().count(b"\n") >= 2):
            if self._process.poll() is not None or self._clock.monotonic_ns() > end_ns:
                returncode = self._end()
                if returncode < 0:
                    # Somebody's signal says nothing about whether it can measure here: the run may be tried again.
                    raise MeterError(f"EnergiBridge was killed by signal {-returncode} before it began to measure.")
                raise MeterUnavailableError(self._complaint("EnergiBridge did not begin to measure"))
            self._clock.sleep(0.02)
        self._start_s = self._clock.monotonic_ns() / 1e9

    def latest_power_w(self) -> dict[str, float]:
        """See `Meter`: it keeps its samples to itself until the end."""
        return {}

    def stop(self) -> MeterReport:
        """See `Meter`."""
        if self._report is None:
            process = self._process
            if process is None:
                return MeterReport((), None)
            cpu_s = _cpu_s(process.pid)
            window_s = self._clock.monotonic_ns() / 1e9 - self._start_s
            returncode = self._end()
            if returncode != 0:
                raise MeterError(self._complaint(f"EnergiBridge ended with status {returncode}"))
            method, note = figure_terms(self.version())
            log = read_energibridge_log(self._out_dir / attempt_folder.ENERGIBRIDGE_LOG, method=method, note=note)
            offset_s = self._unix_minus_monotonic_s
            self._report = MeterReport(
                tuple(replace(each, time_s=each.time_s - offset_s) for each in log.traces),
                cpu_s,
                self.settings(),
                gauges=tuple(replace(each, time_s=each.time_s - offset_s) for each in log.gauges),
                window_s=window_s,
            )
        return self._report

    def settings(self) -> Mapping[str, str | float | int | None]:
        """What is needed to read its log rightly, and to repeat it."""
        return {"version": self.version(), "interval_ms": self._interval_ms}

    def _wants_gpu(self) -> bool:
        if self._gpu is not None:
            return self._gpu
        return Path("/proc/driver/nvidia/version").exists() or STAND_IN in self.version()

    def _end(self) -> int:
        process, self._process = self._process, None
        assert process is not None and process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            kill_group(process.pid, 0.0)
            wait_bounded(process)
        if self._log_file is not None:
            self._log_file.close()
        return -signal.SIGKILL if process.returncode is None else process.returncode

    def _complaint(self, what: str) -> str:
        said = (self._out_dir / attempt_folder.ENERGIBRIDGE_SUMMARY).read_text(errors="replace").strip()[-500:]
        hint = advice_on(said)
        return f"{what}. It said: {said or 'nothing'}" if hint is None else f"{what}: {hint}."


def _ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the program to its end; once more when somebody killed it, which says nothing about this machine.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it does not end.
    """
    done = run_bounded(command, _PROBE_LIMIT_S)
    return done if done.returncode >= 0 else run_bounded(command, _PROBE_LIMIT_S)


def figure_terms(version: str) -> tuple[EnergyMethod | None, str]:
    """How the figures of a log may be called: the method that overrides the log's own, or None, and a note.

    Args:
        version: what the program said of itself.
    """
    if STAND_IN in version:
        return EnergyMethod.ESTIMATE, "estimate, not measured: replayed by a stand-in for EnergiBridge"
    return None, ""


def _cpu_s(pid: int) -> float | None:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)
