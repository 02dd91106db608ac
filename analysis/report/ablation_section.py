"""CPU or GPU, how many threads, which batch: the configurations of an ablation, ranked and explained."""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.ablation import Ablation, Configuration, ablate, chains, explain, is_ablation, ratio
from analysis.detail import requests
from analysis.experiment import Experiment
from analysis.figures.scaling import setting_scaling
from analysis.report.document import Bullets, Picture, Section, Table, Text
from analysis.report.quantity import NOT_MEASURED, many, mean, number
from analysis.statistics import mean_interval
from analysis.summary import Summary
from contract.errors import LogFormatError, UsageError

_SCALING = {"n_threads": "threads", "n_gpu_layers": "layers on the GPU"}
Speeds = dict[tuple[Any, ...], dict[str, list[float]]]


def ablation_section(summary: Summary, seed: int) -> Section | None:
    """The section; None where the experiment varies no setting of an engine.

    Args:
        summary: by all factors.
        seed: of the bootstrap of the ranks.
    """
    if not is_ablation(summary):
        return None
    blocks: list[Text | Table | Bullets | Picture] = []
    try:
        found = ablate(summary, seed=seed)
    except UsageError as error:
        return Section("ablation", "Configurations", (Text(error.message), *_not_run(summary.experiment)))
    speeds, longest = _speeds(summary, found)
    blocks.append(Text(ablation_answer(found, summary)))
    blocks.append(_ranking(found, summary))
    blocks.append(_phases(found, speeds))
    blocks.append(Bullets(tuple(f"{each.label}: {explain(each, found.reference)}." for each in found.configurations)))
    notes = [*_batch_notes(found, longest), *(f"No repetition is complete of: {name}." for name in found.incomplete)]
    for setting, unit in _SCALING.items():
        if setting not in summary.by:
            continue
        try:
            picture = setting_scaling(summary, setting, unit)
        except UsageError as error:
            notes.append(f"Not drawn: {error.message}")
            continue
        caption = f"Speed and energy per token by {unit}, a line for each combination of the other factors; means with "
        word = " Energies are estimates." if summary.is_estimate else ""
        blocks.append(Picture(f"scaling_{setting}", f"{caption}95 % intervals.{word}", picture))
    if notes:
        blocks.append(Bullets(tuple(notes)))
    return Section("ablation", "Configurations", (*blocks, *_not_run(summary.experiment)))


def ablation_answer(found: Ablation, summary: Summary) -> str:
    """What an ablation found, in a few sentences.

    Args:
        found: from `ablate`.
        summary: that it was made of.
    """
    best, spot = found.configurations[0], found.sweet_spot
    fastest = min(found.configurations, key=lambda each: each.duration_s.mean or 0.0)
    cheapest = min(found.configurations, key=lambda each: each.energy_j.mean or 0.0)
    word = "estimated energy" if summary.is_estimate else "energy"
    tied = [each for each in found.configurations if each.is_tied and each is not best]
    text = f"Quickest: {fastest.label}. Least {word}: {cheapest.label}. Least energy-delay product: {best.label}"
    if tied:
        text += f"; not distinguishable from it: {'; '.join(each.label for each in tied)}"
    text += f". Sweet spot: {spot.label}"
    if tied:
        text += ", of these the one that takes the least of the machine"
    if summary.is_estimate:
        text += (
            ". The energy is an estimate from CPU time: which configuration is quicker is measured, which is cheaper "
        )
        text += "is no more than the estimate's guess"
    return text + "."


def _ranking(found: Ablation, summary: Summary) -> Table:
    word = ", estimate" if summary.is_estimate else ""
    rows = []
    for each in found.configurations:
        interval = f" [{each.rank_low}, {each.rank_high}]" if each.rank_low is not None else ""
        tie = "tied with the best" if each.is_tied and each.rank > 1 else "best" if each.rank == 1 else ""
        values = (each.latency_s, each.duration_s, each.energy_j, each.edp_js, each.ed2p_js2)
        rows.append((each.label, f"{each.rank}{interval}", *(mean(value) for value in values), tie))
    work = f" of all {found.n_works} levels of {', '.join(found.work)}" if found.work else ""
    fixed = "; ".join(f"{name} {level} throughout" for name, level in found.fixed.items())
    return Table(
        f"Configurations by energy-delay product, over the work{work}: means over repetitions ± half-width of the 95 % "
        "interval",
        (
            "configuration",
            "rank",
            "latency, s per request",
            "time, s",
            f"energy, J{word}",
            f"EDP, J·s{word}",
            f"ED²P, J·s²{word}",
            "",
        ),
        tuple(rows),
        note="A repetition's joules and seconds are added up over all of the work. In brackets the 95 % interval of "
        f"the rank, by a bootstrap of the repetitions ({found.n_rank_resamples:,} resamples). Tied: Welch's interval "
        f"of the ratio of the EDPs holds 1.{f' {fixed}.' if fixed else ''}",
    )


