"""The `debian` data set, from fabricated descriptions."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drdecr.errors import FetchError
from training.data.apt import TranslationList, read_list
from training.data.debian import Description, Package, parse_descriptions, read_packages
from training.data.debian_task import HELD_OUT_SHARE, MOST_DESCRIPTIONS, build_debian
from training.data.groups import is_held_out
from training.data.task import DataSet, texts_on_both_sides

STANZA = """\
Package: 0ad
Description-md5: d943
Description-en: Real-time strategy game
 A free game of
 ancient warfare.
 .
 It has:
  * horses
  * elephants
"""


def names(*, held_out: bool) -> Iterator[str]:
    return (name for number in count() if is_held_out(name := f"a{number:03}", HELD_OUT_SHARE) == held_out)


HELD_OUT = list(islice(names(held_out=True), 20))
LEARNABLE = list(islice(names(held_out=False), 20))


def package(name: str, synopsis: str, *paragraphs: str, de: str = "", de_paragraphs: tuple[str, ...] = ()) -> Package:
    translations = {"de": [Description(name, "", de, de_paragraphs)]} if de else {}
    return Package(Description(name, "", synopsis, paragraphs), translations)


def build(*packages: Package) -> DataSet:
    return build_debian(packages, ["de"], {"version": "test"})


def test_wrapped_lines_join_and_list_items_stay_lines() -> None:
    (found,) = parse_descriptions(STANZA)
    assert found == Description(
        "0ad",
        "d943",
        "Real-time strategy game",
        ("A free game of ancient warfare.", "It has:\n* horses\n* elephants"),
    )


@pytest.mark.parametrize(
    ("lines", "joined"),
    [(" 実験\n です。", "実験です。"), (" 한국어\n 설명", "한국어 설명"), (" Debian\n です", "Debian です")],
)
def test_lines_of_unspaced_scripts_join_without_a_space(lines: str, joined: str) -> None:
    (found,) = parse_descriptions(f"Package: x\nDescription-md5: 1\nDescription-ja: y\n{lines}\n")
    assert found.paragraphs == (joined,)


@pytest.mark.parametrize(
    "field", ["Package: 0ad\n", "Description-md5: d943\n", "Description-en: Real-time strategy game\n"]
)
def test_stanza_that_lacks_a_field_is_passed_over(field: str) -> None:
    assert list(parse_descriptions(STANZA.replace(field, "") + "\n" + STANZA)) == list(parse_descriptions(STANZA))


def write_list(folder: Path, name: str, text: str, code: str) -> TranslationList:
    path = folder / name
    path.write_text(text)
    return TranslationList(path, code, "http://mirror/", "Debian test")


def test_translations_join_by_md5_and_the_preferred_variant_comes_first(tmp_path: Path) -> None:
    lists = [
        write_list(tmp_path, "en", STANZA, "en"),
        write_list(tmp_path, "pt", STANZA.replace("-en: Real-time strategy game", "-pt: Jogo"), "pt"),
        write_list(tmp_path, "br", STANZA.replace("-en: Real-time strategy game", "-pt_BR: Jogo do Brasil"), "pt_BR"),
        write_list(tmp_path, "de", STANZA.replace("d943", "ffff"), "de"),
    ]
    (found,) = read_packages(lists, ["pt", "de"])
    assert [description.synopsis for description in found.translations["pt"]] == ["Jogo do Brasil", "Jogo"]
    assert "de" not in found.translations


def test_of_two_versions_of_a_package_the_translated_one_is_kept(tmp_path: Path) -> None:
    lists = [
        write_list(tmp_path, "a", STANZA.replace("d943", "ffff"), "en"),
        write_list(tmp_path, "b", STANZA, "en"),
        write_list(tmp_path, "de", STANZA.replace("-en: Real-time strategy game", "-de: Spiel"), "de"),
    ]
    (found,) = read_packages(lists, ["de"])
    assert found.english.md5 == "d943"


@pytest.mark.parametrize(
    ("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_list_is_read_however_it_is_compressed(tmp_path: Path, suffix: str, compress: object) -> None:
    assert callable(compress)
    path = tmp_path / f"Translation-en{suffix}"
    path.write_bytes(compress(STANZA.encode()))
    assert read_list(path) == STANZA


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_broken_list_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"Translation-en{suffix}"
    path.write_bytes(b"not compressed at all")
    with pytest.raises(FetchError, match=r"Translation-en.* cannot be read .*delete it"):
        read_list(path)


def test_translated_synopsis_finds_the_description_and_cannot_see_the_synopsis() -> None:
    data = build(package(HELD_OUT[0], "Strategy game", "Lead an army.", de="Strategiespiel"))
    (query,) = data.test
    assert query.translations == {"de": "Strategiespiel"}
    (passage,) = data.demo
    assert query.answers == (passage.id,)
    assert passage.content == "Lead an army."
    assert passage.metadata["synopsis"] == "Strategy game"
    assert not data.pairs["de"]
    assert not data.train_passages


def test_packages_that_share_a_paragraph_are_on_one_side() -> None:
    first, second = sorted((HELD_OUT[0], LEARNABLE[0]))
    data = build(
        package(first, "Game", "Lead an army.", "The engine.", de="Spiel"),
        package(second, "Game data", "lead an  ARMY.", "The pictures.", de="Spieldaten"),
    )
    held_out = is_held_out(first, HELD_OUT_SHARE)
    assert bool(data.test) == held_out
    assert bool(data.train) != held_out
    assert bool(data.train_passages) != held_out


def test_collection_to_evaluate_on_has_one_package_of_a_family() -> None:
    data = build(
        package(LEARNABLE[0], "Game", "Lead an army.", "The engine.", de="Spiel"),
        package(LEARNABLE[1], "Game data", "Lead an army.", "The pictures."),
        package(LEARNABLE[2], "Editor", "Writes text."),
    )
    assert [passage.id for passage in data.demo] == [LEARNABLE[0], LEARNABLE[2]]
    assert len(data.passages) == 3


def test_description_with_boilerplate_is_never_a_held_out_answer() -> None:
    shared = "This package contains the documentation."
    packages = [
        package(name, f"Book {name}", f"About {name}.", shared, de=f"Buch {name}")
        for name in sorted([*HELD_OUT, *LEARNABLE])[: MOST_DESCRIPTIONS + 1]
    ]
    own = package(HELD_OUT[-1], "Own", "Only here.", de="Eigenes")
    assert [query.english for query in build(*packages, own).test] == ["Own"]


def test_paragraphs_pair_only_where_their_number_agrees() -> None:
    data = build(
        package(LEARNABLE[0], "Game", "One.", "Two.", de="Spiel", de_paragraphs=("Eins.", "Zwei.")),
        package(LEARNABLE[1], "Tool", "Three.", "Four.", de="Werkzeug", de_paragraphs=("Drei und vier.",)),
    )
    pairs = {(pair.english, pair.translation) for pair in data.pairs["de"]}
    assert pairs == {("Game", "Spiel"), ("One.", "Eins."), ("Two.", "Zwei."), ("Tool", "Werkzeug")}


def test_demo_stays_within_its_limit_and_keeps_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.debian_task.DEMO_PASSAGES", 8)
    packages = [package(name, f"Tool {name}", f"Does {name}.", de=f"Werkzeug {name}") for name in HELD_OUT[:5]]
    packages += [package(name, f"Tool {name}", f"Does {name}.") for name in LEARNABLE]
    data = build(*packages)
    ids = {passage.id for passage in data.demo}
    assert len(ids) == 8
    assert ids >= set(HELD_OUT[:5])


SYNOPSES = st.sampled_from([f"tool {n}" for n in range(12)])
PARAGRAPHS = st.lists(st.sampled_from([f"It does {n}." for n in range(15)] + ["tool 1"]), max_size=3)
GERMAN = st.sampled_from([f"Werkzeug {n}" for n in range(12)] + ["tool 2", "It does 3."])


@given(st.lists(st.tuples(SYNOPSES, PARAGRAPHS, GERMAN), min_size=1, max_size=60))
@example([("tool 0", ["It does 3."], "Werkzeug 0"), ("tool 1", ["It does 0."], "It does 3.")])
@settings(max_examples=60, deadline=None)
def test_no_text_is_on_both_sides_whatever_packages_share(found: list[tuple[str, list[str], str]]) -> None:
    packages = [
        package(
            hashlib.sha256(str(n).encode()).hexdigest()[:6], synopsis, *body, de=german, de_paragraphs=tuple(body)
        )
        for n, (synopsis, body, german) in enumerate(found)
    ]
    assert texts_on_both_sides(build(*packages)) == set()
