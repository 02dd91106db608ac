"""The labels of the six SuperGLUE tasks, put into words once, here.

yes/no for the true/false tasks (BoolQ, WiC, WSC), SuperGLUE's own class names for the others. Their order is
SuperGLUE's class order, so that an integer label is an index.
"""

from collections.abc import Mapping

NO_YES = ("no", "yes")  # false is class 0

LABELS: Mapping[str, tuple[str, ...]] = {
    "BoolQ": NO_YES,
    "CB": ("entailment", "contradiction", "neutral"),
    "COPA": ("choice1", "choice2"),
    "RTE": ("entailment", "not_entailment"),
    "WiC": NO_YES,
    "WSC": NO_YES,
}
"""Task -> its labels in words, in class order."""


def label_in_words(labels: tuple[str, ...], raw: object) -> str | None:
    """A label as SuperGLUE or the hub writes it -> the task's own word; None where it is not one of them.

    Args:
        labels: of the task, from `LABELS`.
        raw: a truth value, a class number or a word.
    """
    if isinstance(raw, bool):
        return labels[int(raw)] if labels == NO_YES else None
    if isinstance(raw, int):
        return labels[raw] if 0 <= raw < len(labels) else None
    if isinstance(raw, str):
        word = raw.strip().lower()
        if labels == NO_YES:
            word = {"true": "yes", "false": "no"}.get(word, word)
        return word if word in labels else None
    return None
