"""What a sentence claims about WiC: the same sense, or not. See `claim`."""

import re
from collections.abc import Mapping

from scoring.claim import CONTENT, DIRECT, Claim, yes_no

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


def wic_claims(sentence: str, fields: Mapping[str, str]) -> list[Claim]:
    """Claims `yes` (the same sense) or `no`."""
    del fields  # the answer says "same" or "different"; the sentences it is about do not matter
    answer = yes_no(sentence)
    if answer:
        return [Claim(answer, DIRECT)]
    different, same = _DIFFERENT.search(sentence), _SAME.search(sentence)
    if different:
        return [Claim("no", CONTENT)]
    return [Claim("yes", CONTENT)] if same else []
