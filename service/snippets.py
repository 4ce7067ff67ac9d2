"""Chooses the part of a long text that shows best why it was found."""

from __future__ import annotations

from collections.abc import Sequence


def choose_snippet(text: str, marks: Sequence[tuple[int, int]], max_chars: int) -> tuple[int, int]:
    """Return the characters [start, end) of the part that holds the most marked characters, in whole words.

    `marks` are sorted and do not overlap. Of one that is longer than the part, its beginning counts. Without marks it
    is the beginning of the text.
    """
    if len(text) <= max_chars:
        return 0, len(text)
    first, last = _densest([(start, min(end, start + max_chars)) for start, end in marks], max_chars)
    start = max(0, min(first - (max_chars - (last - first)) // 2, len(text) - max_chars))
    end = min(len(text), start + max_chars)
    begin = _word_begin(text, start, first)
    # At least a character that can be seen.
    blank = end - begin - len(text[begin:end].lstrip())
    return begin, _word_end(text, end, max(last, begin + blank + 1))


def _densest(marks: Sequence[tuple[int, int]], max_chars: int) -> tuple[int, int]:
    """Return the ends of the run of marks within `max_chars` that marks the most characters."""
    best, best_chars = (0, 0), 0
    stop = chars = 0
    for number, (start, end) in enumerate(marks):
        while stop < len(marks) and marks[stop][1] - start <= max_chars:
            chars += marks[stop][1] - marks[stop][0]
            stop += 1
        if chars > best_chars:
            best, best_chars = (start, marks[stop - 1][1]), chars
        if stop > number:
            chars -= end - start
        else:
            stop = number + 1
    return best


def _word_begin(text: str, start: int, at_most: int) -> int:
    """Move on to where a word begins, but not into the first mark."""
    if start == 0 or text[start - 1].isspace():
        return start
    return next((place + 1 for place in range(start, at_most) if text[place].isspace()), start)


def _word_end(text: str, end: int, at_least: int) -> int:
    """Move back to where a word ends, but not into the last mark."""
    if end == len(text) or text[end].isspace():
        return end
    return next((place for place in range(end - 1, at_least - 1, -1) if text[place].isspace()), end)
