"""Which of two choices a sentence claims: COPA. See `claim`."""

import re
from collections.abc import Mapping

from scoring.choice_weighing import NUMBERED, choice_label, spoken_of
from scoring.claim import CONTENT, DIRECT, HEADING, Claim

_N = NUMBERED
_CHOICE = re.compile(_N)
_BARE = re.compile(
    r"^\W*(?P<said>(?:(?:my|the) )?(?:\w+ )?(?:answer|choice)(?: is| would be|:)\W*)?(?P<n>1|2)\W*(?:$|[:.)] )"
)
_ANY = rf"(?P<choice>{_N})"
_MORE = (
    r"(?:(?:most|more) (?:\w+ )?(?:likely|plausible|logical|probable|reasonable|suitable|appropriate|fitting|direct"
    r"|effective|significant|desirable|beneficial|practical|relevant|sensible|natural|related|obvious|immediate)"
    r"|(?:stronger|strongest|bigger|greater))"
)
_PREFERENCE = (
    re.compile(
        r"\b(?:(?:my|the) choice(?: is|:| would be)|choose|chose|chosen|choosing|pick|picked|select|selected"
        rf"|go with|opt for|correct|right|best|answer|answer is|{_MORE}|conclu\w+)\b[^.]*?{_ANY}"
    ),
    re.compile(
        rf"\b(?:cause|effect|result|consequence|outcome|reason)\b[^.]*?\b(?:is|be|would be|was)\b[^.]{{0,40}}?{_ANY}"
    ),
    re.compile(
        rf"{_ANY}[^.]*?\b(?:is|seems|appears|would be|makes|has|have|be|feels)\b(?! not)(?: \w+){{0,4}}? (?:the )?"
        rf"(?:correct|right|best|better|sense|{_MORE})\b"
    ),
)
_REJECTED_BEFORE = re.compile(r"(?:\b(?:can)?not|\bnever|n't|\bless)(?: the| a| be| necessarily)* $")
_NO_CHOICE = re.compile(
    r"\b(?:neither|both|either|each)\b(?: of)?(?: the| these)?(?: two)?(?: choices?| options?)|\bneither\b.*\bnor\b"
    r"|\b(?:1|2|one|two)\)? (?:or|and) (?:choice |option )?\(?(?:1|2|one|two)\b"
)
_REJECTS = re.compile(
    r"\b(?:not|less|unlikely|incorrect|wrong|irrelevant|unrelated|isn't|doesn't|wouldn't|negative|only|neither|never)\b"
)
_PREFERS = re.compile(
    r"\b(?:choose|correct|best|answer|most|more|likely|cause|caused|effect|result|consequence|reason|because|would)\b"
)
_SINGLES_OUT = re.compile(rf"\b(?:best|correct)\b|\b{_MORE}\b|\b(?:effect|cause|outcome|result)\b[^.]{{0,40}}\bis\b")
"""Says which one it is; wanted where a choice is told by some of its words alone."""
_SUMS_UP = re.compile(r"^(?:therefore|thus|hence|so|in (?:conclusion|summary)|overall|ultimately|considering)\b")
_CONCEDES = re.compile(r"\b(?:but|however)\b")


def _quoted_choices(sentence: str, fields: Mapping[str, str]) -> set[str]:
    texts = {label: " ".join(fields.get(label, "").lower().split()).rstrip(" .") for label in ("choice1", "choice2")}
    return {label for label, text in texts.items() if text and text in sentence}


def copa_claims(sentence: str, fields: Mapping[str, str]) -> list[Claim]:
    """Claims `choice1` or `choice2`: named by number, quoted, or told by its words."""
    if _NO_CHOICE.search(sentence):
        # "Both choices are possible, but the second seems more likely."
        conceded, *rest = _CONCEDES.split(sentence, maxsplit=1)
        if not rest or _NO_CHOICE.search(rest[0]) or not _NO_CHOICE.search(conceded):
            return []
        sentence = rest[0].strip()
    bare = _BARE.match(sentence)
    if bare:
        # "1." also numbers a list, so it counts only where the answer opens with it.
        return [Claim(choice_label(bare["n"]), DIRECT if bare["said"] else HEADING)]
    # "Choice 2 is more likely than Choice 1": what stands after a comparison is not preferred.
    head = re.split(
        r"\b(?:rather than|instead of|than|as opposed to|whereas|while|although|but)\b", sentence, maxsplit=1
    )[0]
    for pattern in _PREFERENCE:
        match = pattern.search(head)
        if match and not _REJECTED_BEFORE.search(head[: match.start()]) and not re.search(r"\bless\b", match[0]):
            return [Claim(choice_label(match["choice"]), DIRECT)]
    if re.match(rf"\W*(?:the )?(?:{_N})\W*(?:$|[:.,)-])", sentence):
        return [Claim(choice_label(sentence), HEADING)]
    if _CHOICE.search(sentence):
        # Named, but not preferred: only a summary that speaks well of one alone says which.
        named = {choice_label(found[0]) for found in _CHOICE.finditer(head)}
        one = len(named) == 1 and _SUMS_UP.search(head) and not _REJECTS.search(head)
        return [Claim(named.pop(), CONTENT)] if one else []
    return _told_by_words(head, fields)


def _told_by_words(head: str, fields: Mapping[str, str]) -> list[Claim]:
    quoted = _quoted_choices(head, fields)
    if not quoted:
        told = spoken_of(head, fields) if _SINGLES_OUT.search(head) and not _REJECTS.search(head) else set()
        return [Claim(told.pop(), CONTENT)] if len(told) == 1 else []
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
