"""The workload seam: which requests a trial sends, and how answers are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from contract.trial_result import TaskScore


@dataclass(frozen=True)
class WorkItem:
    """One request to send.

    Attributes:
        item_id: stable id of the item in its source, such as `BoolQ-12`.
        messages: chat messages, each {"role": ..., "content": ...}.
        gold_label: the right answer in the task's own words, or None where there is none.
        n_output_tokens: tokens to generate, no more and no fewer; None: as the trial's sampling says.
        arrival_s: when it arrives, after the start of the measured phase; None: it is there when its turn comes.
        n_input_tokens: of the prompt, where the workload knows it.
    """

    item_id: str
    messages: tuple[dict[str, str], ...]
    gold_label: str | None
    n_output_tokens: int | None = None
    arrival_s: float | None = None
    n_input_tokens: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What was read from one answer.

    Attributes:
        predicted_label: label in the words of `gold_label`; None: abstained.
        is_correct: None where there is no gold label.
    """

    predicted_label: str | None
    is_correct: bool | None


@dataclass(frozen=True)
class PreparedWorkload:
    """All requests of a trial, drawn before the clock starts.

    Attributes:
        items: in sending order.
        source: where they came from, in words; a sample says that it is one.
        settings: what is needed to draw them again (task, n_items, item_seed, template, source revision).
        n_padded_tokens: the prompts are placeholders: when the model is loaded, they are made exactly so many tokens
            long by its own tokenizer (`testbed.prompt_length`); None: they are sent as they are.
        duration_s: in which the items arrive, for those that have an arrival; the last one may come long before.
    """

    items: tuple[WorkItem, ...]
    source: str
    settings: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    duration_s: float | None = None
    n_padded_tokens: int | None = None


class Workload(Protocol):
    """Built by the registry with `WorkloadSpec.options`; a wrong option raises `InvalidOptionError` when built."""

    name: str

    def prepare(self) -> PreparedWorkload:
        """Read and choose the items. Deterministic in the options.

        Raises:
            WorkloadNotFoundError: the items are not on this machine; the message says how to get them.
        """
        ...

    def judge(self, item: WorkItem, answer: str) -> Verdict:
        """Read the label from an answer; pure. Abstains rather than guesses."""
        ...

    def score(self, items: Sequence[WorkItem], verdicts: Sequence[Verdict]) -> TaskScore | None:
        """Sum the verdicts up; None where the workload has no gold labels. Pure."""
        ...
