"""Do blocks differ, such as the testbeds of a pool, once the treatments are allowed for?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.inference.sample import checked, has_columns, labels
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

_PERMUTATIONS = 1999
_PERMUTATIONS_LARGE = 499
_LARGE = 5000


@dataclass(frozen=True)
class BlockEffect:
    """The test, and how far the blocks are apart.

    Attributes:
        p_value: of no difference between blocks within treatments.
        share: of the variance within treatments that lies between blocks, 0 to 1.
        ratios: block -> geometric mean of its values over those of their treatments; 1 is like the others.
        n_by_block: block -> rows that tell something about it.
        n_alone: treatments that one block alone ran: they tell nothing of it.
        n: rows of the other treatments.
        method: in words.
    """

    p_value: float
    share: float
    ratios: dict[str, float]
    n_by_block: dict[str, int]
    n_alone: int
    n: int
    method: str


def block_effect(frame: "pl.DataFrame", response: str, treatment: str, block: str, *, seed: int) -> BlockEffect:
    """Permutation test of a block's effect on log(response), within treatments.

    Under no effect the rows of one treatment could have come from each other's blocks: they are exchanged at random,
    within treatments only, which holds for unbalanced blocks and for any distribution. The statistic is the sum of
    squares between blocks of the logarithms less their treatment's mean. With (1 + b) / (1 + B) the p-value is never 0
    (Phipson and Smyth, 2010).

    Args:
        frame: one row per run.
        response: column of numbers above 0.
        treatment: column.
        block: column, such as the testbed.
        seed: of the permutations.

    Raises:
        UsageError: a value is missing or not above 0, or no treatment was run by two blocks.
    """
    has_columns(frame, [response, treatment, block])
    y = checked(frame[response].to_numpy(), response, 2)
    if y.min() <= 0:
        raise UsageError(f"{response} has values of 0 or below, which have no logarithm.")
    treatments = np.unique(labels(frame, treatment), return_inverse=True)[1]
    names, blocks = np.unique(labels(frame, block), return_inverse=True)
    # A treatment of one block alone has nothing to exchange.
    pairs = np.unique(np.stack([treatments, blocks]), axis=1)
    n_blocks = np.bincount(pairs[0])
    n_alone = int((n_blocks == 1).sum())
    kept = n_blocks[treatments] > 1
    if not kept.any():
        raise UsageError(f"No treatment was run by two levels of {block}: its effect cannot be told from theirs.")
    order = np.argsort(treatments[kept], kind="stable")
    strata = np.unique(treatments[kept][order], return_inverse=True)[1]
    found, group = np.unique(blocks[kept][order], return_inverse=True)
    logs = np.log(y[kept][order])
    centred = logs - (np.bincount(strata, logs) / np.bincount(strata))[strata]
    size = np.bincount(group)
    between = float((np.bincount(group, centred) ** 2 / size).sum())
    total = float((centred**2).sum())
    n_permutations = _PERMUTATIONS if centred.size <= _LARGE else _PERMUTATIONS_LARGE
    chance = np.random.default_rng(seed)
    n_as_far = 0
    for _ in range(n_permutations):
        # The rows are in order of their strata, and stay so: only within them they are shuffled.
        shuffled = centred[np.lexsort((chance.random(centred.size), strata))]
        n_as_far += float((np.bincount(group, shuffled) ** 2 / size).sum()) >= between * (1 - 1e-12)
    ratios = np.exp(np.bincount(group, centred) / size)
    return BlockEffect(
        p_value=(1 + n_as_far) / (1 + n_permutations),
        share=between / total if total > 0 else 0.0,
        ratios={str(names[each]): float(ratios[i]) for i, each in enumerate(found)},
        n_by_block={str(names[each]): int(size[i]) for i, each in enumerate(found)},
        n_alone=n_alone,
        n=int(centred.size),
        method=f"Permutation test of {block} on log({response}) within treatments, {n_permutations} permutations, "
        f"seed {seed}",
    )
