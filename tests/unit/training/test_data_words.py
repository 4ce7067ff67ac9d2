"""Common words: how common they are, what they are forms of, which of their meanings is the likeliest."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from math import log10
from pathlib import Path

import msgpack
import numpy as np
import pytest
from click.testing import CliRunner
from fabricated_dictionaries import WithDictionaries, dictd, read_rows, skip_without_dpkg
from numpy.typing import NDArray

from drdecr.errors import FetchError, ResourceError, UsageError
from training.data.commands import data
from training.data.dictionaries.cedict import read_all_of_cedict, read_spellings
from training.data.dictionaries.dictd import read_alternatives
from training.data.dictionaries.entries import Entry
from training.data.dictionaries.sources import PYTHAINLP
from training.data.words.candidates import Candidates
from training.data.words.embedding import sentence_embedder
from training.data.words.fetch import fetch_words
from training.data.words.frequencies import WORDFREQ, pure, read_frequencies, read_thai_words, zipf
from training.data.words.inflection import base_forms, light_stems
from training.data.words.pivots import by_pivots, known_english
from training.data.words.senses import choose_senses
from training.transfer import use_multilingual


def frequencies_wheel(path: Path, words: Mapping[str, Sequence[str]], version: int = 1) -> Path:
    """Write word lists as wordfreq has them: the first word once in ten words, each other ten times less often."""
    with zipfile.ZipFile(path, "w") as archive:
        for lang, some in words.items():
            bins: list[list[str]] = [[] for _ in range(100 * len(some) + 1)]
            for number, word in enumerate(some, start=1):
                bins[100 * number].append(word)
            packed = msgpack.packb([{"format": "cB", "version": version}, *bins])
            archive.writestr(f"wordfreq/data/large_{lang}.msgpack.gz", gzip.compress(packed))
    return path


def test_frequencies_are_zipf_values_the_most_common_word_first(tmp_path: Path) -> None:
    wheel = frequencies_wheel(tmp_path / "made.whl", {"de": ["der", "haus"]})
    assert read_frequencies(wheel, "de") == {"der": 8.0, "haus": 7.0}
    assert read_frequencies(wheel, "th") == {}


def test_frequencies_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="version': 2"):
        read_frequencies(frequencies_wheel(tmp_path / "new.whl", {"de": ["der"]}, version=2), "de")
    (tmp_path / "broken.whl").write_bytes(b"no wheel")
    with pytest.raises(FetchError, match=r"broken\.whl is broken"):
        read_frequencies(tmp_path / "broken.whl", "de")
    with pytest.raises(FetchError, match=r"broken\.whl is broken"):
        read_thai_words(tmp_path / "broken.whl")


def test_several_words_are_rarer_than_each_of_them() -> None:
    table = {"ice": 5.0, "cream": 5.0, "don't": 4.0}
    assert zipf("Ice", table) == pytest.approx(5.0)
    assert zipf("ice-cream", table) == zipf("ice cream", table) == pytest.approx(5.0 - log10(2))
    assert zipf("don't", table) == pytest.approx(4.0)
    assert zipf("ice tea", table) == zipf("", table) == 0


def test_only_letters_make_a_word() -> None:
    assert list(pure(["haus", "4th", "l'eau", "x_y", "น้ำ", "...", "e-mail"])) == ["haus", "l'eau", "น้ำ", "e-mail"]


@pytest.mark.parametrize(
    ("word", "lang", "base"),
    [
        ("häuser", "de", "haus"),
        ("ging", "de", "gehen"),
        ("nació", "es", "nacer"),
        ("вступил", "ru", "вступить"),
        ("والكتاب", "ar", "كتاب"),
        ("مدرستها", "ar", "مدرسة"),
    ],
)
def test_forms_lead_to_what_a_dictionary_has(word: str, lang: str, base: str) -> None:
    assert base in list(base_forms(word, lang))


def test_a_language_without_lemmas_leads_nowhere() -> None:
    assert list(base_forms("น้ำ", "th")) == []


def test_arabic_stems_keep_three_letters() -> None:
    assert min(len(stem) for stem in light_stems("والله")) >= 3


def test_all_alternatives_of_an_article_have_their_rank() -> None:
    made = dictd({"Bank": "Bank\n 1. bank <n>, bench\n 2. shoal (of sand), (only a remark)\n"})
    assert list(read_alternatives(made)) == [
        (Entry("Bank", "bank"), 0),
        (Entry("Bank", "bench"), 1),
        (Entry("Bank", "shoal"), 2),
    ]
    reverse = dictd({"cosmos": "cosmos\n _n. мир, вселенная\n"}, from_english=True)
    assert list(read_alternatives(reverse)) == [(Entry("мир", "cosmos"), 0), (Entry("вселенная", "cosmos"), 1)]


def test_all_of_cedict_has_both_ways_of_writing() -> None:
    lines = ["學校 学校 [xue2 xiao4] /school, college/institution/", "人 人 [ren2] /person/"]
    ranked = list(read_all_of_cedict(lines))
    assert (Entry("學校", "institution"), 2) in ranked and (Entry("学校", "college"), 1) in ranked
    assert read_spellings(lines) == {"学校": "學校"}


def test_merits_prefer_what_is_common_short_early_and_agreed_on() -> None:
    english = {"house": 5.5, "home": 5.6, "of": 7.0, "abode": 2.0, "shelter": 4.9}
    said = Candidates(english)
    said.add([Entry("Haus", "House"), Entry("haus", "house of home")])
    said.add_ranked([(Entry("Haus", "home"), 4), (Entry("Haus", "abode"), 0)])
    said.add_pivoted([(Entry("haus", "shelter"), 3)])
    merits = said.merits("HAUS")
    assert list(merits) == ["shelter", "house", "home", "house of home"]
    assert merits["house"] == pytest.approx(5.5)
    assert merits["home"] == pytest.approx(5.6 - 4 * 0.25)
    assert merits["shelter"] == pytest.approx(4.9 + 2 * 0.4)
    assert "haus" in said and "hof" not in said
    assert said.written("haus") == "Haus"


def test_two_pivots_must_agree() -> None:
    german = known_english([(Entry("Haus", "house"), 0), (Entry("Bank", "bank"), 0), (Entry("Bank", "shoal"), 9)])
    french = known_english([(Entry("maison", "house"), 0), (Entry("banc", "bench"), 0)])
    assert german == {"haus": ["house"], "bank": ["bank"]}
    chains = {
        "de": [[(Entry("casa", "Haus"), 0), (Entry("banco", "Bank"), 0)], [(Entry("Casa", "haus"), 1)]],
        "fr": [[(Entry("casa", "maison"), 0), (Entry("banco", "banc"), 0)]],
    }
    assert list(by_pivots(chains, {"de": german, "fr": french})) == [(Entry("casa", "house"), 2)]
    assert list(by_pivots({"de": chains["de"]}, {"de": german})) == []


def test_the_encoder_decides_between_meanings() -> None:
    places = {
        "bank": (1.0, 0.0),
        "bench": (0.0, 1.0),
        "pew": (0.1, 0.99),
        "shoal": (0.7, 0.7),
        "Sitzbank": (0.0, 1.0),
    }
    asked: list[str] = []

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return np.array([places[text] for text in texts], np.float32)

    words = {
        "Sitzbank": {"bank": 5.0, "bench": 4.0, "pew": 3.5, "shoal": 2.0},
        "Bank": {"bank": 5.0},
    }
    seen: list[int] = []
    chosen = list(choose_senses(words, embed, seen.append))
    assert chosen == [("Sitzbank", "bench"), ("Sitzbank", "pew"), ("Bank", "bank")]
    assert "Bank" not in asked  # one meaning needs no decision
    assert sum(seen) == 2
    assert list(choose_senses(words, None)) == [("Sitzbank", "bank"), ("Sitzbank", "bench"), ("Bank", "bank")]


def test_embedder_places_translations_together(multilingual_wheel: Path) -> None:
    embed = sentence_embedder(multilingual_wheel)
    placed = embed(["Haus", "house", "tree", "дерево", "a text of more than one word", ""])
    assert placed.shape == (6, 512)
    assert np.allclose(np.linalg.norm(placed[:5], axis=1), 1, atol=1e-5)
    cosines = placed[:5] @ placed[:5].T
    assert cosines[0, 1] > cosines[0, 2] + 0.2 and cosines[3, 2] > cosines[3, 1] + 0.2
    assert np.allclose(embed(["дерево"])[0], placed[3], atol=1e-5)  # alone as among others


class WithWords(WithDictionaries):
    """A mirror with chains through German and French too, and lists of frequencies."""

    def __init__(self, folder: Path, multilingual: Path) -> None:
        super().__init__(folder)
        self.package("dict-freedict-fra-eng", self.dictionary("fra-eng", {"maison": "maison\nhouse\n"}))
        self.package("dict-freedict-ita-deu", self.dictionary("ita-deu", {"casa": "casa\nHaus\n"}))
        self.package("dict-freedict-fra-ita", self.dictionary("fra-ita", {"maison": "maison\ncasa\n"}))
        self.wheels[use_multilingual.WHEEL] = multilingual
        self.wheels[WORDFREQ] = frequencies_wheel(
            folder / WORDFREQ.filename,
            {
                "en": ["house", "home", "roof", "school"],
                "de": ["haus", "häuser", "unbekanntes", "dach", "moskau"],
                "it": ["case", "moglie"],
                "zh": ["学校"],
            },
        )
        with zipfile.ZipFile(self.wheels[PYTHAINLP], "a") as wheel:
            wheel.writestr("pythainlp/corpus/ttc_freq.txt", "ตื่นตัว\t5\nโรม\t4\n")
            wheel.writestr("pythainlp/corpus/tnc_freq.txt", "ตื่นตัว\t9\n")
            wheel.writestr(
                "pythainlp/corpus/th_en_transliteration_v1.4.tsv", "th\ten\tcheck\nกราฟ\tgraph\tTrue\n\t\t\n"
            )


@pytest.fixture
def mirror(tmp_path: Path, multilingual_wheel: Path, monkeypatch: pytest.MonkeyPatch) -> WithWords:
    skip_without_dpkg()
    made = WithWords(tmp_path, multilingual_wheel)
    made.serve(monkeypatch, "training.data.words.fetch")
    return made


def test_words_are_fetched_in_all_their_forms(mirror: WithWords, tmp_path: Path) -> None:
    out = tmp_path / "words"
    ran = CliRunner().invoke(data, ["fetch", "words", "--out", str(out), "--languages", "de,it,th,zh", "--json"])
    assert ran.exit_code == 0, ran.output
    meta = json.loads(ran.stdout)
    german = read_rows(out, "de")
    assert {word for _, _, word in german} == {"Haus", "Häuser", "Dach", "Moskau"}
    assert ("inflected", "house", "Häuser") in german and ("listed", "roof", "Dach") in german
    assert read_rows(out, "it") == [("inflected", "house", "case")]
    assert read_rows(out, "zh") == [("listed", "school", "学校"), ("listed", "school", "學校")]
    assert read_rows(out, "th") == [
        ("listed", "wide awake", "ตื่นตัว"),
        ("listed", "rome", "โรม"),
        ("transliterated", "graph", "กราฟ"),
    ]
    assert meta["languages"]["th"] == {"listed": 2, "transliterated": 1}
    calls = len(mirror.calls)
    assert fetch_words(out, ["de", "it", "th", "zh"]) == meta
    assert len(mirror.calls) == calls


def test_language_without_words_is_named(mirror: WithWords, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no words of ko"):
        fetch_words(tmp_path / "words", ["de", "ko"])
    assert not (tmp_path / "words" / "meta.json").exists()


def test_missing_packages_of_python_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "training.data.words.fetch", None)
    ran = CliRunner().invoke(data, ["fetch", "words", "--out", str(tmp_path / "words")])
    assert isinstance(ran.exception, ResourceError)
    assert "pip install 'drdecr[train]'" in str(ran.exception)
