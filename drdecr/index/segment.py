"""One immutable part of a snapshot, memory-mapped: where each token's code lies and what it decodes to.

Every token vector is stored once, in the inverted lists of `tokens.faiss`. Each list is sorted by passage, and a
FAISS id holds the passage and the token, so the list itself says which passages it meets. The way from a passage
to its tokens is `offsets.npy` (its tokens), `cells.npy` (the list of each token) and `ranks.npy` (its place there).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import SnapshotCorruptError
from drdecr.index.codec import codec_of
from drdecr.index.faiss_install import load_faiss
from drdecr.index.kernels import decode_halves, locate_tokens
from drdecr.index.manifest import SegmentRecord
from drdecr.index.passages import PassageStore
from drdecr.index.tombstones import read_live

TOKENS = "tokens.faiss"
LISTS = "lists.npy"
OFFSETS = "offsets.npy"
CELLS = "cells.npy"
RANKS = "ranks.npy"
PASSAGES = "passages.sqlite"
SENTENCES = "sentences.npy"
SENTENCE_INDEX = "sentences.faiss"


class Segment:
    """Passages, token codes, centroids and sentence vectors of one segment.

    Shapes: centroids (lists, dim) float32; starts and sizes (lists,) int64, byte position and length of each
    inverted list in `data`; offsets (passages + 1,) int64; cells and ranks (tokens,) unsigned.
    """

    def __init__(self, root: Path, record: SegmentRecord, dim: int) -> None:
        directory = root / record.directory
        self.record = record
        self.dim = dim
        self.codec = codec_of(record.codec, dim)
        self.code_bytes = record.codec.code_bytes
        self.token_bits = record.token_bits
        try:
            self.data: NDArray[np.uint8] = np.asarray(np.memmap(directory / TOKENS, dtype=np.uint8, mode="r"))
            lists = np.load(directory / LISTS)
            self.offsets: NDArray[np.int64] = _mapped(directory / OFFSETS)
            self.cells: NDArray[Any] = _mapped(directory / CELLS)
            self.ranks: NDArray[Any] = _mapped(directory / RANKS)
            self.centroids = read_centroids(directory / TOKENS)
            self._sentences = self._sentence_index = None
            if record.sentence_lists:
                self._sentences = _mapped(directory / SENTENCES)
                self._sentence_index = _mapped_index(directory / SENTENCE_INDEX)
        except (OSError, ValueError, RuntimeError, EOFError) as problem:
            raise SnapshotCorruptError(
                f"{directory} cannot be opened ({problem}); run `drdecr index verify`"
            ) from None
        self.starts: NDArray[np.int64] = np.ascontiguousarray(lists[:, 0])
        self.sizes: NDArray[np.int64] = np.ascontiguousarray(lists[:, 1])
        self.live = read_live(root, record)
        self.store = PassageStore(directory / PASSAGES)
        self._check(directory)

    def __len__(self) -> int:
        return self.record.passages

    @property
    def lists(self) -> int:
        return self.record.lists

    def holds(self, position: int) -> bool:
        """Tell whether the passage at a position of this segment was not deleted."""
        return self.live is None or bool(self.live[position])

    def close(self) -> None:
        self.store.close()

    def tokens_of(self, passages: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Decode the tokens of some passages: (tokens, dim) and the bounds of each passage in them."""
        count = int((self.offsets[passages + 1] - self.offsets[passages]).sum())
        positions, cells = np.empty(count, np.int64), np.empty(count, np.int64)
        bounds = np.empty(len(passages) + 1, np.int64)
        locate_tokens(
            passages,
            self.offsets,
            self.cells,
            self.ranks,
            self.starts,
            self.code_bytes,
            positions,
            cells,
            bounds,
        )
        vectors = np.empty((count, self.dim), np.float32)
        self.codec.decode(self.data, positions, cells, vectors)
        return vectors, bounds

    def sentences_of(self, passages: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode the sentence vectors of some passages, (n, sentence_dim)."""
        assert self._sentences is not None
        bytes_each = self._sentences.strides[0]
        vectors = np.empty((len(passages), self._sentences.shape[1]), np.float32)
        decode_halves(self._sentences.view(np.uint8).reshape(-1), passages * bytes_each, vectors)
        return vectors

    def nearest_sentences(
        self, sentence: NDArray[np.float32], count: int, nprobe: int, allowed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Find the passages whose sentence vectors are nearest, by the 8-bit index; only `allowed` ones, if given."""
        assert self._sentence_index is not None
        faiss = load_faiss()
        count = min(count, len(self))
        params = faiss.SearchParametersIVF(nprobe=min(nprobe, self.record.sentence_lists))
        if allowed is not None:
            params.sel = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        _, found = self._sentence_index.search(sentence[None, :], count, params=params)
        nearest: NDArray[np.int64] = found[0]
        return nearest[nearest >= 0]

    def _check(self, directory: Path) -> None:
        record = self.record
        shapes = {
            LISTS: (self.starts.shape, (record.lists,)),
            TOKENS: (self.centroids.shape, (record.lists, self.dim)),
            OFFSETS: (self.offsets.shape, (record.passages + 1,)),
            CELLS: (self.cells.shape, (record.tokens,)),
            RANKS: (self.ranks.shape, (record.tokens,)),
        }
        for name, (found, expected) in shapes.items():
            if found != expected:
                raise SnapshotCorruptError(f"{directory / name} holds {found}, the manifest says {expected}")


def _mapped(path: Path) -> NDArray[Any]:
    return np.asarray(np.load(path, mmap_mode="r"))


def _mapped_index(path: Path) -> Any:
    faiss = load_faiss()
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)


def read_centroids(path: Path) -> NDArray[np.float32]:
    """Return the centroids of a FAISS IVF file, (lists, dim)."""
    index = _mapped_index(path)
    # `index` must outlive the quantizer that it owns.
    quantizer = load_faiss().downcast_index(index.quantizer)
    centroids: NDArray[np.float32] = quantizer.reconstruct_n(0, quantizer.ntotal)
    return np.ascontiguousarray(centroids)
