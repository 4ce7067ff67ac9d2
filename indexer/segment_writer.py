"""Turns spooled vectors into the files of a segment: centroids, inverted lists, and the way from passage to codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import InputError
from drdecr.index.codec import Codec
from drdecr.index.faiss_install import load_faiss
from drdecr.index.segment import CELLS, LISTS, OFFSETS, RANKS, SENTENCE_INDEX, SENTENCES, TOKENS
from indexer.array_file import ArrayWriter
from indexer.centroids import assign, sentence_lists, token_lists, train_centroids
from indexer.inverted_file import write_inverted_file

TOKEN_BITS = 20
"""Bits of a FAISS id that hold the token's place in its passage; the passage's position lies above them."""

Advance = Callable[[int], None]

_CHUNK_VECTORS = 2**16


def write_token_index(
    directory: Path,
    vectors: NDArray[Any],
    codec: Codec,
    advance: Advance,
    centroids: NDArray[np.float32] | None = None,
) -> int:
    """Write the token files of a segment from vectors (tokens, dim); return the number of inverted lists.

    Trains centroids where none are given.
    """
    offsets = np.load(directory / OFFSETS, mmap_mode="r")
    longest = int(np.diff(offsets).max(initial=0))
    if longest >= 2**TOKEN_BITS:
        raise InputError(f"a passage has {longest} token vectors; at most {2**TOKEN_BITS - 1} are supported")
    if centroids is None:
        centroids = train_centroids(vectors, token_lists(len(vectors)))
    sizes = _write_cells(directory / CELLS, vectors, centroids, advance)
    cells = np.load(directory / CELLS, mmap_mode="r")
    _write_ranks(directory / RANKS, cells, sizes)

    def identify(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        passages = np.searchsorted(offsets, rows, side="right") - 1
        ids: NDArray[np.int64] = (passages << TOKEN_BITS) | (rows - offsets[passages])
        return ids

    index = codec.empty_index(centroids)
    lists = write_inverted_file(directory / TOKENS, index, vectors, cells, codec.encode, identify)
    np.save(directory / LISTS, lists)
    return len(lists)


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
    cells = np.empty(len(sentences), np.int64)
    for start in range(0, len(sentences), _CHUNK_VECTORS):
        part = np.ascontiguousarray(sentences[start : start + _CHUNK_VECTORS], dtype=np.float32)
        cells[start : start + len(part)] = assign(part, centroids)

    def encode(vectors: NDArray[np.float32], _: NDArray[np.int64]) -> NDArray[np.uint8]:
        codes: NDArray[np.uint8] = index.sq.compute_codes(vectors)
        return codes

    write_inverted_file(directory / SENTENCE_INDEX, index, sentences, cells, encode, lambda rows: rows)
    return len(centroids)


def _write_cells(
    path: Path, vectors: NDArray[Any], centroids: NDArray[np.float32], advance: Advance
) -> NDArray[np.int64]:
    sizes = np.zeros(len(centroids), np.int64)
    with ArrayWriter(path, (len(vectors),), _narrowest(len(centroids) - 1)) as file:
        for start in range(0, len(vectors), _CHUNK_VECTORS):
            part = np.ascontiguousarray(vectors[start : start + _CHUNK_VECTORS], dtype=np.float32)
            cells = assign(part, centroids)
            sizes += np.bincount(cells, minlength=len(centroids))
            file.append(cells)
            advance(len(part))
    return sizes


def _write_ranks(path: Path, cells: NDArray[Any], sizes: NDArray[np.int64]) -> None:
    """Write each token's place in its inverted list, where the tokens keep their order."""
    filled = np.zeros(len(sizes), np.int64)
    with ArrayWriter(path, (len(cells),), _narrowest(int(sizes.max()) - 1)) as file:
        for start in range(0, len(cells), _CHUNK_VECTORS):
            part = cells[start : start + _CHUNK_VECTORS].astype(np.int64)
            order = np.argsort(part, kind="stable")
            counts = np.bincount(part, minlength=len(sizes))
            run_starts = np.cumsum(counts) - counts
            ranks = np.empty(len(part), np.int64)
            ranks[order] = np.arange(len(part)) - run_starts[part[order]] + filled[part[order]]
            filled += counts
            file.append(ranks)


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
