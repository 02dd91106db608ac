"""Holds EnergiBridge's window open (`lifetime: block`): lives until its input ends, and does nothing else.

EnergiBridge measures for as long as its child lives. Beside a warm engine, this is the child: a blocked read costs no
energy.
"""

import sys

if __name__ == "__main__":
    sys.stdin.buffer.read()
