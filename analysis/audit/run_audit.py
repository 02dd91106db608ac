"""What one run really used: its log and its prompts, computed again."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from analysis.experiment_runner import PromptSheet, RunFolder, read_prompt_sheet
from contract.errors import LogFormatError
from contract.trial_result import EnergyMethod
from energy.energibridge_log import EnergiBridgeLog, read_energibridge_logs
from energy.integrate import CumulativeEnergy, WindowEnergy
from energy.trace import Trace

_SUMMARY = re.compile(r"Energy consumption in joules: (-?[\d.]+) for ([\d.]+) sec")
_ADDED = ("cpu", "gpu", "dram")
_STALE_S = 5.0
_WHOLE_HOUR_S = 3600.0


@dataclass(frozen=True)
class DomainEnergy:
    """One domain in one stretch of time; `contract.trial_result.EnergyReading` has the meaning of each field."""

    domain: str
    component: str
    method: EnergyMethod
    energy_j: float | None
    uncertainty_j: float | None
    n_gaps: int
    n_wraps: int


@dataclass(frozen=True)
class Energy:
    """Joules of one stretch of time, each domain once; None is not measured."""

    cpu_j: float | None
    gpu_j: float | None
    dram_j: float | None
    total_j: float | None
    """Processors, GPUs and DRAM; the whole system where nothing else was measured."""
    uncertainty_j: float | None
    """Bound of the total from the sampling alone."""
    duration_s: float
    domains: tuple[DomainEnergy, ...] = ()
    """Each domain by itself, parts of others included."""

    @property
    def added(self) -> tuple[DomainEnergy, ...]:
        """The domains that make up the total."""
        names = _added({each.component for each in self.domains})
        return tuple(each for each in self.domains if each.component in names)


@dataclass(frozen=True)
class RawCounter:
    """The processor's counter as a careless reader takes it, in one stretch.

    Attributes:
        difference_j: last reading less first, wraps and all.
        summary_j: the same without the last interval, as EnergiBridge's summary has it.
    """

    difference_j: float
    summary_j: float


@dataclass(frozen=True)
class RunAudit:
    """One run.

    Attributes:
        run_id: as in the run table.
        log: the file; None where the run has none.
        problem: why there are no figures; empty otherwise.
        started_unix_s: first sample.
        whole: from the first sample to the last.
        window: from the first prompt's start to the last one's end; None without a prompt sheet, or where the log
            does not cover it.
        before: from the first sample to the first prompt: model load, and idling.
        after: from the last prompt to the last sample.
        window_s: unix seconds of the window; None without a prompt sheet.
        stamp_resolution_s: of the prompts' stamps.
        n_prompts: with a readable start and end.
        n_response_tokens: of all answers; None where nobody counted.
        n_samples: of the log, duplicates left out.
        period_s: median sampling period.
        n_wraps: of the counters that make up the total.
        n_duplicates: rows left out because the next one has the same time; every log of EnergiBridge begins so.
        n_gaps: intervals longer than three periods.
        start_temp_c: of the GPU at the first sample; None where it was not logged.
        summary_j: EnergiBridge's own summary; None where it was not kept.
        output_sha256: of all answers in order; None where they were not kept.
        raw: scope -> the processor's raw counter.
        core_j: energy of the columns that are parts of the package, in the whole log.
        gpu_200ms_j: scope -> sum of the GPU's power readings x 0.2 s, whatever the interval really was.
        log_sha256: equal logs are one log.
        warnings: in words.
        tolerated: those of the warnings that the reader of the log passed over, and that doubt no figure.
    """

    run_id: str
    log: Path | None
    problem: str = ""
    started_unix_s: float | None = None
    whole: Energy | None = None
    window: Energy | None = None
    before: Energy | None = None
    after: Energy | None = None
    window_s: tuple[float, float] | None = None
    stamp_resolution_s: float | None = None
    n_prompts: int | None = None
    n_response_tokens: int | None = None
    n_samples: int = 0
    period_s: float | None = None
    n_wraps: int = 0
    n_duplicates: int = 0
    n_gaps: int = 0
    start_temp_c: float | None = None
    summary_j: float | None = None
    output_sha256: str | None = None
    raw: dict[str, RawCounter] = field(default_factory=dict, repr=False)
    core_j: float | None = None
    gpu_200ms_j: dict[str, float] = field(default_factory=dict, repr=False)
    log_sha256: str | None = None
    warnings: tuple[str, ...] = ()
    tolerated: tuple[str, ...] = ()

    @property
    def measured(self) -> Energy | None:
        """The window where there is one, else the whole log: what a run's energy should mean."""
        return self.window or self.whole


