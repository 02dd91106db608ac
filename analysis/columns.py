"""What each column of the runs frame means, with its unit: the one table that documents them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["text", "integer", "number", "flag"]


@dataclass(frozen=True)
class Column:
    """One column of `Experiment.runs`.

    Attributes:
        kind: type of its cells.
        unit: SI symbol, or "" for what has none.
        doc: what it says; None in a cell always means "not measured".
    """

    kind: Kind
    unit: str
    doc: str


COLUMNS: dict[str, Column] = {
    "run_id": Column("text", "", "Planned row, run_{i}_repetition_{j}."),
    "repetition": Column("integer", "", "Which repetition of its treatment, from 0."),
    "position": Column("integer", "", "Place in the execution order, from 0."),
    "state": Column("text", "", "State of the run: TODO, RUNNING, DONE, SUSPECT or FAILED."),
    "counted": Column("flag", "", "Whether an accepted, readable result is behind the row."),
    "attempt_id": Column("text", "", "The attempt whose result is shown; of Experiment Runner's, the run."),
    "n_attempts": Column("integer", "", "Executions so far, failed ones included."),
    "testbed": Column("text", "", "The testbed that ran it: its name in the pool, else its hostname."),
    "energy_j": Column("number", "J", "Gross energy of the measured phase: CPU + GPU + DRAM domains, each once."),
    "energy_net_j": Column("number", "J", "The same less idle baseline power x duration; None without a baseline."),
    "cpu_energy_j": Column("number", "J", "CPU packages, measured phase."),
    "gpu_energy_j": Column("number", "J", "GPUs, measured phase."),
    "dram_energy_j": Column("number", "J", "Memory, measured phase."),
    "prefill_energy_j": Column("number", "J", "Part of energy_j up to each first token, by tokens in flight."),
    "decode_energy_j": Column("number", "J", "Part of energy_j after each request's first token."),
    "unassigned_energy_j": Column("number", "J", "Part of energy_j with no token in flight."),
    "load_energy_j": Column(
        "number",
        "J",
        "Energy of loading the model, same domains; never part of energy_j. Of Experiment Runner's: all before the "
        "first prompt, idling included.",
    ),
    "uncertainty_j": Column("number", "J", "Bound on energy_j from the sampling alone, not the sensor's own error."),
    "baseline_power_w": Column("number", "W", "Mean power while idle with the model loaded."),
    "energy_method": Column("text", "", "counter, sampled or estimate; the weakest among the added domains."),
    "energy_source": Column("text", "", "Meter that delivered the samples."),
    "energy_domains": Column("text", "", "Domains in the sum."),
    "energy_notes": Column("text", "", "What the meter says of its own figures."),
    "n_gaps": Column("integer", "", "Sampling intervals longer than three periods, measured phase."),
    "n_wraps": Column("integer", "", "Counter wraps that were unwound, measured phase."),
    "duration_s": Column("number", "s", "Length of the measured phase."),
    "tokens_per_s": Column("number", "1/s", "Output tokens over the measured phase."),
    "n_requests": Column("integer", "", "Requests in the measured phase."),
    "n_prompt_tokens": Column("integer", "", "Tokens read."),
    "n_output_tokens": Column("integer", "", "Tokens generated."),
    "n_items": Column("integer", "", "Scored items."),
    "n_correct": Column("integer", "", "Items answered as the gold label says."),
    "n_abstained": Column("integer", "", "Answers from which no label could be read; they count as wrong."),
    "accuracy": Column("number", "", "n_correct / n_items."),
    "chance_accuracy": Column("number", "", "Expected accuracy of guessing among the task's labels."),
    "mean_exit_layer": Column(
        "number", "", "Layers that a token went through, mean over output tokens; None without early exit."
    ),
    "mean_entropy_nats": Column(
        "number", "nats", "Entropy of the distribution that a token was chosen from, mean over output tokens."
    ),
    "workload_source": Column("text", "", "Where the items came from; a sample says that it is one."),
    "prompt_sha256": Column("text", "", "Hash of all prompts: equal hashes mean equal input to the model."),
    "temperature": Column("number", "", "Sampling temperature that was asked for; 0 is greedy."),
    "start_temp_c": Column("number", "°C", "Hottest sensor when the trial began."),
    "max_temp_c": Column("number", "°C", "Hottest reading of any sensor in the measured phase."),
    "temp_rise_c": Column("number", "K", "The same sensor's highest reading less that at the start of the trial."),
    "memory_peak_bytes": Column("integer", "B", "Most that the trial's process held of the machine's memory."),
    "gpu_memory_peak_bytes": Column("integer", "B", "Most in use of a GPU in the measured phase, by anyone."),
    "throttled_share": Column("number", "", "Share of samples in which the driver slowed a device down."),
    "is_steady": Column("flag", "", "Whether a steady state was reached before the measured phase; None: not asked."),
    "steady_s": Column("number", "s", "Work before the measured phase until a steady state, or until its time was up."),
    "device": Column("text", "", "What computed: the GPUs, else the processor."),
    "choosing_s": Column(
        "number", "s", "Edge control: time that selection, sampling and updates took; None where nobody chose."
    ),
    "choosing_energy_j": Column(
        "number", "J", "An estimate of its energy by its share of the time; the result says of what."
    ),
    "load_s": Column("number", "s", "Time to load the model; 0 when a warm engine was used."),
    "engine": Column("text", "", "Inference engine and version."),
    "model_revision": Column("text", "", "Commit, or SHA-256 of the weights."),
    "hardware_sha256": Column("text", "", "Hash over processor, memory and GPUs of the machine."),
    "sampler_cpu_s": Column("number", "s", "CPU time that sampling cost while the meters ran."),
    "reasons": Column("text", "", "Why the result is doubted, in words; empty when it is not."),
}
"""Name -> meaning, in the order of the frame; the factors stand between `position` and `state`."""

METRIC_COLUMNS: dict[str, Column] = {
    "mean_power_w": Column("number", "W", "energy_j / duration_s."),
    "mean_net_power_w": Column("number", "W", "energy_net_j / duration_s."),
    "energy_per_output_token_j": Column("number", "J", "energy_j / n_output_tokens."),
    "energy_net_per_output_token_j": Column("number", "J", "energy_net_j / n_output_tokens."),
    "energy_per_request_j": Column("number", "J", "energy_j / n_requests."),
    "energy_net_per_request_j": Column("number", "J", "energy_net_j / n_requests."),
    "energy_per_correct_j": Column("number", "J", "energy_j / n_correct; None when nothing was right."),
    "energy_net_per_correct_j": Column("number", "J", "energy_net_j / n_correct; None when nothing was right."),
    "edp_js": Column("number", "J·s", "Energy-delay product, energy_j x duration_s."),
    "edp_net_js": Column("number", "J·s", "energy_net_j x duration_s."),
    "ed2p_js2": Column("number", "J·s²", "energy_j x duration_s squared: weighs delay more."),
    "ed2p_net_js2": Column("number", "J·s²", "energy_net_j x duration_s squared."),
}
"""What `metrics.with_metrics` adds."""

COST_COLUMNS: dict[str, Column] = {
    "cost": Column("number", "currency", "energy_j as kWh x the price that was given; the machine is not in it."),
    "cost_per_correct": Column("number", "currency", "cost / n_correct; None when nothing was right."),
    "cost_currency": Column("text", "", "Of `cost`, as it was given."),
}
"""What `metrics.with_cost` adds."""

CARBON_COLUMNS: dict[str, Column] = {
    "carbon_g": Column("number", "g", "CO2 equivalent: energy_j as kWh x the grid intensity that was given."),
    "carbon_per_correct_g": Column("number", "g", "carbon_g / n_correct; None when nothing was right."),
    "grid_intensity_g_per_kwh": Column("number", "g/kWh", "As it was given."),
}
"""What `metrics.with_carbon` adds; making and cooling the machine is not in it."""

PHASE_COLUMNS: dict[str, Column] = {
    "run_id": Column("text", "", "Planned row, run_{i}_repetition_{j}."),
    "phase": Column(
        "text",
        "",
        "load, baseline, warmup, measure; of Experiment Runner's: load (all before the first prompt), measure, after.",
    ),
    "domain": Column("text", "", "What was measured, such as cpu_package, gpu:0, dram."),
    "component": Column("text", "", "cpu, gpu and dram add up; system holds them already, part is held by another."),
    "method": Column("text", "", "counter, sampled or estimate."),
    "source": Column("text", "", "Meter that delivered the samples."),
    "energy_j": Column("number", "J", "Gross energy; None where it could not be told."),
    "uncertainty_j": Column("number", "J", "Bound from the sampling alone, not the sensor's own error."),
    "n_gaps": Column("integer", "", "Sampling intervals longer than three periods."),
    "n_wraps": Column("integer", "", "Counter wraps that were unwound."),
    "is_added": Column("flag", "", "Whether the measured phase's figure is a part of the run's energy_j."),
}
"""Columns of `phases.energy_by_phase`."""

TRACE_COLUMNS: dict[str, Column] = {
    "domain": PHASE_COLUMNS["domain"],
    "component": PHASE_COLUMNS["component"],
    "method": PHASE_COLUMNS["method"],
    "source": PHASE_COLUMNS["source"],
    "is_headline": Column("flag", "", "False for a second estimator of a domain, which is never added."),
    "time_s": Column("number", "s", "Start of a sampling interval, since the run's first sample."),
    "duration_s": Column("number", "s", "Its length."),
    "power_w": Column("number", "W", "Mean power in it: energy_j / duration_s."),
    "energy_j": Column("number", "J", "Energy in it, counter wraps unwound."),
}
"""Columns of `detail.traces`."""

GAUGE_COLUMNS: dict[str, Column] = {
    "domain": Column("text", "", "What it belongs to, such as gpu:0; a thermal zone of its own has its name."),
    "quantity": Column("text", "", "Names the unit: temp_c, clock_mhz, utilisation (0 to 1), power_limit_w, ..."),
    "source": Column("text", "", "Meter that took the samples."),
    "time_s": Column("number", "s", "Since the run's first sample."),
    "value": Column("number", "by quantity", "As read."),
}
"""Columns of `detail.gauges`."""

REQUEST_COLUMNS: dict[str, Column] = {
    "run_id": Column("text", "", "Planned row, run_{i}_repetition_{j}."),
    "index": Column("integer", "", "Place in the workload, from 0."),
    "item_id": Column("text", "", "Stable id of the item, such as BoolQ-12."),
    "device": Column("text", "", "Which of the trial's devices answered; there only where it names some."),
    "start_s": Column("number", "s", "When it was sent, since the first request was."),
    "duration_s": Column("number", "s", "From being sent to the whole answer."),
    "prefill_s": Column("number", "s", "From being sent to its first token."),
    "decode_s": Column("number", "s", "First to last token."),
    "engine_prefill_s": Column("number", "s", "Reading the prompt, by the engine's own clock."),
    "engine_decode_s": Column("number", "s", "Generating, by the engine's own clock."),
    "n_prompt_tokens": Column("integer", "", "Tokens read."),
    "n_output_tokens": Column("integer", "", "Tokens generated."),
    "exit_layer": Column("number", "", "Mean layer that its tokens left the model after; there only with early exit."),
    "entropy_nats": Column("number", "nats", "Mean entropy of its tokens' distributions; there only with early exit."),
    "energy_j": Column("number", "J", "Its share of the measured phase, by tokens in flight."),
    "prefill_energy_j": Column("number", "J", "Part of energy_j up to its first token."),
    "decode_energy_j": Column("number", "J", "Part of energy_j after it."),
    "prompt": Column("text", "", "The last user message."),
    "answer": Column("text", "", "What the model wrote."),
    "gold_label": Column("text", "", "The right answer."),
    "predicted_label": Column("text", "", "What was read from the answer; None: nothing could be."),
    "is_correct": Column("flag", "", "Whether they agree; None without a gold label."),
}
"""Columns of `detail.requests`."""

DEVICE_COLUMNS: dict[str, Column] = {
    "kind": Column("text", "", "What the device is, where a trial names several: GPU or processor."),
    "tail_s": Column("number", "s", "How long it idled until the last device had ended."),
    "tail_energy_j": Column("number", "J", "What it drew meanwhile; in the whole's energy_j, not in its own."),
}
"""What `device_rows.device_frame` adds to the runs' columns."""

TABLES: dict[str, dict[str, Column]] = {
    "runs": COLUMNS,
    "metrics": METRIC_COLUMNS,
    "cost": COST_COLUMNS,
    "carbon": CARBON_COLUMNS,
    "phases": PHASE_COLUMNS,
    "traces": TRACE_COLUMNS,
    "gauges": GAUGE_COLUMNS,
    "requests": REQUEST_COLUMNS,
    "devices": DEVICE_COLUMNS,
}
"""All frames of the analysis: name -> columns."""


def polars_schema(columns: dict[str, Column]) -> "dict[str, type[pl.DataType]]":
    """Name -> polars type."""
    return {name: polars_type(column.kind) for name, column in columns.items()}


def polars_type(kind: Kind) -> "type[pl.DataType]":
    """The polars type of a kind of column, so that an empty column has one too."""
    import polars as pl

    kinds: dict[Kind, type[pl.DataType]] = {
        "text": pl.String,
        "integer": pl.Int64,
        "number": pl.Float64,
        "flag": pl.Boolean,
    }
    return kinds[kind]
