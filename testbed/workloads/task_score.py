"""From verdicts to an accuracy, with the odds that chance alone did as well. Pure."""

import math
from collections.abc import Sequence

from contract.trial_result import TaskScore
from testbed.workloads.base import Verdict, WorkItem


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


def score_verdicts(items: Sequence[WorkItem], verdicts: Sequence[Verdict], *, n_labels: int) -> TaskScore | None:
    """Sum verdicts up. An abstention counts as wrong, and is counted.

    Args:
        items: what was asked; those without a gold label are left out.
        verdicts: what was read, one per item, in the same order.
        n_labels: how many answers there are to choose from.

    Returns:
        None where no item has a gold label.
    """
    judged = [verdict for item, verdict in zip(items, verdicts, strict=True) if item.gold_label is not None]
    if items and not judged:
        return None
    n_correct = sum(verdict.is_correct is True for verdict in judged)
    chance = 1 / n_labels
    return TaskScore(
        n_items=len(judged),
        n_correct=n_correct,
        n_abstained=sum(verdict.predicted_label is None for verdict in judged),
        accuracy=n_correct / len(judged) if judged else None,
        chance_accuracy=chance,
        chance_p_value=binomial_p_value(n_correct, len(judged), chance) if judged else None,
    )
