"""A claim: what one sentence of an answer says about the label. Pure; standard library only.

A claim is a label that a sentence asserts. `DIRECT` claims answer the question as asked ("Yes, ...", "the answer is
no", "I choose Choice 2"); `CONTENT` claims are read from what the sentence says about the item ("the hypothesis does
not follow"). Sentences are lower-case, without markdown, with straight quotes (see `label`).
"""

import re
from dataclasses import dataclass

DIRECT = "direct"
CONTENT = "content"
HEADING = "heading"


@dataclass(frozen=True)
class Claim:
    """One reading of one sentence.

    Attributes:
        label: in the task's words.
        kind: `DIRECT`, `CONTENT`, or `HEADING`: a label on its own, an answer only where the text opens with it.
    """

    label: str
    kind: str


_YES = "yes|true|correct|affirmative"
_NO = "no|false|incorrect|negative"
_OPENING = re.compile(
    # A leading yes or no, after an optional preface: "according to the passage, no, ...", "so: yes."
    rf"^(?:[\w' ()-]{{0,80}}[,:] ?)?(?:(?P<yes>{_YES})|(?P<no>{_NO}))(?=\s*(?:[,.;:!)-]|$| because\b| since\b| as\b))"
    r"|^(?P<yes2>yes)\b|^(?P<no2>no)[ ,]+(?:it|he|she|they|this|that|there|the|you|i|in|not)\b"
)
_ANSWER_IS = re.compile(
    r"\b(?:answer|verdict|conclusion|choice|response)(?: to (?:the|this|your) question)?\b[^.?!]{0,40}?"
    rf"(?:\bis|\bwould be|\bmust be|:)[\s\w]{{0,18}}?[\s\"']*\b(?:(?P<yes>{_YES})|(?P<no>{_NO}))\b(?! (?:one|longer))"
)
_SAY = re.compile(
    r"\bi(?:'d| would| will|'ll)? (?:say|answer|choose|go with|conclude|respond|pick|vote)(?: that|:| with)?[\s\"']*"
    r"(?:(?P<yes>yes|true)|(?P<no>no|false))\b(?! (?:one|longer))"
)
_BOTH = re.compile(r"\byes (?:and|or|/) ?no\b|\byes/no\b|\bno (?:and|or) yes\b|\btrue or false\b|\btrue/false\b")


_QUOTED_QUESTION = re.compile(r"\"[^\"]{1,300}\?\"")


def yes_no(sentence: str) -> str | None:
    """`yes` or `no` where the sentence answers so in words; None where it does not, or says both."""
    if _BOTH.search(sentence):
        return None
    sentence = _QUOTED_QUESTION.sub("it", sentence)  # the answer to "is it so?" is yes
    for pattern in (_ANSWER_IS, _OPENING, _SAY):
        match = pattern.search(sentence)
        if match:
            groups = match.groupdict()
            return "yes" if groups["yes"] or groups.get("yes2") else "no"
    return None
