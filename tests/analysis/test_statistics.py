import math

import numpy as np
import pytest
import scipy.stats

from analysis.statistics import RepetitionScore, binomial_p_value, mean_interval, pooled_accuracy, wilson_interval


@pytest.mark.parametrize("values", [[1.0, 2.0], [152.1, 148.9, 155.0], [3.5] * 4, list(range(30))])
def test_the_t_interval_is_scipys(values: list[float]) -> None:
    ours = mean_interval(values)
    assert ours.mean == pytest.approx(np.mean(values))
    assert ours.sd == pytest.approx(np.std(values, ddof=1))
    expected = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    assert ours.half_width == pytest.approx(expected)


def test_the_t_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    intervals = [mean_interval(random.normal(10.0, 2.0, size=3).tolist()) for _ in range(2000)]
    covered = sum(abs((each.mean or 0.0) - 10.0) <= (each.half_width or 0.0) for each in intervals)
    assert 0.93 < covered / 2000 < 0.97


def test_no_interval_without_a_spread_and_no_mean_without_values() -> None:
    assert mean_interval([4.0, None]) == mean_interval([4.0])
    assert (mean_interval([4.0]).mean, mean_interval([4.0]).half_width) == (4.0, None)
    assert (mean_interval([]).n, mean_interval([None]).mean) == (0, None)


@pytest.mark.parametrize(("n_correct", "n_items"), [(0, 16), (9, 16), (16, 16), (50, 80), (1, 1)])
def test_the_wilson_interval_is_scipys(n_correct: int, n_items: int) -> None:
    expected = scipy.stats.binomtest(n_correct, n_items).proportion_ci(method="wilson")
    assert wilson_interval(n_correct, n_items) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_wilson_interval_of_a_textbook() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263.
    low, high = wilson_interval(81, 263) or (0.0, 0.0)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson_interval(0, 0) is None


@pytest.mark.parametrize("chance", [0.5, 1 / 3, 0.25])
@pytest.mark.parametrize(("n_correct", "n_items"), [(0, 16), (8, 16), (13, 16), (50, 80), (1300, 2400)])
def test_the_binomial_test_is_scipys(n_correct: int, n_items: int, chance: float) -> None:
    expected = scipy.stats.binomtest(n_correct, n_items, chance).pvalue
    assert binomial_p_value(n_correct, n_items, chance) == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_no_test_without_items_or_a_proper_chance() -> None:
    assert binomial_p_value(0, 0, 0.5) is None
    assert binomial_p_value(3, 4, 1.0) is None


def score(n_correct: int, *, n_items: int = 16, chance: float | None = 0.5, prompts: str = "p") -> RepetitionScore:
    return RepetitionScore(n_items, n_correct, 0, chance, prompts)


def test_repetitions_that_only_repeat_count_once() -> None:
    once = pooled_accuracy([[score(12)]])
    thrice = pooled_accuracy([[score(12)] * 3])
    assert once is not None
    assert thrice is not None
    assert (thrice.n_items, thrice.interval, thrice.chance_p_value) == (16, once.interval, once.chance_p_value)
    assert (once.repetitions_identical, thrice.repetitions_identical) == (False, True)
    # Thrice the items would have called guessing a skill.
    assert thrice.verdict == "not distinguishable from chance"
    assert (binomial_p_value(36, 48, 0.5) or 1.0) < 0.001


def test_repetitions_that_differ_are_pooled_and_told() -> None:
    pooled = pooled_accuracy([[score(12), score(13), score(11)]])
    assert pooled is not None
    assert (pooled.n_items, pooled.n_correct, pooled.same_prompts_pooled) == (48, 36, True)
    assert pooled.verdict == "above chance"
    fresh = pooled_accuracy([[score(12, prompts="a"), score(13, prompts="b")]])
    assert fresh is not None
    assert not fresh.same_prompts_pooled


def test_treatments_that_give_the_same_answers_count_once() -> None:
    same = pooled_accuracy([[score(12)] * 3, [score(12)] * 3])
    assert same is not None
    assert (same.n_items, same.n_correct, same.repetitions_identical) == (16, 12, True)
    other_items = pooled_accuracy([[score(12, prompts="a")], [score(12, prompts="b")]])
    assert other_items is not None
    assert (other_items.n_items, other_items.repetitions_identical) == (32, False)
    # Drawn at a temperature: a match by chance drops nothing.
    drawn = pooled_accuracy([[score(12), score(13)], [score(12), score(9)]])
    assert drawn is not None
    assert (drawn.n_items, drawn.n_correct, drawn.same_prompts_pooled) == (64, 46, True)


def test_worse_than_guessing_is_not_called_guessing() -> None:
    pooled = pooled_accuracy([[score(0)]])
    assert pooled is not None
    assert pooled.verdict == "below chance"


def test_tasks_with_different_chance_are_not_tested_together() -> None:
    pooled = pooled_accuracy([[score(12)], [score(9, chance=1 / 3)]])
    assert pooled is not None
    assert (pooled.n_items, pooled.chance_accuracy, pooled.chance_p_value, pooled.verdict) == (32, None, None, "")
    assert pooled_accuracy([[], [score(0, n_items=0)]]) is None
