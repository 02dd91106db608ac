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
    "attempt_id": Column("text", "", "The attempt whose result is shown."),
    "n_attempts": Column("integer", "", "Executions so far, failed ones included."),
    "testbed": Column("text", "", "Address of the testbed that ran it."),
    "energy_j": Column("number", "J", "Gross energy of the measured phase: CPU + GPU + DRAM domains, each once."),
    "energy_net_j": Column("number", "J", "The same less idle baseline power x duration; None without a baseline."),
    "cpu_energy_j": Column("number", "J", "CPU packages, measured phase."),
    "gpu_energy_j": Column("number", "J", "GPUs, measured phase."),
    "dram_energy_j": Column("number", "J", "Memory, measured phase."),
    "prefill_energy_j": Column("number", "J", "Part of energy_j up to each first token, by tokens in flight."),
    "decode_energy_j": Column("number", "J", "Part of energy_j after each request's first token."),
    "unassigned_energy_j": Column("number", "J", "Part of energy_j with no token in flight."),
    "load_energy_j": Column("number", "J", "Energy of loading the model, same domains; never part of energy_j."),
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
    "workload_source": Column("text", "", "Where the items came from; a sample says that it is one."),
    "prompt_sha256": Column("text", "", "Hash of all prompts: equal hashes mean equal input to the model."),
    "temperature": Column("number", "", "Sampling temperature that was asked for; 0 is greedy."),
    "start_temp_c": Column("number", "°C", "Hottest sensor when the trial began."),
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
    "energy_per_output_token_j": Column("number", "J", "energy_j / n_output_tokens."),
    "energy_per_request_j": Column("number", "J", "energy_j / n_requests."),
    "energy_per_correct_j": Column("number", "J", "energy_j / n_correct; None when nothing was right."),
    "edp_js": Column("number", "J·s", "Energy-delay product, energy_j x duration_s."),
    "ed2p_js2": Column("number", "J·s²", "energy_j x duration_s squared: weighs delay more."),
}
"""What `metrics.with_metrics` adds."""


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
