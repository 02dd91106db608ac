"""Which factors of an experiment are its work, and which make a configuration that does it."""

from typing import Any

from analysis.ablation import SETTINGS
from analysis.summary import Summary

WORK_NAMES = ("suite", "task", "tasks", "dataset", "workload", "prompts", "prompt_suite", "n_items", "w_in", "w_out")
"""Names of factors that are work, where no run tells what it was asked."""


def configuration_factors(summary: Summary) -> tuple[str, ...]:
    """The factors that make a configuration; the others are the work.

    Energy and time compare only where the work is the same. A factor is work when its levels, all else equal, ask the
    model for something else: when the hashes of the prompts differ between them. Where no hash is known, its name
    decides. The settings of an engine never are. Where all factors are work, all make the configuration: something must
    be compared.

    Args:
        summary: by all factors.
    """
    configuring = tuple(name for name in summary.by if name in SETTINGS or not _is_work(summary, name))
    return configuring or summary.by


def _is_work(summary: Summary, factor: str) -> bool:
    if factor in WORK_NAMES:
        return True
    asked: dict[tuple[Any, ...], dict[Any, set[str]]] = {}
    for row in summary.treatments:
        rest = tuple(level for name, level in row.treatment.items() if name != factor)
        for run in row.runs:
            if run["prompt_sha256"]:
                # Items may be drawn anew for each repetition: only equal repetitions compare.
                key = (*rest, run["repetition"])
                asked.setdefault(key, {}).setdefault(row.treatment[factor], set()).add(run["prompt_sha256"])
    compared = [list(levels.values()) for levels in asked.values() if len(levels) > 1]
    if not compared:
        return False
    return all(len(set.union(*hashes)) > max(len(each) for each in hashes) for hashes in compared)
