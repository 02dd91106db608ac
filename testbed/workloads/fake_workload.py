"""A workload without a data set: numbered yes/no questions, for tests of everything around it."""

import random
import re
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from contract.trial_result import TaskScore
from scoring.task_score import score_labels
from testbed.options import PartOptions, parse_options
from testbed.workloads.base import PreparedWorkload, Verdict, WorkItem

_LABELS = ("yes", "no")
_WORDS = ("river", "stone", "lamp", "paper", "engine", "field", "copper", "window", "harbour", "thread")


class FakeOptions(PartOptions):
    """Options of the fake workload."""

    n_items: int = Field(default=8, gt=0)
    """How many requests."""
    prompt_words: int = Field(default=12, ge=5)
    """Words in each prompt; the last five ask the question."""
    item_seed: int = Field(default=0, ge=0)
    """Other seeds give other words and other gold labels."""


class FakeWorkload:
    """See `Workload`. Deterministic in its options; every gold label is `yes` or `no`, drawn evenly.

    Args:
        **options: see `FakeOptions`.

    Raises:
        InvalidOptionError: an unknown or impossible option.
    """

    name = "fake"

    def __init__(self, **options: Any) -> None:
        self._options = parse_options("workload", self.name, FakeOptions, options)

    def prepare(self) -> PreparedWorkload:
        """See `Workload`."""
        draw = random.Random(self._options.item_seed)
        return PreparedWorkload(
            items=tuple(self._item(index, draw) for index in range(self._options.n_items)),
            source="made up by the fake workload",
            settings=self._options.model_dump(),
        )

    def judge(self, item: WorkItem, answer: str) -> Verdict:
        """See `Workload`. Reads a leading yes or no."""
        match = re.match(r"\W*(yes|no)\b", answer, re.IGNORECASE)
        label = match[1].lower() if match else None
        return Verdict(predicted_label=label, is_correct=None if item.gold_label is None else label == item.gold_label)

    def score(self, items: Sequence[WorkItem], verdicts: Sequence[Verdict]) -> TaskScore | None:
        """See `Workload`."""
        return score_labels(
            [item.gold_label for item in items],
            [verdict.predicted_label for verdict in verdicts],
            n_labels=len(_LABELS),
        )

    def _item(self, index: int, draw: random.Random) -> WorkItem:
        asked = ["number", str(index), "yes", "or", "no?"]
        filler = (draw.choice(_WORDS) for _ in range(self._options.prompt_words - len(asked)))
        text = " ".join([*filler, *asked])
        return WorkItem(
            item_id=f"fake-{index}",
            messages=({"role": "user", "content": text},),
            gold_label=draw.choice(_LABELS),
        )
