"""Passages longer than an encoder reads, as overlapping windows: the best window scores the passage (MaxP).

MaxP: Dai and Callan 2019, "Deeper Text Understanding for IR with Contextual Neural Language Modeling".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.batching import concatenate
from drdecr.encoder.sentences import sentence_starts
from drdecr.encoder.types import Encoded, Encoder, EncoderSpec, Progress

# The share of a window that the next one reads again.
OVERLAP = 0.25
# What lies beyond so many windows is not read: at 400 tokens each a text of about 300,000 characters.
MAX_WINDOWS = 256


@dataclass(frozen=True, slots=True)
class Windowed:
    """Encoded passages, each of one window or more.

    Every text of `windows` is a window; its spans count characters of the whole passage. Passage i owns the windows
    bounds[i]:bounds[i + 1]; bounds has the shape (passages + 1,), int64. Where a passage has several windows, each
    has token vectors. `truncated` is true for the last window of a passage whose end was not read: it is beyond the
    most windows, or behind so much punctuation that a window held nothing else.
    Where several tokens share a vector (pooling), `spans` is empty and `members` holds for each passage its tokens in
    the order of the text, (tokens, 3) int32: the row among the passage's vectors, and the characters [start, end).
    """

    windows: Encoded
    bounds: NDArray[np.int64]
    members: tuple[NDArray[np.int32], ...] | None = None

    @classmethod
    def whole(cls, encoded: Encoded) -> Windowed:
        """Return texts of one window each."""
        return cls(encoded, np.arange(len(encoded) + 1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The token rows of whole passages, (passages + 1,) int64; a row in two windows counts twice."""
        return self.windows.offsets[self.bounds]

    def select(self, start: int, stop: int) -> Windowed:
        """Return passages [start, stop) as views of the same arrays."""
        low, high = int(self.bounds[start]), int(self.bounds[stop])
        members = None if self.members is None else self.members[start:stop]
        return Windowed(self.windows.select(low, high), self.bounds[start : stop + 1] - low, members)


def join(parts: Sequence[Windowed]) -> Windowed:
    """Join passages in their order; there must be at least one part.

    Where one part has `members`, passages of a part without have none: they have no tokens, or came as vectors.
    """
    counts = np.concatenate([np.diff(part.bounds) for part in parts])
    none = np.empty((0, 3), np.int32)
    pooled = any(part.members is not None for part in parts)
    return Windowed(
        concatenate([part.windows for part in parts]),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)]),
        tuple(own for part in parts for own in part.members or (none,) * len(part)) if pooled else None,
    )


def encode_windows(encoder: Encoder, texts: Sequence[str], *, progress: Progress | None = None) -> Windowed:
    """Encode passages whole. A window begins at a word, a quarter before the end of the one before it.

    Where the student has a `closeness`, the windows are sentences instead. `progress` counts passages, as their first
    windows are done.
    """
    first = encoder.encode(texts, "passage", progress=progress)
    return add_windows(
        first, texts, lambda rests: encoder.encode(rests, "passage"), encoder.encode_sentences, encoder.spec
    )


def add_windows(
    first: Encoded,
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], Encoded],
    encode_sentences: Callable[[Sequence[str]], NDArray[np.float32]],
    spec: EncoderSpec,
) -> Windowed:
    """Encode what the `first` windows of passages do not hold, and sentences where the student of `spec` reads them.

    `encode` cuts passages at the limit, as they were; `encode_sentences` is `Encoder.encode_sentences`.
    """
    whole = _add_rests(first, texts, encode)
    return by_sentence(whole, texts, encode_sentences, spec) if spec.closeness else whole


def _add_rests(first: Encoded, texts: Sequence[str], encode: Callable[[Sequence[str]], Encoded]) -> Windowed:
    if not first.truncated.any():
        return Windowed.whole(first)
    windows = [[first.select(at, at + 1)] for at in range(len(first))]
    going = dict.fromkeys(np.flatnonzero(first.truncated).tolist(), 0)
    while going:
        starts = {text: _next_start(texts[text], windows[text][-1], begun) for text, begun in going.items()}
        rests = {text: start for text, start in starts.items() if start is not None}
        if not rests:
            break
        found = encode([texts[text][start:] for text, start in rests.items()])
        going = {}
        for at, (text, start) in enumerate(rests.items()):
            window = found.select(at, at + 1)
            # What was not read is now this window's to tell, also where the window has no tokens and is dropped.
            read = np.zeros(1, np.bool_) if len(window.vectors) else window.truncated
            windows[text][-1] = replace(windows[text][-1], truncated=read)
            if len(window.vectors):
                windows[text].append(replace(window, spans=window.spans + np.int32(start)))
                if window.truncated[0] and len(windows[text]) < MAX_WINDOWS:
                    going[text] = start
    bounds = np.cumsum([0, *map(len, windows)]).astype(np.int64)
    return Windowed(concatenate([window for own in windows for window in own]), bounds)


