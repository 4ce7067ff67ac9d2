"""Fetching `interfaces`: a file of parallel interface texts for each language."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from drdecr.corpus import ParallelPair
from drdecr.errors import FetchError, UsageError
from training.data.apt_packages import download_packages, read_package
from training.data.files import naming_full_disk, read_finished, sha256_of, write_pairs
from training.data.gettext_files import read_translations
from training.data.interfaces.labels import pair
from training.data.languages import gettext_locales

LIBREOFFICE = "libreoffice-l10n-"
# Packages that hold the translations of a program into all languages.
PROGRAMS = {
    "gnome": [
        "blueman",
        "evince-common",
        "evolution-common",
        "gnome-calendar",
        "gnome-clocks",
        "gnome-control-center-data",
        "gnome-disk-utility",
        "gnome-power-manager",
        "gnome-settings-daemon-common",
        "gnome-shell-common",
        "gnome-software-common",
        "gsettings-desktop-schemas",
        "libgtk-3-common",
        "libgtk-4-common",
        "nautilus-data",
        "network-manager",
        "network-manager-gnome",
        "rhythmbox-data",
        "shotwell-common",
        "simple-scan",
        "system-config-printer-common",
        "totem-common",
        "xkb-data",
    ],
    "kde": [
        "bluedevil",
        "dolphin",
        "kaddressbook",
        "kalarm",
        "kalzium-data",
        "kdeconnect",
        "kmail",
        "konsole",
        "korganizer",
        "krita-l10n",
        "kwin-data",
        "libkf5i18n-data",
        "plasma-desktop-data",
        "plasma-nm",
        "plasma-pa",
        "powerdevil-data",
        "systemsettings",
    ],
    "others": [
        "apt",
        "aptitude-common",
        "audacity-data",
        "cups-client",
        "deluge-common",
        "freeciv-data",
        "mate-control-center-common",
        "pidgin-data",
        "thunar-data",
        "transmission-gtk",
        "vlc-l10n",
        "xfce4-panel",
        "xfce4-power-manager-data",
        "xfce4-settings",
    ],
}
LICENCES = {
    "libreoffice": "MPL-2.0",
    "gnome": "GPL-2 or later and LGPL-2 or later, by program (see the packages' copyright files)",
    "kde": "GPL-2 or later and LGPL-2 or later, by program (see the packages' copyright files)",
    "others": "GPL-2 or later, MIT (xkb-data), Apache-2.0 (cups), by program (see the packages' copyright files)",
}

_CATALOG = re.compile(r"usr/(?:share/locale|lib/libreoffice/program/resource)/([^/]+)/LC_MESSAGES/[^/]+\.mo")


def packages(languages: Sequence[str]) -> dict[str, str]:
    """Return the Debian packages that may hold texts in these languages, and the source that each belongs to."""
    found = {name: source for source, names in PROGRAMS.items() for name in names}
    for lang in languages:
        for locale in gettext_locales(lang):
            found[LIBREOFFICE + locale.lower().replace("_", "-")] = "libreoffice"
    return found


def fetch_interfaces(out: Path, languages: Sequence[str]) -> dict[str, object]:
    """Fetch `interfaces` into `out`, `out`/<lang>.tsv.gz, and return its meta.

    Raises: FetchError, ResourceError, UsageError (there is nothing in a language).
    """
    sources = packages(languages)
    request = {"data": "interfaces", "languages": list(languages), "packages": sorted(sources)}
    if (finished := read_finished(out, request)) is not None:
        return finished
    with naming_full_disk(out):
        out.mkdir(parents=True, exist_ok=True)
    found = download_packages(out / "cache" / "apt", list(sources))
    langs = {locale: lang for lang in languages for locale in gettext_locales(lang)}
    # A dictionary keeps each pair once, in the order of the packages, under the source that has it first.
    pairs: dict[str, dict[tuple[str, str], str]] = {lang: {} for lang in languages}
    for name, path in sorted(found.items()):
        for lang, english, translation in read_texts(path, langs):
            pairs[lang].setdefault((english, translation), sources[name])
    if empty := [lang for lang, some in pairs.items() if not some]:
        raise UsageError(f"--languages: no interface text is translated into {', '.join(empty)}; leave it out")
    facts = {
        "name": "interfaces",
        "languages": {lang: dict(sorted(Counter(some.values()).items())) for lang, some in pairs.items()},
        "licences": LICENCES,
        "source": {path.name: sha256_of(path) for path in found.values()},
    }
    written = {
        lang: (ParallelPair(source, english, translation) for (english, translation), source in some.items())
        for lang, some in pairs.items()
    }
    return write_pairs(out, written, facts, request)


def read_texts(package: Path, langs: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield language, English and translation of what a package's catalogues say in the locales of `langs`.

    `langs` is the language of each locale. Raises: FetchError for a broken package or catalogue.
    """

    def wanted(path: str) -> bool:
        return (found := _CATALOG.fullmatch(path)) is not None and found[1] in langs

    for path, content in sorted(read_package(package, wanted).items()):
        found = _CATALOG.fullmatch(path)
        assert found is not None
        lang = langs[found[1]]
        try:
            texts = list(read_translations(content))
        except (OSError, ValueError, struct.error) as problem:
            raise FetchError(
                f"{package}: {path} is broken ({problem}); delete it and run the command again"
            ) from None
        for english, translation in texts:
            if (both := pair(english, translation, lang)) is not None:
                yield lang, *both
