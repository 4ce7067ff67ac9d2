"""Writes the files of segments from vectors, or from the codes of other segments.

A segment's directory gets its offsets, sentence vectors and passages first (`Spool`, `PassageWriter`); what is here
adds the rest. Every writer streams: its memory does not grow with the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import UsageError
from drdecr.index.faiss_install import load_faiss
from drdecr.index.quantizer import Quantizer
from drdecr.index.segment import (
    CELLS,
    CODES,
    OFFSETS,
    SENTENCE_INDEX,
    SENTENCES,
    WINDOW_OFFSETS,
    WINDOWS,
    Segment,
)
from indexer.array_file import ArrayWriter, GrowingArrayWriter
from indexer.centroids import Assigner, sentence_lists, train_centroids
from indexer.inverted_file import write_inverted_file
from indexer.posting_lists import write_posting_lists

Advance = Callable[[int], None]
Part = tuple[Segment, NDArray[np.int64]]
"""A segment and the positions in it, ascending, of the passages that are kept."""

_CHUNK_VECTORS = 2**16


def write_token_index(directory: Path, vectors: NDArray[Any], quantizer: Quantizer, advance: Advance) -> None:
    """Assign and code vectors (tokens, dim) with a trained quantiser and write the segment's token files.

    `offsets.npy` must be there. `advance` is called with the vectors finished since its last call.
    """
    assign = Assigner(quantizer.centroids)
    with _TokenFiles(directory, len(vectors), quantizer) as files:
        for start in range(0, len(vectors), _CHUNK_VECTORS):
            part = np.ascontiguousarray(vectors[start : start + _CHUNK_VECTORS], dtype=np.float32)
            turned = quantizer.turn(part)
            cells = assign(turned)
            files.append(quantizer.encode(turned, cells), cells)
            advance(len(part))
    _write_lists(directory, quantizer)


def copy_tokens(directory: Path, parts: Sequence[Part], quantizer: Quantizer, advance: Advance) -> int:
    """Write the token files, offsets included, of a segment that holds the kept passages of others, in their order.

    Codes and cells are copied as they are, so every passage keeps its exact scores; only the inverted lists are new.
    All parts must have this very quantiser. Returns the number of tokens. Raises: UsageError for another quantiser.
    """
    if any(segment.quantizer.record.contents != quantizer.record.contents for segment, _ in parts):
        raise UsageError("segments of different quantisers cannot share codes; build the snapshot again instead")
    tokens = 0
    with ArrayWriter(directory / OFFSETS, (_passages_of(parts) + 1,), np.int64) as file:
        file.append(np.zeros(1, np.int64))
        for segment, kept in parts:
            ends = tokens + np.cumsum(segment.lengths_of(kept))
            file.append(ends)
            tokens = int(ends[-1]) if len(ends) else tokens
    with _TokenFiles(directory, tokens, quantizer) as files:
        for segment, kept in parts:
            for rows in _token_rows(segment, kept):
                files.append(segment.codes[rows], segment.cells[rows])
                advance(len(rows))
    _write_lists(directory, quantizer)
    return tokens


def copy_windows(directory: Path, parts: Sequence[Part]) -> int:
    """Write the windows of a segment that holds the kept passages of others, if any has several.

    Returns the number of windows, 0 where each passage is one.
    """
    windows = [segment.windows_of(kept) for segment, kept in parts]
    total = sum(len(own) for own, _ in windows)
    if total == _passages_of(parts):
        return 0
    first = tokens = 0
    with (
        ArrayWriter(directory / WINDOWS, (_passages_of(parts) + 1,), np.int64) as bounds_file,
        ArrayWriter(directory / WINDOW_OFFSETS, (total + 1,), np.int64) as offsets_file,
    ):
        bounds_file.append(np.zeros(1, np.int64))
        offsets_file.append(np.zeros(1, np.int64))
        for (segment, _), (own, bounds) in zip(parts, windows, strict=True):
            bounds_file.append(first + bounds[1:])
            ends = tokens + np.cumsum(segment.window_offsets[own + 1] - segment.window_offsets[own])
            offsets_file.append(ends)
            first += len(own)
            tokens = int(ends[-1]) if len(ends) else tokens
    return total


def copy_sentences(directory: Path, parts: Sequence[Part]) -> int:
    """Write the sentence vectors of a segment that holds the kept passages of others, and their index.

    The parts must have sentence vectors. Returns the number of inverted lists.
    """
    with GrowingArrayWriter(directory / SENTENCES, np.float16, (parts[0][0].sentence_dim,)) as file:
        for segment, kept in parts:
            for start in range(0, len(kept), _CHUNK_VECTORS):
                windows, _ = segment.windows_of(kept[start : start + _CHUNK_VECTORS])
                file.append(segment.sentences_of(windows))
    return write_sentence_index(directory)


def write_sentence_index(directory: Path) -> int:
    """Write the 8-bit FAISS index of the segment's sentence vectors; return the number of inverted lists."""
    faiss = load_faiss()
    sentences = np.load(directory / SENTENCES, mmap_mode="r")
    dim = sentences.shape[1]
    centroids = train_centroids(sentences, sentence_lists(len(sentences)))
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centroids)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, len(centroids), faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
    )
    ranges = _component_ranges(sentences)
    faiss.copy_array_to_vector(ranges.reshape(-1), index.sq.trained)
    index.is_trained = True
    assign = Assigner(centroids)
    cells = np.empty(len(sentences), np.int64)
    for start in range(0, len(sentences), _CHUNK_VECTORS):
        part = np.ascontiguousarray(sentences[start : start + _CHUNK_VECTORS], dtype=np.float32)
        cells[start : start + len(part)] = assign(part)

    def code(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        codes: NDArray[np.uint8] = index.sq.compute_codes(np.ascontiguousarray(sentences[rows], dtype=np.float32))
        return codes

    write_inverted_file(directory / SENTENCE_INDEX, index, cells, code, lambda rows: rows)
    return len(centroids)


class _TokenFiles:
    """Writes codes and cells side by side."""

    def __init__(self, directory: Path, tokens: int, quantizer: Quantizer) -> None:
        self._codes = ArrayWriter(directory / CODES, (tokens, quantizer.code_bytes), np.uint8)
        self._cells = ArrayWriter(directory / CELLS, (tokens,), _narrowest(quantizer.lists - 1))

    def __enter__(self) -> _TokenFiles:
        return self

    def __exit__(self, *failure: Any) -> None:
        try:
            self._codes.__exit__(*failure)
        finally:
            self._cells.__exit__(*failure)

    def append(self, codes: NDArray[np.uint8], cells: NDArray[Any]) -> None:
        self._codes.append(codes)
        self._cells.append(cells)


def _passages_of(parts: Sequence[Part]) -> int:
    return sum(len(kept) for _, kept in parts)


def _write_lists(directory: Path, quantizer: Quantizer) -> None:
    offsets = np.load(directory / OFFSETS, mmap_mode="r")
    cells = np.load(directory / CELLS, mmap_mode="r")
    write_posting_lists(directory, np.asarray(offsets), np.asarray(cells), quantizer.lists)


def _token_rows(segment: Segment, kept: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the token rows of passages in their order, a part at a time."""
    starts, lengths = segment.offsets[kept], segment.lengths_of(kept)
    ends = np.cumsum(lengths)
    low = 0
    while low < len(kept):
        done = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, done + _CHUNK_VECTORS, side="right")))
        own = lengths[low:high]
        within = np.arange(int(own.sum())) - np.repeat(np.cumsum(own) - own, own)
        yield np.repeat(starts[low:high], own) + within
        low = high


def _component_ranges(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the smallest value and the width of each dimension, (2, dim): what an 8-bit scalar quantiser trains."""
    low = np.zeros(vectors.shape[1], np.float32)
    high = np.zeros(vectors.shape[1], np.float32)
    for start in range(0, len(vectors), _CHUNK_VECTORS):
        part = np.asarray(vectors[start : start + _CHUNK_VECTORS], dtype=np.float32)
        low, high = np.minimum(low, part.min(axis=0)), np.maximum(high, part.max(axis=0))
    return np.stack([low, np.maximum(high - low, np.float32(1e-6))])


def _narrowest(largest: int) -> type[np.uint16] | type[np.uint32]:
    return np.uint16 if largest < 2**16 else np.uint32
