"""Task -> how its sentences are read. See `claim`."""

from collections.abc import Callable, Mapping

from scoring.boolq import boolq_claims
from scoring.choice import copa_claims
from scoring.claim import Claim
from scoring.entailment import cb_claims, rte_claims
from scoring.wic import wic_claims
from scoring.wsc import wsc_claims

CLAIMS: Mapping[str, Callable[[str, Mapping[str, str]], list[Claim]]] = {
    "BoolQ": boolq_claims,
    "CB": cb_claims,
    "COPA": copa_claims,
    "RTE": rte_claims,
    "WiC": wic_claims,
    "WSC": wsc_claims,
}
"""Task -> (sentence, the item's columns) -> what the sentence claims."""
