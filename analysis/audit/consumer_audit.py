"""Audit of a consumer study run by hand: when power was read, what was counted as a token, which flags took."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.audit.consumer_files import ConsumerFiles, EnergyRow, RawPower, Request, read_consumer_files, span_text
from analysis.statistics import mean_interval

_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S
_LAYERS = ("gpu_layers", "n_gpu_layers", "ngl")
_IDLE_UTILISATION = 0.5
_SAME = 0.005
"""Figures that differ by less are one figure, computed in two ways."""


@dataclass(frozen=True)
class Reading:
    """A request with the power reading that is taken for its energy.

    Attributes:
        run_id: the arm.
        prompt_id: which prompt.
        latency_s: as published.
        energy_j: as published.
        sampled_s: from the stopwatch's start to the end of the power reading.
        unsampled_s: from there to the answer: all the time that inference can have had if the reading came first.
        n_tokens: as published.
        n_prompt_words: words of the prompt; None where its text is not here.
    """

    run_id: str
    prompt_id: str
    latency_s: float
    energy_j: float | None
    sampled_s: float | None
    unsampled_s: float | None
    n_tokens: int | None
    n_prompt_words: int | None


@dataclass(frozen=True)
class ConsumerAudit:
    """What was found.

    Attributes:
        folder: that was audited.
        readings: one per request.
        findings: in words, the gravest first.
    """

    folder: Path
    readings: tuple[Reading, ...]
    findings: tuple[str, ...]


def audit_consumer(folder: Path) -> ConsumerAudit:
    """Audit a folder with a table of latencies.

    Raises:
        UsageError: see `read_consumer_files`.
    """
    files = read_consumer_files(folder)
    rows = _pair(files)
    readings = tuple(_reading(request, row, files.prompts) for request, row in rows)
    findings = [
        *_before_inference(readings),
        *_raw_findings(files),
        *_word_findings(readings),
        *_flag_findings(files, readings),
        *_missing_findings(files, rows),
        *files.problems,
    ]
    return ConsumerAudit(folder, readings, tuple(findings))


def to_json(audit: ConsumerAudit) -> dict[str, Any]:
    """The audit as a document."""
    return {
        "folder": str(audit.folder),
        "kind": "consumer",
        "findings": list(audit.findings),
        "requests": [asdict(each) for each in audit.readings],
    }


def _pair(files: ConsumerFiles) -> list[tuple[Request, EnergyRow | None]]:
    """Each request with the figure that was stamped while it ran, of the same prompt where that is told."""
    left = list(files.energies)
    pairs: list[tuple[Request, EnergyRow | None]] = []
    for request in files.requests:
        found = next(
            (
                row
                for row in left
                if request.start_s <= row.at_s <= request.end_s and row.prompt_id in ("", request.prompt_id)
            ),
            None,
        )
        if found is not None:
            left.remove(found)
        pairs.append((request, found))
    return pairs


def _reading(request: Request, row: EnergyRow | None, prompts: Mapping[str, str]) -> Reading:
    text = prompts.get(request.prompt_id)
    return Reading(
        run_id=request.run_id,
        prompt_id=request.prompt_id,
        latency_s=request.latency_s,
        energy_j=row.energy_j if row else None,
        sampled_s=row.at_s - request.start_s if row else None,
        unsampled_s=request.end_s - row.at_s if row else None,
        n_tokens=request.n_tokens,
        n_prompt_words=None if text is None else len(text.split()),
    )


def _before_inference(readings: Sequence[Reading]) -> list[str]:
    """A reading that takes as long in every arm, however fast the arm is, waits for nothing: it came first."""
    known = [each for each in readings if each.sampled_s is not None and each.unsampled_s is not None]
    if len(known) < 3:
        return []
    sampled = [each.sampled_s or 0.0 for each in known]
    rest = [each.unsampled_s or 0.0 for each in known]
    spread, rest_spread = _variation(sampled), _variation(rest)
    if spread > 0.1 or rest_spread < 3 * spread:
        return []
    latency_s = statistics.fmean(each.latency_s for each in known)
    return [
        f"Power was read before inference began, while the machine idled: in {len(known)} of {len(readings)} requests "
        f"the reading ends {span_text(sampled, 's')} after the stopwatch starts, the same in every arm "
        f"(± {100 * spread:.0f} %), and the answer comes {span_text(rest, 's')} after that, which does differ by arm "
        f"(± {100 * rest_spread:.0f} %). None of these joules is of inference.",
        f"The latencies hold the power reading: {statistics.fmean(sampled):.1f} s of {latency_s:.1f} s on average. "
        f"Without it an answer takes {span_text(rest, 's')}: the published ratios between arms are too near to 1.",
    ]


def _raw_findings(files: ConsumerFiles) -> list[str]:
    words = []
    for log in files.raw:
        time_s, zone = _on_the_study_clock(log, files.requests)
        request = next((each for each in files.requests if each.start_s - 1 <= time_s[0] <= each.end_s), None)
        if request is None:
            words.append(f"{log.path.name} overlaps no request of the table: stale file, or of another day.")
            continue
        text = f"{log.path.name}: "
        if zone:
            text += f"its clock is {abs(zone):g} h {'behind' if zone > 0 else 'ahead of'} the tables' (a time zone); "
        end_s = time_s[-1]
        text += f"its {len(time_s)} samples end {request.end_s - end_s:.1f} s before {request.run_id} answers "
        text += f"{request.prompt_id}; "
        if log.component == "cpu" and log.utilisation and max(log.utilisation) < _IDLE_UTILISATION:
            text += (
                f"the processor was {100 * statistics.fmean(log.utilisation):.0f} % busy on average and never above "
                f"{100 * max(log.utilisation):.0f} %: no inference is in it."
            )
        elif _settles(log.power_w):
            text += (
                f"the power falls from {log.power_w[0]:.0f} W to {log.power_w[-1]:.0f} W and stays there: a device on "
                "its way to idle, with no load in the log."
            )
        else:
            text += f"mean power {statistics.fmean(log.power_w):.1f} W."
        words.append(text)
        words += _fixed_seconds(log, files.energies)
    return words


def _fixed_seconds(log: RawPower, energies: Sequence[EnergyRow]) -> list[str]:
    """Whether a published figure is the mean power times a fixed number of seconds."""
    mean_w = statistics.fmean(log.power_w)
    length_s = log.time_s[-1] - log.time_s[0]
    fixed_s = max(1, round(length_s))
    hits = [row for row in energies if row.energy_j and abs(row.energy_j / (mean_w * fixed_s) - 1) < _SAME / 50]
    if not hits:
        return []
    text = (
        f"{log.path.name}: the published {hits[0].energy_j:.2f} J is the mean of its power readings times {fixed_s} s, "
        "whatever the answer took: a mean power, not an energy."
    )
    if log.counter_j is not None and abs(log.counter_j / hits[0].energy_j - 1) > _SAME:
        text += f" The log's own counter says {log.counter_j:.2f} J over {log.counter_s:.2f} s."
    return [text]


def _on_the_study_clock(log: RawPower, requests: Sequence[Request]) -> tuple[list[float], float]:
    """The log's times as unix seconds, and the hours that its clock is off.

    Power Gadget stamps local time without a date: the whole-hour shift that puts it into a request is taken, the first
    samples within a second of the request's start before others.
    """
    if log.has_date:
        return list(log.time_s), 0.0
    best: tuple[float, float] | None = None
    for request in requests:
        apart_s = request.start_s % _DAY_S - log.time_s[0]
        hours = round(apart_s / _HOUR_S)
        off_s = abs(apart_s - hours * _HOUR_S)
        if best is None or off_s < best[0]:
            best = (off_s, request.start_s - request.start_s % _DAY_S + hours * _HOUR_S)
    if best is None:
        return list(log.time_s), 0.0
    shift_s = best[1]
    hours_off = shift_s % _DAY_S / _HOUR_S
    return [each + shift_s for each in log.time_s], hours_off - 24 if hours_off > 12 else hours_off


def _settles(power_w: Sequence[float]) -> bool:
    """Whether the second half is flat and below all of the first tenth, as when a device goes idle."""
    n = len(power_w)
    if n < 10:
        return False
    tail = power_w[-n // 10 :]
    return max(tail) < 0.8 * min(power_w[: n // 10]) and max(tail) - min(tail) < 0.05 * statistics.fmean(tail)


def _word_findings(readings: Sequence[Reading]) -> list[str]:
    known = [each for each in readings if each.n_tokens is not None and each.n_prompt_words is not None]
    if len(known) < 3:
        return []
    apart = Counter((each.n_tokens or 0) - (each.n_prompt_words or 0) for each in known)
    extra, n_same = apart.most_common(1)[0]
    n_prompts = len({each.prompt_id for each in known})
    if n_prompts < 2 or n_same < 0.6 * len(known):
        return []
    more = f" plus {extra}" if extra else ""
    return [
        f"Token counts are word counts: in {n_same} of {len(known)} rows `tokens_generated` is the number of words of "
        f"the prompt{more}, for each of {n_prompts} prompts and in every arm alike. What was split at blanks is the "
        "program's output, prompt included; joules and seconds per token cannot be had from it."
    ]


def _flag_findings(files: ConsumerFiles, readings: Sequence[Reading]) -> list[str]:
    """Arms that ask for zero layers: a launcher that tests `if value` or writes `value or default` drops the flag."""
    words = []
    rest = _rest_by_arm(readings)
    for arm, options in files.manifest.items():
        name = next((each for each in _LAYERS if options.get(each) == "0"), None)
        if name is None or (rest and arm not in rest):
            continue
        text = (
            f"{arm} never passed its flag, by all that is here: {options['file']} asks for {name}: 0, which a launcher "
            "that writes `value or default` cannot tell from nothing, and no file shows that it was passed. What ran "
            "then is llama.cpp's default, which puts layers on a GPU where there is one."
        )
        text += _like_offloaded(arm, name, files, rest)
        words.append(text)
    return words


def _like_offloaded(arm: str, name: str, files: ConsumerFiles, rest: Mapping[str, list[float]]) -> str:
    """Whether the arm is as fast as those with layers on the GPU."""
    others = {
        other: rest[other]
        for other, options in files.manifest.items()
        if other in rest
        and options.get(name, "0").isdecimal()
        and int(options.get(name, "0")) > 0
        # A batch of its own is another treatment.
        and options.get("suite") == files.manifest[arm].get("suite")
    }
    if arm not in rest or not others:
        return ""
    own = mean_interval(rest[arm])
    nearest = min(others, key=lambda other: abs(statistics.fmean(others[other]) - (own.mean or 0.0)))
    mean_s = statistics.fmean(others[nearest])
    if own.mean is None or own.half_width is None or abs(mean_s - own.mean) > own.half_width:
        return ""
    return (
        f" Its times agree: {own.mean:.2f} s an answer (reading left out), not distinguishable from {nearest}'s "
        f"{mean_s:.2f} s."
    )


def _rest_by_arm(readings: Sequence[Reading]) -> dict[str, list[float]]:
    rest: dict[str, list[float]] = {}
    for each in readings:
        if each.unsampled_s is not None:
            rest.setdefault(each.run_id, []).append(each.unsampled_s)
    return rest


def _missing_findings(files: ConsumerFiles, rows: Sequence[tuple[Request, EnergyRow | None]]) -> list[str]:
    words = []
    alone = sum(row is None for _, row in rows)
    if files.energies and alone:
        words.append(f"{alone} of {len(rows)} requests have no figure of energy that was stamped while they ran.")
    if not files.energies:
        words.append("There is no table of energies beside the latencies.")
    per_arm = Counter(request.run_id for request, _ in rows)
    prompts = {(request.run_id, request.prompt_id) for request, _ in rows}
    if len(prompts) == len(rows) and len(per_arm) > 1:
        words.append(
            f"Each of {len(per_arm)} arms asked each prompt once ({len(prompts)} "
            "requests): without repetitions nothing tells a difference between arms from chance."
        )
    return words


def _variation(values: Sequence[float]) -> float:
    mean = statistics.fmean(values)
    return statistics.pstdev(values) / mean if mean > 0 else math.inf
