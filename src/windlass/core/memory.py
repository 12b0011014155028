"""Memory for training and serving on a CPU: large blocks are kept between steps instead of being asked for again, and
few places keep them.

A step allocates and frees the same large tensors as the step before. By default the C library gives such blocks back to
the kernel at once, and the kernel then hands out, and fills with zeros, every page of 4 kB anew: a tenth of a training
step (docs/lab.md). Pages of 2 MB help too; PyTorch reads the switch for them, THP_MEM_ALLOC_ENABLE, when it first
allocates, so the command line sets it.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory(up_to: int = _LARGEST) -> bool:
    """From now on this process keeps the blocks of at most `up_to` bytes that it frees, for its next allocations; False
    where the C library cannot.

    Of such blocks the process then never gives any back, which suits steps that all need the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return False
    return bool(mallopt(_MMAP_THRESHOLD, up_to)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))


def give_back_freed_memory() -> None:
    """Gives back, where the C library can, each page on which nothing is in use: for the end of work that will not come
    again, such as loading a model, and now and then in a server (`serve.app`).

    By itself the C library gives back only what is free at the very end of its heap, so that one small object which
    outlives its neighbours keeps the pages of all of them. Large blocks are among these: once one was freed, others of
    up to its size (32 MB at most) come from the heap as well. In a server after twenty minutes of mixed work 62 MB were
    free, of which this gave back 40 (docs/lab.md). Other threads go on meanwhile, but for those that want the very
    arena which is being looked through.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # not glibc
        return


def limit_arenas(most: int = 4) -> bool:
    """From now on the threads of this process share `most` arenas of the allocator, unless MALLOC_ARENA_MAX says how
    many; False where the C library has none. To be called before there are threads.

    By default each thread gets an arena of its own, up to eight for each processor, and each arena keeps the room that
    the largest text needed which one of its threads ever read: the memory of a server with many threads then grows for
    hours, in steps, though nothing is lost (docs/lab.md).
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return True
    try:
        return bool(ctypes.CDLL(None).mallopt(_ARENA_MAX, most))
    except (AttributeError, OSError):  # not glibc
        return False
