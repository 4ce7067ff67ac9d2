"""A text of a program's interface, cleaned of what is there for the program: accelerators, placeholders, markup."""

from __future__ import annotations

import re

from training.data.dictionaries.entries import LATIN, SCRIPTS, is_written_in
from training.data.texts import fold, has_letters

LONGEST = 160
"""Characters of either side."""

# What a program fills in, or draws: `%s`, `%1`, `{name}`, `$(ARG1)`, `@count@`, tags, addresses, and line breaks that
# structure a text.
_FILLED_IN = re.compile(r"%[\w(\-.#']|%%|[{}$@\\|]|<[^ ]|://|\n\s*\n|&\w+;")
# Chinese, Japanese and Korean add a Latin letter in brackets to press; other languages mark one of their own.
_ADDED_KEY = re.compile(r"\s*\([_&~]\w\)")
_MARKED_KEY = re.compile(r"[_&~](?=\w)")
# A text marks one key; a word with more underscores is a name of the program's.
_NAME = re.compile(r"_\w*_")
# To be translated into the translators' own names, or settings of a locale.
_NO_TEXT = re.compile(r"translat\w*[- ]credits|your (?:names|emails)|^default:|^locale$", re.IGNORECASE)


def clean(text: str) -> str | None:
    """Return a text as a person reads it, or None where a program would fill something in."""
    if _FILLED_IN.search(text) or _NO_TEXT.search(text) or _NAME.search(text):
        return None
    return fold(_MARKED_KEY.sub("", _ADDED_KEY.sub("", text))).rstrip(" .…:：。") or None


def pair(english: str, translation: str, lang: str) -> tuple[str, str] | None:
    """Return both sides cleaned, or None where they do not say something in both languages.

    A translation in a language of its own letters may have Latin ones beside them ("USB 设备").
    """
    if (first := clean(english)) is None or (second := clean(translation)) is None:
        return None
    if max(len(first), len(second)) > LONGEST or first.casefold() == second.casefold():
        return None
    scripts = SCRIPTS.get(lang, LATIN)
    written = any(is_written_in(letter, scripts) for letter in second)
    if not written or not has_letters(first) or not is_written_in("".join(filter(str.isalpha, first)), LATIN):
        return None
    if scripts is LATIN and not is_written_in("".join(filter(str.isalpha, second)), LATIN):
        return None
    return first, second
