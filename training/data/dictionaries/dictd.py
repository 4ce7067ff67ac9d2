"""Dictionaries of the dictd protocol, as Debian packages them: FreeDict's, and Mueller's of English and Russian.

An `.index` file has a line an entry (headword, offset and length in the digits of base 64); a `.dict.dz` is gzip. An
entry's first line repeats the headword, with its pronunciation. Then comes a line a meaning, numbered where there are
several, among remarks.
"""

from __future__ import annotations

import gzip
import re
import string
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from drdecr.errors import FetchError
from training.data.dictionaries.entries import Entry, tidy

MEANINGS = 3
"""Meanings of a headword that are taken; later ones are rare."""

_DIGITS = {
    digit: value for value, digit in enumerate(string.ascii_uppercase + string.ascii_lowercase + "0123456789+/")
}
_NUMBERED = re.compile(r"^\s*(?:(?:_[IVX]+\b|\d+[.)]|[а-я]\))\s*)+")
_REMARK = re.compile(r"""[:"=≈~|]|\bsee\b""")
_MARKS = re.compile(r"(?:^|(?<=\s))_[\w-]+\.?(?=\s|$)|\s\d+\.\s*$|^\s*/[^/]*/")


@dataclass(frozen=True, slots=True)
class Dictd:
    """The two files of a dictionary. `from_english` says which side the headwords are."""

    name: str
    index: bytes
    packed: bytes
    from_english: bool


def read_dictd(dictionary: Dictd) -> Iterator[Entry]:
    """Yield what the entries say, in the order of the file. Raises: FetchError when a file is broken."""
    try:
        text = gzip.decompress(dictionary.packed)
        places = sorted({_place(line) for line in dictionary.index.decode().splitlines() if line.count("\t") >= 2})
    except (OSError, EOFError, zlib.error, KeyError, UnicodeDecodeError) as problem:
        raise FetchError(
            f"{dictionary.name} is broken ({problem}); delete it and run the same command again"
        ) from None
    for start, length in places:
        headline, *lines = text[start : start + length].decode(errors="replace").splitlines() or [""]
        if headline.startswith("00") or not (head := _headword(headline)):
            continue
        for meaning in _meanings(lines):
            yield Entry(meaning, head) if dictionary.from_english else Entry(head, meaning)


def _place(line: str) -> tuple[int, int]:
    _, start, length = line.rsplit("\t", 2)
    return _number(start), _number(length)


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS[digit]
    return value


def _headword(line: str) -> str:
    return tidy(re.split(r"\s/|\s<", line, maxsplit=1)[0])


def _meanings(lines: list[str]) -> Iterator[str]:
    """Yield the first usable line of each number."""
    wanted, found = True, 0
    for line in lines:
        said = _NUMBERED.sub("", line)
        wanted = wanted or said != line
        meaning = tidy(_MARKS.sub(" ", said))
        if wanted and meaning and not _REMARK.search(meaning):
            yield meaning
            wanted, found = False, found + 1
            if found == MEANINGS:
                return