def by_sentence(
    passages: Windowed,
    texts: Sequence[str],
    encode_sentences: Callable[[Sequence[str]], NDArray[np.float32]],
    spec: EncoderSpec,
) -> Windowed:
    """Make the sentences of passages their windows: token vectors as they are, a sentence vector for each sentence.

    What a window read again is left out, and so are sentences without tokens. The length prior is that of the whole
    passage, and counts as often as its tokens do: once, and by `closeness`.
    """
    encoded = passages.windows
    rows: list[NDArray[np.int64]] = []
    windows: list[int] = []
    counts: list[int] = []
    asked: list[tuple[int, str]] = []
    lone: list[tuple[int, int]] = []
    for number, text in enumerate(texts):
        low, high = int(passages.bounds[number]), int(passages.bounds[number + 1])
        own = _fresh_rows(encoded, low, high)
        begins = np.array(sentence_starts(text), np.int64)
        sentence = np.searchsorted(begins, encoded.spans[own, 0], side="right") - 1
        firsts = np.flatnonzero(np.append(True, sentence[1:] != sentence[:-1])) if len(own) else np.zeros(0, np.int64)
        if len(firsts) < 2:
            firsts = np.zeros(1, np.int64)
            lone.append((len(windows), low))
        else:
            ends = [*begins[1:].tolist(), len(text)]
            named = [int(sentence[at]) for at in firsts]
            asked += [(len(windows) + at, text[begins[name] : ends[name]]) for at, name in enumerate(named)]
        rows.append(own)
        windows += np.diff([*firsts, len(own)]).tolist()
        counts.append(len(firsts))
    taken = np.concatenate([np.zeros(0, np.int64), *rows])
    bounds = np.cumsum([0, *counts]).astype(np.int64)
    lasts = passages.bounds[1:] - 1
    truncated, unknown = np.zeros(len(windows), np.bool_), np.repeat(encoded.unknown[passages.bounds[:-1]], counts)
    truncated[bounds[1:] - 1] = encoded.truncated[lasts]
    sentences = None
    if encoded.sentences is not None:
        sentences = np.empty((len(windows), encoded.sentences.shape[1]), np.float32)
        for at, window in lone:
            sentences[at] = encoded.sentences[window]
        if asked:
            sentences[[at for at, _ in asked]] = encode_sentences([part for _, part in asked])
        _set_length_priors(sentences, np.repeat([len(own) for own in rows], counts), spec)
    return Windowed(
        Encoded(
            vectors=encoded.vectors[taken],
            offsets=np.cumsum([0, *windows]).astype(np.int64),
            sentences=sentences,
            spans=encoded.spans[taken],
            truncated=truncated,
            unknown=unknown.astype(np.float32),
        ),
        bounds,
    )


def _set_length_priors(sentences: NDArray[np.float32], tokens: NDArray[np.int64], spec: EncoderSpec) -> None:
    """Give sentence vectors (n, sentence_dim) the length priors of passages of so many `tokens` (n,)."""
    if spec.length_prior is None:
        return
    prior = spec.length_prior.scaled(1 + spec.closeness)
    for at, count in enumerate(tokens.tolist()):
        sentences[at] = prior.of_passage(sentences[at], count, spec.sentence_weight)


def _fresh_rows(encoded: Encoded, low: int, high: int) -> NDArray[np.int64]:
    """Return the token rows of windows [low, high) of a passage, without those that a later window read again."""
    rows, end = [], -1
    for window in range(low, high):
        own = np.arange(encoded.offsets[window], encoded.offsets[window + 1])
        own = own[encoded.spans[own, 0] >= end]
        if len(own):
            end = int(encoded.spans[own, 1].max())
        rows.append(own)
    return np.concatenate(rows)


def _next_start(text: str, window: Encoded, start: int) -> int | None:
    """Return the character at which the window after this one begins; None where no later one can be told."""
    spans = window.spans
    if len(spans) == 0:
        return None
    end = int(spans[:, 1].max())
    late = spans[int(len(spans) * (1 - OVERLAP)) :, 0]
    late = late[(late > start) & (late < end)]
    words = [int(at) for at in late if text[at - 1].isspace()]
    if words:
        return words[0]
    if len(late):
        return int(late[0])
    return end if end > start else None
