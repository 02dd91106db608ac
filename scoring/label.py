"""Reads a label from a free-text answer, or abstains. Pure; standard library only.

How it decides, over the claims of all sentences in order:

1. A refusal or an empty answer: abstain.
2. A last direct claim in a sentence that announces itself as final ("final answer: ...", "therefore, the answer is
   ...") wins: models that reason aloud may change their mind.
3. Otherwise the direct claims ("Yes, ...") decide: where they differ, a concluding one ("therefore, ...") if there is
   one, else abstain.
4. Without a direct claim, what the content says: where all agree, that; where they do not, the concluding sentence
   ("therefore, ...") if there is one, else the opening one; else abstain.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace

from scoring.choice_weighing import weigh_choices
from scoring.claim import CONTENT, DIRECT, HEADING
from scoring.claims import CLAIMS
from scoring.entailment import NOT_ENTAILED, settle_cb

_QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "\xa0": " "})
_MARKDOWN = re.compile(r"\*+|__+|`+|^#+\s*|\\boxed\{|\$|</?\w+>", re.MULTILINE)
_ABBREVIATION = re.compile(r"\b(mr|mrs|ms|dr|st|vs|etc|e\.g|i\.e|u\.s|no|jr|sr)\.(?=\s+\w)", re.IGNORECASE)
_MAX_SENTENCE = 1000
"""Characters read of a sentence: a model that repeats itself without a full stop must not cost quadratic time."""
_NUMBERED = re.compile(r"(^|:)(\s*)(\d{1,2})\.\s+(?=\S)", re.MULTILINE)
# A full stop inside quotes ends no sentence that goes on after them: the answer to "is it so?" is yes.
_SENTENCE_END = re.compile(r"(?<=[.!?])(?:[\"')\]]+\s+(?![a-z])|\s+)|\n+|(?<=:)\s*\n+")
_FINAL = re.compile(
    r"\bfinal answer\b|\b(?:therefore|thus|hence|so|in conclusion|in summary|to conclude|overall"
    r"|ultimately)\b[^.]{0,40}\banswer\b"
    r"|^(?:actually|correction|on reflection|wait)\b"
)
_CONCLUDES = re.compile(
    r"^(?:therefore|thus|hence|so|in conclusion|in summary|to conclude|overall|ultimately|based on this"
    r"|consequently|as a result)\b"
)
_REFUSAL = re.compile(
    r"\bi(?:'m| am) (?:not able|unable|sorry)\b|\bi (?:cannot|can't|can not|won't|will not) (?:answer|help|assist"
    r"|provide|fulfil+|discuss|"
    r"comply|determine|say|make)\b|\bas an ai\b|\bi (?:do not|don't) (?:know|have (?:enough|access))\b"
    r"|\bcannot be (?:determined|answered)\b"
    r"|\b(?:impossible|not possible) to (?:say|tell|determine|answer)\b|\bunclear whether\b"
)


def sentences_of(answer: str) -> list[str]:
    """The sentences of an answer, lower-case, without markdown, with straight quotes."""
    text = unicodedata.normalize("NFKC", answer).translate(_QUOTES)
    text = _MARKDOWN.sub("", text)
    text = _ABBREVIATION.sub(r"\1", text)
    text = re.sub(r"\.\.\.+|…", " ", text)
    text = _NUMBERED.sub(r"\1\2\3: ", text)  # the point after a number ends no sentence
    parts = (" ".join(part.split()) for part in _SENTENCE_END.split(text))
    # A heading ("Answer:") belongs to what follows it.
    joined: list[str] = []
    for part in parts:
        if not part.strip("\"'-. "):
            continue
        if joined and joined[-1].endswith(":"):
            joined[-1] = f"{joined[-1]} {part}"
        else:
            joined.append(part)
    return [part[:_MAX_SENTENCE].lower().lstrip("-• ") for part in joined]


def read_label(task: str, answer: str, fields: Mapping[str, str] | None = None) -> str | None:
    """The label an answer gives, in the task's words; None: abstained.

    Args:
        task: BoolQ, CB, COPA, RTE, WiC or WSC.
        answer: what the model wrote.
        fields: the item's columns. Without them an answer that names no label but quotes a choice (COPA), names a
            noun (WSC) or restates the question (BoolQ) cannot be read.
    """
    sentences = sentences_of(answer)
    if not sentences:
        return None
    read = CLAIMS[task]
    claims = [
        _Placed(at, text, claim.label, claim.kind)
        for at, text in enumerate(sentences)
        if not text.rstrip("\"') ").endswith("?")  # small models repeat the question; it claims nothing
        for claim in read(text, fields or {})
    ]
    # A label on its own opens an answer, or heads a paragraph about it.
    claims = [
        replace(c, kind=DIRECT) if c.kind == HEADING and c.at == 0 else c
        for c in claims
        if c.kind != HEADING or c.at == 0
    ]
    if not any(c.kind == DIRECT for c in claims) and any(_REFUSAL.search(text) for text in sentences[:2]):
        return None
    if task == "CB":
        claims = _agreed(claims)
    label = _decide(claims, opening_wins=task == "COPA")
    if label is None and task == "COPA":
        return weigh_choices(sentences, fields or {})
    return settle_cb(sentences) if label == NOT_ENTAILED else label


@dataclass(frozen=True)
class _Placed:
    at: int
    sentence: str
    label: str
    kind: str


def _agreed(claims: list[_Placed]) -> list[_Placed]:
    """CB: "not entailed" and "contradicted" (or "neutral") do not differ: the second says more."""
    named = {c.label for c in claims} - {NOT_ENTAILED}
    if len(named) != 1 or "entailment" in named:
        return claims
    label = named.pop()
    return [replace(c, label=label) for c in claims]


def _decide(claims: list[_Placed], *, opening_wins: bool) -> str | None:
    final = [c.label for c in claims if c.kind == DIRECT and _FINAL.search(c.sentence)]
    if final:
        return final[-1]
    for kind in (DIRECT, CONTENT):
        of_kind = [c for c in claims if c.kind == kind]
        if not of_kind:
            continue
        if len({c.label for c in of_kind}) == 1:
            return of_kind[0].label
        concluding = [c.label for c in of_kind if _CONCLUDES.search(c.sentence)]
        if concluding:
            return concluding[-1]
        # What is said about the item wanders, and an explanation names the other choice too: the opening statement
        # is the answer. But "Yes ... No" is none.
        return of_kind[0].label if (kind == CONTENT or opening_wins) and of_kind[0].at <= 1 else None
    return None
