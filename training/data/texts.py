"""When two texts count as the same text."""

from __future__ import annotations

import re
import unicodedata


def fold(text: str) -> str:
    """Return the text on one line: every run of white space becomes one space."""
    return " ".join(text.split())


def text_key(text: str) -> str:
    """Return what equal texts share, whatever their case, white space and Unicode composition."""
    return fold(unicodedata.normalize("NFKC", text).casefold())


def paragraphs(text: str) -> list[str]:
    """Split at blank lines."""
    return [part for part in re.split(r"\n\s*\n", text) if part.strip()]


def paragraph_keys(text: str) -> set[str]:
    """Return the keys of the text itself and of each of its paragraphs."""
    return {key for part in (text, *paragraphs(text)) if (key := text_key(part))}


def has_letters(text: str) -> bool:
    return any(char.isalpha() for char in text)
