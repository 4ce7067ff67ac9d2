"""CC-CEDICT, the Chinese-English dictionary: `TRADITIONAL SIMPLIFIED [pin1 yin1] /meaning/meaning/`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from training.data.dictionaries.dictd import MEANINGS
from training.data.dictionaries.entries import Entry, alternatives, tidy

_LINE = re.compile(r"(?P<traditional>\S+) (?P<simplified>\S+) \[[^\]]*\] /(?P<meanings>.*)/")
_REMARK = re.compile(r"variant of|^see |^CL:|surname |abbr\.|used in|\bsth\b|\bsb\b|radical|classifier|:")


def read_cedict(lines: Iterable[str]) -> Iterator[Entry]:
    """Yield an entry for each meaning and each of the two ways of writing, in the order of the file."""
    for words, meanings in _articles(lines):
        for meaning in meanings[:MEANINGS]:
            for word in words:
                yield Entry(word, tidy(meaning))


def read_all_of_cedict(lines: Iterable[str]) -> Iterator[tuple[Entry, int]]:
    """Yield all alternatives of all meanings, and how many of them stand before each."""
    for words, meanings in _articles(lines):
        said = (one for meaning in meanings for one in alternatives(meaning) if one)
        for rank, meaning in enumerate(said):
            for word in words:
                yield Entry(word, meaning), rank


def read_spellings(lines: Iterable[str]) -> dict[str, str]:
    """Return the traditional way of writing the words whose simplified one differs."""
    return {words[0]: words[1] for words, _ in _articles(lines) if len(words) == 2}


def _articles(lines: Iterable[str]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    for line in lines:
        if (found := _LINE.match(line)) is not None:
            meanings = [meaning for meaning in found["meanings"].split("/") if not _REMARK.search(meaning)]
            yield tuple(dict.fromkeys((found["simplified"], found["traditional"]))), meanings
