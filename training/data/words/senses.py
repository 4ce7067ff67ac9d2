"""Which of its meanings a common word has most likely: the one that a multilingual encoder places next to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts in any language -> (texts, width), L2-normalised."""

# What a cosine counts against a merit (`Candidates`); of translations it is .5 to .9, of other words .1 to .4.
_COSINE = 5.0
_MERIT = 0.5
# A second meaning is kept if it is so near to the first.
_NEAR = 0.5
_MOST = 2
_WORDS_AT_ONCE = 4096


def choose_senses(
    words: Mapping[str, Mapping[str, float]], embed: Embed | None, advance: Callable[[int], None] = lambda count: None
) -> Iterator[tuple[str, str]]:
    """Yield each word with its English, at most two of them, by the order of the words.

    `words` holds each word's English with its merit, which decides alone where nothing can `embed` the language;
    `advance` is told how many words were looked at.
    """
    ordered = list(words)
    for start in range(0, len(ordered), _WORDS_AT_ONCE):
        some = ordered[start : start + _WORDS_AT_ONCE]
        several = [word for word in some if len(words[word]) > 1]
        texts = list(dict.fromkeys(text for word in several for text in (word, *words[word])))
        placed = dict(zip(texts, embed(texts), strict=True)) if texts and embed is not None else {}
        for word in some:
            merits = words[word]
            if len(merits) == 1:
                yield from ((word, english) for english in merits)
                continue
            scores = {
                english: _MERIT * merit + (_COSINE * float(placed[word] @ placed[english]) if placed else 0.0)
                for english, merit in merits.items()
            }
            ranked = sorted(scores, key=lambda english: -scores[english])[:_MOST]
            yield from ((word, english) for english in ranked if scores[english] >= scores[ranked[0]] - _NEAR)
        advance(len(some))
