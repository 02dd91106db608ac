"""What the page of a run shows: its spec and state in words, its figures, its energies. No HTML here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.attempt_state import AttemptState, RunState
from contract.errors import JouleBedError, LogFormatError, UsageError
from contract.trial_result import EnergyMethod, TrialResult
from contract.trial_spec import TrialSpec
from orchestrator.artifacts import RESULT, RUNS
from orchestrator.dashboard.words import figure, percent, span
from orchestrator.store.base import AttemptRow, RunRow

if TYPE_CHECKING:
    from analysis.figures.power import PowerSeries

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Group:
    """Some facts under a heading.

    Attributes:
        title: the heading.
        facts: name and value, both as text.
    """

    title: str
    facts: tuple[tuple[str, str], ...]


def shown_attempt(row: RunRow) -> AttemptRow | None:
    """The attempt whose measurements a run shows: the accepted one, else the newest doubted one with a result."""
    accepted = [each for each in row.attempts if each.accepted]
    doubted = [each for each in row.attempts if each.state is AttemptState.SUSPECT]
    chosen = [*doubted, *accepted][-1:]
    return chosen[0] if chosen and chosen[0].result is not None else None


def state_in_words(row: RunRow) -> str:
    """Why a run is in its state, in a sentence."""
    last = row.attempts[-1] if row.attempts else None
    n = len(row.attempts)
    if row.state is RunState.DONE:
        number = next((each.number for each in row.attempts if each.accepted), n)
        return f"Its result is accepted: that of attempt {number}{'' if n == 1 else f' of {n}'}."
    if row.state is RunState.RUNNING and last is not None:
        return f"Attempt {last.number} runs on {last.testbed}: {last.state.value.lower()}."
    if last is None:
        return f"It has not been run yet. It is number {row.position + 1} in the order of the plan."
    said = last.error.message if last.error is not None else ""
    how = last.state.value.lower().replace("_", " ")
    if row.state is RunState.TODO:
        return f"It is to be tried again. Attempt {last.number} ended {how}{f': {said}' if said else '.'}"
    if row.state is RunState.SUSPECT:
        return "There is a result, but there are reasons to doubt it; it is in no mean."
    return f"No attempts are left. The last one ended {how}{f': {said}' if said else '.'}"


def spec_groups(spec: TrialSpec) -> list[Group]:
    """A spec as people read it; settings that were not asked for are left out."""
    model, sampling, meter = spec.model, spec.sampling, spec.meter
    groups = [
        Group("Model", _facts(("model", model.name), ("source", model.source), ("revision", model.revision))),
        Group(
            "Engine",
            _facts(
                ("engine", spec.engine.name),
                (
                    "process",
                    "a new one per trial" if spec.engine.lifetime == "trial" else "kept warm over a block of trials",
                ),
                ("context length", f"{model.max_model_len} tokens" if model.max_model_len else None),
                ("loaded for", f"{spec.load_concurrency} in flight"),
                ("memory limit", f"{spec.engine.memory_limit_gib} GiB" if spec.engine.memory_limit_gib else None),
                *spec.engine.options.items(),
            ),
        ),
        Group(
            "Sampling",
            _facts(
                ("temperature", f"{sampling.temperature:g}{' (greedy)' if sampling.temperature == 0 else ''}"),
                ("top p", sampling.top_p if sampling.top_p < 1 else None),
                ("at most", f"{sampling.max_tokens} tokens"),
                ("end of sequence", "ignored: always that many" if sampling.ignore_eos else None),
                ("exit after layers", ", ".join(map(str, sampling.exit_layers)) or None),
                ("seed", str(spec.seed)),
            ),
        ),
        Group(
            "Workload",
            _facts(
                ("workload", spec.workload.name),
                ("in flight", str(spec.workload.concurrency)),
                *spec.workload.options.items(),
            ),
        ),
        Group(
            "Before the measurement",
            _facts(
                ("idle baseline", span(spec.baseline_s) if spec.baseline_s else "none: no net energy"),
                ("warm-up", f"{spec.warmup_requests} request{'' if spec.warmup_requests == 1 else 's'}"),
                (
                    "steady state",
                    f"until the device is steady, at most {span(spec.steady.max_s)}" if spec.steady else None,
                ),
            ),
        ),
        Group(
            "Measurement",
            _facts(
                ("meter", meter.name),
                ("every", f"{meter.period_s:g} s"),
                *((f"clock of {name}", f"{mhz:g} MHz expected") for name, mhz in meter.expected_clock_mhz.items()),
                *meter.options.items(),
                *(
                    (f"{each.name} of {each.domain}", ", ".join(f"{k} {v:g}" for k, v in each.setting.items()))
                    for each in spec.actuators
                ),
                ("whole attempt", f"at most {span(spec.deadline.total_s)}"),
            ),
        ),
    ]
    return groups


def headline(result: TrialResult) -> list[tuple[str, str, str]]:
    """The figures of a result: name, value with unit, and what must be said with it. Estimates have the word."""
    summary, work = result.summary, result.workload
    is_estimate = summary is not None and summary.method is EnergyMethod.ESTIMATE
    word = (
        "estimate, not measured" if is_estimate else (f"{summary.method.value} by {summary.source}" if summary else "")
    )
    found: list[tuple[str, str, str]] = []

    def add(name: str, value: float | None, unit: str, note: str = "") -> None:
        found.append((name, f"{figure(value)} {unit}".strip() if value is not None else NOT_MEASURED, note))

    if summary is not None:
        add("Energy", summary.energy_j, "J", word)
        net = "net of the idle baseline" if summary.energy_net_j is not None else "no idle baseline"
        add("Net energy", summary.energy_net_j, "J", f"{net}{', estimate' if is_estimate else ''}")
        if summary.energy_j is not None and work is not None and work.n_output_tokens:
            per = summary.energy_j / work.n_output_tokens
            add("Per output token", per, "J", "estimate" if is_estimate else f"{work.n_output_tokens:,} tokens")
    add("Time", result.duration_s, "s", "measured phase")
    add("Speed", result.tokens_per_s, "tokens/s")
    if work is not None and work.score is not None:
        score = work.score
        unread = f", {score.n_abstained} unread" if score.n_abstained else ""
        found.append(("Accuracy", percent(score.accuracy), f"{score.n_correct} of {score.n_items} right{unread}"))
    if result.start_temp_c is not None:
        add("Start temperature", result.start_temp_c, "°C", "hottest sensor")
    return found


def energy_rows(result: TrialResult) -> list[tuple[str, ...]]:
    """Joules by phase and domain: phase, domain, joules, how, samples, gaps, what is said of it."""
    rows: list[tuple[str, ...]] = []
    for each in result.energy:
        how = "estimate" if each.method is EnergyMethod.ESTIMATE else f"{each.method.value} by {each.source}"
        joules = figure(each.energy_j) if each.energy_j is not None else NOT_MEASURED
        is_added = each.is_headline and each.component in ("cpu", "gpu", "dram")
        note = "; ".join(part for part in ("" if is_added else "not added to the total", each.note) if part)
        rows.append((each.phase.value, each.domain, joules, how, f"{each.n_samples:,}", str(each.n_gaps), note))
    return rows


def run_figures(folder: Path, run_id: str) -> dict[str, Any]:
    """Power with phase bands, and the conditions beside it, as the report draws them.

    Args:
        folder: the experiment's.
        run_id: of the run.

    Returns:
        `figures`: name, plotly's JSON, a text for those who do not see it; `missing`: sentences.
    """
    from analysis.detail import run_samples
    from analysis.figures.interactive import interactive_power
    from analysis.figures.interactive_gauge import interactive_gauges
    from analysis.figures.power import MAX_BINS, power_of
    from analysis.load_joulebed import load_joulebed
    from analysis.report.source import phase_bands

    figures: list[dict[str, Any]] = []
    missing: list[str] = []
    try:
        experiment = load_joulebed(folder, run_id=run_id)
        run = experiment.runs.row(0, named=True)
        traces, gauges = run_samples(experiment, run_id)
    except (UsageError, LogFormatError) as error:
        return {"figures": [], "missing": [error.message]}
    firsts = [float(each.time_s[0]) for each in traces if each.is_headline and each.time_s.size]
    firsts = firsts or [float(each.time_s[0]) for each in gauges if each.time_s.size] or [0.0]
    try:
        power = power_of(run_id, traces, phase_bands(run, experiment.folder))
        bands = [f"{band.name} {band.start_s:.1f} to {band.end_s:.1f} s" for band in power.bands]
        lines = [f"{_line(each)}: {_watts(each)}" for each in power.series]
        longest = max(each.power_w.size for each in power.series)
        drawn = json.loads(interactive_power(power).to_json())
        if longest >= MAX_BINS:
            drawn["layout"]["meta"]["thinned"] = (
                f"Averaged to {MAX_BINS:,} points a line, which keeps the energy; shorter peaks are flattened."
            )
        figures.append({"name": "power", "figure": drawn, "text": ". ".join([*lines, *bands]) + "."})
    except UsageError as error:
        missing.append(error.message)
    for quantity, each in interactive_gauges(gauges, min(firsts)).items():
        said = [
            f"{gauge.domain}: {float(gauge.values.min()):.5g} to {float(gauge.values.max()):.5g}"
            for gauge in gauges
            if gauge.quantity == quantity and gauge.values.size
        ]
        figures.append({"name": quantity, "figure": json.loads(each.to_json()), "text": "; ".join(said) + "."})
    if not gauges:
        missing.append("No temperature, clock or other condition was sampled in this run.")
    return {"figures": [{**each, "figure": slim(each["figure"])} for each in figures], "missing": missing}


def slim(drawn: dict[str, Any]) -> dict[str, Any]:
    """A figure without plotly's template, which the page's own look replaces."""
    drawn["layout"].pop("template", None)
    return drawn


def downloads(folder: Path, row: RunRow) -> dict[str, list[dict[str, Any]]]:
    """Attempt id -> its files that may be downloaded: those that its result lists, and the result itself."""
    return {each.attempt_id: _files(folder / RUNS / row.run_id / each.attempt_id, each) for each in row.attempts}


def download_path(folder: Path, row: RunRow, attempt_id: str, name: str) -> Path:
    """The file behind a download.

    Args:
        folder: the experiment's.
        row: the run, from the run table.
        attempt_id: as it was asked for.
        name: as it was asked for.

    Raises:
        JouleBedError: the run has no such attempt, or the attempt no such file, or it is not here.
    """
    attempt = next((each for each in row.attempts if each.attempt_id == attempt_id), None)
    if attempt is None:
        raise NotHereError(f"{row.run_id} has no such attempt. Look at its page for those that it has.")
    # Only names that the run table knows: what was asked for is compared, and never made into a path.
    known = next((each for each in _listed(attempt) if each == name), None)
    if known is None:
        raise NotHereError("The attempt has no such file. Look at the run's page for those that it has.")
    path = folder / RUNS / row.run_id / attempt.attempt_id / known
    # A folder from elsewhere may hold links to anywhere.
    if not path.is_file() or not path.resolve().is_relative_to((folder / RUNS).resolve()):
        raise NotHereError(f"{known} of {attempt.attempt_id} is not here. Copy the whole experiment's folder.")
    return path


class NotHereError(JouleBedError):
    """What was asked for is not in this experiment."""

    code = "not_here"
    http_status = 404


def _listed(attempt: AttemptRow) -> list[str]:
    if attempt.result is None:
        return []
    return [*(each.name for each in attempt.result.artifacts), RESULT]


def _files(folder: Path, attempt: AttemptRow) -> list[dict[str, Any]]:
    sizes = {each.name: each for each in attempt.result.artifacts} if attempt.result else {}
    found = []
    for name in _listed(attempt):
        is_here = (folder / name).is_file()
        size = sizes[name].size_bytes if name in sizes else (folder / name).stat().st_size if is_here else None
        found.append(
            {
                "name": name,
                "size": size_in_words(size),
                "sha256": sizes[name].sha256 if name in sizes else "",
                "is_here": is_here,
            }
        )
    return found


def size_in_words(size_bytes: int | None) -> str:
    """`512 B`, `12.3 KiB`."""
    if size_bytes is None:
        return "–"
    size, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"


def _facts(*pairs: tuple[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", " "), _text(value)) for name, value in pairs if value is not None)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _line(series: "PowerSeries") -> str:
    return f"{series.domain}{' (estimate)' if series.method is EnergyMethod.ESTIMATE else ''}"


def _watts(series: "PowerSeries") -> str:
    import numpy as np

    joules = float((series.power_w * np.diff(series.edge_s)).sum())
    return f"mean {joules / float(np.ptp(series.edge_s)):.1f} W, highest {float(series.power_w.max()):.1f} W"
