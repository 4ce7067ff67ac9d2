"""The passages of a build: staged ones, encoded where their text is new, and stored ones with their vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage
from drdecr.encoder.types import Encoder, EncoderSpec
from drdecr.encoder.windows import Windowed, join
from drdecr.index.passages import PassageWriter
from drdecr.index.reduction import Reduction
from drdecr.index.segment import Segment
from drdecr.index.snapshot import Snapshot
from indexer.changes import Changes
from indexer.encoded_store import EncodedStore
from indexer.pooling import reduce_passages
from indexer.sources import CHUNK_CHARACTERS, Advance, chunks_of, stored_vectors

_CHUNK_PASSAGES = 512
_NEW = -1
Place = tuple[int, int]
"""A segment's number and a position in it."""


class MergedSource:
    """A `Source` over changes and the version `base` before them.

    Incremental, it gives the staged passages that differ from the stored ones; `full`, all passages there shall be.
    With `reuse`, a passage whose text is stored already keeps its vectors; `base` must be of the same student and
    `reduction` then.
    """

    doing = "Encoding"

    def __init__(
        self,
        encoder: Encoder,
        store: EncodedStore,
        base: Snapshot | None,
        changes: Changes,
        *,
        full: bool,
        reuse: bool,
        reduction: Reduction,
    ) -> None:
        self.reduction = reduction
        self._spec = encoder.spec
        self._store = store
        self._segments: list[Segment] = [] if base is None else base.segments
        self._changes = changes
        self._full = full
        self._reuse = reuse
        self._places: list[NDArray[np.int64]] = []

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    @property
    def encoded_count(self) -> int:
        """How many passages the student encodes."""
        return sum(int((places[:, 0] == _NEW).sum()) for places in self._places)

    @property
    def reused_count(self) -> int:
        """How many passages are written with the vectors that they have."""
        return sum(int((places[:, 0] != _NEW).sum()) for places in self._places)

    def deleted_count(self) -> int:
        """Count the passages of `base` that the changes delete."""
        positions = (
            (segment, segment.store.positions(ids).values())
            for ids in self._changes.deletes()
            for segment in self._segments
        )
        return sum(segment.holds(at) for segment, found in positions for at in found)

    def store_passages(self, writer: PassageWriter, advance: Advance) -> None:
        for batch in self._changes.puts():
            self._put(writer, batch)
            advance(len(batch))
        if self._full:
            for number, segment in enumerate(self._segments):
                for positions in _living(segment):
                    self._keep(writer, number, segment.store.read(positions), positions)
                    advance(len(positions))

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Windowed]:
        places = np.concatenate([np.empty((0, 2), np.int64), *self._places])
        for start in range(0, writer.count, _CHUNK_PASSAGES):
            passages = writer.read(start, start + _CHUNK_PASSAGES)
            for low, high in chunks_of([len(passage.content) for passage in passages], CHUNK_CHARACTERS):
                yield self._encode(passages[low:high], places[start + low : start + high], advance)

    def _put(self, writer: PassageWriter, batch: Sequence[Passage]) -> None:
        found = self._find(batch)
        written: list[Passage] = []
        places: list[Place] = []
        for passage in batch:
            place, stored = found.get(passage.id, ((_NEW, _NEW), None))
            if not self._full and self._reuse and stored is not None and _alike(stored, passage):
                continue
            same = self._reuse and stored is not None and stored.content == passage.content
            written.append(passage)
            places.append(place if same else (_NEW, _NEW))
        self._write(writer, written, places)

    def _keep(
        self, writer: PassageWriter, number: int, passages: Sequence[Passage], positions: Sequence[int]
    ) -> None:
        touched = self._changes.touched([passage.id for passage in passages])
        kept = [(passage, at) for passage, at in zip(passages, positions, strict=True) if passage.id not in touched]
        places = [(number, at) if self._reuse else (_NEW, _NEW) for _, at in kept]
        self._write(writer, [passage for passage, _ in kept], places)

    def _write(self, writer: PassageWriter, passages: Sequence[Passage], places: Sequence[Place]) -> None:
        if passages:
            writer.add(passages)
            self._places.append(np.array(places, np.int64).reshape(-1, 2))

    def _find(self, batch: Sequence[Passage]) -> dict[str, tuple[Place, Passage]]:
        found: dict[str, tuple[Place, Passage]] = {}
        ids = [passage.id for passage in batch]
        for number, segment in enumerate(self._segments):
            positions = [at for at in segment.store.positions(ids).values() if segment.holds(at)]
            for at, stored in zip(positions, segment.store.read(positions), strict=True):
                found[stored.id] = ((number, at), stored)
        return found

    def _encode(self, passages: Sequence[Passage], places: NDArray[np.int64], advance: Advance) -> Windowed:
        texts = [passage.content for passage, (number, _) in zip(passages, places, strict=True) if number == _NEW]
        parts: dict[int, Windowed] = {}
        if texts:
            parts[_NEW] = reduce_passages(self._store.encode(texts, advance), self.reduction)
        for number in np.unique(places[:, 0]):
            if number != _NEW:
                positions = places[places[:, 0] == number, 1]
                parts[int(number)] = stored_vectors(self._segments[number], positions)
                advance(len(positions))
        if len(parts) == 1:
            return next(iter(parts.values()))
        turn = dict.fromkeys(parts, 0)
        rows: list[Windowed] = []
        for number in places[:, 0].tolist():
            rows.append(parts[number].select(turn[number], turn[number] + 1))
            turn[number] += 1
        return join(rows)


def _living(segment: Segment) -> Iterator[list[int]]:
    live = np.arange(len(segment)) if segment.live is None else np.flatnonzero(segment.live)
    for start in range(0, len(live), _CHUNK_PASSAGES):
        yield live[start : start + _CHUNK_PASSAGES].tolist()


def _alike(stored: Passage, passage: Passage) -> bool:
    """Tell whether two passages are the same to a search; to Python, 1, 1.0 and true are equal metadata."""
    return stored == passage and _json(stored) == _json(passage)


def _json(passage: Passage) -> str:
    return json.dumps(passage.metadata, sort_keys=True)
