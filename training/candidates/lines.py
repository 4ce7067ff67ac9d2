"""Lines of a large text file by number: an index of offsets in memory, the text on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import InputError

_BLOCK = 1 << 24


class LineStore:
    """A UTF-8 file whose lines are read when they are asked for; empty lines at its end do not count.

    Raises: InputError for a missing, an empty or a compressed file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts = _offsets(path)
        self._bytes = np.memmap(path, np.uint8, "r")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, line: int) -> str:
        """Return a line, counted from 0, without its end. Raises: InputError where it is not UTF-8."""
        raw = self._bytes[self._starts[line] : self._starts[line + 1]].tobytes()
        try:
            return raw.decode("utf-8-sig" if line == 0 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise InputError("not UTF-8; convert the file", path=self.path, line=line + 1) from None

    def fields(self, line: int, count: int) -> list[str]:
        """Return the tab-separated fields of a line. Raises: InputError where they are fewer than `count`."""
        found = self[line].split("\t")
        if len(found) < count:
            raise InputError(
                f"expected {count} tab-separated fields, found {len(found)}", path=self.path, line=line + 1
            )
        return found

    def find(self, wanted: dict[str, int], identifier: Callable[[str], str]) -> NDArray[np.int64]:
        """Return the line of each wanted id, by the id's number. Raises: InputError for one that no line has."""
        places = np.full(len(wanted), -1, np.int64)
        for line in range(len(self)):
            number = wanted.get(identifier(self[line]))
            if number is not None:
                places[number] = line
        if (places < 0).any():
            number = int(np.flatnonzero(places < 0)[0])
            missing = next(key for key, value in wanted.items() if value == number)
            raise InputError(f"has no line with the id {missing!r}, which the lists name", path=self.path)
        return places


def _offsets(path: Path) -> NDArray[np.int64]:
    parts = [np.zeros(1, np.int64)]
    position = 0
    try:
        file = path.open("rb")
    except OSError as problem:
        raise InputError(f"cannot be read ({problem.strerror})", path=path) from None
    with file:
        if file.read(2) == b"\x1f\x8b":
            raise InputError("is compressed, but its lines are read at random; unpack it with gunzip", path=path)
        file.seek(0)
        while block := file.read(_BLOCK):
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 0x0A) + 1 + position
            parts.append(ends.astype(np.int64))
            position += len(block)
    starts = np.concatenate(parts)
    if starts[-1] != position:
        starts = np.append(starts, position)
    while len(starts) > 2 and starts[-1] - starts[-2] <= 1:
        starts = starts[:-1]
    if position == 0:
        raise InputError("is empty", path=path)
    return starts
