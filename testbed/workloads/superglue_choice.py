"""Which of two choices a sentence claims: COPA. See `superglue_claim`."""

import re
from collections.abc import Mapping

from testbed.workloads.superglue_claim import CONTENT, DIRECT, HEADING, Claim

_N = (
    r"(?:choice|option|alternative|answer|number)\s*\(?#?(?:1|2|one|two)\b|\((?:1|2)\)"
    r"|(?:first|second) (?:choice|option|one|alternative)|(?<=: )[\"'(]*(?:1|2)(?=[:.)\"']|$)"
)
_CHOICE = re.compile(_N)
_BARE = re.compile(
    r"^\W*(?P<said>(?:(?:my|the) )?(?:\w+ )?(?:answer|choice)(?: is| would be|:)\W*)?(?P<n>1|2)\W*(?:$|[:.)] )"
)
_DIGIT = {"1": "choice1", "one": "choice1", "first": "choice1", "2": "choice2", "two": "choice2", "second": "choice2"}
_ANY = rf"(?P<choice>{_N})"
_PREFERENCE = (
    re.compile(
        r"\b(?:(?:my|the) choice(?: is|:| would be)|choose|chose|chosen|choosing|pick|picked|select|selected"
        r"|go with|opt for|correct|right|best|answer|answer is|"
        rf"(?:most|more) (?:\w+ )?(?:likely|plausible|logical|probable|reasonable|suitable|appropriate|fitting"
        rf"|direct)|conclu\w+)\b[^.]*?{_ANY}"
    ),
    re.compile(
        rf"\b(?:cause|effect|result|consequence|outcome|reason)\b[^.]*?\b(?:is|be|would be|was)\b[^.]{{0,40}}?{_ANY}"
    ),
    re.compile(
        rf"{_ANY}[^.]*?\b(?:is|seems|appears|would be|makes)\b(?! not)(?: \w+){{0,4}}? (?:the )?(?:correct|right"
        rf"|best|better|sense|"
        r"(?:most|more) (?:\w+ )?(?:likely|plausible|logical|probable|reasonable|suitable|appropriate|fitting"
        r"|direct))\b"
    ),
)
_REJECTED_BEFORE = re.compile(r"(?:\bnot|\bnever|n't|\bless)(?: the| a| be| necessarily)* $")
_NO_CHOICE = re.compile(
    r"\b(?:neither|both|either|each)\b(?: of)?(?: the| these)?(?: two)?(?: choices?| options?)|\bneither\b.*\bnor\b"
    r"|\b(?:1|2|one|two)\)? (?:or|and) (?:choice |option )?\(?(?:1|2|one|two)\b"
)
_REJECTS = re.compile(r"\b(?:not|less|unlikely|incorrect|wrong|irrelevant|unrelated|isn't|doesn't|wouldn't)\b")
_PREFERS = re.compile(
    r"\b(?:choose|correct|best|answer|most|more|likely|cause|caused|effect|result|consequence|reason|because|would)\b"
)


def _choice_label(text: str) -> str:
    return _DIGIT[re.findall(r"\b(?:one|two|first|second)\b|[12]", text)[0]]


def _quoted_choices(sentence: str, fields: Mapping[str, str]) -> set[str]:
    texts = {label: " ".join(fields.get(label, "").lower().split()).rstrip(" .") for label in ("choice1", "choice2")}
    return {label for label, text in texts.items() if text and text in sentence}


def copa_claims(sentence: str, fields: Mapping[str, str]) -> list[Claim]:
    """Claims `choice1` or `choice2`: named by number, or quoted."""
    if _NO_CHOICE.search(sentence):
        return []
    bare = _BARE.match(sentence)
    if bare:
        # "1." also numbers a list, so it counts only where the answer opens with it.
        return [Claim(_DIGIT[bare["n"]], DIRECT if bare["said"] else HEADING)]
    # "Choice 2 is more likely than Choice 1": what stands after a comparison is not preferred.
    head = re.split(
        r"\b(?:rather than|instead of|than|as opposed to|whereas|while|although|but)\b", sentence, maxsplit=1
    )[0]
    for pattern in _PREFERENCE:
        match = pattern.search(head)
        if match and not _REJECTED_BEFORE.search(head[: match.start()]) and not re.search(r"\bless\b", match[0]):
            return [Claim(_choice_label(match["choice"]), DIRECT)]
    if re.match(rf"\W*(?:the )?(?:{_N})\W*(?:$|[:.,)-])", sentence):
        return [Claim(_choice_label(sentence), HEADING)]
    named = {_choice_label(found[0]) for found in _CHOICE.finditer(sentence)}
    if named:
        return []  # named, but not preferred
    quoted = _quoted_choices(head, fields)
    if len(quoted) != 1:
        return []
    label = quoted.pop()
    text = " ".join(fields[label].lower().split()).rstrip(" .")
    rest = head.replace(text, "").strip("\"'., ")
    if not rest:
        return [Claim(label, HEADING)]
    if _REJECTS.search(rest) or not _PREFERS.search(rest):
        return []
    return [Claim(label, CONTENT)]