def _phases(found: Ablation, speeds: Speeds) -> Table | Text:
    """Prefill and decode apart: tokens per second of each, by the engine's clock and by the tokens' times."""
    rows = []
    for each in found.configurations:
        known = speeds.get(tuple(each.levels.values()))
        if known:
            columns = ("prefill_engine", "decode_engine", "first_token_s", "decode_tokens")
            rows.append((each.label, *(_mean(known[name]) for name in columns)))
    if not rows:
        return Text("Prefill and decode are not timed apart: the requests of the runs are not here.")
    return Table(
        "Prefill and decode apart: means over runs ± half-width of the 95 % interval",
        (
            "configuration",
            "prefill, tokens/s by the engine",
            "decode, tokens/s by the engine",
            "first token, s",
            "decode, tokens/s by the tokens' times",
        ),
        tuple(rows),
        note="By the engine: its own clock for each request. First token: from sending a request, queue included. The "
        "runs of all workloads are pooled, so prefill mixes prompts of different lengths.",
    )


def _mean(values: Sequence[float]) -> str:
    return mean(mean_interval(values)) if values else NOT_MEASURED


def _speeds(summary: Summary, found: Ablation) -> tuple[Speeds, dict[str, int]]:
    """Configuration -> quantity -> one value per run; and the longest prompt of each workload, in tokens."""
    speeds: Speeds = {}
    longest: dict[str, int] = {}
    for row in summary.treatments:
        key = tuple(row.treatment[name] for name in found.settings)
        work = ", ".join(str(row.treatment[name]) for name in found.work) or "the workload"
        for run in row.runs:
            try:
                rows = requests(summary.experiment, str(run["run_id"])).to_dicts()
            except (UsageError, LogFormatError):
                continue
            longest[work] = max([longest.get(work, 0), *(each["n_prompt_tokens"] or 0 for each in rows)])
            known = speeds.setdefault(key, {name: [] for name in _QUANTITIES})
            for name, (count, seconds) in _QUANTITIES.items():
                value = _rate(rows, count, seconds)
                if value is not None:
                    known[name].append(value)
    return speeds, longest


_QUANTITIES = {
    "prefill_engine": ("n_prompt_tokens", "engine_prefill_s"),
    "decode_engine": ("n_output_tokens", "engine_decode_s"),
    "first_token_s": ("", "prefill_s"),
    "decode_tokens": ("n_later_tokens", "decode_s"),
}


def _rate(rows: Sequence[Mapping[str, Any]], count: str, seconds: str) -> float | None:
    """Tokens per second of a run; without a count, mean seconds. None where any request does not tell."""
    if not rows or any(not row.get(seconds) for row in rows):
        return None
    total_s = sum(float(row[seconds]) for row in rows)
    if not count:
        return total_s / len(rows)
    # The first token's time is the prefill's: decode has one token less.
    tokens = sum((row["n_output_tokens"] or 1) - 1 if count == "n_later_tokens" else row[count] or 0 for row in rows)
    return tokens / total_s if tokens else None


def _batch_notes(found: Ablation, longest: Mapping[str, int]) -> list[str]:
    """Where a batch cannot act, and whether it did."""
    if "n_batch" not in found.settings or not longest:
        return []
    batches = sorted({int(str(each.levels["n_batch"])) for each in found.configurations})
    notes = []
    idle = [f"{work} ({tokens} tokens)" for work, tokens in longest.items() if tokens <= batches[0]]
    if idle:
        notes.append(
            f"The batch cannot act where every prompt fits into the smallest one, {batches[0]} tokens: "
            f"{', '.join(idle)} at the longest."
        )
    above = [size for size in batches if size > max(longest.values())]
    if len(above) > 1:
        sizes = ", ".join(map(str, above))
        notes.append(f"No prompt has more than {max(longest.values())} tokens: batches of {sizes} are one arm.")
    pairs = chains(found, "n_batch")
    n_clear = sum(_differ(*pair) for pair in pairs)
    notes.append(f"Between neighbouring batches the time differs clearly in {n_clear} of {many(len(pairs), 'pair')}.")
    return notes


def _differ(first: Configuration, second: Configuration) -> bool:
    return ratio(second.durations, first.durations).is_clear


def _not_run(experiment: Experiment) -> tuple[Bullets, ...]:
    """Arms that the plan left out because the machine cannot run them."""
    told = experiment.design.get("unavailable")
    items = []
    for each in told if isinstance(told, list) else []:
        if isinstance(each, dict) and isinstance(each.get("cells"), dict):
            cells: Any = each["cells"]
            which = ", ".join(f"{name} {'/'.join(map(_level, levels))}" for name, levels in cells.items())
            items.append(f"Not run, by plan: {which}: {each.get('reason', '')}.")
    return (Bullets(tuple(items)),) if items else ()


def _level(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)
