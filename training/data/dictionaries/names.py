"""Names: of countries, languages, scripts and currencies (iso-codes), and of places (GeoNames)."""

from __future__ import annotations

import gettext
import io
from collections.abc import Iterable, Iterator, Mapping

from training.data.dictionaries.entries import SCRIPTS, Entry, is_written_in, tidy


def read_translations(compiled: bytes) -> Iterator[Entry]:
    """Yield what a gettext file (`.mo`) translates. Raises: OSError, ValueError for another file."""
    catalog: Mapping[object, str] = gettext.GNUTranslations(io.BytesIO(compiled))._catalog  # type: ignore[attr-defined]
    for english, word in catalog.items():
        if isinstance(english, str) and english and word:
            yield Entry(tidy(word), tidy(english))


def read_places(cities: Iterable[Mapping[str, object]], lang: str) -> Iterator[Entry]:
    """Yield each city's first name in a language's letters, unless those are Latin: names say no language."""
    # Chinese names too are written in the characters that Japanese shares.
    scripts = ("KATAKANA", "KATAKANA-HIRAGANA") if lang == "ja" else SCRIPTS.get(lang)
    for city in cities if scripts is not None else ():
        others = city["alternatenames"]
        assert isinstance(others, list) and scripts is not None
        if written := [name for name in others if is_written_in(name, scripts)]:
            yield Entry(written[0], str(city["name"]))
