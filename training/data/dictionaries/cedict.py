"""CC-CEDICT, the Chinese-English dictionary: `TRADITIONAL SIMPLIFIED [pin1 yin1] /meaning/meaning/`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from training.data.dictionaries.dictd import MEANINGS
from training.data.dictionaries.entries import Entry, tidy

_LINE = re.compile(r"(?P<traditional>\S+) (?P<simplified>\S+) \[[^\]]*\] /(?P<meanings>.*)/")
_REMARK = re.compile(r"variant of|^see |^CL:|surname |abbr\.|used in|\bsth\b|\bsb\b|radical|classifier|:")


def read_cedict(lines: Iterable[str]) -> Iterator[Entry]:
    """Yield an entry for each meaning and each of the two ways of writing, in the order of the file."""
    for line in lines:
        if (found := _LINE.match(line)) is None:
            continue
        meanings = [meaning for meaning in found["meanings"].split("/") if not _REMARK.search(meaning)]
        for meaning in meanings[:MEANINGS]:
            for word in dict.fromkeys((found["simplified"], found["traditional"])):
                yield Entry(word, tidy(meaning))
