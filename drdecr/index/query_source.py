"""Queries for a command: encoded by a student, or read from a file of vectors, and checked against the snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from drdecr.corpus import read_queries
from drdecr.encoder.types import Encoded
from drdecr.errors import InputError, UsageError
from drdecr.index.snapshot import Snapshot
from drdecr.index.vector_file import VectorFile

_BATCH_QUERIES = 64


def encoded_queries(
    snapshot: Snapshot, queries: Path | None, student: Path | None, vectors: Path | None, threads: int | None
) -> tuple[int, Iterator[tuple[list[str], Encoded]]]:
    """Return the number of queries, and their ids and vectors in batches.

    Raises: UsageError for options that do not fit together, ModelMismatchError, InputError.
    """
    if vectors is not None:
        if student is not None:
            raise UsageError("--vectors replaces --student; give one or the other")
        file = VectorFile(vectors)
        snapshot.require_vectors(file.spec)
        if file.has_windows:
            raise InputError("holds passages in windows; encode queries with --kind query", path=vectors)
        if queries is not None and [query.id for query in read_queries(queries)] != file.ids:
            raise InputError(f"holds other query ids than {queries}; encode these queries again", path=vectors)
        return len(file.ids), _batches_of(file)
    if student is None or queries is None:
        raise UsageError("give --queries and --student, or --vectors")
    listed = list(read_queries(queries))
    from drdecr.encoder.load import load_encoder

    encoder = load_encoder(student, threads=threads)
    snapshot.require(encoder.spec)

    def batches() -> Iterator[tuple[list[str], Encoded]]:
        for start in range(0, len(listed), _BATCH_QUERIES):
            part = listed[start : start + _BATCH_QUERIES]
            yield [query.id for query in part], encoder.encode([query.text for query in part], "query")

    return len(listed), batches()


def _batches_of(file: VectorFile) -> Iterator[tuple[list[str], Encoded]]:
    done = 0
    for queries in file.read(_BATCH_QUERIES):
        yield file.ids[done : done + len(queries)], queries.windows
        done += len(queries)
