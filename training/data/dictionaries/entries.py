"""One entry of a dictionary: a word or a short term, and what it is in English."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from training.data.texts import fold

LONGEST = 60
"""Characters of either side; what is longer explains instead of translating."""

SCRIPTS: dict[str, tuple[str, ...]] = {
    "ar": ("ARABIC",),
    "bg": ("CYRILLIC",),
    "el": ("GREEK",),
    "fa": ("ARABIC",),
    "hi": ("DEVANAGARI",),
    "ja": ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "th": ("THAI",),
    "uk": ("CYRILLIC",),
    "zh": ("CJK",),
}
"""How Unicode names the letters of a language; those of any other are Latin."""

LATIN = ("LATIN",)

_SEPARATOR = re.compile(r"[;,؛،；，]")
_BRACKETS = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)|\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A word in another language and one of its meanings in English."""

    word: str
    english: str


def tidy(text: str) -> str:
    """Return the first of several alternatives, without remarks in brackets and the `to` of an English verb."""
    while (without := _BRACKETS.sub(" ", text)) != text:
        text = without
    first = fold(_SEPARATOR.split(text, maxsplit=1)[0])
    return (first[3:] if first.startswith("to ") else first).strip(" .-–/")


def is_written_in(text: str, scripts: tuple[str, ...]) -> bool:
    """Return whether there are letters, and all of these scripts."""
    found = {_script(letter) for letter in text if letter.isalpha()}
    return bool(found) and found.issubset(scripts)


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split()[0]


def usable(entries: Iterable[Entry], lang: str) -> Iterator[Entry]:
    """Yield each entry once that says something in both languages, by its order."""
    scripts = SCRIPTS.get(lang, LATIN)
    seen = set()
    for entry in entries:
        if entry in seen or max(len(entry.word), len(entry.english)) > LONGEST:
            continue
        seen.add(entry)
        if is_written_in(entry.word, scripts) and is_written_in(entry.english, LATIN):
            yield entry
