"""What a sentence claims about WSC: whether the pronoun stands for the noun. See `claim`."""

import re
from collections.abc import Mapping

from scoring.claim import CONTENT, DIRECT, Claim, yes_no


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_REFERS = re.compile(
    r"(?:refers?|referring|refer back|stands?|standing)(?: back| specifically| actually)? (?:to"
    r"|for)\b:? ?(?P<object>.+)"
)
_ARTICLES = _words("a an the he she it they him her them his hers its their theirs")
_GENERIC = _words(
    "person people man men male woman women female someone something group thing things entity noun "
    "subject object individual individuals speaker previous antecedent pronoun himself herself "
    "themselves itself singular plural same one another either masculine feminine"
)


def _head_words(text: str) -> set[str]:
    """The words that name the thing itself: of "Emma's mother", `mother`."""
    after_owner = re.sub(r".*(?:'s|s') (?=\w)", "", text.lower().strip(" \"'.,"))
    words = re.findall(r"[a-z0-9]+(?:[.'-][a-z0-9]+)*", after_owner)
    return {word.removesuffix("'s") for word in words} - _ARTICLES


def wsc_claims(sentence: str, fields: Mapping[str, str]) -> list[Claim]:
    """Claims `yes` (the pronoun stands for the noun) or `no`."""
    answer = yes_no(sentence)
    if answer:
        return [Claim(answer, DIRECT)]
    noun = _head_words(fields.get("span1_text", ""))
    match = _REFERS.search(sentence)
    if not match or not noun:
        return []
    quoted = re.match(r"[^\"]{0,12}\"([^\"]+)\"", match["object"])
    if quoted:
        target = quoted[1]
    else:
        target = re.split(
            r"[,;:(]|\.(?!\w)|\b(?:in|because|as|who|whom|which|that|since|and|rather|from|here|when|for|is|was)\b",
            match["object"],
        )[0]
    words = _head_words(target)
    if not words or (words & _GENERIC and not words & noun):
        return []
    same = bool(noun & words)
    if re.search(r"\b(?:not|never|cannot)\b|n't\b", sentence[: match.start("object")]):
        # "does not refer to X" says no only where X is what was asked about.
        return [Claim("no", CONTENT)] if same else []
    return [Claim("yes" if same else "no", CONTENT)]
