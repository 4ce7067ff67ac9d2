"""Passages longer than an encoder reads, as overlapping windows: the best window scores the passage (MaxP).

MaxP: Dai and Callan 2019, "Deeper Text Understanding for IR with Contextual Neural Language Modeling".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.batching import concatenate
from drdecr.encoder.types import Encoded, Encoder, Progress

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
    """Join passages in their order; there must be at least one part. Either all parts have `members` or none."""
    counts = np.concatenate([np.diff(part.bounds) for part in parts])
    pooled = [part.members for part in parts if part.members is not None]
    return Windowed(
        concatenate([part.windows for part in parts]),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)]),
        tuple(member for own in pooled for member in own) if pooled else None,
    )


def encode_windows(encoder: Encoder, texts: Sequence[str], *, progress: Progress | None = None) -> Windowed:
    """Encode passages whole. A window begins at a word, a quarter before the end of the one before it.

    `progress` counts passages, as their first windows are done.
    """
    first = encoder.encode(texts, "passage", progress=progress)
    return add_windows(first, texts, lambda rests: encoder.encode(rests, "passage"))


def add_windows(first: Encoded, texts: Sequence[str], encode: Callable[[Sequence[str]], Encoded]) -> Windowed:
    """Encode what the `first` windows of passages do not hold; `encode` cuts passages at the limit, as they were."""
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
