"""One immutable part of a snapshot, memory-mapped: the codes of its tokens, and which passages a centroid meets.

Files of a segment, all little-endian:

- `offsets.npy` (passages + 1,) int64: the token rows of each passage, in the order of the passages;
- `codes.npy` (tokens, code_bytes) uint8: each token's code, so a passage's codes lie together;
- `cells.npy` (tokens,) uint16 or uint32: each token's centroid, in the quantiser that the segment names;
- `lists.npy` and `postings.npy`: the inverted lists, the passages that each centroid meets (packed gaps, see
  `indexer.posting_lists`);
- `windows.npy` (passages + 1,) and `window_offsets.npy` (windows + 1,) int64, where a passage has more than one
  window (`drdecr.encoder.windows`): the first window of each passage, the token rows of each window;
- `passages.sqlite`: ids, texts, metadata;
- `sentences.npy` (windows, sentence_dim) float16 and `sentences.faiss`, an 8-bit IVF, where the student has sentence
  vectors.

Neither ids nor places of tokens are stored: beside its code a token takes its cell and about a byte of postings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import SnapshotCorruptError
from drdecr.index.decoders import decode_halves, dot_halves
from drdecr.index.faiss_install import load_faiss
from drdecr.index.kernels import rows_of
from drdecr.index.manifest import SegmentRecord
from drdecr.index.passages import PassageStore
from drdecr.index.quantizer import Quantizer
from drdecr.index.tombstones import read_live

CODES = "codes.npy"
CELLS = "cells.npy"
OFFSETS = "offsets.npy"
WINDOWS = "windows.npy"
WINDOW_OFFSETS = "window_offsets.npy"
LISTS = "lists.npy"
POSTINGS = "postings.npy"
PASSAGES = "passages.sqlite"
SENTENCES = "sentences.npy"
SENTENCE_INDEX = "sentences.faiss"


class Segment:
    """Passages, token codes, inverted lists and sentence vectors of one segment.

    Shapes: codes (tokens, code_bytes) uint8; cells (tokens,) unsigned; offsets (passages + 1,) int64; starts and
    sizes (lists,) int64, first byte in `postings` and number of passages of each inverted list; window_offsets
    (windows + 1,) int64, the same as offsets where each passage is one window.
    """

    def __init__(self, root: Path, record: SegmentRecord, quantizer: Quantizer) -> None:
        directory = root / record.directory
        self.record = record
        self.quantizer = quantizer
        self.dim = quantizer.dim
        try:
            self.codes: NDArray[np.uint8] = _mapped(directory / CODES)
            self.cells: NDArray[Any] = _mapped(directory / CELLS)
            self.offsets: NDArray[np.int64] = _mapped(directory / OFFSETS)
            self.window_offsets = self.offsets
            self._windows: NDArray[np.int64] | None = None
            if record.windows:
                self._windows = _mapped(directory / WINDOWS)
                self.window_offsets = _mapped(directory / WINDOW_OFFSETS)
            self.postings: NDArray[np.uint8] = _mapped(directory / POSTINGS)
            lists = np.load(directory / LISTS)
            self._sentences = self._sentence_index = None
            if record.sentence_lists:
                self._sentences = _mapped(directory / SENTENCES)
                self._sentence_index = _mapped_index(directory / SENTENCE_INDEX)
        except (OSError, ValueError, RuntimeError, EOFError) as problem:
            raise SnapshotCorruptError(
                f"{directory} cannot be opened ({problem}); run `drdecr index verify`"
            ) from None
        self._check(directory, lists)
        self.starts: NDArray[np.int64] = np.ascontiguousarray(lists[:, 0])
        self.sizes: NDArray[np.int64] = np.ascontiguousarray(lists[:, 1])
        self.live = read_live(root, record)
        self.store = PassageStore(directory / PASSAGES)

    def __len__(self) -> int:
        return self.record.passages

    @property
    def lists(self) -> int:
        return self.quantizer.lists

    @property
    def sentence_dim(self) -> int:
        return 0 if self._sentences is None else int(self._sentences.shape[1])

    def holds(self, position: int) -> bool:
        """Tell whether the passage at a position of this segment was not deleted."""
        return self.live is None or bool(self.live[position])

    def close(self) -> None:
        self.store.close()

    def lengths_of(self, passages: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many tokens each of these passages has."""
        lengths: NDArray[np.int64] = self.offsets[passages + 1] - self.offsets[passages]
        return lengths

    @property
    def has_windows(self) -> bool:
        """Whether any passage has more than one window."""
        return self._windows is not None

    def has_several_windows(self, passages: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which of these passages have more than one window."""
        if self._windows is None:
            return np.zeros(len(passages), np.bool_)
        several: NDArray[np.bool_] = self._windows[passages + 1] - self._windows[passages] > 1
        return several

    def windows_of(self, passages: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the windows of passages, (windows,), and the bounds of each passage in them, (passages + 1,)."""
        if self._windows is None:
            return passages, np.arange(len(passages) + 1, dtype=np.int64)
        bounds = np.empty(len(passages) + 1, np.int64)
        windows = np.empty(int((self._windows[passages + 1] - self._windows[passages]).sum()), np.int64)
        rows_of(passages, self._windows, windows, bounds)
        return windows, bounds

    def token_rows(self, passage: int, window: int) -> slice:
        """Return which of a passage's tokens are in a window of it."""
        begin = int(self.offsets[passage])
        return slice(int(self.window_offsets[window]) - begin, int(self.window_offsets[window + 1]) - begin)

    def tokens_of(self, passages: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Decode the tokens of some passages: (tokens, dim) and the bounds of each passage in them."""
        rows, bounds = _rows(passages, self.offsets)
        return self.quantizer.turn_back(self.turned_rows(rows)), bounds

    def rows_of_windows(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the token rows of some windows, (tokens,), and each window's bounds in them, (windows + 1,)."""
        return _rows(windows, self.window_offsets)

    def turned_rows(self, rows: NDArray[np.int64], room: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Decode some token rows, in the quantiser's space: (tokens, stored_dim).

        `room` (at least so many tokens, stored_dim) takes them, if given.
        """
        vectors = np.empty((len(rows), self.quantizer.stored_dim), np.float32) if room is None else room[: len(rows)]
        self.quantizer.codec.decode(self.codes, self.cells, rows, vectors)
        return vectors

    def sentences_of(self, windows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode the sentence vectors of some windows, (n, sentence_dim)."""
        assert self._sentences is not None
        vectors = np.empty((len(windows), self._sentences.shape[1]), np.float32)
        decode_halves(self._sentences.view(np.uint8), windows, vectors)
        return vectors

    def sentence_dots(self, windows: NDArray[np.int64], sentence: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the dot products of some windows' sentence vectors with a query's (sentence_dim,), (windows,)."""
        assert self._sentences is not None
        dots = np.empty(len(windows), np.float64)
        dot_halves(self._sentences.view(np.uint8), windows, sentence, dots)
        return dots

    def nearest_sentences(
        self, sentence: NDArray[np.float32], count: int, nprobe: int, allowed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Find the passages whose sentence vectors are nearest, by the 8-bit index; only `allowed` ones, if given.

        They are those of the `count` nearest windows: one with several of them is there several times.
        """
        assert self._sentence_index is not None
        faiss = load_faiss()
        count = min(count, len(self.window_offsets) - 1)
        if allowed is not None and self._windows is not None:
            allowed = np.repeat(allowed, np.diff(self._windows))
        nprobe = min(nprobe, self.record.sentence_lists)
        if allowed is None:
            params = faiss.SearchParametersIVF(nprobe=nprobe)
        else:
            # FAISS reads the bits through bare pointers, which older versions do not keep alive: both names do.
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
            params = faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)
        _, found = self._sentence_index.search(sentence[None, :], count, params=params)
        nearest: NDArray[np.int64] = found[0][found[0] >= 0]
        if allowed is not None:
            # Who may see what does not hang on a library's selector alone.
            nearest = nearest[allowed[nearest]]
        return nearest if self._windows is None else np.searchsorted(self._windows, nearest, side="right") - 1

    def _check(self, directory: Path, lists: NDArray[np.int64]) -> None:
        record = self.record
        shapes = {
            CODES: (self.codes.shape, (record.tokens, self.quantizer.code_bytes)),
            CELLS: (self.cells.shape, (record.tokens,)),
            OFFSETS: (self.offsets.shape, (record.passages + 1,)),
            LISTS: (lists.shape, (self.lists, 2)),
        }
        if self._windows is not None:
            shapes[WINDOWS] = (self._windows.shape, (record.passages + 1,))
            shapes[WINDOW_OFFSETS] = (self.window_offsets.shape, (record.windows + 1,))
        for name, (found, expected) in shapes.items():
            if found != expected:
                raise SnapshotCorruptError(f"{directory / name} holds {found}, the manifest says {expected}")


def _rows(parts: NDArray[np.int64], offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    count = int((offsets[parts + 1] - offsets[parts]).sum())
    rows, bounds = np.empty(count, np.int64), np.empty(len(parts) + 1, np.int64)
    rows_of(parts, offsets, rows, bounds)
    return rows, bounds


def _mapped(path: Path) -> NDArray[Any]:
    return np.asarray(np.load(path, mmap_mode="r"))


def _mapped_index(path: Path) -> Any:
    faiss = load_faiss()
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    # FAISS would start a thread for each list that a search visits, which costs more than the search.
    faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
    return index
