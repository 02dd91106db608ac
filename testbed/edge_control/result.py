"""From what edge control left to its report: stages, violations, what choosing cost; and its batches as tables."""

import csv
import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from contract.edge import EdgeOverhead, EdgeReport, EdgeStage
from energy.integrate import CumulativeEnergy
from energy.trace import FloatArray, Trace
from testbed.edge_control.record import EdgeBatch, EdgeRecord

BATCHES = "edge_batches.csv"
UPDATES = "edge_updates.csv"


def edge_report(record: EdgeRecord, traces: Sequence[Trace]) -> EdgeReport:
    """What came of edge control.

    Args:
        record: what the drive kept.
        traces: that make up the trial's energy, each domain once; empty where there is none.
    """
    batches = record.batches
    sought = [each for each in batches if each.is_evaluation]
    served = [each for each in batches if not each.is_evaluation]
    n_on = len(served) if record.fan_off_at is None else record.fan_off_at - len(sought)
    without = served[n_on:]
    stages = {
        "search": sought,
        "fan_on": served[:n_on],
        "fan_off": without,
        "late": without[len(without) - len(without) // 3 :],
    }
    energy = _BatchEnergy(record, traces)
    regret = None
    if record.expected_reward is not None and record.best_reward:
        regret = 1 - record.expected_reward / record.best_reward
    return EdgeReport(
        chooser=record.chooser,
        chooser_settings=record.chooser_settings,
        is_simulated=record.is_simulated,
        n_evaluations=len(sought),
        recommended=record.recommended,
        fan_off_at=None if record.fan_off_at is None else n_on,
        **{name: _stage(each, record, energy) for name, each in stages.items() if each},
        temp_limit_c=record.temp_limit_c,
        expected_reward=record.expected_reward,
        best_reward=record.best_reward,
        regret=regret,
        n_clock_switches=record.n_clock_switches,
        clock_switch_mean_s=record.clock_switch_s / record.n_clock_switches if record.n_clock_switches else None,
        overhead=_overhead(record, energy, traces),
        energy_note=energy.note,
    )


def edge_sheets(record: EdgeRecord) -> dict[str, str]:
    """Every batch and every update as CSV, by file name; an empty cell is "not known"."""
    batches = [
        {
            "batch": number,
            "is_evaluation": int(each.is_evaluation),
            **{f"setting_{name}": value for name, value in each.setting.model_dump().items()},
            "start_s": each.start_s - record.start_s,
            "prefill_s": each.decode_s - each.start_s,
            "decode_s": each.end_s - each.decode_s,
            **each.model_dump(include={"n_tokens", "energy_j", "temp_c", "reward"}),
            "is_fan_on": int(each.is_fan_on),
        }
        for number, each in enumerate(record.batches)
    ]
    updates = [each.model_dump() for each in record.updates]
    return {name: _csv(rows) for name, rows in ((BATCHES, batches), (UPDATES, updates)) if rows}


class _BatchEnergy:
    """Joules while each batch was served, from the traces."""

    def __init__(self, record: EdgeRecord, traces: Sequence[Trace]) -> None:
        self.note = "" if traces else "nothing was measured"
        self._start_s = np.array([each.start_s for each in record.batches])
        self._joules: FloatArray | None = None
        cumulative = [CumulativeEnergy(trace) for trace in traces]
        whole = [each.window(record.start_s, record.end_s).energy_j for each in cumulative]
        if cumulative and any(joules is None for joules in whole):
            self.note = "a domain has no energy for the measured phase"
        elif cumulative:
            end_s = np.array([each.end_s for each in record.batches])
            parts = [each.at_times(end_s) - each.at_times(self._start_s) for each in cumulative]
            self._joules = np.asarray(np.sum(parts, axis=0), dtype=np.float64)
            if record.is_simulated:
                self.note = "simulated: powers of a model, not measured"
        self.whole_j = sum(joules for joules in whole if joules is not None) if self._joules is not None else None

    def of(self, batches: Sequence[EdgeBatch]) -> float | None:
        """Of some batches; None: not measured."""
        if self._joules is None:
            return None
        places = np.searchsorted(self._start_s, [each.start_s for each in batches])
        return float(self._joules[places].sum())


def _stage(batches: Sequence[EdgeBatch], record: EdgeRecord, energy: _BatchEnergy) -> EdgeStage:
    # To the next batch's start, so that gaps count; the last ends with the phase.
    starts = [each.start_s for each in record.batches] + [record.end_s]
    following = dict(pairwise(starts))
    total_s = longest_s = current_s = duration_s = 0.0
    for each in batches:
        span_s = following[each.start_s] - each.start_s
        duration_s += span_s
        is_above = each.temp_c is not None and each.temp_c > record.temp_limit_c
        # The whole batch counts, though the limit was passed somewhere within it.
        current_s = current_s + span_s if is_above else 0.0
        total_s += span_s if is_above else 0.0
        longest_s = max(longest_s, current_s)
    n_tokens, energy_j = sum(each.n_tokens for each in batches), energy.of(batches)
    rewards = [each.reward for each in batches if each.reward is not None]
    return EdgeStage(
        n_batches=len(batches),
        n_tokens=n_tokens,
        duration_s=duration_s,
        throughput_per_s=n_tokens / duration_s if duration_s > 0 else 0.0,
        energy_j=energy_j,
        energy_per_token_j=energy_j / n_tokens if energy_j is not None and n_tokens else None,
        reward_mean=float(np.mean(rewards)) if rewards else None,
        hottest_c=max((each.temp_c for each in batches if each.temp_c is not None), default=None),
        violation_s=total_s,
        longest_violation_s=longest_s,
        slowest_s=max(each.end_s - each.start_s for each in batches),
    )


def _overhead(record: EdgeRecord, energy: _BatchEnergy, traces: Sequence[Trace]) -> EdgeOverhead:
    sampling_s = sum(each.sampling_s for each in record.updates)
    update_s = sum(each.update_s for each in record.updates)
    took_s, phase_s = record.selection_s + sampling_s + update_s, record.end_s - record.start_s
    inference_j = energy.of(record.batches) if record.batches else None
    energy_j, note = _overhead_energy(record, energy, traces, took_s, phase_s)
    return EdgeOverhead(
        n_selections=record.n_selections,
        selection_s=record.selection_s,
        selection_max_s=record.selection_max_s,
        n_samplings=len(record.updates),
        sampling_s=sampling_s,
        n_updates=len(record.updates),
        update_s=update_s,
        update_max_s=max((each.update_s for each in record.updates), default=0.0),
        inference_s=sum(each.end_s - each.start_s for each in record.batches),
        time_share=took_s / phase_s if phase_s > 0 else None,
        energy_j=energy_j,
        inference_energy_j=inference_j,
        energy_share=energy_j / inference_j if energy_j is not None and inference_j else None,
        note=note,
    )


def _overhead_energy(
    record: EdgeRecord, energy: _BatchEnergy, traces: Sequence[Trace], took_s: float, phase_s: float
) -> tuple[float | None, str]:
    """Joules of choosing by its share of the time, and how they were estimated."""
    if energy.whole_j is None or phase_s <= 0:
        return None, "no energy was measured, so choosing has none either"
    if record.is_simulated:
        return energy.whole_j * took_s / phase_s, (
            "estimate: choosing took real seconds of this machine, and inference simulated ones; the simulated board's "
            "mean power x these seconds, an upper bound, as the board would do more than choose"
        )
    cpu = [trace for trace in traces if trace.component == "cpu"]
    joules = [CumulativeEnergy(trace).window(record.start_s, record.end_s).energy_j for trace in cpu]
    if cpu and None not in joules:
        cpu_j = sum(each for each in joules if each is not None)
        return cpu_j * took_s / phase_s, "estimate: the processors' energy by choosing's share of the time"
    return energy.whole_j * took_s / phase_s, (
        "estimate: the whole device's energy by choosing's share of the time, as the processors' is not known alone"
    )


def _csv(rows: Sequence[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
