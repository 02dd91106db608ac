"""CPU or GPU? Threads, layers on the GPU and prompt batch, over three prompt suites, on llama.cpp.

The arms of the TinyLlama study, here as a full factorial: threads 1, 4, 8; none, half and all of the model's layers
on the GPU (0, 11, 22); batches of 128, 512, 1024 prompt tokens. What the machine cannot run is excluded from the plan,
with the reason: `orchestrator plan` shows it. Every arm generates the same number of tokens.

The machine is the one that the plan is made on; for a testbed elsewhere say what it has: JOULEBED_N_CPUS=16
JOULEBED_N_GPUS=1. The model is TinyLlama as a file on the testbed; for another one set JOULEBED_GGUF to its source
(`path:/FILE.gguf`, `package:NAME`) and JOULEBED_GGUF_LAYERS to its depth, or derive from this class. Quantisations are
models: name several files in `models`, and the model is a factor too.
"""

import os
from collections.abc import Mapping, Sequence

from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, Order, RunTableModel, Treatment, Trial, Unavailable
from orchestrator.config import RunnerConfig as Base
from orchestrator.machine import find_machine

MODEL_NAME = "tinyllama-1.1b-chat-q4_0"
MODEL_SOURCE = "path:~/models/tinyllama-1.1b-chat-v1.0.Q4_0.gguf"
MODEL_LAYERS = 22


def _models(source: str) -> dict[str, str]:
    """Name -> source of the default, or of a file of one's own, which is named by its file."""
    name = source.rpartition(":")[2].rpartition("/")[2].removesuffix(".gguf")
    return {name: source} if source else {MODEL_NAME: MODEL_SOURCE}


class RunnerConfig(Base):
    """Threads x layers on the GPU x batch x suite, five repetitions."""

    name = "cpu_gpu_offload"
    seed = 22
    order = Order.BLOCKS
    cooldown = Cooldown(floor_s=10.0, max_wait_s=120.0)

    models: Mapping[str, str] = _models(os.environ.get("JOULEBED_GGUF", ""))
    # Of each of the models.
    n_layers = int(os.environ.get("JOULEBED_GGUF_LAYERS", MODEL_LAYERS))
    threads: Sequence[int] = (1, 4, 8)
    # Of the model's depth. llama.cpp counts the output layer as one more, which stays where the last layer is.
    offload: Sequence[float] = (0.0, 0.5, 1.0)
    batches: Sequence[int] = (128, 512, 1024)
    suites: Sequence[str] = ("short_dialogue", "analytical_reasoning", "narrative")
    n_items: int | None = None
    max_tokens = 128
    repetitions = 5

    def create_run_table_model(self) -> RunTableModel:
        """3 x 3 x 3 x 3 treatments where the machine can run them all."""
        machine = find_machine()
        layers = list(dict.fromkeys(round(share * self.n_layers) for share in self.offload))
        too_many = [count for count in self.threads if count > machine.n_cpus]
        on_gpu = [count for count in layers if count > 0]
        unavailable = []
        if too_many:
            reason = f"more threads than processors ({machine.n_cpus}; {machine.origin})"
            unavailable.append(Unavailable({"n_threads": too_many}, reason))
        if on_gpu and machine.n_gpus == 0:
            unavailable.append(Unavailable({"n_gpu_layers": on_gpu}, f"no GPU ({machine.origin})"))
        return RunTableModel(
            factors=[
                *([Factor("model", list(self.models))] if len(self.models) > 1 else []),
                Factor("n_threads", list(self.threads)),
                Factor("n_gpu_layers", layers),
                Factor("n_batch", list(self.batches)),
                Factor("suite", list(self.suites)),
            ],
            unavailable=unavailable,
            repetitions=self.repetitions,
        )

    def trial(self, treatment: Treatment) -> Trial:
        """One prompt at a time, greedy, and every answer exactly as long: the work of all arms of a suite is equal."""
        name = str(treatment.get("model", next(iter(self.models))))
        return Trial(
            # The context holds the largest batch: llama.cpp cuts a batch to it.
            model=ModelSpec(name=name, source=self.models[name], max_model_len=max(1024, *self.batches)),
            engine=EngineSpec(
                name="llama_cpp",
                options={
                    "n_threads": treatment["n_threads"],
                    "n_threads_batch": treatment["n_threads"],
                    "n_gpu_layers": treatment["n_gpu_layers"],
                    "n_batch": treatment["n_batch"],
                },
            ),
            sampling=SamplingSpec(temperature=0.0, max_tokens=self.max_tokens, ignore_eos=True),
            workload=WorkloadSpec(
                name="prompt_suite",
                options={"suite": treatment["suite"]} | ({} if self.n_items is None else {"n_items": self.n_items}),
            ),
            meter=MeterSpec(period_s=0.2),
            baseline_s=2.0,
        )
