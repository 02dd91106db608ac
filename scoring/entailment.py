"""What a sentence claims about entailment: RTE and CB. See `claim`."""

import re
from collections.abc import Mapping, Sequence

from scoring.claim import CONTENT, DIRECT, Claim, yes_no

_GAP = r"(?:[^\w,;]+\w+){0,3}?[^\w,;]+"
"""Up to three words, in one clause: "is not loud, which contradicts ..." denies no contradiction."""
_NOT = r"(?:not|n't|cannot|never|neither|no longer|fails? to|doesn't|don't|can't|isn't|won't|unlikely)"
_NOT_ENTAILED = re.compile(
    rf"{_NOT}{_GAP}(?:entail(?:s|ed|ing|ment)?|follow(?:s|ed)?|imply|implied|infer(?:red)?|deduced?|conclude[d]?|"
    r"derived?|support(?:s|ed)?|guarantee[ds]?|a (?:direct |logical |necessary )?(?:consequence|conclusion))\b"
    r"|\bno (?:logical )?entailment\b|\bnot[_ ]entail|\bnon-?entail|\bdoes ?n.t follow\b|\bunsupported\b"
    r"|\b(?:hypothesis|statement) is (?:not|false|incorrect|unrelated|too)\b"
)
_ENTAILED = re.compile(
    r"\bentail(?:s|ed|ment)\b|\bdo(?:es)? (?:\w+ )?(?:entail|follow|support)\b|\bfollows (?:\w+ )?from\b|\bfollows\b"
    r"|\b(?:can|could|may) (?:\w+ )?be (?:\w+ )?(?:inferred|concluded|deduced|derived)\b|\b(?:can"
    r"|could) (?:\w+ )?(?:infer|conclude|deduce)\b"
    r"|\b(?:hypothesis|statement) is (?:\w+ )?(?:true|supported|implied|correct|valid|a (?:\w+ )?(?:consequence"
    r"|conclusion|inference))"
)
_CONTRADICTED = re.compile(
    r"\bcontradict(?:s|ed|ion|ory|ing)?\b|\bdirectly opposes\b|\bthe opposite\b|\binconsistent with\b"
    r"|\bincompatible with\b"
)
_NOT_CONTRADICTED = re.compile(rf"{_NOT}{_GAP}contradict|\bno contradiction\b|\brather than contradict")
_OPEN = re.compile(
    r"\bneutral\b|\bdoes(?:n't| not) (?:\w+ ){0,2}(?:provide|say|mention|state|specify|indicate|give|contain"
    r"|imply|suggest|address|tell|"
    r"confirm|establish|guarantee|discuss|include|reveal|describe|explain|support|make any|claim|assert|express)\b"
    r"|\b(?:no|any|enough|sufficient) (?:\w+ )?(?:information|mention|evidence|indication|connection|statement)\b"
    r"|(?:\bnot|n't) (?:necessarily|directly|explicitly|logically|related|enough|clear)\b|\bcannot (?:\w+ )?(?:infer"
    r"|conclude|deduce|determine|be)\b"
    r"|\bcan't (?:\w+ )?(?:infer|conclude|deduce)\b|\bunrelated\b|\bleaves? (?:it|this) open\b|\bundetermined\b"
    r"|\bnot (?:\w+ )?(?:supported|related)\b|\bpossible that\b"
)
_ABOUT_HYPOTHESIS = re.compile(r"\b(?:hypothesis|premise|statement|entail\w*|passage|text|follows?|conclusion)\b")


def _entailment(sentence: str) -> bool | None:
    if not _ABOUT_HYPOTHESIS.search(sentence):
        return None
    if _NOT_ENTAILED.search(sentence):
        return False
    if _CONTRADICTED.search(sentence) and not _NOT_CONTRADICTED.search(sentence):
        return False
    if re.search(r"\b(?:whether|if) (?:or not )?the (?:hypothesis|premise|statement)\b", sentence):
        return None  # restates the question
    return True if _ENTAILED.search(sentence) else None


