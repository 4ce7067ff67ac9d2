"""Express every multilingual piece in English pieces that mean the same.

Both sides are put into one space, the multilingual encoder's own piece embeddings; a piece becomes the
similarity-weighted mean of the English pieces nearest to it (WECHSEL: Minixhofer, Paischer and Rekabsaz 2022,
section 3.2). A piece that both vocabularies share is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drdecr.index.faiss_install import load_faiss

# Ctrl-C is heard between two blocks.
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Piece:
    """A vocabulary entry by what it stands for; `text` is empty for one that stands for no text."""

    text: str
    starts_word: bool


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For each multilingual piece its English rows and their weights, which sum to 1; both (pieces, neighbours)."""

    rows: NDArray[np.int32]
    weights: NDArray[np.float32]
    copied: int


def read_wordpiece(vocabulary: Sequence[str]) -> list[Piece]:
    """Read WordPiece entries: `##x` continues a word, `[X]` stands for no text."""
    return [
        Piece("", False)
        if entry.startswith("[") and entry.endswith("]") and len(entry) > 2
        else Piece(entry.removeprefix("##"), not entry.startswith("##") or entry == "##")
        for entry in vocabulary
    ]


def read_marked(vocabulary: Sequence[str], marker: str = "▁") -> list[Piece]:
    """Read entries where a marker starts a word: `▁` in SentencePiece, `Ġ` in byte-level BPE."""
    return [
        Piece("", False)
        if entry.startswith("<") and entry.endswith(">") and len(entry) > 2
        else Piece(entry.removeprefix(marker), entry.startswith(marker))
        for entry in vocabulary
    ]


def transfer(
    pieces: Sequence[Piece],
    vectors: NDArray[np.float32],
    english: Sequence[Piece],
    english_vectors: NDArray[np.float32],
    *,
    special: Mapping[int, int],
    neighbours: int = 8,
    temperature: float = 0.1,
) -> Neighbours:
    """Find the English pieces that each multilingual piece is made of.

    Shapes: vectors (pieces, width) and english_vectors (english, width) in the same space, any length; a row of
    zeros is no candidate. `special` maps a multilingual id straight to an English one (begin, end, unknown).
    """
    count = len(pieces)
    rows = np.zeros((count, neighbours), np.int32)
    weights = np.zeros((count, neighbours), np.float32)
    space, english_space = _unit(vectors), _unit(english_vectors)
    candidates = np.flatnonzero(np.any(english_space != 0, axis=1))
    kept = min(neighbours, len(candidates))
    copies = dict(_shared(pieces, english)) | dict(special)
    searched = np.setdiff1d(np.arange(count), list(copies))
    pool, faiss = np.ascontiguousarray(english_space[candidates]), load_faiss()
    for start in range(0, len(searched), _ROWS_AT_ONCE):
        block = searched[start : start + _ROWS_AT_ONCE]
        # Tile by tile; torch.topk of whole rows of products takes more than twice the time.
        near, nearest = faiss.knn(space[block], pool, kept, metric=faiss.METRIC_INNER_PRODUCT)
        share = np.exp((near - near.max(axis=1, keepdims=True)) / temperature)
        rows[block, :kept] = candidates[nearest]
        weights[block, :kept] = share / share.sum(axis=1, keepdims=True)

    for piece, row in copies.items():
        rows[piece], weights[piece] = row, 0.0
        weights[piece, 0] = 1.0
    return Neighbours(rows, weights, len(copies))


def _shared(pieces: Sequence[Piece], english: Sequence[Piece]) -> list[tuple[int, int]]:
    by_piece = {piece: row for row, piece in reversed(list(enumerate(english))) if piece.text}
    found = []
    for index, piece in enumerate(pieces):
        folded = piece.text.lower()
        row = by_piece.get(Piece(folded, piece.starts_word))
        if row is None and folded and not folded.isalpha():
            # A tokenizer that splits at punctuation starts a word with it wherever it stands.
            row = by_piece.get(Piece(folded, True))
        if row is not None:
            found.append((index, row))
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.zeros_like(vectors)
    np.divide(vectors, length, out=unit, where=length > 0)
    return unit
