"""From labels to an accuracy, with the odds that chance alone did as well, and macro-F1. Pure."""

import math
from collections.abc import Sequence

from contract.trial_result import TaskScore


def binomial_p_value(n_correct: int, n_items: int, chance: float) -> float:
    """One-sided exact binomial test: P(X >= n_correct) for X ~ Binomial(n_items, chance).

    Terms are summed in log space, smallest first, so that thousands of items neither overflow nor lose the tail.

    Args:
        n_correct: right answers, 0 to n_items.
        n_items: answers, at least 0.
        chance: probability of a right guess, strictly between 0 and 1.
    """
    log_hit, log_miss = math.log(chance), math.log1p(-chance)
    log_n = math.lgamma(n_items + 1)
    terms = [
        math.exp(log_n - math.lgamma(k + 1) - math.lgamma(n_items - k + 1) + k * log_hit + (n_items - k) * log_miss)
        for k in range(n_correct, n_items + 1)
    ]
    return min(math.fsum(terms), 1.0)


def score_labels(gold: Sequence[str | None], predicted: Sequence[str | None], *, n_labels: int) -> TaskScore | None:
    """Sum labels up. An abstention counts as wrong, and is counted.

    Args:
        gold: the right answers; items with None are left out.
        predicted: what was read, one per item, in the same order; None: abstained.
        n_labels: how many answers there are to choose from.

    Returns:
        None where no item has a gold label.
    """
    judged = [(right, read) for right, read in zip(gold, predicted, strict=True) if right is not None]
    if gold and not judged:
        return None
    n_correct = sum(right == read for right, read in judged)
    chance = 1 / n_labels
    return TaskScore(
        n_items=len(judged),
        n_correct=n_correct,
        n_abstained=sum(read is None for _, read in judged),
        accuracy=n_correct / len(judged) if judged else None,
        chance_accuracy=chance,
        chance_p_value=binomial_p_value(n_correct, len(judged), chance) if judged else None,
    )


def macro_f1(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> float | None:
    """Mean over the classes of F1 = 2 TP / (2 TP + FP + FN), as SuperGLUE reports for CB.

    An abstention is a miss of the right class and a false alarm of none. A class that is neither right nor read
    anywhere has no F1 and is left out of the mean, so that a few items of one class are not scored 1/3.

    Args:
        gold: the right answers.
        predicted: what was read, in the same order; None: abstained.
        labels: the classes.

    Returns:
        None without items.
    """
    scores = []
    for label in labels:
        hits = sum(right == read == label for right, read in zip(gold, predicted, strict=True))
        errors = sum((right == label) != (read == label) for right, read in zip(gold, predicted, strict=True))
        if hits or errors:
            scores.append(2 * hits / (2 * hits + errors))
    return math.fsum(scores) / len(scores) if scores else None
