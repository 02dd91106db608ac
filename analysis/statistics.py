"""Intervals and tests, with what they assume. None wherever the data do not carry the figure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

CONFIDENCE = 0.95
ALPHA = 0.05


@dataclass(frozen=True)
class MeanInterval:
    """A mean over repetitions with its Student-t interval.

    Attributes:
        n: values that were there.
        mean: None without values.
        sd: sample standard deviation; None below two values.
        half_width: of the 95 % interval; None below two values.
    """

    n: int
    mean: float | None
    sd: float | None
    half_width: float | None


def mean_interval(values: Iterable[float | None], confidence: float = CONFIDENCE) -> MeanInterval:
    """Mean and t interval of independent values; None among them is left out.

    Args:
        values: one per repetition, any unit.
        confidence: coverage of the interval.
    """
    from scipy.special import stdtrit  # not scipy.stats: it takes a second to import

    present = [value for value in values if value is not None]
    n = len(present)
    if n == 0:
        return MeanInterval(0, None, None, None)
    mean = math.fsum(present) / n
    if n == 1:
        return MeanInterval(1, mean, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in present) / (n - 1))
    half_width = float(stdtrit(n - 1, 0.5 + confidence / 2)) * sd / math.sqrt(n)
    return MeanInterval(n, mean, sd, half_width)


def wilson_interval(n_correct: float, n_items: int, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Wilson's score interval of a proportion (Wilson, 1927); None without items."""
    from scipy.special import ndtri

    if n_items == 0:
        return None
    z = float(ndtri(0.5 + confidence / 2))
    share, z2 = n_correct / n_items, z * z
    centre = (share + z2 / (2 * n_items)) / (1 + z2 / n_items)
    half = z / (1 + z2 / n_items) * math.sqrt(share * (1 - share) / n_items + z2 / (4 * n_items**2))
    # At 0 and n the bound is exactly 0 and 1; rounding must not push it past the observed share.
    low = 0.0 if n_correct == 0 else max(0.0, centre - half)
    high = 1.0 if n_correct == n_items else min(1.0, centre + half)
    return low, high


def binomial_p_value(n_correct: int, n_items: int, chance: float) -> float | None:
    """Two-sided exact binomial test of n_correct against guessing.

    Sums the probabilities of all outcomes that are at most as likely as the one seen, as R's `binom.test` and
    scipy's `binomtest` do. Two-sided, so that a model which is worse than guessing is told apart as well.

    Returns:
        None without items, or where chance is not strictly between 0 and 1.
    """
    if n_items == 0 or not 0 < chance < 1:
        return None

    def log_probability(k: int) -> float:
        ways = math.lgamma(n_items + 1) - math.lgamma(k + 1) - math.lgamma(n_items - k + 1)
        return ways + k * math.log(chance) + (n_items - k) * math.log1p(-chance)

    seen = log_probability(n_correct)
    likely = (log_probability(k) for k in range(n_items + 1))
    # The tolerance keeps the mirror outcome in, which rounding may make a hair more likely.
    return min(1.0, math.fsum(math.exp(each) for each in likely if each <= seen + 1e-7))


@dataclass(frozen=True)
class RepetitionScore:
    """Correctness counts of one repetition of one treatment."""

    n_items: int
    n_correct: int
    n_abstained: int
    chance_accuracy: float | None
    prompt_sha256: str | None = None


@dataclass(frozen=True)
class PooledAccuracy:
    """Accuracy of a treatment, or of several that are shown together.

    Attributes:
        n_items: items behind interval and test; not those of repetitions that only repeat.
        n_correct: among them.
        n_abstained: among them.
        accuracy: n_correct / n_items.
        interval: 95 % Wilson interval.
        chance_accuracy: of guessing; None where it is unknown or differs.
        chance_p_value: two-sided exact test against it; None where it cannot be made.
        repetitions_identical: whether repetitions (or treatments) had equal counts and one of them was taken.
        same_prompts_pooled: whether scores of equal prompts with different counts were pooled, which makes the
            interval narrower than it should be.
    """

    n_items: int
    n_correct: int
    n_abstained: int
    accuracy: float
    interval: tuple[float, float]
    chance_accuracy: float | None
    chance_p_value: float | None
    repetitions_identical: bool
    same_prompts_pooled: bool

    @property
    def verdict(self) -> str:
        """What the test says, in words; empty without a test."""
        if self.chance_p_value is None or self.chance_accuracy is None:
            return ""
        if self.chance_p_value >= ALPHA:
            return "not distinguishable from chance"
        if self.accuracy > self.chance_accuracy:
            return "above chance"
        # A model that says something else is not one that errs on purpose.
        return f"below chance ({self.n_abstained} of {self.n_items} unread)" if self.n_abstained else "below chance"


def pooled_accuracy(treatments: Iterable[list[RepetitionScore]]) -> PooledAccuracy | None:
    """Accuracy over the items of one or more treatments.

    The interval and the test want independent items. Repetitions of the same items are not: at temperature 0 a
    model repeats itself, and n repetitions would make the interval sqrt(n) times too narrow. So a treatment whose
    repetitions all have the same counts enters with one of them, and treatments that were asked the same prompts and
    have the same counts enter once.

    Args:
        treatments: for each treatment, the scores of its repetitions.

    Returns:
        None without scored items.
    """
    used: list[RepetitionScore] = []
    seen: set[RepetitionScore] = set()
    identical = False
    for repetitions in treatments:
        scored = [score for score in repetitions if score.n_items > 0]
        if len(scored) > 1 and len({(s.n_items, s.n_correct, s.n_abstained) for s in scored}) == 1:
            identical = True
            scored = scored[:1]
        # Greedy answers are often the same under other settings too, such as another concurrency. Only for
        # treatments of one score: dropping chance matches among many that differ would shift the share.
        if len(scored) == 1 and scored[0].prompt_sha256 is not None:
            if scored[0] in seen:
                identical = True
                continue
            seen.add(scored[0])
        used.extend(scored)
    prompts = [score.prompt_sha256 for score in used if score.prompt_sha256 is not None]
    n_items, n_correct = sum(s.n_items for s in used), sum(s.n_correct for s in used)
    interval = wilson_interval(n_correct, n_items)
    if interval is None:
        return None
    chances = {score.chance_accuracy for score in used}
    # Tasks with different chance levels do not add up to one binomial.
    chance = chances.pop() if len(chances) == 1 else None
    return PooledAccuracy(
        n_items=n_items,
        n_correct=n_correct,
        n_abstained=sum(s.n_abstained for s in used),
        accuracy=n_correct / n_items,
        interval=interval,
        chance_accuracy=chance,
        chance_p_value=None if chance is None else binomial_p_value(n_correct, n_items, chance),
        repetitions_identical=identical,
        same_prompts_pooled=len(set(prompts)) < len(prompts),
    )
