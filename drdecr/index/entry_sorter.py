"""Sorts entries of metadata in little memory: sorted runs on the output's own disk, merged at the end.

SQLite would sort in the system's temporary directory, which may be on another disk, small, or in memory.
"""

from __future__ import annotations

import heapq
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Self

Entry = tuple[int, str | int | float | bool, int]
"""A key, a value and a position; values of one key compare with each other."""

# In memory at a time: some 25 MB, and a chunk of each run while they are merged.
_RUN = 2**17
_CHUNK = 2**7


class EntrySorter:
    """Takes entries in any order and gives them sorted.

    What does not fit in memory goes to a file of a directory that has no name there: it is gone when it is closed,
    or its process ends. Raises: OSError of that file, such as for a full disk.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: list[Entry] = []
        self._file: IO[bytes] | None = None
        self._end = 0
        self._runs: list[list[tuple[int, int]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._held.append(entry)
            if len(self._held) >= _RUN:
                self._spill()

    def merged(self) -> Iterator[Entry]:
        """Yield all entries in their order, once."""
        self._held.sort()
        if self._file is None:
            return iter(self._held)
        return heapq.merge(*(self._read(self._file, run) for run in self._runs), self._held)

    def close(self) -> None:
        """Let go of the entries and of the file."""
        self._held.clear()
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        self._held.sort()
        if self._file is None:
            # Unbuffered, so that closing it after a full disk has nothing left to write.
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 (`close` does)
        run = []
        packed = bytearray()
        for start in range(0, len(self._held), _CHUNK):
            chunk = json.dumps(self._held[start : start + _CHUNK]).encode("ascii")
            run.append((self._end + len(packed), len(chunk)))
            packed += chunk
        with memoryview(packed) as view:
            written = 0
            while written < len(view):
                written += os.write(self._file.fileno(), view[written:])
        self._end += len(packed)
        self._runs.append(run)
        self._held.clear()

    def _read(self, file: IO[bytes], run: list[tuple[int, int]]) -> Iterator[Entry]:
        for offset, size in run:
            chunk = json.loads(os.pread(file.fileno(), size, offset))
            yield from ((key, value, position) for key, value, position in chunk)
