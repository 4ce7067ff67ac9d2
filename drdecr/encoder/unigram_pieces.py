"""The pieces of a unigram model as flat arrays, and the split of texts into the likeliest of them.

`tokenizers` keeps a hash map for each beginning of a piece, which is 120 MB for 128,000 pieces; these arrays are 8.
The split is the same, ties and rounding included: Kudo 2018, "Subword Regularization", section 3.2, by Viterbi.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.compiled import compiled

# What an unknown character scores below the worst piece, as in SentencePiece.
_UNKNOWN_PENALTY = 10.0
_FREE = -1


class UnigramPieces:
    """Finds the likeliest pieces of texts that are given as numbers of characters.

    `characters` numbers every character of any piece from 0.
    """

    def __init__(self, pieces: Sequence[str], scores: Sequence[float], unknown_id: int) -> None:
        text = "".join(pieces)
        used, numbers = np.unique(_code_points(text), return_inverse=True)
        self.characters: Mapping[str, int] = {chr(point): number for number, point in enumerate(used.tolist())}
        lengths = np.array([len(piece) for piece in pieces], np.int64)
        self._text = numbers.astype(np.int32)
        self._bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self._scores = np.array(scores, np.float64)
        self._unknown_id = unknown_id
        self._unknown_score = float(self._scores.min()) - _UNKNOWN_PENALTY
        self._longest = int(lengths.max())
        # A quarter of the places are taken, so that most looks at a text that is no piece end at once.
        self._table = np.full(1 << (4 * len(pieces) - 1).bit_length(), _FREE, np.int32)
        _fill(self._text, self._bounds, self._table)

    def split(
        self, characters: NDArray[np.int32], words: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ids of the pieces, and where each ends; a piece lies in one word, unknown characters in one.

        Shapes: characters (n,), -1 for one that is in no piece; words (n,), equal for the characters of a word;
        ids and ends (pieces,).
        """
        count = len(characters)
        ids, ends = np.empty(count, np.int64), np.empty(count, np.int64)
        pieces = _split(
            characters,
            words,
            (self._text, self._bounds, self._table, self._scores),
            self._longest,
            self._unknown_id,
            self._unknown_score,
            ids,
            ends,
        )
        return ids[:pieces], ends[:pieces]


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


@compiled
def _mixed(key: Any, character: Any) -> Any:
    """Add a character to the hash of those before it (FNV-1a, with more of the high bits brought down)."""
    key = (key ^ np.uint64(character)) * np.uint64(0x100000001B3)
    return key ^ (key >> np.uint64(29))


@compiled
def _place(table: Any, key: Any, characters: Any, start: int, stop: int, text: Any, bounds: Any) -> int:
    """Return the place in the table of the piece that equals characters[start:stop], or the free place for it."""
    last = np.uint64(len(table) - 1)
    place = key & last
    while table[place] >= 0:
        begin = bounds[table[place]]
        if bounds[table[place] + 1] - begin == stop - start:
            at = 0
            while at < stop - start and text[begin + at] == characters[start + at]:
                at += 1
            if at == stop - start:
                break
        place = (place + np.uint64(1)) & last
    return int(place)


@compiled
def _fill(text: Any, bounds: Any, table: Any) -> None:
    """Enter all pieces; of equal ones the last counts."""
    for piece in range(len(bounds) - 1):
        key = np.uint64(0xCBF29CE484222325)
        for at in range(bounds[piece], bounds[piece + 1]):
            key = _mixed(key, text[at])
        table[_place(table, key, text, bounds[piece], bounds[piece + 1], text, bounds)] = piece


@compiled
def _split(
    characters: Any,
    words: Any,
    pieces: Any,
    longest: int,
    unknown_id: int,
    unknown_score: float,
    ids: Any,
    ends: Any,
) -> int:
    """Fill ids and ends from the front; return how many there are."""
    text, bounds, table, scores = pieces
    count = len(characters)
    best, begins, found = np.empty(count + 1), np.empty(count + 1, np.int64), np.empty(count + 1, np.int64)
    written = 0
    start = 0
    while start < count:
        stop = start + 1
        while stop < count and words[stop] == words[start]:
            stop += 1
        begins[start : stop + 1] = -1
        best[start] = 0.0
        for at in range(start, stop):
            alone = False
            key = np.uint64(0xCBF29CE484222325)
            for end in range(at + 1, min(at + longest, stop) + 1):
                if characters[end - 1] < 0:
                    break
                key = _mixed(key, characters[end - 1])
                piece = table[_place(table, key, characters, at, end, text, bounds)]
                if piece < 0:
                    continue
                score = scores[piece] + best[at]
                if begins[end] < 0 or score > best[end]:
                    best[end], begins[end], found[end] = score, at, piece
                alone |= end == at + 1
            if not alone:
                score = unknown_score + best[at]
                if begins[at + 1] < 0 or score > best[at + 1]:
                    best[at + 1], begins[at + 1], found[at + 1] = score, at, unknown_id
        # From the end of the word to its start, then turned round.
        first = written
        end = stop
        while end > start:
            unknown = found[end] == unknown_id
            if not (unknown and written > first and ids[written - 1] == unknown_id):
                ids[written], ends[written] = found[end], end
                written += 1
            end = begins[end]
        ids[first:written] = ids[first:written][::-1].copy()
        ends[first:written] = ends[first:written][::-1].copy()
        start = stop
    return written
