"""Writes one segment from a source: the same for the first of a snapshot and for those that are added."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.types import EncoderSpec
from drdecr.index.codec import HalfCodec
from drdecr.index.manifest import FileRecord, SegmentRecord, record_file
from drdecr.index.passages import PassageWriter
from drdecr.index.segment import PASSAGES
from indexer.progress import Progress
from indexer.segment_writer import TOKEN_BITS, write_sentence_index, write_token_index
from indexer.sources import Source
from indexer.spool import Spool


@dataclass(frozen=True, slots=True)
class WrittenSegment:
    """A segment on disk. `without_tokens` passages can never be found; `truncated` ones were cut at the limit."""

    record: SegmentRecord
    without_tokens: int
    truncated: int


def write_segment(
    root: Path,
    name: str,
    source: Source,
    progress: Progress,
    centroids: NDArray[np.float32] | None = None,
) -> WrittenSegment:
    """Write the passages of a source, and their vectors, into the empty directory `name` of a snapshot.

    `centroids` (lists, dim) are those of another segment; without them the segment trains its own.
    """
    directory = root / name
    spec: EncoderSpec = source.spec
    codec = HalfCodec(spec.dim)
    with closing(PassageWriter(directory / PASSAGES)) as passages:
        source.store_passages(passages, progress.stage("Reading", None, "passages"))
        advance = progress.stage("Encoding", passages.count, "passages")
        with Spool(directory, spec, passages) as spool:
            for encoded in source.encoded(passages, advance):
                spool.append(encoded)
    advance = progress.stage("Indexing", spool.tokens, "token vectors")
    lists = write_token_index(directory, spool.vectors(), codec, advance, centroids)
    spool.remove()
    sentences = write_sentence_index(directory) if spec.sentence_dim else 0
    record = SegmentRecord(
        directory=name,
        passages=passages.count,
        tokens=spool.tokens,
        lists=lists,
        sentence_lists=sentences,
        token_bits=TOKEN_BITS,
        codec=codec.record,
        files=hash_files(directory, progress),
    )
    return WrittenSegment(record, spool.without_tokens, spool.truncated)


def hash_files(directory: Path, progress: Progress) -> dict[str, FileRecord]:
    """Hash every file of a finished segment."""
    advance = progress.stage("Hashing", None, "B")
    return {path.name: _hashed(path, advance) for path in sorted(directory.iterdir())}


def _hashed(path: Path, advance: Callable[[int], None]) -> FileRecord:
    record = record_file(path)
    advance(record.size_bytes)
    return record
