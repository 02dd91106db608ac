"""A large block that is freed goes back to the system, whatever was freed before."""

import platform
import subprocess
import sys

import pytest

# hblkhd of mallinfo2 (glibc 2.33): bytes in blocks that are mapped by themselves.
PROGRAM = """
import ctypes
from testbed.allocator import give_back_large_blocks

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo2
if {is_set}:
    assert give_back_large_blocks()
bytearray(16 * 2**20)  # freed at once: glibc learns from it
before = libc.mallinfo2().hblkhd
kept = bytearray(2 * 2**20)
print(libc.mallinfo2().hblkhd - before)
"""


def is_glibc() -> bool:
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(map(int, version.split("."))) >= (2, 33)


def mapped_bytes(*, is_set: bool) -> int:
    command = [sys.executable, "-c", PROGRAM.format(is_set=is_set)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


@pytest.mark.skipif(not is_glibc(), reason="mallopt and mallinfo2 are glibc's")
def test_a_block_of_two_megabytes_is_mapped_by_itself() -> None:
    assert mapped_bytes(is_set=True) >= 2 * 2**20
    assert mapped_bytes(is_set=False) == 0
