"""Chunks of passages: cut from a file, read back, and given to a segment with the vectors that others encoded."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage, SkippedLines, read_passages
from drdecr.encoder.types import EncoderSpec
from drdecr.encoder.windows import Windowed
from drdecr.index.passages import PassageWriter
from drdecr.index.place import Place
from drdecr.index.reduction import Reduction
from indexer.centroids import sample_rows
from indexer.cluster.plan import passages_name, vectors_name
from indexer.encoded_file import load_encoded
from indexer.sources import Advance

# Training reads all vectors of so many chunks, a million passages where a chunk has 1,024.
_SAMPLED_CHUNKS = 1024


def cut_passages(
    path: Path, place: Place, chunk_passages: int, skipped: SkippedLines | None, advance: Advance
) -> tuple[int, int]:
    """Check a passage file and write it as chunks; return the passages and the chunks.

    Raises: InputError that names the line.
    """
    passages = read_passages(path, skipped=skipped)
    count = chunks = 0
    while batch := list(islice(passages, chunk_passages)):
        lines = "".join(json.dumps(asdict(passage), ensure_ascii=False) + "\n" for passage in batch)
        place.write(passages_name(chunks), gzip.compress(lines.encode(), compresslevel=1, mtime=0))
        chunks += 1
        count += len(batch)
        advance(len(batch))
    return count, chunks


def read_chunk(place: Place, chunk: int) -> list[Passage]:
    """Read the passages of a chunk."""
    # Not splitlines(): a text may hold what Unicode takes for the end of a line.
    lines = gzip.decompress(place.read(passages_name(chunk))).decode().split("\n")
    return [Passage(**json.loads(line)) for line in lines if line]


def read_vectors(place: Place, chunk: int, tokens: int, spec: EncoderSpec) -> Windowed:
    """Read the vectors of a chunk."""
    return load_encoded(io.BytesIO(place.read(vectors_name(chunk, tokens))), spec)


class ChunkSource:
    """The passages of chunks with the vectors that are there; a `Source`. `tokens` counts those of each chunk."""

    doing = "Reading vectors"

    def __init__(self, place: Place, spec: EncoderSpec, reduction: Reduction, tokens: dict[int, int]) -> None:
        self._place = place
        self._spec = spec
        self.reduction = reduction
        self._tokens = tokens

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def store_passages(self, writer: PassageWriter, advance: Advance) -> None:
        for chunk in self._tokens:
            passages = read_chunk(self._place, chunk)
            writer.add(passages)
            advance(len(passages))

    def encoded(self, writer: PassageWriter, advance: Advance) -> Iterator[Windowed]:
        for chunk, tokens in self._tokens.items():
            encoded = read_vectors(self._place, chunk, tokens, self._spec)
            yield encoded
            advance(len(encoded))


def draw_sample(
    place: Place, spec: EncoderSpec, reduction: Reduction, tokens: Sequence[int], lists: int
) -> NDArray[np.float32]:
    """Draw the vectors that train `lists` centroids, (n, dim); `tokens` counts those of each chunk.

    Up to 1,024 chunks they are those that a build on one machine draws, beyond they come from 1,024 chunks.
    """
    chunks = np.unique(np.linspace(0, len(tokens) - 1, min(len(tokens), _SAMPLED_CHUNKS)).astype(np.int64))
    bounds = np.cumsum([0, *(tokens[chunk] for chunk in chunks)])
    rows = sample_rows(int(bounds[-1]), lists)
    parts = [np.empty((0, reduction.width(spec.dim)), np.float32)]
    for chunk, low, high in zip(chunks.tolist(), bounds, bounds[1:], strict=False):
        own = None if rows is None else rows[np.searchsorted(rows, low) : np.searchsorted(rows, high)] - low
        if own is None or len(own):
            vectors = read_vectors(place, chunk, tokens[chunk], spec).windows.vectors
            parts.append(vectors if own is None else vectors[own])
    return np.concatenate(parts)
