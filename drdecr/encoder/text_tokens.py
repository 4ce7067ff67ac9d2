"""Texts to token ids, the same for every runtime: what is read, what is scored, and which characters it was."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from drdecr.encoder.piece_tokenizer import Pieces, PieceTokenizer
from drdecr.encoder.settings import StudentSettings
from drdecr.encoder.types import Kind

# A text beyond this many characters for each token of the limit is cut before it is tokenised.
_CHARACTERS_PER_TOKEN = 64
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TextTokens:
    """One text, ready for the encoder.

    Shapes: ids (read,) int64, all that the encoder reads, of which the first `attended` are attended to; scored
    (tokens,) int64, the positions in `ids` that get a token vector; spans (tokens, 2) int32, their characters, none
    for tokens that no text stands behind; `kind`, query or passage. A text without
    any content has no ids.
    """

    ids: NDArray[np.int64]
    attended: int
    scored: NDArray[np.int64]
    spans: NDArray[np.int32]
    truncated: bool
    unknown: float
    kind: Kind = "passage"


_NOTHING = TextTokens(
    ids=np.empty(0, np.int64),
    attended=0,
    scored=np.empty(0, np.int64),
    spans=np.empty((0, 2), np.int32),
    truncated=False,
    unknown=0.0,
)


class TextTokenizer:
    """A student's tokenizer under a student's settings."""

    def __init__(self, tokenizer: PieceTokenizer, settings: StudentSettings) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self._unscored = {
            "query": np.array(settings.never_scored + settings.query_skip, np.int64),
            "passage": np.array(settings.never_scored + settings.passage_skip, np.int64),
        }

    def tokenize(self, texts: Sequence[str], kind: Kind) -> list[TextTokens]:
        """Tokenise texts in parallel and cut each to the limit of its kind. Takes any Unicode, of any length."""
        limit = self._settings.query_length if kind == "query" else self._settings.passage_length
        cleaned = [_clean(text, limit * _CHARACTERS_PER_TOKEN) for text in texts]
        split = self._tokenizer.split([clean.text for clean in cleaned])
        return [self._of_one(pieces, clean, kind, limit) for pieces, clean in zip(split, cleaned, strict=True)]

    def _of_one(self, pieces: Pieces, clean: _CleanText, kind: Kind, limit: int) -> TextTokens:
        ids = pieces.ids
        content = np.flatnonzero(~pieces.special)
        if not len(content):
            return _NOTHING
        settings = self._settings
        prefix = settings.query_prefix if kind == "query" else settings.passage_prefix
        start, stop = int(content[0]), int(content[-1]) + 1
        around = start + len(prefix) + len(ids) - stop
        kept = min(stop - start, limit - around)
        of_text = ids[start : start + kept]
        before, after = np.append(ids[:start], np.array(prefix, np.int64)), ids[stop:]
        read = np.concatenate([before, of_text, after])
        added, attended = self._added(kind, len(read))
        spans = np.zeros((len(read) + len(added), 2), np.int64)
        spans[len(before) : len(before) + kept] = _spans(pieces.spans[start:stop], clean.text)[:kept]
        spans[len(before) + kept :] = spans[len(before) + kept - 1, 1]
        spans += clean.skipped
        counted = ~np.isin(read, self._unscored[kind])
        if not settings.score_frame:
            counted[: len(before)] = counted[len(before) + kept :] = False
        scored = np.flatnonzero(np.append(counted, np.ones(len(added), np.bool_)))
        return TextTokens(
            ids=np.append(read, added),
            attended=len(read) + attended,
            scored=scored,
            spans=spans[scored].astype(np.int32),
            truncated=kept < stop - start or clean.cut,
            unknown=0.0 if settings.unknown_id is None else float(np.mean(of_text == settings.unknown_id)),
            kind=kind,
        )

    def _added(self, kind: Kind, length: int) -> tuple[NDArray[np.int64], int]:
        """Return the ids that expand a text of `length` tokens, and how many of them are attended to."""
        settings = self._settings
        expansion = settings.query_expansion if kind == "query" else settings.passage_expansion
        if expansion is None:
            return np.empty(0, np.int64), 0
        count = max(expansion.length - length, 0)
        if expansion.at_most is not None:
            count = min(count, expansion.at_most)
        return np.full(count, expansion.token_id, np.int64), count if expansion.attended else 0


def punctuation_pieces(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the pieces made of nothing but punctuation, in any script: Unicode's categories P."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    return tuple(sorted(index for piece, index in vocabulary.items() if _is_punctuation(piece)))


def _is_punctuation(piece: str) -> bool:
    bare = piece.removeprefix("##").strip("▁Ġ ") if len(piece) > 1 else piece
    return bool(bare) and all(unicodedata.category(character).startswith("P") for character in bare)


@dataclass(frozen=True, slots=True)
class _CleanText:
    """What is left of a text; `skipped` characters are missing before it, and some after it where it is `cut`."""

    text: str
    skipped: int
    cut: bool


def _clean(text: str, characters: int) -> _CleanText:
    start = 0
    if len(text) > characters:
        start = len(text) - len(text.lstrip())
        cut = len(text.rstrip()) > start + characters
        text = text[start : start + characters]
    else:
        cut = False
    if not text.isascii():
        text = _SURROGATE.sub("\ufffd", text)
    return _CleanText(text, start, cut)


def _spans(spans: NDArray[np.int64], text: str) -> NDArray[np.int64]:
    """Turn a tokenizer's spans into such that begin at no space and lose no combining mark."""
    spans = spans.copy()
    # A composed character is traced to its first code point only: give the token the others too.
    following = np.append(spans[1:, 0], len(text))
    for token in np.flatnonzero(following > spans[:, 1]).tolist():
        spans[token, 1] += _until_space(text[spans[token, 1] : following[token]])
    for token, (start, end) in enumerate(spans.tolist()):
        if end - start > 1 and text[start].isspace():
            spans[token, 0] = end - max(len(text[start:end].lstrip()), 1)
    return spans


def _until_space(text: str) -> int:
    return next((index for index, character in enumerate(text) if character.isspace()), len(text))