def audit_runs(runs: Sequence[RunFolder], *, for_audit: bool = True) -> Iterator[RunAudit]:
    """Read the files of many runs and compute their energies, in their order.

    What cannot be read is said, and never ends the audit.

    Args:
        runs: from `find_run_folders`.
        for_audit: False saves time and leaves out what only an audit asks for: `summary_j`, `raw`,
            `gpu_200ms_j` and the hashes.
    """
    logs = read_energibridge_logs([run.log for run in runs if run.log is not None])
    for run in runs:
        yield _audit(run, next(logs)[1] if run.log is not None else None, for_audit)


def audit_run(run: RunFolder) -> RunAudit:
    """One run: see `audit_runs`."""
    return next(audit_runs([run]))


def _audit(run: RunFolder, log: EnergiBridgeLog | LogFormatError | None, for_audit: bool) -> RunAudit:
    if run.log is None or log is None:
        return RunAudit(run.run_id, None, problem=f"{run.path} holds no EnergiBridge log.")
    if isinstance(log, LogFormatError):
        return RunAudit(run.run_id, run.log, problem=log.message)
    sheet: PromptSheet | None = None
    warnings = list(log.notes)
    if run.prompt_sheet is not None:
        try:
            sheet = read_prompt_sheet(run.prompt_sheet)
        except LogFormatError as error:
            warnings.append(error.message)
    return _figures(run, run.log, log, sheet, warnings, for_audit)


def _figures(
    run: RunFolder,
    path: Path,
    log: EnergiBridgeLog,
    sheet: PromptSheet | None,
    warnings: list[str],
    for_audit: bool,
) -> RunAudit:
    sums = [(trace, CumulativeEnergy(trace)) for trace in log.traces]
    time_s = log.traces[0].time_s
    first_s, last_s = float(time_s[0]), float(time_s[-1])
    wholes = [(trace, cumulative.window(first_s, last_s)) for trace, cumulative in sums]
    for trace, window in wholes:
        if window.n_unexplained:
            warnings.append(f"{trace.domain}: {window.n_unexplained} steps that no wrap and no power explain")
        stale_s = _longest_repeat_s(trace)
        if stale_s > _STALE_S:
            warnings.append(f"{trace.domain}: the same reading for {stale_s:.0f} s: the sensor is stale")
    spans: dict[str, tuple[float, float]] = {"whole": (first_s, last_s)}
    window_s = (min(sheet.start_s), max(sheet.end_s)) if sheet else None
    if sheet is not None and window_s is not None:
        if sheet.n_broken:
            warnings.append(f"{sheet.n_broken} lines of the prompt sheet have no readable start and end")
        outside = _outside(window_s, first_s, last_s, sheet.resolution_s)
        if outside:
            warnings.append(outside)
        else:
            # A stamp in whole seconds may lie a moment outside a log that does cover the prompt.
            start_s, end_s = max(window_s[0], first_s), min(window_s[1], last_s)
            spans |= {"window": (start_s, end_s), "before": (first_s, start_s), "after": (end_s, last_s)}
    energies = {
        scope: _energy(wholes if scope == "whole" else _windows(sums, *span), *span) for scope, span in spans.items()
    }
    processor = next((trace for trace in log.traces if trace.component == "cpu" and trace.kind == "counter"), None)
    gpus = [trace for trace in log.traces if trace.component == "gpu"]
    parts = [window.energy_j for trace, window in wholes if trace.component == "part"]
    answers = sheet.answers if sheet else ()
    temperature = next((gauge for gauge in log.gauges if gauge.quantity == "temp_c" and gauge.values.size), None)
    scopes = [scope for scope in ("window", "whole") if scope in spans]
    return RunAudit(
        run_id=run.run_id,
        log=path,
        started_unix_s=first_s,
        whole=energies["whole"],
        window=energies.get("window"),
        before=energies.get("before"),
        after=energies.get("after"),
        window_s=window_s,
        stamp_resolution_s=sheet.resolution_s if sheet else None,
        n_prompts=len(sheet.start_s) if sheet else None,
        n_response_tokens=sheet.n_tokens if sheet else None,
        n_samples=log.n_rows,
        period_s=wholes[0][1].period_s,
        n_wraps=sum(window.n_wraps for trace, window in wholes if trace.component != "part"),
        n_duplicates=log.n_duplicates,
        n_gaps=max(window.n_gaps for _, window in wholes),
        start_temp_c=float(temperature.values[0]) if temperature else None,
        summary_j=_summary_j(run.summary) if for_audit else None,
        output_sha256=_sha256("\0".join(answers).encode()) if for_audit and any(answers) else None,
        raw={} if processor is None or not for_audit else {scope: _raw(processor, *spans[scope]) for scope in scopes},
        core_j=sum(part for part in parts if part is not None) if parts else None,
        gpu_200ms_j={scope: _fixed_period_j(gpus, *spans[scope]) for scope in scopes} if gpus and for_audit else {},
        log_sha256=_sha256(path.read_bytes()) if for_audit else None,
        warnings=tuple(warnings),
        tolerated=log.notes,
    )


