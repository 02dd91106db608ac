"""Serving under an SLO: policy x data set x SLO x rate x seed of the arrivals, on a simulated server or a real GPU.

A policy chooses GPU clock and batch at each boundary, or waits. All policies of a seed meet the same arrivals. The
report: `python -m analysis serving results/serving_policies`.

As it stands a **simulated** server is used, with a made-up table: it needs no GPU, and says nothing about any. For
figures of a device derive from the class in a file beside this one, and give `table_csv` a profile of it, as
`python -m control profile` writes: columns gpu_frequency_mhz, batch_size, latency_s, power_w.

For a real GPU set `is_simulated = False`, with its model and an engine; the table is then what the policies believe. A
planned or learned policy is a file in the folder `policies` of the testbed's data folder: `files` says which.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from contract.errors import ConfigError
from contract.serving import PolicySpec, ServingSpec, TableSpec
from contract.trial_spec import ActuatorSpec, DeadlineSpec, EngineSpec, MeterSpec, ModelSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, RunTableModel, Treatment, Trial
from orchestrator.config import RunnerConfig as Base

FIXED = "fixed"
DOMAIN = "gpu:0"


class RunnerConfig(Base):
    """Ten policies, one objective, one rate, ten seeds: 100 runs of a simulated hour."""

    name = "serving_policies"
    seed = 11
    cooldown = Cooldown(floor_s=0.0, max_wait_s=0.0)
    is_simulated = True
    duration_s = 3600.0
    # A CSV on this machine, which travels in the plan; None: the made-up one.
    table_csv: Path | None = None
    n_input_tokens = 500
    n_output_tokens = 300
    idle_power_w = 0.0
    # Level -> what decides. `ablation...` levels are told apart in the report.
    policies: Mapping[str, PolicySpec] = {
        "static_high": PolicySpec(name="static_high"),
        "fixed_clock": PolicySpec(name="fixed_clock", options={"clock_mhz": 1050.0}),
        "deadline": PolicySpec(name="deadline"),
        "deadline_energy": PolicySpec(name="deadline_energy"),
        "dvfs_only": PolicySpec(name="dvfs_only"),
        "batch_only": PolicySpec(name="batch_only"),
        "reactive": PolicySpec(name="reactive"),
        "token_aware": PolicySpec(name="token_aware"),
        "dynamo_like": PolicySpec(name="dynamo_like"),
        "ablation: fixed batch 8": PolicySpec(name="fixed_batch", options={"batch": 8}),
    }
    # Level -> (registry name, file), such as {"learned": ("learned", "ppo_seed_0.safetensors")}.
    files: Mapping[str, tuple[str, str]] = {}
    # `fixed`: the two lengths above; else NAME of DATA_DIR/request_traces/NAME.jsonl, see `testbed traces convert`.
    datasets: Sequence[str] = (FIXED,)
    slos_s: Sequence[float] = (11.0,)
    rates_per_s: Sequence[float] = (0.8,)
    arrival_seeds: Sequence[int] = tuple(range(10))
    # Above 1 arrivals come in bursts (gamma gaps); None: Poisson.
    arrival_cv: float | None = None
    queue_limit = 100
    # The largest batch; None: the table's.
    max_batch: int | None = None
    continuous = False
    # For a real GPU only.
    model = ModelSpec(name="qwen2.5-7b-instruct", source="hf:Qwen/Qwen2.5-7B-Instruct", max_model_len=4096)
    engine = EngineSpec(name="vllm")
    meter = MeterSpec(period_s=0.1)

    def create_run_table_model(self) -> RunTableModel:
        """The seed of the arrivals is a factor, so that all policies meet the same ones; each run is made once."""
        return RunTableModel(
            factors=[
                Factor("policy", [*self.policies, *self.files]),
                Factor("dataset", list(self.datasets)),
                Factor("slo_s", list(self.slos_s)),
                Factor("rate_per_s", list(self.rates_per_s)),
                Factor("arrival_seed", list(self.arrival_seeds)),
            ],
            repetitions=1,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """One policy for `duration_s` of arrivals, and until the queue is empty."""
        table = self.table()
        concurrency = self.max_batch or len(table.batch_sizes)
        policy = self._policy(str(treatment["policy"]))
        actuator = "simulated" if self.is_simulated else "nvml_clock"
        simulated = EngineSpec(
            name="simulated", options={"table": table.model_dump(), "idle_power_w": self.idle_power_w}
        )
        return Trial(
            model=ModelSpec(name="simulated-server", source="fake:table") if self.is_simulated else self.model,
            engine=simulated if self.is_simulated else self.engine,
            workload=self._workload(treatment, concurrency),
            meter=MeterSpec(name="simulated", period_s=10.0) if self.is_simulated else self.meter,
            actuators=[ActuatorSpec(name=actuator, domain=DOMAIN, setting={"clock_mhz": table.clock_mhz[-1]})],
            warmup_requests=1,
            deadline=DeadlineSpec(total_s=4 * self.duration_s + 3600.0),
            serving=ServingSpec(
                # A simulated server is what its policies believe: the table need not travel twice.
                policy=policy if self.is_simulated else policy.model_copy(update={"table": table}),
                slo_s=float(treatment["slo_s"]),
                queue_limit=self.queue_limit,
                continuous=self.continuous,
                clock_domain=DOMAIN,
            ),
        )

    def table(self) -> TableSpec:
        """Latency and power of each batch at each clock."""
        if self.table_csv is None:
            return made_up_table(self.n_input_tokens, self.n_output_tokens)
        return read_table(self.table_csv, self.n_input_tokens, self.n_output_tokens)

    def _policy(self, level: str) -> PolicySpec:
        if level in self.files:
            name, file = self.files[level]
            return PolicySpec(name=name, file=file)
        return self.policies[level]

    def _workload(self, treatment: Treatment, concurrency: int) -> WorkloadSpec:
        kind = "poisson" if self.arrival_cv is None else "gamma"
        arrivals = {"kind": kind, "rate_per_s": float(treatment["rate_per_s"])}
        if self.arrival_cv is not None:
            arrivals["cv"] = self.arrival_cv
        options = {
            "duration_s": self.duration_s,
            "arrivals": arrivals,
            "arrival_seed": int(treatment["arrival_seed"]),
        }
        dataset = str(treatment["dataset"])
        if dataset == FIXED:
            options |= {"n_input_tokens": self.n_input_tokens, "n_output_tokens": self.n_output_tokens}
            if self.is_simulated:
                options["prompt_words"] = 8
        else:
            options["trace"] = f"{dataset}.jsonl"
        return WorkloadSpec(name="open_loop", concurrency=concurrency, options=options)


def made_up_table(n_input_tokens: int, n_output_tokens: int, max_batch: int = 64) -> TableSpec:
    """A server that never was: latency falls with the clock and rises with the batch, power rises with both."""
    clocks = [705.0, 810.0, 900.0, 960.0, 1005.0, 1050.0, 1110.0, 1155.0, 1200.0, 1245.0, 1290.0, 1320.0, 1350.0]
    clocks += [1380.0, 1410.0]
    sizes = range(1, max_batch + 1)
    return TableSpec(
        source="made up, of no device",
        clock_mhz=clocks,
        batch_sizes=list(sizes),
        latency_s=[[round(3.0 * (1410.0 / mhz) ** 0.8 * (1 + 0.02 * n), 6) for n in sizes] for mhz in clocks],
        power_w=[[round((40 + 1e-7 * mhz**3 / 2) * (1 + 0.004 * n), 6) for n in sizes] for mhz in clocks],
        n_input_tokens=n_input_tokens,
        n_output_tokens=n_output_tokens,
    )


def read_table(path: Path, n_input_tokens: int, n_output_tokens: int) -> TableSpec:
    """A table of this machine, to travel in the plan. The testbed checks its figures.

    Raises:
        ConfigError: it cannot be read, or has no cell for a clock and batch.
    """
    cells: dict[tuple[float, int], tuple[float, float]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                lengths = (row.get("input_len"), row.get("output_len"))
                if lengths != (None, None) and lengths != (str(n_input_tokens), str(n_output_tokens)):
                    continue
                key = (float(row["gpu_frequency_mhz"]), int(row["batch_size"]))
                cells[key] = (float(row["latency_s"]), float(row["power_w"]))
        clocks, sizes = sorted({mhz for mhz, _ in cells}), sorted({n for _, n in cells})
        return TableSpec(
            source=path.name,
            clock_mhz=clocks,
            batch_sizes=sizes,
            latency_s=[[cells[mhz, n][0] for n in sizes] for mhz in clocks],
            power_w=[[cells[mhz, n][1] for n in sizes] for mhz in clocks],
            n_input_tokens=n_input_tokens,
            n_output_tokens=n_output_tokens,
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is no service table of {n_input_tokens}/{n_output_tokens} tokens ({type(error).__name__}: "
            f"{error}). Make one with: python -m control profile."
        ) from error
