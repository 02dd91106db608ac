"""The six SuperGLUE tasks: columns and prompts; their labels are in `scoring.task`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from contract.errors import UnknownNameError
from scoring.task import LABELS, label_in_words

Template = Literal["explain", "short"]
"""`explain` asks for the reasons too, `short` for the bare answer."""


@dataclass(frozen=True)
class SuperGlueTask:
    """One task.

    Attributes:
        name: as SuperGLUE writes it.
        hub_config: its name on the Hugging Face hub.
        labels: the answers in words, in class order.
        columns: text columns that every item has.
        ask: fields -> the text and the question, without the instruction how to answer.
        answers: how the allowed answers are named in the prompt.
    """

    name: str
    hub_config: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    ask: Callable[[Mapping[str, str]], str]
    answers: str

    @property
    def chance_accuracy(self) -> float:
        """Expected accuracy of a uniform guess among the labels."""
        return 1 / len(self.labels)

    def prompt(self, fields: Mapping[str, str], template: Template) -> str:
        """The user message for one item."""
        how = (
            f"State your answer ({self.answers}), then give the reasons that led you to it."
            if template == "explain"
            else f"Reply with the answer alone and nothing else: {self.answers}."
        )
        return f"{self.ask(fields)}\n\n{how}"

    def label_in_words(self, raw: object) -> str | None:
        """A label as SuperGLUE or the hub writes it -> the task's own word; None where it is not one of them."""
        return label_in_words(self.labels, raw)


def _ask_boolq(fields: Mapping[str, str]) -> str:
    question = fields["question"].strip().rstrip("?")
    return f"Read this text.\n\n{fields['passage']}\n\nAccording to it, what is the answer to: {question}?"


def _ask_cb(fields: Mapping[str, str]) -> str:
    return (
        f"Text: {fields['premise']}\n\nStatement: {fields['hypothesis']}\n\n"
        "How does the text bear on the statement? Entailment: who accepts the text must accept the statement. "
        "Contradiction: who accepts the text must reject it. Neutral: the text leaves it open."
    )


def _ask_copa(fields: Mapping[str, str]) -> str:
    wanted = "brought this about" if fields["question"] == "cause" else "came of this"
    return (
        f"{fields['premise']}\n\nWhich of these two more plausibly {wanted} (the {fields['question']})?\n"
        f"Choice 1: {fields['choice1']}\nChoice 2: {fields['choice2']}"
    )


def _ask_rte(fields: Mapping[str, str]) -> str:
    return (
        f"Text: {fields['premise']}\n\nStatement: {fields['hypothesis']}\n\n"
        "Taking the text as true, does it entail the statement?"
    )


def _ask_wic(fields: Mapping[str, str]) -> str:
    return (
        f"A: {fields['sentence1']}\nB: {fields['sentence2']}\n\n"
        f'Is "{fields["word"]}" used in the same sense in A as in B?'
    )


def _ask_wsc(fields: Mapping[str, str]) -> str:
    pronoun, noun = fields["span2_text"], fields["span1_text"]
    words = fields["text"].split()
    at = int(fields["span2_index"])
    # A pronoun may occur several times, so the one that is meant is marked; some published indices are off by
    # one, and a wrong mark would be worse than none.
    if at < len(words) and words[at].strip(".,;:!?\"'").lower() == pronoun.lower():
        words[at] = f"[{words[at]}]"
        return f'{" ".join(words)}\n\nDoes "{pronoun}", in brackets above, stand for "{noun}"?'
    return f'{fields["text"]}\n\nDoes "{pronoun}" above stand for "{noun}"?'


def _task(
    name: str,
    columns: str,
    ask: Callable[[Mapping[str, str]], str],
    answers: str = "yes or no",
    hub_config: str = "",
) -> SuperGlueTask:
    return SuperGlueTask(name, hub_config or name.lower(), LABELS[name], tuple(columns.split()), ask, answers)


TASKS: Mapping[str, SuperGlueTask] = {
    task.name: task
    for task in (
        _task("BoolQ", "question passage", _ask_boolq),
        _task("CB", "premise hypothesis", _ask_cb, "entailment, contradiction or neutral"),
        _task("COPA", "premise choice1 choice2 question", _ask_copa, "Choice 1 or Choice 2"),
        _task("RTE", "premise hypothesis", _ask_rte),
        _task("WiC", "word sentence1 sentence2", _ask_wic),
        # `wsc` on the hub has other spans than the official release; `wsc.fixed` is the official one.
        _task("WSC", "text span1_text span2_text", _ask_wsc, hub_config="wsc.fixed"),
    )
}
"""By name, in SuperGLUE's order."""


def find_task(name: str) -> SuperGlueTask:
    """The task of this name.

    Raises:
        UnknownNameError: there is none; the message lists the six.
    """
    task = TASKS.get(name)
    if task is None:
        raise UnknownNameError(
            f"There is no SuperGLUE task named {name!r}. Choose one of: {', '.join(TASKS)}.", name=name
        )
    return task
