"""Greedy, temperature and nucleus: the token that follows."""

from collections import Counter

import pytest

from contract.trial_spec import SamplingSpec
from testbed.engines.token_choice import TokenChooser

torch = pytest.importorskip("torch")

PROBABILITIES = [0.5, 0.3, 0.15, 0.05]


def draw(n: int, seed: int = 1, **sampling: float) -> Counter[int]:
    chooser = TokenChooser(SamplingSpec(**sampling), seed)
    logits = torch.log(torch.tensor(PROBABILITIES))
    return Counter(chooser.choose(logits) for _ in range(n))


def test_temperature_zero_takes_the_most_likely() -> None:
    assert draw(5) == {0: 5}


def test_draws_follow_the_probabilities() -> None:
    drawn = draw(4000, temperature=1.0)
    for token, probability in enumerate(PROBABILITIES):
        # Six standard deviations of a binomial.
        assert drawn[token] / 4000 == pytest.approx(
            probability, abs=6 * (probability * (1 - probability) / 4000) ** 0.5
        )


def test_a_lower_temperature_prefers_the_likely_ones() -> None:
    assert draw(2000, temperature=0.25)[0] > draw(2000, temperature=1.0)[0]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.5, {0}), (0.6, {0, 1}), (0.8, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})]
)
def test_the_nucleus_is_the_smallest_that_reaches_top_p(top_p: float, kept: set[int]) -> None:
    assert set(draw(4000, temperature=1.0, top_p=top_p)) == kept


def test_a_seed_repeats_its_draws() -> None:
    assert draw(50, seed=3, temperature=1.0) == draw(50, seed=3, temperature=1.0)
