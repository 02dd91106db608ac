"""How this process gets its memory: the C library's own habit makes a testbed that runs for weeks grow."""

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 256 * 1024


def give_back_large_blocks() -> bool:
    """Have every block of 256 KiB or more mapped by itself, and so returned to the system when it is freed.

    glibc begins so, and stops at the first large block that is freed. From then on such blocks leave holes in the heap
    of whichever thread asked for them. Python's table of interned strings is one, of 2 MiB, moved every thousand trials
    or so, since every path with a new name in it passes through the table: 5 MiB of holes after 10,000 trials.
    Children do not inherit it: what suits an engine is not ours to choose.

    Returns:
        Whether there is anything to set; only glibc has it.
    """
    if sys.platform != "linux":
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(set_option(_M_MMAP_THRESHOLD, _LARGE_BYTES))
