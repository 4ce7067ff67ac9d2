"""Where a snapshot's passages and their vectors come from: a student that encodes, a file of vectors, or segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage, SkippedLines, read_passages
from drdecr.encoder.types import Encoded, Encoder, EncoderSpec
from drdecr.encoder.windows import Windowed, encode_windows
from drdecr.errors import UsageError
from drdecr.index.passages import PassageWriter
from drdecr.index.reduction import WHOLE, Reduction
from drdecr.index.segment import Segment
from drdecr.index.vector_file import VectorFile
from indexer.pooling import reduce_passages
from indexer.segment_writer import Part

Advance = Callable[[int], None]

_READ_PASSAGES = 1000
_CHUNK_PASSAGES = 1024
# What is in memory at a time, at 256 dimensions: about 150 MB, or what a single passage of more has.
CHUNK_CHARACTERS = 400_000
_CHUNK_TOKENS = 130_000


class Source(Protocol):
    """Gives the passages first, then their vectors in the same order."""

    @property
    def doing(self) -> str:
        """What a progress bar calls the coming of the vectors."""
        ...

    @property
    def spec(self) -> EncoderSpec: ...

    @property
    def reduction(self) -> Reduction:
        """What is left out of the vectors that this gives."""
        ...

    def store_passages(self, writer: PassageWriter, advance: Advance) -> None:
        """Write all passages, so that bad input stops a build before the slow work."""
        ...

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Windowed]:
        """Yield the passages' vectors in parts. A source without spans gives (0, 2) for them."""
        ...


class EncodedFile:
    """A passage file and the student that encodes it."""

    doing = "Encoding"

    def __init__(
        self, encoder: Encoder, path: Path, skipped: SkippedLines | None = None, reduction: Reduction = WHOLE
    ) -> None:
        self._encoder = encoder
        self._path = path
        self._skipped = skipped
        self.reduction = reduction

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

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Windowed]:
        return _encoded(self._encoder, self.reduction, writer, advance)


class VectorSource:
    """A file of vectors with ids, and no texts."""

    doing = "Reading vectors"

    def __init__(self, file: VectorFile, reduction: Reduction = WHOLE) -> None:
        self._file = file
        self.reduction = reduction

    @property
    def spec(self) -> EncoderSpec:
        return self._file.spec

    def store_passages(self, writer: PassageWriter, advance: Advance) -> None:
        for start in range(0, len(self._file.ids), _READ_PASSAGES):
            batch = self._file.ids[start : start + _READ_PASSAGES]
            writer.add(Passage(id=passage_id, text="") for passage_id in batch)
            advance(len(batch))

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Windowed]:
        for passages in self._file.read(_CHUNK_PASSAGES):
            yield reduce_passages(passages, self.reduction)
            advance(len(passages))


class StoredSource:
    """Passages that segments hold already, with the vectors that their codes decode to."""

    doing = "Decoding"

    def __init__(self, spec: EncoderSpec, parts: Sequence[Part], reduction: Reduction) -> None:
        self._spec = spec
        self._parts = parts
        self.reduction = reduction

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def store_passages(self, writer: PassageWriter, advance: Advance) -> None:
        for segment, kept in self._parts:
            for positions in _chunks(kept, _READ_PASSAGES):
                writer.add(segment.store.read(positions.tolist()))
                advance(len(positions))

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Windowed]:
        for segment, kept in self._parts:
            for positions in _chunks(kept, _CHUNK_PASSAGES):
                for low, high in chunks_of(segment.lengths_of(positions).tolist(), _CHUNK_TOKENS):
                    yield stored_vectors(segment, positions[low:high])
                    advance(high - low)


class EncodedAgain(StoredSource):
    """Passages that segments hold already, and the student that encodes their texts once more."""

    doing = "Encoding"

    def __init__(self, encoder: Encoder, parts: Sequence[Part], reduction: Reduction) -> None:
        super().__init__(encoder.spec, parts, reduction)
        self._encoder = encoder

    def store_passages(self, writer: PassageWriter, advance: Advance) -> None:
        """Write all passages. Raises: UsageError for one that has vectors and no text."""
        for segment, kept in self._parts:
            for positions in _chunks(kept, _READ_PASSAGES):
                passages = segment.store.read(positions.tolist())
                for passage, tokens in zip(passages, segment.lengths_of(positions).tolist(), strict=True):
                    if tokens and not passage.content:
                        raise UsageError(
                            f"passage {passage.id!r} came as vectors, without a text that a student could encode; "
                            "retrain without --student"
                        )
                writer.add(passages)
                advance(len(positions))

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Windowed]:
        return _encoded(self._encoder, self.reduction, writer, advance)


def _encoded(encoder: Encoder, reduction: Reduction, writer: PassageWriter, advance: Advance) -> Iterator[Windowed]:
    """Yield the vectors of the passages that a writer holds, in parts."""
    for start in range(0, writer.count, _CHUNK_PASSAGES):
        texts = [passage.content for passage in writer.read(start, start + _CHUNK_PASSAGES)]
        for low, high in chunks_of(list(map(len, texts)), CHUNK_CHARACTERS):
            yield reduce_passages(encode_windows(encoder, texts[low:high], progress=advance), reduction)


def chunks_of(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of runs of at most `most` in sum; a larger size makes a run of its own."""
    low = total = 0
    for at, size in enumerate(sizes):
        if at > low and total + size > most:
            yield low, at
            low, total = at, 0
        total += size
    if low < len(sizes):
        yield low, len(sizes)


def stored_vectors(segment: Segment, positions: NDArray[np.int64]) -> Windowed:
    """Decode the vectors of passages of a segment; they count as whole and known.

    A passage whose spans are not stored has zeros for them.
    """
    vectors, _ = segment.tokens_of(positions)
    windows, bounds = segment.windows_of(positions)
    lengths = segment.window_offsets[windows + 1] - segment.window_offsets[windows]
    spans = segment.store.spans_of(positions.tolist())
    found = [spans[at] for at in positions.tolist() if at in spans]
    pooled = bool(found) and found[0].shape[1] == 3
    none = np.empty((0, 3), np.int32)
    plain: list[NDArray[np.int32]] = []
    if not pooled:
        counts = segment.lengths_of(positions)
        plain = [spans.get(at, np.zeros((n, 2), np.int32)) for at, n in zip(positions.tolist(), counts, strict=True)]
    encoded = Encoded(
        vectors=vectors,
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]),
        sentences=segment.sentences_of(windows) if segment.sentence_dim else None,
        spans=np.concatenate([np.empty((0, 2), np.int32), *plain]),
        truncated=np.zeros(len(windows), np.bool_),
        unknown=np.zeros(len(windows), np.float32),
    )
    return Windowed(encoded, bounds, tuple(spans.get(at, none) for at in positions.tolist()) if pooled else None)


def _chunks(kept: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(kept), size):
        yield kept[start : start + size]
