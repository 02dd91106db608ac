"""What a sentence claims, for every task. See `superglue_claim`."""

import re
from collections.abc import Callable, Mapping

from testbed.workloads.superglue_choice import copa_claims
from testbed.workloads.superglue_claim import CONTENT, DIRECT, Claim, yes_no
from testbed.workloads.superglue_entailment import cb_claims, rte_claims


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# --- WiC ------------------------------------------------------------------------------------------------------

_MEANING = r"(?:meanings?|senses?|definitions?|way|ways|concepts?|connotations?|things?|context)"
_DIFFERENT = re.compile(
    rf"\bdifferent(?: \w+){{0,3}} {_MEANING}\b|\bdistinct(?: \w+){{0,3}} {_MEANING}\b|\b{_MEANING}(?: \w+)* (?:is"
    rf"|are|differs?)(?: \w+){{0,2}} "
    r"(?:different|distinct|not the same)\b|\bmeanings? (?:\w+ ){0,4}differs?\b|\bdiffer(?:s|ent)? in meaning\b"
    rf"|(?:not|n't|never)(?: \w+){{0,4}} (?:the )?(?:exact(?:ly)? )?same(?: \w+){{0,2}}\b|\bmean(?:s"
    rf"|ing)? different\b|\bnot identical\b"
    r"|\bin (?:two |slightly |very |completely )?different (?:\w+ )?(?:ways|senses|contexts)\b"
)
_SAME = re.compile(
    rf"\b(?:the )?same (?:\w+ ){{0,2}}{_MEANING}\b|\bmeans? the same\b|\b(?:meanings?"
    rf"|senses?) (?:\w+ ){{0,4}}(?:is|are) the same\b"
    rf"|\bidentical {_MEANING}\b|\bshares? (?:the same|a common) {_MEANING}\b"
)


def _wic(sentence: str, fields: Mapping[str, str]) -> list[Claim]:
    del fields  # the answer says "same" or "different"; the sentences it is about do not matter
    answer = yes_no(sentence)
    if answer:
        return [Claim(answer, DIRECT)]
    different, same = _DIFFERENT.search(sentence), _SAME.search(sentence)
    if different:
        return [Claim("no", CONTENT)]
    return [Claim("yes", CONTENT)] if same else []


# --- WSC ------------------------------------------------------------------------------------------------------

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


def _wsc(sentence: str, fields: Mapping[str, str]) -> list[Claim]:
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


# --- BoolQ ----------------------------------------------------------------------------------------------------

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
)


def _stem(word: str) -> str:
    for suffix in ("ing", "ed", "es", "s", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word.removesuffix(suffix)
    return word


def _question_words(text: str) -> set[str]:
    return {_stem(word) for word in re.findall(r"[a-z0-9']+", text.lower()) if word not in _STOP}


def _boolq(sentence: str, fields: Mapping[str, str]) -> list[Claim]:
    answer = yes_no(sentence)
    if answer:
        return [Claim(answer, DIRECT)]
    # Without a yes or no, a sentence that repeats the question's words as a statement answers it.
    asked = _question_words(fields.get("question", ""))
    stated = re.split(
        r"\b(?:but|however|although|though|while|unless|except|as long as|because)\b", sentence, maxsplit=1
    )[0]
    if not asked or stated.endswith("?") or len(asked & _question_words(stated)) < 0.7 * len(asked):
        return []
    if re.search(r"\b(?:whether|if|depends|unclear|possib\w+|may|might|uncertain|confirmed|asks?|question)\b", stated):
        return []
    if _SILENT.search(stated):
        return []
    # Counted, for a question may hold a negation itself: "it is not illegal" says no to "is it illegal".
    negated = (len(_NEGATION.findall(stated)) - len(_NEGATION.findall(fields["question"].lower()))) % 2 == 1
    return [Claim("no" if negated else "yes", CONTENT)]


CLAIMS: Mapping[str, Callable[[str, Mapping[str, str]], list[Claim]]] = {
    "BoolQ": _boolq,
    "CB": cb_claims,
    "COPA": copa_claims,
    "RTE": rte_claims,
    "WiC": _wic,
    "WSC": _wsc,
}
"""Task -> (sentence, the item's columns) -> what the sentence claims."""
