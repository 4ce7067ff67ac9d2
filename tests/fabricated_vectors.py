"""Fabricated encoders, vectors and snapshots, and the brute force that searches are held to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.types import Encoded, EncoderSpec, Kind, Progress
from drdecr.encoder.windows import Windowed
from drdecr.index import Snapshot
from indexer.build import build_from_vectors


class WordEncoder:
    """Gives each word the same random direction everywhere: equal words match with a score of 1.

    Of a passage it reads the first `limit` words; with a `closeness` its windows are sentences.
    """

    def __init__(
        self, dim: int = 16, sentence_dim: int = 0, name: str = "words", limit: int = 512, closeness: float = 0.0
    ) -> None:
        told = f"{name} {dim} {sentence_dim}" + (f" {closeness}" if closeness else "")
        fingerprint = hashlib.sha256(told.encode()).hexdigest()
        weight = 0.5 if sentence_dim else 0.0
        self.spec = EncoderSpec(name, fingerprint, dim, sentence_dim, weight, 32, limit, closeness)
        self.calls: list[int] = []

    def encode(self, texts: Sequence[str], kind: Kind, *, progress: Progress | None = None) -> Encoded:
        self.calls.append(len(texts))
        whole = [list(re.finditer(r"\w+", text)) for text in texts]
        words = [found[: self.spec.passage_length] if kind == "passage" else found for found in whole]
        tokens = [_direction(word.group().lower(), self.spec.dim) for found in words for word in found]
        spans = [word.span() for found in words for word in found]
        read = [text[: found[-1].end()] if found else text for text, found in zip(texts, words, strict=True)]
        sentences = [_direction(text.lower(), self.spec.sentence_dim) for text in read]
        if progress is not None:
            progress(len(texts))
        return Encoded(
            vectors=np.array(tokens, np.float32).reshape(-1, self.spec.dim),
            offsets=np.cumsum([0, *map(len, words)]).astype(np.int64),
            sentences=np.array(sentences, np.float32) if self.spec.sentence_dim else None,
            spans=np.array(spans, np.int32).reshape(-1, 2),
            truncated=np.array([len(own) < len(all_) for own, all_ in zip(words, whole, strict=True)], np.bool_),
            unknown=np.zeros(len(texts), np.float32),
        )

    def encode_sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        found = self.encode(texts, "passage").sentences
        assert found is not None
        return found


def encoded(
    lengths: Sequence[int], dim: int, sentence_dim: int = 0, seed: int = 0, *, dyadic: bool = False
) -> Encoded:
    """Fabricate texts of so many tokens.

    `dyadic` vectors have components of whole quarters: all their sums are exact in float32, so that a ranking of
    them, with its many ties, is the same for every order of additions.
    """
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *lengths]).astype(np.int64)

    def rows(count: int, width: int) -> NDArray[np.float32]:
        if dyadic:
            return (rng.integers(-2, 3, (count, width)) / 4).astype(np.float32)
        vectors = rng.standard_normal((count, width))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    tokens = int(offsets[-1])
    return Encoded(
        vectors=rows(tokens, dim),
        offsets=offsets,
        sentences=rows(len(lengths), sentence_dim) if sentence_dim else None,
        spans=np.empty((0, 2), np.int32),
        truncated=np.zeros(len(lengths), np.bool_),
        unknown=np.zeros(len(lengths), np.float32),
    )


def save_vectors(path: Path, texts: Encoded, **more: object) -> Path:
    """Write the .npz that `drdecr encode` would; the ids are p0, p1, …"""
    arrays: dict[str, object] = {
        "vectors": texts.vectors,
        "offsets": texts.offsets,
        "ids": np.array([f"p{i}" for i in range(len(texts))], dtype=np.str_),
        **more,
    }
    if texts.sentences is not None:
        arrays["sentences"] = texts.sentences
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def make_snapshot(directory: Path, passages: Encoded, *, sentence_weight: float = 0.5, bits: int = 16) -> Snapshot:
    """Build a snapshot of fabricated passages in an empty directory and open it."""
    vectors = save_vectors(directory / "vectors.npz", passages)
    build_from_vectors(vectors, directory / "snapshot", sentence_weight=sentence_weight, bits=bits)
    return Snapshot.open(directory / "snapshot", verify=True)


def brute_force(
    passages: Encoded, queries: Encoded, query: int, k: int, sentence_weight: float = 0.5
) -> list[tuple[int, float]]:
    """Score every passage as decision 1 defines, over float16 values; return the best (position, score)."""
    tokens = queries.tokens_of(query).astype(np.float64)
    if len(tokens) == 0:
        return []
    scored = []
    for position in range(len(passages)):
        stored = passages.tokens_of(position).astype(np.float16).astype(np.float64)
        if len(stored) == 0:
            continue
        score = float((tokens @ stored.T).max(axis=1).sum())
        if passages.sentences is not None and queries.sentences is not None:
            sentence = passages.sentences[position].astype(np.float16).astype(np.float64)
            score += sentence_weight * len(tokens) * float(sentence @ queries.sentences[query])
        scored.append((position, score))
    return sorted(scored, key=lambda item: (-item[1], item[0]))[:k]


def _direction(word: str, dim: int) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(dim)
    return (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)


def brute_force_windows(
    passages: Windowed, queries: Encoded, query: int, k: int, sentence_weight: float = 0.5
) -> list[tuple[int, float]]:
    """Do the same for passages of several windows, of which the best scores each."""
    best: dict[int, float] = {}
    for window, score in brute_force(passages.windows, queries, query, len(passages.windows), sentence_weight):
        best.setdefault(int(np.searchsorted(passages.bounds, window, side="right")) - 1, score)
    return sorted(best.items(), key=lambda item: (-item[1], item[0]))[:k]
