"""What an experiment declares: factors, repetitions, order, cooldown, and the trial of each treatment.

A configuration is a Python file with a class named `RunnerConfig` that derives from the one here. It holds
declarations only: nothing in it runs on a machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from contract.edge import EdgeSpec
from contract.errors import ConfigError
from contract.serving import ServingSpec
from contract.trial_spec import (
    ActuatorSpec,
    DeadlineSpec,
    DeviceSpec,
    EngineSpec,
    MeterSpec,
    ModelSpec,
    SamplingSpec,
    SteadySpec,
    WorkloadSpec,
)
from contract.units import Scalar


@dataclass(frozen=True)
class Trial:
    """A treatment made concrete: a `TrialSpec` without what belongs to one run of it.

    Attributes are those of `contract.trial_spec.TrialSpec`.
    """

    model: ModelSpec
    engine: EngineSpec
    workload: WorkloadSpec
    sampling: SamplingSpec = SamplingSpec()
    meter: MeterSpec = MeterSpec()
    actuators: Sequence[ActuatorSpec] = ()
    devices: Sequence[DeviceSpec] = ()
    baseline_s: float = 0.0
    warmup_requests: int = 1
    steady: SteadySpec | None = None
    deadline: DeadlineSpec = DeadlineSpec()
    serving: ServingSpec | None = None
    edge: EdgeSpec | None = None


Treatment = Mapping[str, Scalar]
"""Factor name -> level."""


@dataclass(frozen=True)
class Factor:
    """An independent variable.

    Attributes:
        name: column of the run table.
        levels: its levels, without duplicates.
    """

    name: str
    levels: Sequence[Scalar]


@dataclass(frozen=True)
class Unavailable:
    """Cells that the machine cannot run: excluded from the plan, which tells why. Never a failed run.

    Attributes:
        cells: factor -> levels, as in `RunTableModel.exclude_combinations`.
        reason: in words, such as "8 threads, and the machine has 4 processors".
    """

    cells: Mapping[str, Sequence[Scalar]]
    reason: str


@dataclass(frozen=True)
class RunTableModel:
    """The design: a full factorial, less what is excluded, times repetitions.

    Attributes:
        factors: in column order.
        exclude_combinations: each a set of cells, factor -> levels; a treatment is excluded when it lies in all
            factors of any one of them. Overlapping exclusions exclude their union, no more.
        repetitions: how often each treatment runs.
        unavailable: cells that are excluded because the machine cannot run them; the plan tells the reasons.
        allows_no_factors: without factors, the design is one treatment, as in Experiment Runner; else a mistake.
    """

    factors: Sequence[Factor]
    exclude_combinations: Sequence[Mapping[str, Sequence[Scalar]]] = ()
    repetitions: int = 1
    unavailable: Sequence[Unavailable] = ()
    allows_no_factors: bool = False


class Order(StrEnum):
    """The order in which runs are executed; every random one is seeded."""

    RANDOM = "random"
    """Complete randomisation over all runs."""
    BLOCKS = "blocks"
    """Randomised complete blocks: one repetition of every treatment, in random order, then the next."""
    GROUPED = "grouped"
    """Restricted by `group_by` within each block, to save reloads of a model: the groups in random order, the
    runs of each in random order. The restriction is part of the design and belongs in the analysis."""
    DECLARED = "declared"
    """Not random: repetition by repetition, treatments in design order. What the machine drifts, it drifts with the
    treatment; for studies of Experiment Runner that do not shuffle."""


class OnSuspect(StrEnum):
    """What becomes of a result that is doubted. No part of the plan: it may change while a campaign goes on, and
    holds for the results that arrive from then on."""

    KEEP = "keep"
    """The run is SUSPECT: its result is in the table with the reasons, and stays out of means."""
    RETRY = "retry"
    """The run is tried again, `max_attempts` times in all; then its last doubted result is kept as above."""
    FAIL = "fail"
    """The run is FAILED with code `suspect`: its result is evidence in the attempt's folder, and no figure."""


@dataclass(frozen=True)
class Cooldown:
    """What must hold before a trial starts.

    Attributes:
        floor_s: least pause after the previous trial.
        max_wait_s: the gate opens by itself after this long, and the trial's result is SUSPECT with the reason
            `started_warm`; counted after the floor. 0: no gate.
        delta_c: the hottest sensor must be within this of the campaign's idle temperature.
        slope_c_per_min: and change no faster than this.
    """

    floor_s: float = 30.0
    max_wait_s: float = 300.0
    delta_c: float = 2.0
    slope_c_per_min: float = 0.5


class RunnerConfig:
    """Base of a configuration.

    Attributes:
        name: of the experiment, and of its folder under `results_output_path`.
        results_output_path: relative to where `orchestrator` is started.
        artifacts: URL of a store that the files of attempts are copied to, such as s3://bucket/folder; empty: none.
        seed: of everything random: order, items, sampling.
        order: see `Order`.
        group_by: factors whose runs stay together, for `Order.GROUPED`.
        cooldown: see `Cooldown`.
        on_suspect: see `OnSuspect`; `--on-suspect` overrides it.
        max_attempts: how often a run is tried when it fails with a retryable error, or when doubted results are
            tried again.
        devices: that every trial runs on at the same time, such as `(0, 1)` or `("cores:0", "cores:1")`; a bare number
            is a GPU's index, and a `DeviceSpec` may have an engine of its own. Empty: one engine, wherever it runs.
            `--devices` overrides it. Where devices are a factor, `trial` names them instead.
    """

    name: str = ""
    results_output_path: str = "results"
    artifacts: str = ""
    seed: int = 0
    order: Order = Order.BLOCKS
    group_by: Sequence[str] = ()
    cooldown: Cooldown = Cooldown()
    on_suspect: OnSuspect = OnSuspect.KEEP
    max_attempts: int = 3
    devices: Sequence[str | int | DeviceSpec] = ()

    def create_run_table_model(self) -> RunTableModel:
        """The design."""
        raise ConfigError(f"{type(self).__name__} must define create_run_table_model().")

    def trial(self, treatment: Treatment) -> Trial:
        """The trial of a treatment. Pure: the same treatment gives the same trial.

        The orchestrator itself fills in what belongs to the run: experiment, run id, repetition, treatment, seed.
        """
        raise ConfigError(f"{type(self).__name__} must define trial(treatment).")
