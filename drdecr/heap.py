"""The C library's heap."""

from __future__ import annotations

import ctypes
import sys


def trim_heap() -> None:
    """Return to the system what was freed but is kept for later. Does nothing but on Linux with glibc."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
