"""Gives back what only the start needed: memory that loading freed, and the pages of libraries that it touched.

Loading parses, compiles and imports, and the C library keeps what was freed for it; a mapped library counts as
resident by every page that was ever read. Both come back at once where they are needed again.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from drdecr.heap import trim_heap

_DONTNEED = 4
_HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ \S+ +/.*\.so[.0-9]*$")


def give_back_start() -> None:
    """Return freed memory and the code of libraries to the system. On Linux only."""
    gc.collect()
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    for start, size in untouched_mappings(Path("/proc/self/smaps").read_text(encoding="utf-8")):
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _DONTNEED)
    trim_heap()


def untouched_mappings(smaps: str) -> Iterator[tuple[int, int]]:
    """Yield address and size of each read-only part of a shared library that is mapped as it is on disk.

    Parts that the loader wrote to before it made them read-only hold what no file holds, and are left out. Other
    files are too: a library stays where it is, they may be unmapped by another thread meanwhile.
    """
    found: tuple[int, int] | None = None
    for line in smaps.splitlines():
        if header := _HEADER.match(line):
            start, end = int(header[1], 16), int(header[2], 16)
            found = start, end - start
        elif line[:1].islower() or line[:1].isdigit():
            found = None
        elif found and line.startswith("Anonymous:"):
            if int(line.split()[1]) == 0:
                yield found
            found = None
