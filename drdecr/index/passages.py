"""A segment's passages in SQLite: written once, then opened immutable by any number of threads."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage
from drdecr.errors import SnapshotCorruptError
from drdecr.index.metadata_index import SCHEMA as METADATA_SCHEMA
from drdecr.index.metadata_index import MetadataIndex, MetadataIndexWriter

_SCHEMA = (
    """
CREATE TABLE passages (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT, text TEXT NOT NULL, metadata TEXT NOT NULL
);
CREATE TABLE spans (position INTEGER PRIMARY KEY, packed BLOB NOT NULL);
"""
    + METADATA_SCHEMA
)
_Found = TypeVar("_Found")
_MAX_VARIABLES = 900
_WITH_ROWS = 8
_COLUMNS = "position, id, text, title, metadata"


class PassageWriter:
    """Fills a new passages file; a crash before `close` leaves a file that nobody reads."""

    def __init__(self, path: Path) -> None:
        # No journal: the file is worthless until its snapshot is published, and a journal doubles the writing.
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA + "BEGIN;")
        self._metadata = MetadataIndexWriter(self._connection, path.parent)
        self.count = 0

    def add(self, passages: Iterable[Passage]) -> None:
        """Append passages. Raises: sqlite3.IntegrityError for an id that is already there."""
        placed = list(enumerate(passages, start=self.count))
        rows = (
            (position, passage.id, passage.title, passage.text, json.dumps(passage.metadata, ensure_ascii=False))
            for position, passage in placed
        )
        self._connection.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?)", rows)
        self._metadata.add((position, passage.metadata) for position, passage in placed)
        self.count += len(placed)

    def add_spans(self, spans: Iterable[tuple[int, NDArray[np.int32]]]) -> None:
        """Store the character spans of passages, by position, each (tokens, 2); a passage need not have any.

        Where tokens share a vector they are (tokens, 3), and begin with the row of that vector.
        """
        rows = ((position, pack_spans(each)) for position, each in spans)
        self._connection.executemany("INSERT INTO spans VALUES (?, ?)", rows)

    def read(self, start: int, stop: int) -> list[Passage]:
        """Read back passages [start, stop)."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM passages WHERE position >= ? AND position < ? ORDER BY position", (start, stop)
        )
        return [_passage(row) for row in rows]

    def __enter__(self) -> PassageWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._release()

    def close(self) -> None:
        """Finish the file."""
        try:
            if self._connection.in_transaction:
                self._metadata.finish()
                self._connection.execute("COMMIT")
        finally:
            self._release()

    def _release(self) -> None:
        self._metadata.close()
        self._connection.close()


