"""Names: of countries, languages, scripts and currencies (iso-codes), and of places (GeoNames)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from training.data.dictionaries.entries import SCRIPTS, Entry, is_written_in, tidy
from training.data.gettext_files import read_translations


def read_names(compiled: bytes) -> Iterator[Entry]:
    """Yield what a gettext file translates. Raises: OSError, ValueError, struct.error for another file."""
    for english, word in read_translations(compiled):
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
