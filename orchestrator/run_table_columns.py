"""The data columns of an exported run table: name, unit, meaning, and where the value comes from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from contract.attempt_state import RunState
from contract.edge import EdgeOverhead
from contract.trial_result import EnergySummary, TrialResult
from orchestrator.cooldown import CooldownOutcome
from orchestrator.store.base import AttemptRow, RunRow
from orchestrator.store.control import Exclusion
from orchestrator.suspicion import SuspectResultError, reason_text

Value = str | int | float | None

RUN_ID = "__run_id"
DONE = "__done"

EXCLUDED = "EXCLUDED"
"""State, in an exported table only, of a run that a person left out of the results."""


@dataclass(frozen=True)
class DataColumn:
    """One column beside run id, done mark and factors.

    Attributes:
        name: of the column.
        kind: of its values; all may be None, which means not measured.
        unit: SI; empty for text and counts.
        description: for people.
        read: its value in a run, given the attempt that `telling_attempt` chose.
    """

    name: str
    kind: Literal["float", "int", "text"]
    unit: str
    description: str
    read: Callable[[RunRow, AttemptRow], Value]


def telling_attempt(run: RunRow) -> AttemptRow | None:
    """The attempt that stands for a run: the accepted one, else the last with a result that counts, else the last."""
    for attempt in run.attempts:
        if attempt.accepted:
            return attempt
    for attempt in reversed(run.attempts):
        if attempt.state.has_result:
            return attempt
    return run.attempts[-1] if run.attempts else None


def is_done(run: RunRow) -> bool:
    """Whether the run has a result and is not tried again: DONE, or SUSPECT.

    A suspect result is a result, kept with its reasons in the row; Experiment Runner, which knows no third mark,
    would measure the row again if it said TODO. A FAILED run has nothing to show, so it says TODO.
    """
    return run.state in (RunState.DONE, RunState.SUSPECT)


def excluded_value(column: DataColumn, run: RunRow, attempt: AttemptRow, exclusion: Exclusion) -> Value:
    """A cell of a run that a person excluded: what it is and why, and no figure that a mean could take up."""
    if column.name == "state":
        return EXCLUDED
    if column.name == "reasons":
        return "; ".join(text for text in (exclusion.words, _reasons(run, attempt)) if text)
    return attempt.attempt_id if column.name == "attempt_id" else None


def _measured(read: Callable[[TrialResult], Value]) -> Callable[[RunRow, AttemptRow], Value]:
    def value(run: RunRow, attempt: AttemptRow) -> Value:
        # What a failed attempt measured before it broke is evidence, not a figure of the table; and so is a doubted
        # result that was refused, or that is to be replaced by another try.
        is_figure = attempt.accepted or (attempt.state.has_result and run.state is RunState.SUSPECT)
        return read(attempt.result) if attempt.result and is_figure else None

    return value


def _choosing_s(cost: EdgeOverhead) -> float:
    return cost.selection_s + cost.sampling_s + cost.update_s


def _summary(read: Callable[[EnergySummary], Value]) -> Callable[[RunRow, AttemptRow], Value]:
    return _measured(lambda result: read(result.summary) if result.summary else None)


def _cooldown(read: Callable[[CooldownOutcome], Value]) -> Callable[[RunRow, AttemptRow], Value]:
    return lambda run, attempt: read(attempt.cooldown) if attempt.cooldown else None


def _start_temp_c(run: RunRow, attempt: AttemptRow) -> float | None:
    """The testbed's own reading, which is nearer to the start; else the gate's."""
    measured = attempt.result.start_temp_c if attempt.result else None
    if measured is None and attempt.cooldown:
        return attempt.cooldown.start_temp_c
    return measured


def _reasons(run: RunRow, attempt: AttemptRow) -> str:
    told = [reason_text(attempt.reasons)] if attempt.reasons else []
    # The error of a doubted result repeats its reasons.
    if attempt.error is not None and not (told and attempt.error.code == SuspectResultError.code):
        told.append(f"{attempt.error.code}: {attempt.error.message}")
    return " ".join("; ".join(told).split())


DATA_COLUMNS: tuple[DataColumn, ...] = (
    DataColumn(
        "energy_j",
        "float",
        "J",
        "Gross energy of the measured phase: all measured domains, added once each.",
        _summary(lambda summary: summary.energy_j),
    ),
    DataColumn(
        "energy_net_j",
        "float",
        "J",
        "The same, less idle power with the model loaded x duration; empty without a baseline.",
        _summary(lambda summary: summary.energy_net_j),
    ),
    DataColumn(
        "cpu_energy_j",
        "float",
        "J",
        "The processors' part of energy_j.",
        _summary(lambda summary: summary.cpu_energy_j),
    ),
    DataColumn(
        "gpu_energy_j", "float", "J", "The GPUs' part of energy_j.", _summary(lambda summary: summary.gpu_energy_j)
    ),
    DataColumn(
        "energy_method",
        "text",
        "",
        "How the joules came about: counter, sampled or estimate. An estimate is not a measurement.",
        _summary(lambda summary: summary.method.value),
    ),
    DataColumn("energy_source", "text", "", "The meter.", _summary(lambda summary: summary.source)),
    DataColumn(
        "duration_s", "float", "s", "Length of the measured phase.", _measured(lambda result: result.duration_s)
    ),
    DataColumn(
        "tokens_per_s",
        "float",
        "1/s",
        "Output tokens over the measured phase.",
        _measured(lambda result: result.tokens_per_s),
    ),
    DataColumn(
        "n_output_tokens",
        "int",
        "",
        "Tokens generated in the measured phase.",
        _measured(lambda result: result.workload.n_output_tokens if result.workload else None),
    ),
    DataColumn(
        "n_prompt_tokens",
        "int",
        "",
        "Tokens of its prompts.",
        _measured(lambda result: result.workload.n_prompt_tokens if result.workload else None),
    ),
    DataColumn(
        "accuracy",
        "float",
        "1",
        "Right answers over items, against gold labels; an answer without a label is wrong.",
        _measured(lambda result: result.workload.score.accuracy if result.workload and result.workload.score else None),
    ),
    DataColumn(
        "n_abstained",
        "int",
        "",
        "Answers from which no label could be read.",
        _measured(
            lambda result: result.workload.score.n_abstained if result.workload and result.workload.score else None
        ),
    ),
    DataColumn(
        "mean_exit_layer",
        "float",
        "",
        "Layers that a token went through, mean over the output tokens; empty without early exit.",
        _measured(lambda result: result.workload.exit_layer if result.workload else None),
    ),
    DataColumn(
        "mean_entropy_nats",
        "float",
        "nats",
        "Entropy of the distribution that a token was chosen from, mean over the output tokens; empty if not computed.",
        _measured(lambda result: result.workload.entropy_nats if result.workload else None),
    ),
    DataColumn(
        "choosing_s",
        "float",
        "s",
        "What a chooser of edge control took: selection, sampling and updates; empty where there was none.",
        _measured(lambda result: _choosing_s(result.edge.overhead) if result.edge else None),
    ),
    DataColumn(
        "choosing_energy_j",
        "float",
        "J",
        "An estimate of its energy, by its share of the time: the attempt's result says of what.",
        _measured(lambda result: result.edge.overhead.energy_j if result.edge else None),
    ),
    DataColumn(
        "start_temp_c",
        "float",
        "degC",
        "Hottest sensor of the cooldown when the trial began; empty without a sensor.",
        _start_temp_c,
    ),
    DataColumn(
        "idle_temp_c",
        "float",
        "degC",
        "The campaign's idle temperature, which the thermal gate waits for; empty without a gate or a sensor.",
        _cooldown(lambda cooldown: cooldown.idle_temp_c),
    ),
    DataColumn(
        "cooldown_s",
        "float",
        "s",
        "Pause before the trial; empty where none was configured.",
        _cooldown(lambda cooldown: cooldown.waited_s),
    ),
    DataColumn(
        "thermal_gate",
        "text",
        "",
        "open (cool), timed_out (it started warm), no_sensor, or disabled (so configured, or the first trial).",
        _cooldown(lambda cooldown: cooldown.gate),
    ),
    DataColumn(
        "state",
        "text",
        "",
        "TODO, RUNNING, DONE, SUSPECT (a result with reasons to doubt it), FAILED, EXCLUDED (a person left it out: no "
        "figures, the reason beside), or IMPORTED (a row of Experiment Runner's own, no measurement of ours).",
        lambda run, attempt: run.state.value,
    ),
    DataColumn(
        "attempt_id",
        "text",
        "",
        "The execution that the row shows; its evidence is under runs/RUN_ID/ATTEMPT_ID.",
        lambda run, attempt: attempt.attempt_id,
    ),
    DataColumn("reasons", "text", "", "Why the result is suspect or left out, or why the run failed.", _reasons),
)
"""In the order of the table. None of them may be the name of a factor."""
