"""Words of any script, for lexical baselines and answer matching."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_SINGLE = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
_PATTERN = f"[{_SINGLE}]|[{_HANGUL}]+|(?:(?![{_SINGLE}{_HANGUL}])\\w)+"
_WORD = re.compile(_PATTERN)
_WORD_OR_MARK = re.compile(f"{_PATTERN}|[^\\w\\s]")


def words(text: str) -> list[str]:
    """Return the case-folded words; Han and Kana give one for each character and never stick to Latin letters."""
    return _WORD.findall(_folded(text))


def words_and_marks(text: str) -> Iterator[str]:
    """Yield the case-folded words and, each on its own, the marks between them."""
    return (found[0] for found in _WORD_OR_MARK.finditer(_folded(text)))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
