"""Scores from labels, checked by hand and against scikit-learn."""

import random

import pytest
from sklearn.metrics import f1_score

from contract.trial_result import TaskScore
from scoring.task import LABELS, label_in_words
from scoring.task_score import macro_f1, score_labels

CB = LABELS["CB"]


def test_an_abstention_is_wrong_and_counted() -> None:
    score = score_labels(["yes", "no", None, "yes"], ["yes", None, "no", "no"], n_labels=2)
    assert score is not None
    assert (score.n_items, score.n_correct, score.n_abstained) == (3, 1, 1)
    assert score.accuracy == pytest.approx(1 / 3)
    assert score.chance_p_value == pytest.approx(7 / 8)


def test_without_gold_labels_there_is_no_score() -> None:
    assert score_labels([None, None], ["yes", "no"], n_labels=2) is None
    assert score_labels([], [], n_labels=3) == TaskScore(n_items=0, n_correct=0, n_abstained=0, chance_accuracy=1 / 3)


def test_macro_f1_by_hand() -> None:
    gold = ["entailment", "entailment", "contradiction", "neutral"]
    read = ["entailment", "contradiction", "contradiction", None]
    # F1: entailment 2/3, contradiction 2/3, neutral 0.
    assert macro_f1(gold, read, CB) == pytest.approx(4 / 9)
    assert macro_f1([], [], CB) is None
    assert macro_f1(["neutral"], ["neutral"], CB) == 1


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_scikit_learns(seed: int) -> None:
    draw = random.Random(seed)
    gold = [draw.choice(CB) for _ in range(60)]
    read = [draw.choice([*CB, None]) for _ in range(60)]
    # Abstentions are a label outside the classes: a miss there, and no class of the mean.
    expected = f1_score(gold, [label or "none" for label in read], labels=list(CB), average="macro")
    assert macro_f1(gold, read, CB) == pytest.approx(expected)


def test_labels_are_put_into_words() -> None:
    assert label_in_words(LABELS["BoolQ"], True) == "yes"
    assert label_in_words(LABELS["CB"], 2) == "neutral"
    assert label_in_words(LABELS["WSC"], "FALSE") == "no"
    assert label_in_words(LABELS["RTE"], True) is None
    assert label_in_words(LABELS["COPA"], 2) is None
    assert label_in_words(LABELS["COPA"], 1.0) is None
