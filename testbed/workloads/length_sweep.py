"""Answers of an exact length: w*, the number of tokens that a device generates itself."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from contract.trial_result import TaskScore
from contract.units import sha256_of
from testbed.options import PartOptions, parse_options
from testbed.workloads.base import PreparedWorkload, Verdict, WorkItem

_TOPICS = (
    "how a lighthouse keeper spends a winter night",
    "why bread rises, from the flour to the oven",
    "the way a letter travels from one town to another",
    "what a gardener does in each month of the year",
    "how a bridge carries the weight of a train",
    "a walk along a river from its spring to the sea",
    "what happens in a railway station before sunrise",
    "how a violin is built, and how it is tuned",
    "the work of a mountain rescue team in a storm",
    "why the moon changes its shape over a month",
    "how a small library orders and lends its books",
    "a day in the life of a ship's cook",
    "how glass is made, and what it is used for",
    "what a beekeeper looks for when opening a hive",
    "how a clock with a pendulum keeps its time",
    "the building of a stone wall without mortar",
)
"""Of our own writing. Long answers are natural to them, though the end of a sequence is ignored anyway."""

_PROMPT = "Write a long and detailed text about {topic}. Do not stop early."


class LengthSweepOptions(PartOptions):
    """Options of the length sweep."""

    n_output_tokens: int = Field(gt=0)
    """w*: tokens generated for each request. The end of a sequence is ignored, so that the length is met exactly."""
    n_input_tokens: int | None = Field(default=None, gt=0)
    """Tokens of each prompt, the chat template's included, by the model's own tokenizer: prompts are words that make
    exactly so many. None: prompts are short sentences."""
    n_items: int = Field(default=5, gt=0)
    """Requests. More than there are prompts ask them again."""
    item_seed: int = Field(default=0, ge=0)
    """Which prompts, in which order. The same for every w*, so that only the length differs."""


class LengthSweepWorkload:
    """See `Workload`. Fixed prompts without a right answer; each is answered with exactly `n_output_tokens`.

    Args:
        **options: see `LengthSweepOptions`.

    Raises:
        InvalidOptionError: an unknown, missing or impossible option.
    """

    name = "length_sweep"

    def __init__(self, **options: Any) -> None:
        self._options = parse_options("workload", self.name, LengthSweepOptions, options)

    def prepare(self) -> PreparedWorkload:
        """See `Workload`."""
        options = self._options
        topics = sorted(_TOPICS, key=lambda topic: sha256_of([options.item_seed, topic]))
        items = tuple(
            WorkItem(
                item_id=f"sweep-{index}",
                messages=({"role": "user", "content": _PROMPT.format(topic=topics[index % len(topics)])},),
                gold_label=None,
                n_output_tokens=options.n_output_tokens,
            )
            for index in range(options.n_items)
        )
        prompts = f"{min(len(topics), len(items))} fixed prompts of JouleBed's own"
        if options.n_input_tokens is not None:
            prompts = f"prompts of common words, {options.n_input_tokens} tokens each"
        return PreparedWorkload(
            items=items,
            source=f"{prompts}, {len(items)} requests of exactly {options.n_output_tokens} tokens each",
            settings=options.model_dump(),
            n_padded_tokens=options.n_input_tokens,
        )

    def judge(self, item: WorkItem, answer: str) -> Verdict:
        """See `Workload`. There is nothing to judge."""
        return Verdict(predicted_label=None, is_correct=None)

    def score(self, items: Sequence[WorkItem], verdicts: Sequence[Verdict]) -> TaskScore | None:
        """See `Workload`. There is no score."""
        if len(items) != len(verdicts):
            raise ValueError("zip: one verdict per item")
        return None
