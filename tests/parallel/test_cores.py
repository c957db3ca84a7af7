import ctypes
from pathlib import Path

from mindghost.process.libc import give_back_memory


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_that_was_freed_is_given_back():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    size, count = 2000, 50_000
    pieces = [libc.malloc(size) for _ in range(count)]
    for piece in pieces:
        ctypes.memset(piece, 1, size)
    # The last one keeps the C library from giving back what lies below it by itself.
    for piece in pieces[:-1]:
        libc.free(ctypes.c_void_p(piece))
    before = resident()
    give_back_memory()
    assert resident() < before - size * count * 0.9
    libc.free(ctypes.c_void_p(pieces[-1]))
