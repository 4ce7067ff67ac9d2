"""Texts to the pieces of a vocabulary: a `tokenizer.json`, read so that its pieces take little memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer, models

from drdecr.encoder.unigram_pieces import UnigramPieces

_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Pieces:
    """One text in pieces, begin and end tokens around them.

    Shapes: ids (pieces,) int64; special (pieces,) bool, true for what is around the text; spans (pieces, 2) int64,
    the characters of the text as the tokenizer counts them.
    """

    ids: NDArray[np.int64]
    special: NDArray[np.bool_]
    spans: NDArray[np.int64]


class PieceTokenizer(Protocol):
    """Anything that splits texts into pieces. A text that spells a special token is text."""

    def split(self, texts: Sequence[str]) -> list[Pieces]:
        """Split whole texts, in parallel where it helps."""
        ...


def read_tokenizer(content: str) -> PieceTokenizer:
    """Read a `tokenizer.json`. Its padding and truncation are not applied. Raises: Exception, as the library does."""
    record = json.loads(content)
    if not _is_plain_unigram(record):
        return WholeTokenizer(Tokenizer.from_str(content))
    vocabulary = record["model"]["vocab"]
    pieces = UnigramPieces(
        [piece for piece, _ in vocabulary], [score for _, score in vocabulary], record["model"]["unk_id"]
    )
    # Special tokens are never looked for in a text, and what goes around one is named by id.
    rest = {**record, "added_tokens": [], "model": {"type": "BPE", "vocab": {_UNKNOWN: 0}, "merges": []}}
    return UnigramTokenizer(Tokenizer.from_str(json.dumps(rest)), pieces)


def _is_plain_unigram(record: Any) -> bool:
    model = record["model"]
    return (
        model.get("type") == "Unigram"
        and model.get("unk_id") is not None
        and not model.get("byte_fallback")
        and all(token["special"] for token in record.get("added_tokens", []))
    )


class WholeTokenizer:
    """A tokenizer of any kind, as the library runs it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = _without_limits(tokenizer)

    def split(self, texts: Sequence[str]) -> list[Pieces]:
        return [
            Pieces(
                np.array(encoding.ids, np.int64),
                np.array(encoding.special_tokens_mask, np.bool_),
                np.array(encoding.offsets, np.int64).reshape(-1, 2),
            )
            for encoding in _encode(self._tokenizer, texts)
        ]


class UnigramTokenizer:
    """A unigram tokenizer: the library normalises a text and finds its words, `UnigramPieces` splits them.

    The library's own unigram model would take fifteen times the memory. Here its place is taken by one that knows
    only characters.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: UnigramPieces) -> None:
        self._pieces = pieces
        self._tokenizer = _without_limits(tokenizer)
        characters = {character: number + 1 for character, number in pieces.characters.items()}
        self._tokenizer.model = models.BPE({_UNKNOWN: 0, **characters}, [], unk_token=_UNKNOWN)

    def split(self, texts: Sequence[str]) -> list[Pieces]:
        return [self._of_one(encoding) for encoding in _encode(self._tokenizer, texts)]

    def _of_one(self, encoding: Encoding) -> Pieces:
        ids = np.array(encoding.ids, np.int64)
        special = np.array(encoding.special_tokens_mask, np.bool_)
        content = np.flatnonzero(~special)
        start, stop = (int(content[0]), int(content[-1]) + 1) if len(content) else (len(ids), len(ids))
        words = np.array(encoding.word_ids[start:stop], np.int64)
        own, ends = self._pieces.split((ids[start:stop] - 1).astype(np.int32), words)
        spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        of_text = np.empty((len(own), 2), np.int64)
        of_text[1:, 0] = spans[start + ends[:-1], 0]
        of_text[:1, 0] = spans[start : start + 1, 0]
        of_text[:, 1] = spans[start + ends - 1, 1]
        return Pieces(
            np.concatenate([ids[:start], own, ids[stop:]]),
            np.concatenate([special[:start], np.zeros(len(own), np.bool_), special[stop:]]),
            np.concatenate([spans[:start], of_text, spans[stop:]]),
        )


def _without_limits(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    # One text alone is quicker without the library's threads.
    return [tokenizer.encode(texts[0])] if len(texts) == 1 else tokenizer.encode_batch(list(texts))