class PassageStore:
    """Reads passages by id or position. Safe to share between threads.

    Raises: SnapshotCorruptError for a file that is not there or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        uri = path.absolute().as_uri() + "?mode=ro&immutable=1"
        try:
            self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.Error as problem:
            raise SnapshotCorruptError(f"{path} cannot be opened ({problem}); run `drdecr index verify`") from None

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def position(self, passage_id: str) -> int | None:
        """Find a passage's position by its id."""
        rows = self._rows("SELECT position FROM passages WHERE id = ?", (passage_id,))
        return int(rows[0][0]) if rows else None

    def positions(self, ids: Sequence[str]) -> dict[str, int]:
        """Find the positions of ids; an id that is not there is left out."""
        found: dict[str, int] = {}
        for part in _parts(ids):
            marks = ",".join("?" * len(part))
            found.update(self._rows(f"SELECT id, position FROM passages WHERE id IN ({marks})", part))
        return found

    def by_id(self, ids: Sequence[str], live: NDArray[np.bool_] | None = None) -> dict[str, Passage]:
        """Read passages; an id that is not there, or not `live` (passages,), is left out."""
        found: dict[str, Passage] = {}
        for part in _parts(ids):
            marks = ",".join("?" * len(part))
            for row in self._rows(f"SELECT {_COLUMNS} FROM passages WHERE id IN ({marks})", part):
                if live is None or live[row[0]]:
                    found[row[1]] = _passage(row)
        return found

    def ids(self, positions: Sequence[int]) -> list[str]:
        """Return the ids at these positions, in their order."""
        found: dict[int, str] = {}
        for part in _parts(positions):
            marks = ",".join("?" * len(part))
            found.update(self._rows(f"SELECT position, id FROM passages WHERE position IN ({marks})", part))
        return self._in_order(found, positions)

    def read(self, positions: Sequence[int]) -> list[Passage]:
        """Read the passages at these positions, in their order."""
        found: dict[int, Passage] = {}
        for part in _parts(positions):
            marks = ",".join("?" * len(part))
            rows = self._rows(f"SELECT {_COLUMNS} FROM passages WHERE position IN ({marks})", part)
            found.update((row[0], _passage(row)) for row in rows)
        return self._in_order(found, positions)

    def spans_of(self, positions: Sequence[int]) -> dict[int, NDArray[np.int32]]:
        """Return the token spans of the passages at these positions as `PassageWriter.add_spans` was given them.

        Nothing for passages that have none.
        """
        return {position: unpack_spans(packed) for position, packed in self._packed_spans(positions).items()}

    def metadata_index(self, passages: int) -> MetadataIndex:
        """Return the index of the metadata of these so many passages."""
        return MetadataIndex(self._rows, passages)

    def members(self, position: int) -> NDArray[np.int32] | None:
        """Return the row of each token's vector among a passage's, and the token's characters, (tokens, 3).

        In the order of the text; None for a passage that has no spans.
        """
        spans = self.spans_of([position]).get(position)
        if spans is None:
            return None
        if spans.shape[1] == 3:
            return spans
        return np.column_stack([np.arange(len(spans), dtype=np.int32), spans])

    def characters(self, positions: Sequence[int], rows: Sequence[slice]) -> list[tuple[int, int] | None]:
        """Return the characters [start, end) that some token rows of each of these passages cover.

        None where there are none: no spans are stored, or no token has these rows.
        """
        packed = self._packed_spans(positions)
        return [
            _covered(packed[position], own) if position in packed else None
            for position, own in zip(positions, rows, strict=True)
        ]

    def _packed_spans(self, positions: Sequence[int]) -> dict[int, bytes]:
        packed: dict[int, bytes] = {}
        for part in _parts(positions):
            marks = ",".join("?" * len(part))
            packed.update(self._rows(f"SELECT position, packed FROM spans WHERE position IN ({marks})", part))
        return packed

    def _in_order(self, found: dict[int, _Found], positions: Sequence[int]) -> list[_Found]:
        try:
            return [found[position] for position in positions]
        except KeyError as missing:
            raise SnapshotCorruptError(f"{self._path} has no passage at position {missing}; run verify") from None

    def _rows(self, statement: str, values: Sequence[object]) -> list[Any]:
        try:
            with self._lock:
                return self._connection.execute(statement, tuple(values)).fetchall()
        except sqlite3.DatabaseError as problem:
            raise SnapshotCorruptError(
                f"{self._path} cannot be read ({problem}); run `drdecr index verify`"
            ) from None


def pack_spans(spans: NDArray[np.int32]) -> bytes:
    """Pack spans as gaps and lengths in the narrowest integers that hold them; the first byte is their width.

    Of spans (tokens, 3) the rows are packed as gaps too, and 8 is added to the first byte.
    """
    starts, ends = spans[:, -2].astype(np.int64), spans[:, -1].astype(np.int64)
    gaps = [np.diff(column.astype(np.int64), prepend=0) for column in spans[:, :-2].T]
    steps = np.stack([*gaps, np.diff(starts, prepend=0), ends - starts], axis=1)
    low, high = (int(steps.min()), int(steps.max())) if steps.size else (0, 0)
    for width in (1, 2):
        limit = 2 ** (8 * width - 1)
        if -limit <= low and high < limit:
            break
    else:
        width = 4
    return bytes([width + _WITH_ROWS * len(gaps)]) + steps.astype(f"<i{width}").tobytes()


def _covered(packed: bytes, rows: slice) -> tuple[int, int] | None:
    """Return the first and the last character of the tokens whose vectors are these rows."""
    pooled, steps = _steps(packed)
    starts = steps[:, -2].cumsum()
    ends = starts + steps[:, -1]
    if pooled:
        row = steps[:, 0].cumsum()
        own = (row >= rows.start) & (row < rows.stop)
        starts, ends = starts[own], ends[own]
    else:
        starts, ends = starts[rows], ends[rows]
    return (int(starts.min()), int(ends.max())) if len(starts) else None


def _steps(packed: bytes) -> tuple[bool, NDArray[np.int64]]:
    """Read gaps and lengths, (tokens, 2), or with the gaps of rows before them, (tokens, 3)."""
    rows, width = divmod(packed[0], _WITH_ROWS)
    steps = np.frombuffer(packed, dtype=f"<i{width}", offset=1).reshape(-1, 2 + rows)
    return bool(rows), steps.astype(np.int64)


def unpack_spans(packed: bytes) -> NDArray[np.int32]:
    """Undo `pack_spans`."""
    _, steps = _steps(packed)
    columns = np.cumsum(steps[:, :-1], axis=0)
    return np.column_stack([columns, columns[:, -1] + steps[:, -1]]).astype(np.int32)


def _passage(row: Sequence[Any]) -> Passage:
    return Passage(id=row[1], text=row[2], title=row[3], metadata=json.loads(row[4]))


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Split values by how many variables one SQLite statement may have."""
    for start in range(0, len(values), _MAX_VARIABLES):
        yield values[start : start + _MAX_VARIABLES]
