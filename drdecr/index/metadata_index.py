"""Which passages have which metadata: an index in a segment's SQLite file, written once, read by range.

A key is a field and the kind of its values, so that text, numbers and booleans never meet in a comparison. The
passages of a key lie in one array, ordered by value: a condition is then one or two look-ups in `metadata_values`,
which says where a value's passages start and stop, and one read of the chunks between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Metadata
from drdecr.errors import SnapshotCorruptError
from drdecr.index.entry_sorter import Entry, EntrySorter
from drdecr.index.filters import MAX_TEXT_CHARS, Bounds

SCHEMA = """
CREATE TABLE metadata_keys (
    key INTEGER PRIMARY KEY, field TEXT NOT NULL, kind INTEGER NOT NULL, size INTEGER NOT NULL, UNIQUE (field, kind)
);
CREATE TABLE metadata_values (
    key INTEGER, value, start INTEGER NOT NULL, stop INTEGER NOT NULL, PRIMARY KEY (key, value)
) WITHOUT ROWID;
CREATE TABLE metadata_passages (
    key INTEGER, chunk INTEGER, positions BLOB NOT NULL, PRIMARY KEY (key, chunk)
);
"""
_CHUNK = 4096
_MAX_VARIABLES = 900

Scalar = str | int | float | bool
Rows = Callable[[str, Sequence[object]], list[Any]]


class Kind(IntEnum):
    """What is compared with what."""

    BOOLEAN = 1
    NUMBER = 2
    TEXT = 3

    @classmethod
    def of(cls, value: Scalar) -> Kind:
        if isinstance(value, bool):
            return cls.BOOLEAN
        return cls.TEXT if isinstance(value, str) else cls.NUMBER


def values_of(metadata: Metadata, prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    """Yield every value with its field; the names of nested objects are joined by dots."""
    for name, value in metadata.items():
        field = prefix + name
        if isinstance(value, dict):
            yield from values_of(value, field + ".")
        else:
            yield from ((field, each) for each in (value if isinstance(value, list) else [value]) if each is not None)


class MetadataIndexWriter:
    """Collects metadata for a connection that holds SCHEMA, and writes them in order at the end.

    What does not fit in memory waits in a nameless file of `directory` (`EntrySorter`), until `close`.
    """

    def __init__(self, connection: sqlite3.Connection, directory: Path) -> None:
        self._connection = connection
        self._sorter = EntrySorter(directory)
        self._keys: dict[tuple[str, Kind], int] = {}

    def add(self, passages: Iterable[tuple[int, Metadata]]) -> None:
        """Take the metadata of passages by their positions."""
        self._sorter.add(entry for position, metadata in passages for entry in self._entries(position, metadata))

    def finish(self) -> None:
        """Write the index; memory does not grow with the collection."""
        names = {key: name for name, key in self._keys.items()}
        for key, entries_of_key in groupby(self._sorter.merged(), itemgetter(0)):
            field, kind = names[key]
            size = self._write_key(key, entries_of_key)
            self._connection.execute("INSERT INTO metadata_keys VALUES (?, ?, ?, ?)", (key, field, int(kind), size))

    def close(self) -> None:
        """Let go of what was collected, written or not."""
        self._sorter.close()

    def _entries(self, position: int, metadata: Metadata) -> set[Entry]:
        return {
            (self._keys.setdefault((field, Kind.of(value)), len(self._keys)), _stored(value), position)
            for field, value in values_of(metadata)
        }

    def _write_key(self, key: int, entries: Iterator[Entry]) -> int:
        chunk, chunks, size = np.empty(_CHUNK, "<u4"), 0, 0
        values: list[tuple[int, Scalar, int, int]] = []
        for value, group in groupby(entries, itemgetter(1)):
            start = size
            for _, _, position in group:
                chunk[size % _CHUNK] = position
                size += 1
                if size % _CHUNK == 0:
                    self._write_chunk(key, chunks, chunk)
                    chunks += 1
            values.append((key, value, start, size))
            if len(values) == _CHUNK:
                self._write_values(values)
                values.clear()
        self._write_values(values)
        if size % _CHUNK:
            self._write_chunk(key, chunks, chunk[: size % _CHUNK])
        return size

    def _write_values(self, values: list[tuple[int, Scalar, int, int]]) -> None:
        self._connection.executemany("INSERT INTO metadata_values VALUES (?, ?, ?, ?)", values)

    def _write_chunk(self, key: int, number: int, positions: NDArray[Any]) -> None:
        self._connection.execute("INSERT INTO metadata_passages VALUES (?, ?, ?)", (key, number, positions.tobytes()))


class MetadataIndex:
    """Answers conditions with masks, bool (passages,). `rows` runs a statement and may be called by any thread."""

    def __init__(self, rows: Rows, passages: int) -> None:
        self._rows = rows
        self._passages = passages

    def __len__(self) -> int:
        return self._passages

    def equal(self, field: str, values: Iterable[Scalar]) -> NDArray[np.bool_]:
        """Find the passages with any of these values."""
        wanted: dict[Kind, list[Scalar]] = {}
        for value in values:
            wanted.setdefault(Kind.of(value), []).append(_stored(value))
        mask = self._nothing()
        for kind, given in wanted.items():
            stored = list(dict.fromkeys(given))
            for key, _ in self._key(field, kind):
                spans: list[tuple[int, int]] = []
                for first in range(0, len(stored), _MAX_VARIABLES):
                    part = stored[first : first + _MAX_VARIABLES]
                    marks = ",".join("?" * len(part))
                    spans += self._rows(
                        f"SELECT start, stop FROM metadata_values WHERE key = ? AND value IN ({marks})", (key, *part)
                    )
                self._mark(mask, key, sorted(spans))
        return mask

    def within(self, field: str, bounds: Bounds) -> NDArray[np.bool_]:
        """Find the passages with a value between the bounds."""
        low = bounds.gt if bounds.gte is None else bounds.gte
        high = bounds.lt if bounds.lte is None else bounds.lte
        example = low if low is not None else high
        assert example is not None
        mask = self._nothing()
        for key, size in self._key(field, Kind.of(example)):
            start = 0 if low is None else self._rank(key, ">" if bounds.gte is None else ">=", low, size)
            stop = size if high is None else self._rank(key, ">=" if bounds.lte is None else ">", high, size)
            if start < stop:
                self._mark(mask, key, [(start, stop)])
        return mask

    def present(self, field: str) -> NDArray[np.bool_]:
        """Find the passages in which a field, or a field within it, has a value."""
        mask = self._nothing()
        keys = self._rows(
            "SELECT key, size FROM metadata_keys WHERE field = ? OR (field >= ? AND field < ?)",
            # The character after the dot ends what begins with the field and a dot.
            (field, field + ".", field + chr(ord(".") + 1)),
        )
        for key, size in keys:
            self._mark(mask, key, [(0, size)])
        return mask

    def _nothing(self) -> NDArray[np.bool_]:
        return np.zeros(self._passages, np.bool_)

    def _key(self, field: str, kind: Kind) -> list[tuple[int, int]]:
        return self._rows("SELECT key, size FROM metadata_keys WHERE field = ? AND kind = ?", (field, int(kind)))

    def _rank(self, key: int, relation: str, bound: Scalar, size: int) -> int:
        """Return where the first value begins that stands in this relation to the bound."""
        found = self._rows(
            f"SELECT start FROM metadata_values WHERE key = ? AND value {relation} ? ORDER BY value LIMIT 1",
            (key, bound),
        )
        return int(found[0][0]) if found else size

    def _mark(self, mask: NDArray[np.bool_], key: int, spans: Sequence[tuple[int, int]]) -> None:
        """Mark the passages of some spans, in rising order, of a key's array."""
        for group in _neighbours(spans):
            first, last = group[0][0] // _CHUNK, (group[-1][1] - 1) // _CHUNK
            chunks = self._rows(
                "SELECT positions FROM metadata_passages WHERE key = ? AND chunk BETWEEN ? AND ? ORDER BY chunk",
                (key, first, last),
            )
            positions = np.frombuffer(b"".join(chunk for (chunk,) in chunks), "<u4")
            try:
                mask[positions[_places(group) - first * _CHUNK]] = True
            except IndexError:
                raise SnapshotCorruptError(
                    "the index of the metadata names passages that are not there; run `drdecr index verify`"
                ) from None


def _places(spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """List the places within some spans."""
    starts, stops = np.array(spans, np.int64).T
    sizes = stops - starts
    return np.repeat(stops - np.cumsum(sizes), sizes) + np.arange(sizes.sum())


def _neighbours(spans: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Group spans that one read of chunks serves."""
    group: list[tuple[int, int]] = []
    for span in spans:
        if group and span[0] // _CHUNK > (group[-1][1] - 1) // _CHUNK + 1:
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _stored(value: Scalar) -> Scalar:
    """Shorten a text: one character more than a filter may hold, and every comparison with one is still right."""
    return value[: MAX_TEXT_CHARS + 1] if isinstance(value, str) else value
