"""What a figure in a table could be: the right sum, or one of the mistakes that people make, computed from the log."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from analysis.audit.run_audit import Energy, RunAudit

Expected = Literal["cpu", "gpu", "dram", "total"]
"""What a column claims to hold."""

CAUSES = {
    "right": "right",
    "lost_sign": "a wrapped counter whose minus sign was dropped",
    "negative": "a wrapped counter, taken as it is",
    "cpu_only": "the CPU alone: the GPU is missing",
    "gpu_only": "the GPU alone: the CPU is missing",
    "cpu_twice": "the CPU counted twice",
    "cpu_in_gpu": "the CPU added to the GPU",
    "gpu_in_cpu": "the GPU added to the CPU",
    "parts_added": "cores or uncore added to the package that holds them",
    "fixed_period": "power x a fixed 0.2 s, whatever the interval was",
    "unit": "a wrong unit",
    "decimal_comma": "a decimal comma: text, or its digits read as a whole number",
    "stale_file": "the figure of another run: a stale file",
    "unknown": "no known cause fits",
}
"""Code -> in words."""


@dataclass(frozen=True)
class Hypothesis:
    """One way to arrive at a figure.

    Attributes:
        name: tells hypotheses apart.
        cause: key of `CAUSES`.
        scope: `window`: prompts alone; `whole`: the whole log, model load and all.
        value_j: what the figure then is.
    """

    name: str
    cause: str
    scope: str
    value_j: float


def hypotheses(run: RunAudit, expected: Expected) -> Iterator[Hypothesis]:
    """The ways to arrive at a figure, the simplest first.

    Args:
        run: with its log computed.
        expected: what the column claims to hold.
    """
    for scope, energy in (("window", run.window), ("whole", run.whole)):
        if energy is None:
            continue
        for name, cause, value_j in _sums(run, energy, scope, expected):
            yield Hypothesis(f"{name}/{scope}", cause, scope, value_j)


def truth_j(energy: Energy | None, expected: Expected) -> float | None:
    """What the column should hold; None where it was not measured.

    Args:
        energy: of the stretch.
        expected: what the column claims to hold.
    """
    if energy is None:
        return None
    return {"cpu": energy.cpu_j, "gpu": energy.gpu_j, "dram": energy.dram_j, "total": energy.total_j}[expected]


def _sums(run: RunAudit, energy: Energy, scope: str, expected: Expected) -> Iterator[tuple[str, str, float]]:
    right_j = truth_j(energy, expected)
    if right_j is not None:
        yield "right", "right", right_j
    cpu_j, gpu_j, dram_j = energy.cpu_j, energy.gpu_j, energy.dram_j or 0.0
    raw = run.raw.get(scope)
    if cpu_j is not None:
        yield "cpu", _cause(expected, "cpu"), cpu_j
        if raw is not None and scope == "whole" and raw.summary_j > 0:
            yield "summary", _cause(expected, "cpu"), raw.summary_j
        if run.core_j:
            yield "cpu+parts", "parts_added", cpu_j + run.core_j
        yield "2cpu", "cpu_twice", 2 * cpu_j
    if gpu_j is not None:
        yield "gpu", _cause(expected, "gpu"), gpu_j
        fixed_j = run.gpu_200ms_j.get(scope)
        if fixed_j is not None:
            yield "gpu_200ms", _cause(expected, "gpu", "fixed_period"), fixed_j
    if cpu_j is not None and gpu_j is not None:
        yield "cpu+gpu", _cause(expected, "both"), cpu_j + gpu_j + dram_j
        yield "2cpu+gpu", "cpu_twice", 2 * cpu_j + gpu_j
        if run.core_j:
            yield "cpu+gpu+parts", "parts_added", cpu_j + gpu_j + run.core_j
    if raw is None or cpu_j is None or raw.difference_j >= 0:
        return
    yield "lost_sign", "lost_sign", -raw.difference_j
    yield "negative", "negative", raw.difference_j
    yield "lost_sign_summary", "lost_sign", -raw.summary_j
    if gpu_j is not None:
        yield "lost_sign+gpu", "lost_sign", gpu_j - raw.difference_j
        yield "negative+gpu", "negative", gpu_j + raw.difference_j
        yield "2lost_sign+gpu", "lost_sign", gpu_j - 2 * raw.difference_j


def _cause(expected: Expected, what: str, otherwise: str = "right") -> str:
    """Why a column that claims one thing holds another."""
    if expected == what or (expected, what) == ("total", "both"):
        return otherwise
    if what == "both":
        return "gpu_in_cpu" if expected == "cpu" else "cpu_in_gpu"
    return {"cpu": "cpu_only", "gpu": "gpu_only"}[what]
