"""What an answer to COPA prefers that names no choice as its answer, but judges both. See `claim`.

Such an answer goes through the choices one by one ("Choice 1: ... this is unrelated. Choice 2: ... a direct
consequence."). Each sentence is given to the choice that it speaks of, by number or in its words, or else to the one
spoken of before; what it says for or against that choice counts one. The choice with the better balance is the answer.
"""

import re
from collections.abc import Mapping, Sequence

NUMBERED = (
    r"(?:choice|option|alternative|answer|number|scenario|outcome)\s*\(?#?(?:1|2|one|two)\b|\((?:1|2)\)"
    r"|(?:first|second) (?:choice|option|one|alternative|scenario|outcome)"
    r"|(?<=: )[\"'(]*(?:1|2)(?=[:.)\"']|$)"
)
"""A choice named by its number."""

_DIGIT = {"1": "choice1", "one": "choice1", "first": "choice1", "2": "choice2", "two": "choice2", "second": "choice2"}
_NUMBERED = re.compile(NUMBERED)
_RELATION = (
    r"(?:effect|cause|consequence|result|outcome|reason|explanation|response|reaction|connection|relation(?:ship)?"
    r"|solution|choice|option|conclusion)"
)
_FITTING = (
    r"(?:direct|logical|natural|likely|plausible|reasonable|probable|clear|appropriate|effective|suitable"
    r"|obvious|relevant|practical|sensible|understandable)"
)
_FOR = re.compile(
    rf"\b{_FITTING}(?:,? (?:and |or )?\w+)?? {_RELATION}\b"
    r"|\bdirectly (?:\w+ )?(?:address|relat|caus|affect|lead|led|result|follow|explain|link|connect)\w*\b"
    rf"|\b(?:is|seems|appears|it's) (?:\w+ )?(?:more|most|very|highly|quite)?\s?{_FITTING}\b(?! to\b)"
    r"|\baligns? (?:\w+ )?with\b|\b(?:logically|naturally|directly) follows?\b|\bmakes (?:\w+ )?sense\b"
    r"|\baddresses (?:the|this|her|his|their|that)\b|\bconsistent with\b|\bmore (?:effective|significant|direct)\b"
)
_AGAINST = re.compile(
    r"\bun(?:related|likely|necessary|usual|expected)\b|\birrelevant\b|\billogical\b|\bopposite\b"
    rf"|\bcounter-?(?:intuitive|productive)\b|\bless {_FITTING}\b|\bcontradict(?:s|ed|ory)?\b|\bonly address\w*"
    r"|(?:\bnot|n't|\bnever|\bno|\bcannot)\b(?: \w+){0,3}? (?:\w+ly )?(?:address|relat\w+|cause\w*|result\w*|lead"
    r"|follow|explain|affect|solve|resolve|align|match|help|impact|change|connect\w*|link\w*|make sense"
    rf"|{_FITTING}|{_RELATION}s?)\b"
)
_UNDECIDED = re.compile(
    r"\bin both cases\b|\bnone of the\b|\bneither\b|\bdepends? on\b|\beither (?:choice|option)\b"
    r"|\bboth (?:\w+ ){0,3}(?:are|could|can|may|might|would|lead)\b"
)
_HEADED = re.compile(rf"^(?:\w+ ){{0,6}}(?:effect|cause)(?: of)?:? ?(?P<choice>{NUMBERED}):")
_STOP = frozenset(
    "a an the and or of in on at to for with from by as is was were be been it its he she they them her him his their "  # noqa: SIM905
    "i my me we our you your this that had has have did do not no so up out off down into onto over".split()
)


def choice_label(text: str) -> str:
    """`choice1` or `choice2`, of a text with a number in it."""
    return _DIGIT[re.findall(r"\b(?:one|two|first|second)\b|[12]", text)[0]]


def _stem(word: str) -> str:
    word = word.removesuffix("'s")
    for suffix in ("ing", "ed", "es", "s", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word.removesuffix(suffix)
            break
    # "skipped" and "skip", "carried" and "carry" are one.
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return f"{word[:-1]}i" if word.endswith("y") else word


def _stems(text: str) -> set[str]:
    return {_stem(word) for word in re.findall(r"[a-z0-9']+", text.lower()) if word not in _STOP}


def own_words(fields: Mapping[str, str]) -> dict[str, set[str]]:
    """Label -> the stems of the words that only this choice has, and that the premise does not have."""
    stems = {label: _stems(fields.get(label, "")) for label in ("choice1", "choice2")}
    premise = _stems(fields.get("premise", ""))
    return {
        "choice1": stems["choice1"] - stems["choice2"] - premise,
        "choice2": stems["choice2"] - stems["choice1"] - premise,
    }


def spoken_of(sentence: str, fields: Mapping[str, str]) -> set[str]:
    """The choices that a sentence names by number, or by at least half of their own words."""
    named = {choice_label(found[0]) for found in _NUMBERED.finditer(sentence)}
    said = _stems(sentence)
    for label, words in own_words(fields).items():
        if words and len(words & said) >= max(1, len(words) / 2):
            named.add(label)
    return named


def weigh_choices(sentences: Sequence[str], fields: Mapping[str, str]) -> str | None:
    """The choice that comes off better; None where neither does, or only one was looked at without favour.

    Args:
        sentences: of the answer, from `label.sentences_of`.
        fields: the item's columns.
    """
    if any(_UNDECIDED.search(sentence) for sentence in sentences):
        return None
    balance = {"choice1": 0, "choice2": 0}
    headed = {choice_label(found["choice"]) for found in map(_HEADED.search, sentences[:12]) if found}
    if len(headed) == 1:  # "The effect of: Choice 1: ...", and no such heading for the other
        balance[headed.pop()] += 1
    current: str | None = None
    for sentence in sentences:
        for part in re.split(r"\b(?:while|whereas|but|however|on the other hand|although|though)\b", sentence):
            named = spoken_of(part, fields)
            if len(named) == 2:
                current = None
                continue
            current = named.pop() if named else current
            if current is not None:
                against = bool(_AGAINST.search(part))
                balance[current] += bool(_FOR.search(part)) * (not against) - against
    better = max(balance, key=lambda label: balance[label])
    worse = "choice1" if better == "choice2" else "choice2"
    if balance[better] <= balance[worse]:
        return None
    # One word against a choice is not yet a word for the other.
    return better if balance[better] > 0 or balance[worse] <= -2 else None
