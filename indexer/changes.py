"""The staged uploads of a build put together: of each passage id only the last operation counts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from drdecr.collections.uploads import Delete, Operation
from drdecr.corpus import Passage

_BATCH = 500
_SCHEMA = "CREATE TABLE operations (id TEXT PRIMARY KEY, title TEXT, text TEXT, metadata TEXT);"


class Changes:
    """Operations on disk, by id, so that any number of them takes little memory."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None)
        # Worthless after a crash: the uploads are still there.
        self._connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add(self, operations: Iterable[Operation]) -> None:
        """Take operations in their order; a later one on the same id replaces the earlier."""
        self._connection.execute("BEGIN")
        self._connection.executemany("REPLACE INTO operations VALUES (?, ?, ?, ?)", map(_row, operations))
        self._connection.execute("COMMIT")

    def puts(self) -> Iterator[list[Passage]]:
        """Yield the passages to add or replace, a batch at a time."""
        rows = self._connection.execute("SELECT * FROM operations WHERE text IS NOT NULL ORDER BY rowid")
        while batch := rows.fetchmany(_BATCH):
            yield [Passage(each, text, title, json.loads(metadata)) for each, title, text, metadata in batch]

    def deletes(self) -> Iterator[list[str]]:
        """Yield the ids to delete, a batch at a time."""
        rows = self._connection.execute("SELECT id FROM operations WHERE text IS NULL ORDER BY rowid")
        while batch := rows.fetchmany(_BATCH):
            yield [each for (each,) in batch]

    def touched(self, ids: Sequence[str]) -> set[str]:
        """Return which of at most some hundred ids have an operation."""
        marks = ",".join("?" * len(ids))
        return {each for (each,) in self._connection.execute(f"SELECT id FROM operations WHERE id IN ({marks})", ids)}


def _row(operation: Operation) -> tuple[str, str | None, str | None, str | None]:
    if isinstance(operation, Delete):
        return operation.id, None, None, None
    passage = operation.passage
    return passage.id, passage.title, passage.text, json.dumps(passage.metadata, ensure_ascii=False)
