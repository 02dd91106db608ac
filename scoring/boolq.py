"""What a sentence claims about BoolQ: yes or no to the question. See `claim`."""

import re
from collections.abc import Mapping

from scoring.claim import CONTENT, DIRECT, Claim, yes_no


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEGATION = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|without|unable|impossible|incorrect|untrue|false|unlikely|illegal"
    r"|fails?)\b|n't\b"
)
_STOP = _words(
    "is are was were do does did has have had can could will would should may might must there a an the "
    "of in on to for with at by from and or be been being it its this that you your they their he she "
    "any who what which"
)


_SILENT = re.compile(
    r"\b(?:passage|text|article|it) (?:does not|doesn't|never) (?:\w+ )?(?:mention|say|state|specify|tell|provide"
    r"|give|indicate)"
    r"|\b(?:not|n't|never) (?:\w+ )?(?:stated|specified|clear)\b"
)
_CONCESSION = re.compile(r"^(?:while|although|though)\b[^,]*, ")


_STEM_LENGTH = 6
"""Letters compared: "confectionary" and "confectioners" are one word here."""


def _stem(word: str) -> str:
    for suffix in ("ing", "ed", "es", "s", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word.removesuffix(suffix)
    return word


def _question_words(text: str) -> set[str]:
    return {_stem(word)[:_STEM_LENGTH] for word in re.findall(r"[a-z0-9']+", text.lower()) if word not in _STOP}


def boolq_claims(sentence: str, fields: Mapping[str, str]) -> list[Claim]:
    """Claims `yes` or `no`: in words, or by a statement made of the question's words."""
    answer = yes_no(sentence)
    if answer:
        return [Claim(answer, DIRECT)]
    # Without a yes or no, a sentence that repeats the question's words as a statement answers it.
    asked = _question_words(fields.get("question", ""))
    stated = re.split(
        r"\b(?:but|however|although|though|while|unless|except|as long as|because|rather than|instead of)\b",
        _CONCESSION.sub("", sentence),
        maxsplit=1,
    )[0]
    if not asked or stated.endswith("?") or len(asked & _question_words(stated)) < 0.7 * len(asked):
        return []
    if re.search(
        r"\b(?:whether|if|depends|unclear|possib\w+|may|might|uncertain|confirmed|asks?|question|claims?|debat\w+|concern\w*)\b",
        stated,
    ):
        return []
    if _SILENT.search(stated):
        return []
    # Counted, for a question may hold a negation itself: "it is not illegal" says no to "is it illegal".
    asked_negated = len(_NEGATION.findall(fields["question"].lower()))
    negated = len(_NEGATION.findall(stated)) != asked_negated
    return [Claim("no" if negated else "yes", CONTENT)]
