"""Memory for training on a CPU: large blocks are kept between steps instead of being asked for again.

A step allocates and frees the same large tensors as the step before. By default the C library gives such blocks back to
the kernel at once, and the kernel then hands out, and fills with zeros, every page of 4 kB anew: a tenth of a training
step (docs/lab.md). Pages of 2 MB help too; PyTorch reads the switch for them, THP_MEM_ALLOC_ENABLE, when it first
allocates, so the command line sets it.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """From now on this process keeps what it frees, for its next allocation; False where the C library cannot.

    The process then never shrinks below its largest need, which for training is the same in every step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
