"""Makes a client's text fit for the encoder, without moving any character."""

from __future__ import annotations

import re
from collections.abc import Sequence

from service.problems import FieldError, Problem

_SURROGATE = re.compile("[\ud800-\udfff]")
# One space for one control character, so that positions still fit the text that the client sent.
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")
_BUT_LINES = {code: space for code, space in _CONTROLS.items() if code != ord("\n")}


def clean(text: str, *, keep_lines: bool = False) -> str:
    """Replace control characters, NUL among them, by spaces; the length stays the same.

    A passage keeps its lines: a blank one ends a sentence, as in an index.
    """
    return text.translate(_BUT_LINES if keep_lines else _CONTROLS)


def checked(text: str, pointer: str, max_chars: int, *, keep_lines: bool = False) -> str:
    """Return the cleaned text. Raises: Problem 422 when it is blank, too long or no Unicode."""
    if len(text) > max_chars:
        raise _refusal(pointer, f"has {len(text)} characters; the limit is {max_chars}")
    if _SURROGATE.search(text):
        raise _refusal(pointer, "holds half a surrogate pair")
    cleaned = clean(text, keep_lines=keep_lines)
    if not cleaned.strip():
        raise _refusal(pointer, "is blank")
    return cleaned


def checked_all(texts: Sequence[str], pointer: str, max_chars: int, *, keep_lines: bool = False) -> list[str]:
    """Return the cleaned texts. Raises: Problem 422 that names the first unusable one."""
    return [
        checked(text, f"{pointer}/{number}", max_chars, keep_lines=keep_lines) for number, text in enumerate(texts)
    ]


def _refusal(pointer: str, message: str) -> Problem:
    return Problem(
        422, "invalid_request", f"{pointer} {message}.", errors=[FieldError(pointer=pointer, message=message)]
    )