def rte_claims(sentence: str, fields: Mapping[str, str]) -> list[Claim]:
    """Claims `entailment` or `not_entailment`; contradicted and undecided are both not entailed."""
    del fields  # the answer names labels, not the item's texts
    answer = yes_no(sentence)
    if answer:
        return [Claim("entailment" if answer == "yes" else "not_entailment", DIRECT)]
    bare = re.sub(r"^(?:the )?(?:final |correct )?(?:answer|label)(?: is)?\W*", "", sentence)
    if re.match(r"\W*not?[_ -]?entail(?:ment|ed)\b", bare):
        return [Claim("not_entailment", DIRECT)]
    if re.match(r"\W*(?:entailment|entailed)\b", bare):
        return [Claim("entailment", DIRECT)]
    if re.match(r"\W*(?:contradiction|neutral)\b", bare):
        return [Claim("not_entailment", DIRECT)]
    entailed = _entailment(sentence)
    return [] if entailed is None else [Claim("entailment" if entailed else "not_entailment", CONTENT)]


NOT_ENTAILED = "not entailed"
"""Of CB: contradiction or neutral; the rest of the answer decides which (see `settle_cb`)."""

_CB_NAMED = re.compile(
    r"^(?:[\w' ()-]{0,60}[,:] ?)?(?:it is |this is |that is )?(?:an? )?\W*(?P<label>entailment|contradiction|neutral)\b"
    r"(?=\W*$|\s*[,.;:!()-]| because\b| since\b| as\b)"
    r"|\b(?:is|as|be|:)(?: best \w+ as)?(?: one of)? (?:an? |of |in )?(?:\w+ )?[\"'(]*(?P<label2>entailment"
    r"|contradiction|neutral)\b"
)
_CB_LABEL = re.compile(r"\b(entailment|contradiction|neutral)\b")
_CB_LISTED = re.compile(rf"{_CB_LABEL.pattern}(?:, (?:or |and )?| or ){_CB_LABEL.pattern}")
_CB_NEGATED = re.compile(rf"{_NOT}{_GAP}(?:entailment|contradiction|neutral)\b|\bno (?:entailment|contradiction)\b")
_CB_VERB = {"entailed": "entailment", "contradicted": "contradiction"}


def cb_claims(sentence: str, fields: Mapping[str, str]) -> list[Claim]:
    """Claims `entailment`, `contradiction`, `neutral`, or `NOT_ENTAILED`."""
    del fields  # as above
    if _CB_LISTED.search(sentence):
        return []  # names the choices
    named = _CB_NAMED.search(sentence)
    if named and named["label"]:
        return [Claim(named["label"], DIRECT)]
    if named and len(set(_CB_LABEL.findall(sentence))) == 1 and not _CB_NEGATED.search(sentence):
        return [Claim(named["label2"], DIRECT)]
    answer = yes_no(sentence)
    if answer:
        return [Claim("entailment" if answer == "yes" else NOT_ENTAILED, DIRECT)]
    verb = re.search(r"\b(?:statement|hypothesis|it) is (?:\w+ )?(entailed|contradicted)\b", sentence)
    if verb and not re.search(r"\b(?:not|neither)\b", sentence):
        return [Claim(_CB_VERB[verb[1]], CONTENT)]
    if not _ABOUT_HYPOTHESIS.search(sentence):
        return []
    if _CONTRADICTED.search(sentence) and not _NOT_CONTRADICTED.search(sentence):
        return [Claim("contradiction", CONTENT)]
    entailed = _entailment(sentence)
    return [] if entailed is None else [Claim("entailment" if entailed else NOT_ENTAILED, CONTENT)]


_HEDGED = re.compile(
    r"(?<!not )\b(?:is|be|as) an? (?:\w+ )?(?:reasonable|plausible|valid|natural|likely) (?:\w+ )?"
    r"(?:inference|conclusion|assumption|interpretation)\b"
)


def settle_cb(sentences: Sequence[str]) -> str | None:
    """Which of contradiction and neutral an answer means that only says `not entailed`; None: it does not say.

    An answer that calls the hypothesis a reasonable inference, and not entailed all the same, says neither unless it
    opens with a no.
    """
    if any(_HEDGED.search(text) for text in sentences) and yes_no(sentences[0]) != "no":
        return None
    if any(_CONTRADICTED.search(text) and not _NOT_CONTRADICTED.search(text) for text in sentences):
        return "contradiction"
    return "neutral" if any(_OPEN.search(text) for text in sentences) else None
