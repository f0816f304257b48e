"""Makes the allocator return freed memory to the system at once.

glibc raises its thresholds with the largest buffer that was ever freed (to 64 MiB), and keeps a heap for each thread:
after one large body, a process stays as large as it was while reading it. With fixed thresholds, a buffer larger than
MMAP_BYTES is a separate mapping, unmapped when it is freed; small objects are left to Python.
"""

import ctypes

MMAP_BYTES = TRIM_BYTES = 128 * 1024  # glibc's own first values
HEAPS = 2  # the event loop's, and one for the threads

# Of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def give_back() -> bool:
    """Set this for the process and those it forks; return False where the C library lacks it (musl, macOS)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    chosen = {_TRIM_THRESHOLD: TRIM_BYTES, _MMAP_THRESHOLD: MMAP_BYTES, _ARENA_MAX: HEAPS}
    return 0 not in [mallopt(knob, value) for knob, value in chosen.items()]
