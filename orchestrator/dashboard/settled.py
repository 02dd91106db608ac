"""What is in memory for good is not looked at again by the garbage collector."""

import gc


def settle() -> None:
    """Take all that is in memory now out of every later collection; references still free it.

    One collection over 10,000 runs stops the process for a tenth of a second, which is felt in the page; measured with
    `benchmarks/dashboard.py`.
    """
    gc.collect()
    gc.freeze()
