"""Keep the memory of one training step for the next: fresh pages took a tenth of a step on processors."""

from __future__ import annotations

import ctypes
import sys

# Names and numbers of glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed blocks for later ones. Returns whether it has such a setting (glibc has).

    A step frees tensors of megabytes that the next one asks for again. By default each comes as fresh pages, which
    the system fills with zeros first.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(option, _LARGEST) == 1 for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