def _windows(
    sums: Sequence[tuple[Trace, CumulativeEnergy]], start_s: float, end_s: float
) -> list[tuple[Trace, WindowEnergy | None]]:
    """What each trace says of a stretch; None where it has no length."""
    return [(trace, cumulative.window(start_s, end_s) if end_s > start_s else None) for trace, cumulative in sums]


def _energy(windows: Sequence[tuple[Trace, WindowEnergy | None]], start_s: float, end_s: float) -> Energy:
    """Energy of a stretch; a domain with a missing figure makes its sum None, since a part of a sum is not the sum."""
    domains = []
    for trace, window in windows:
        domains.append(
            DomainEnergy(
                domain=trace.domain,
                component=trace.component,
                method=trace.method,
                # A stretch of no length took nothing.
                energy_j=window.energy_j if window else 0.0,
                uncertainty_j=window.uncertainty_j if window else 0.0,
                n_gaps=window.n_gaps if window else 0,
                n_wraps=window.n_wraps if window else 0,
            )
        )
    names = _added({each.component for each in domains})
    total_j = _sum([each.energy_j for each in domains if each.component in names])
    return Energy(
        cpu_j=_sum([each.energy_j for each in domains if each.component == "cpu"]),
        gpu_j=_sum([each.energy_j for each in domains if each.component == "gpu"]),
        dram_j=_sum([each.energy_j for each in domains if each.component == "dram"]),
        total_j=total_j,
        uncertainty_j=sum(each.uncertainty_j or 0.0 for each in domains if each.component in names)
        if total_j is not None
        else None,
        duration_s=end_s - start_s,
        domains=tuple(domains),
    )


def _added(components: AbstractSet[str]) -> AbstractSet[str]:
    """The whole system holds the others already: it counts where nothing else was measured."""
    return components & set(_ADDED) or components & {"system"}


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _raw(trace: Trace, start_s: float, end_s: float) -> RawCounter:
    values = trace.values[(trace.time_s >= start_s) & (trace.time_s <= end_s)]
    if values.size < 2:
        return RawCounter(0.0, 0.0)
    return RawCounter(float(values[-1] - values[0]), float(values[-2] - values[0]))


def _fixed_period_j(gpus: Sequence[Trace], start_s: float, end_s: float) -> float:
    return sum(float(gpu.values[(gpu.time_s >= start_s) & (gpu.time_s <= end_s)].sum()) * 0.2 for gpu in gpus)


def _longest_repeat_s(trace: Trace) -> float:
    """How long a power reading stood still while others of its trace moved; idle readings of 0 count too."""
    if trace.kind != "power" or trace.time_s.size < 2:
        return 0.0
    changes = np.flatnonzero(np.diff(trace.values) != 0)
    edges = np.concatenate([[0], changes + 1, [trace.time_s.size - 1]])
    return float(np.diff(trace.time_s[edges]).max())


def _outside(window_s: tuple[float, float], first_s: float, last_s: float, resolution_s: float) -> str:
    """Why the prompts' window is not in the log; empty where it is."""
    slack_s = resolution_s + 1.0
    if window_s[0] >= first_s - slack_s and window_s[1] <= last_s + slack_s:
        return ""
    offset_s = window_s[0] - first_s
    if window_s[0] > last_s or window_s[1] < first_s:
        hours = round(offset_s / _WHOLE_HOUR_S)
        text = (
            f"the prompts were sent {abs(offset_s) / 60:.0f} min {'after' if offset_s > 0 else 'before'} the log began"
        )
        is_zone = hours and abs(hours) <= 14 and 0 <= offset_s - hours * _WHOLE_HOUR_S <= last_s - first_s
        return f"{text}: {'a time zone, perhaps' if is_zone else 'stale file: log and prompts are of different runs'}"
    if window_s[1] > last_s:
        return f"the log ends {window_s[1] - last_s:.0f} s before the last prompt: no energy for the prompts"
    return f"the log begins {first_s - window_s[0]:.0f} s after the first prompt: no energy for the prompts"


def _summary_j(path: Path | None) -> float | None:
    if path is None:
        return None
    match = _SUMMARY.search(path.read_text(encoding="utf-8", errors="replace"))
    return float(match.group(1)) if match else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
