"""Compiled translations of a program (`.mo`), as GNU gettext lays them out."""

from __future__ import annotations

import gettext
import io
from collections.abc import Iterator, Mapping


def read_translations(compiled: bytes) -> Iterator[tuple[str, str]]:
    """Yield English and translation of each text, without its context; of a text with plural forms the singular.

    Raises: OSError, ValueError, struct.error for another kind of file.
    """
    catalog: Mapping[object, str] = gettext.GNUTranslations(io.BytesIO(compiled))._catalog  # type: ignore[attr-defined]
    for key, translation in catalog.items():
        english, form = key if isinstance(key, tuple) else (key, 0)
        if form == 0 and english and translation:
            yield english.rpartition("\x04")[2], translation
