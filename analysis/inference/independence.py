"""Are repetitions repetitions? Identical outputs and uneven cells, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.inference.sample import has_columns, labels

if TYPE_CHECKING:
    import polars as pl

IMBALANCE_RATIO = 1.5


@dataclass(frozen=True)
class IdenticalOutputs:
    """How often a treatment said something new.

    Attributes:
        treatment: levels of the columns asked for.
        n: repetitions.
        n_distinct: different outputs among them.
        effective_n: repetitions that these are worth for whatever follows from the output alone, such as accuracy
            and token counts: equal outputs are one observation.
    """

    treatment: tuple[str, ...]
    n: int
    n_distinct: int

    @property
    def effective_n(self) -> int:
        """See the class."""
        return self.n_distinct


@dataclass(frozen=True)
class IndependenceCheck:
    """All treatments.

    Attributes:
        treatments: one each, sorted.
        warnings: in words; empty where every output differs.
    """

    treatments: tuple[IdenticalOutputs, ...]
    warnings: tuple[str, ...]


def identical_outputs(frame: "pl.DataFrame", by: Sequence[str], output: str) -> IndependenceCheck:
    """Look for repetitions whose outputs are equal: at temperature 0 a model repeats itself.

    Such repetitions are not independent observations of the model. For energy they still tell the noise of device
    and meter, and nothing of how energy varies with what the model says.

    Args:
        frame: one row per run.
        by: columns that name the treatment.
        output: column that is equal where outputs are: a hash of them, or as a stand-in the number of tokens, which
            misses no identical pair but may see one where there is none.

    Raises:
        UsageError: a column or value is missing.
    """
    has_columns(frame, [*by, output])
    names, outputs = [labels(frame, column) for column in by], labels(frame, output)
    seen: dict[tuple[str, ...], list[str]] = {}
    for i, said in enumerate(outputs):
        seen.setdefault(tuple(str(column[i]) for column in names), []).append(str(said))
    treatments = tuple(IdenticalOutputs(key, len(said), len(set(said))) for key, said in sorted(seen.items()))
    repeating = [each for each in treatments if each.n_distinct < each.n]
    if not repeating:
        return IndependenceCheck(treatments, ())
    worst = min(repeating, key=lambda each: each.n_distinct / each.n)
    name = ", ".join(f"{column} {level}" for column, level in zip(by, worst.treatment, strict=True))
    n, effective = sum(each.n for each in treatments), sum(each.effective_n for each in treatments)
    return IndependenceCheck(
        treatments,
        (
            f"The repetitions are not independent: in {len(repeating)} of {len(treatments)} treatments some have equal "
            f"{output} (worst: {name}, {worst.n_distinct} distinct of {worst.n}). The {n} rows "
            f"are worth {effective} for what follows from the output alone. Test on treatment means, or with the "
            "treatment as a random intercept; intervals over rows are too narrow.",
        ),
    )


def imbalance_words(counts: Mapping[str, int]) -> tuple[str, ...]:
    """A warning where the largest cell has 1.5 times the rows of the smallest, or more.

    Args:
        counts: cell -> rows.
    """
    if not counts:
        return ()
    small, large = min(counts, key=lambda cell: counts[cell]), max(counts, key=lambda cell: counts[cell])
    if counts[large] < IMBALANCE_RATIO * counts[small]:
        return ()
    return (
        f"The cells are uneven: {counts[large]} at {large}, {counts[small]} at {small}. Larger cells weigh more in "
        "ranks and in means over rows, and unequal variances do more harm.",
    )


def imbalance(frame: "pl.DataFrame", factors: Sequence[str]) -> tuple[str, ...]:
    """`imbalance_words` over the cells of a crossing; an empty cell is named as well.

    Raises:
        UsageError: a column or level is missing.
    """
    has_columns(frame, factors)
    columns = [labels(frame, factor) for factor in factors]
    found: dict[str, int] = {}
    for row in zip(*columns, strict=True):
        key = " x ".join(map(str, row))
        found[key] = found.get(key, 0) + 1
    n_cells = int(np.prod([len(set(column)) for column in columns]))
    words = list(imbalance_words(found))
    if len(found) < n_cells:
        words.append(
            f"{n_cells - len(found)} of {n_cells} cells of {' x '.join(factors)} are empty: not a full crossing."
        )
    return tuple(words)


def effective_n(n: float, n_per_unit: float, intraclass_correlation: float) -> float:
    """Independent rows that clustered rows are worth: n / (1 + (m - 1) ICC), the design effect of Kish, 1965.

    Args:
        n: rows.
        n_per_unit: rows per unit, on average.
        intraclass_correlation: share of the variance that lies between units.
    """
    return n / (1 + (n_per_unit - 1) * max(0.0, intraclass_correlation))
