"""Where a snapshot's passages and their vectors come from: a student that encodes a file, or a file of vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage, SkippedLines, read_passages
from drdecr.encoder.types import Encoded, Encoder, EncoderSpec
from drdecr.index.passages import PassageWriter
from drdecr.index.segment import Segment
from drdecr.index.vector_file import VectorFile
from indexer.segment_writer import Part

Advance = Callable[[int], None]

_READ_PASSAGES = 1000
_CHUNK_PASSAGES = 1024


class Source(Protocol):
    """Gives the passages first, then their vectors in the same order."""

    @property
    def doing(self) -> str:
        """What a progress bar calls the coming of the vectors."""
        ...

    @property
    def spec(self) -> EncoderSpec: ...

    def store_passages(self, writer: PassageWriter, advance: Advance) -> None:
        """Write all passages, so that bad input stops a build before the slow work."""
        ...

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Encoded]:
        """Yield the passages' vectors in parts. A source without spans gives (0, 2) for them."""
        ...


class EncodedFile:
    """A passage file and the student that encodes it."""

    doing = "Encoding"

    def __init__(self, encoder: Encoder, path: Path, skipped: SkippedLines | None = None) -> None:
        self._encoder = encoder
        self._path = path
        self._skipped = skipped

    @property
    def spec(self) -> EncoderSpec:
        return self._encoder.spec

    def store_passages(self, writer: PassageWriter, advance: Advance) -> None:
        batch: list[Passage] = []
        for passage in read_passages(self._path, skipped=self._skipped):
            batch.append(passage)
            if len(batch) == _READ_PASSAGES:
                writer.add(batch)
                advance(len(batch))
                batch = []
        writer.add(batch)
        advance(len(batch))

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Encoded]:
        for start in range(0, writer.count, _CHUNK_PASSAGES):
            passages = writer.read(start, start + _CHUNK_PASSAGES)
            yield self._encoder.encode([passage.content for passage in passages], "passage", progress=advance)


class VectorSource:
    """A file of vectors with ids, and no texts."""

    doing = "Reading vectors"

    def __init__(self, file: VectorFile) -> None:
        self._file = file

    @property
    def spec(self) -> EncoderSpec:
        return self._file.spec

    def store_passages(self, writer: PassageWriter, advance: Advance) -> None:
        for start in range(0, len(self._file.ids), _READ_PASSAGES):
            batch = self._file.ids[start : start + _READ_PASSAGES]
            writer.add(Passage(id=passage_id, text="") for passage_id in batch)
            advance(len(batch))

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Encoded]:
        for encoded in self._file.read(_CHUNK_PASSAGES):
            yield encoded
            advance(len(encoded))


class StoredSource:
    """Passages that segments hold already, with the vectors that their codes decode to."""

    doing = "Decoding"

    def __init__(self, spec: EncoderSpec, parts: Sequence[Part]) -> None:
        self._spec = spec
        self._parts = parts

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def store_passages(self, writer: PassageWriter, advance: Advance) -> None:
        for segment, kept in self._parts:
            for positions in _chunks(kept, _READ_PASSAGES):
                writer.add(segment.store.read(positions.tolist()))
                advance(len(positions))

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Encoded]:
        for segment, kept in self._parts:
            for positions in _chunks(kept, _CHUNK_PASSAGES):
                yield stored_vectors(segment, positions)
                advance(len(positions))


def stored_vectors(segment: Segment, positions: NDArray[np.int64]) -> Encoded:
    """Decode the vectors of passages of a segment; they count as whole and known."""
    vectors, offsets = segment.tokens_of(positions)
    spans = segment.store.spans_of(positions.tolist())
    found = [spans[at] for at in positions.tolist() if at in spans]
    return Encoded(
        vectors=vectors,
        offsets=offsets,
        sentences=segment.sentences_of(positions) if segment.sentence_dim else None,
        spans=np.concatenate([np.empty((0, 2), np.int32), *found]),
        truncated=np.zeros(len(positions), np.bool_),
        unknown=np.zeros(len(positions), np.float32),
    )


def _chunks(kept: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(kept), size):
        yield kept[start : start + size]
