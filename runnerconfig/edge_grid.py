"""Grid search on a Jetson AGX Orin: prefill clock x decode clock x batch x exit layer, each setting held for a while.

As it stands the Orin is **simulated**, on a made-up board: it needs no Jetson, and says nothing about any. For the
board of two grid logs, copy them to the folder `orin_grids` of the testbed's data folder, and give their names as
`grid_fan_on` and `grid_fan_off` in a class that derives from this one.

By default a part of the grid is run: 3 x 3 clocks, 3 batches, 2 exits, 54 settings, with both ends of each. The study's
whole grid is 11 x 11 x 32 without exits; `is_full = True` takes 11 x 11 x 6 x 8, 5,808 settings.

On a Jetson set `is_simulated = False`; the engine is then transformers, which tells its phases. Clocks are set through
devfreq and the fan through its PWM, and both are put back after each run. The report:
`python -m analysis edge-control results/edge_grid`.
"""

from collections.abc import Sequence

from contract.edge import ChooserSpec, EdgeSpace, EdgeSpec, RewardScaleSpec
from contract.trial_spec import ActuatorSpec, DeadlineSpec, EngineSpec, MeterSpec, ModelSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, RunTableModel, Treatment, Trial
from orchestrator.config import RunnerConfig as Base

CLOCKS_MHZ = [306.0, 408.0, 510.0, 612.0, 714.0, 816.0, 918.0, 1020.0, 1122.0, 1224.0, 1300.5]
DOMAIN, FAN = "gpu:0", "fan:0"


class EdgeConfig(Base):
    """What the edge studies share: the space, and the board that it is of."""

    seed = 17
    cooldown = Cooldown(floor_s=0.0, max_wait_s=0.0)
    is_simulated = True
    # Names of grid logs in the testbed's folder `orin_grids`; None: a made-up board.
    grid_fan_on: str | None = None
    grid_fan_off: str | None = None
    clocks_mhz: Sequence[float] = CLOCKS_MHZ
    prefill_bins: Sequence[int] = tuple(range(11))
    decode_bins: Sequence[int] = tuple(range(11))
    batches: Sequence[int] = (1, 7, 13, 19, 25, 31)
    exit_layers: Sequence[int] = tuple(range(9, 17))
    # For a real Jetson only: a search needs a scale, which a grid finds.
    model = ModelSpec(name="llama-3.2-1b-instruct", source="hf:unsloth/Llama-3.2-1B-Instruct", max_model_len=2048)
    engine = EngineSpec(name="transformers", lifetime="block")
    meter = MeterSpec(name="jetson", period_s=0.1)
    scale: RewardScaleSpec | None = None
    n_output_tokens = 100

    def edge_trial(self, chooser: ChooserSpec, *, seed: int, n_evaluations: int, n_batches: int, fan: str) -> Trial:
        """A trial of edge control.

        Args:
            chooser: of settings.
            seed: of the chooser, and of the simulated board's noise.
            n_evaluations: that the chooser may use.
            n_batches: after these.
            fan: `on`; `off`: from the first batch that is no evaluation; `stops`: after a fifth of them.
        """
        simulated = EngineSpec(
            name="simulated_orin",
            lifetime="block",
            options={"grid_fan_on": self.grid_fan_on, "grid_fan_off": self.grid_fan_off},
        )
        clock, blower = ("simulated_orin", "simulated_fan") if self.is_simulated else ("devfreq", "fan")
        fan_off_at = {"on": None, "off": 0, "stops": n_batches // 5}[fan]
        return Trial(
            model=ModelSpec(name="simulated-orin", source="fake:orin") if self.is_simulated else self.model,
            engine=simulated if self.is_simulated else self.engine,
            workload=WorkloadSpec(
                name="length_sweep",
                concurrency=max(self.batches),
                options={"n_output_tokens": self.n_output_tokens, "n_items": 16},
            ),
            meter=MeterSpec(name="simulated", period_s=10.0) if self.is_simulated else self.meter,
            actuators=[
                ActuatorSpec(name=clock, domain=DOMAIN, setting={"clock_mhz": self.clocks_mhz[-1]}),
                ActuatorSpec(name=blower, domain=FAN, setting={"fan_duty": 1.0}),
            ],
            warmup_requests=0 if self.is_simulated else 1,
            deadline=DeadlineSpec(total_s=24 * 3600.0),
            edge=EdgeSpec(
                chooser=chooser,
                space=EdgeSpace(
                    clocks_mhz=list(self.clocks_mhz),
                    prefill_bins=list(self.prefill_bins),
                    decode_bins=list(self.decode_bins),
                    batches=list(self.batches),
                    exit_layers=list(self.exit_layers),
                ),
                n_evaluations=n_evaluations,
                n_batches=n_batches,
                fan_off_at=fan_off_at,
                clock_domain=DOMAIN,
                fan_domain=FAN,
                seed=seed,
                scale=self.scale,
            ),
        )


class RunnerConfig(EdgeConfig):
    """54 settings, once each, the fan on."""

    name = "edge_grid"
    is_full = False
    part_bins: Sequence[int] = (0, 5, 10)
    part_batches: Sequence[int] = (1, 13, 31)
    part_exits: Sequence[int] = (9, 16)
    fans: Sequence[str] = ("on",)
    # Held so long that the board is warm: its time constant with the fan is about 200 s.
    n_batches = 60

    def create_run_table_model(self) -> RunTableModel:
        """The settings are the factors."""
        full = self.is_full
        return RunTableModel(
            factors=[
                Factor("prefill_bin", list(self.prefill_bins if full else self.part_bins)),
                Factor("decode_bin", list(self.decode_bins if full else self.part_bins)),
                Factor("batch", list(self.batches if full else self.part_batches)),
                Factor("exit_layer", list(self.exit_layers if full else self.part_exits)),
                Factor("fan", list(self.fans)),
            ],
            repetitions=1,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """One setting, held."""
        setting = {name: int(treatment[name]) for name in ("prefill_bin", "decode_bin", "batch", "exit_layer")}
        chooser = ChooserSpec(name="fixed", options=dict(setting))
        # Each setting has a noise of its own, as each measurement would.
        seed = sum(value * 100**place for place, value in enumerate(setting.values()))
        return self.edge_trial(chooser, seed=seed, n_evaluations=0, n_batches=self.n_batches, fan=str(treatment["fan"]))
