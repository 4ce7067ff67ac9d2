"""Which rows a stage learns from: joined from the files of a data set, drawn by language."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from fabricated_data_set import make_data_set, translate

from drdecr.errors import InputError
from training.rows import Row, choose, draw, leave_out_held_out, read_labelled, read_parallel

LONGEST = 200


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("data") / "fabricated")


def rows_of(**counts: int) -> dict[str, list[Row]]:
    return {lang: [Row(f"{lang}{i}", f"en{i}", f"en{i}") for i in range(count)] for lang, count in counts.items()}


def test_parallel_rows_ask_for_their_own_english(data: Path) -> None:
    rows = read_parallel([data], ["de", "ru"], LONGEST)
    assert list(rows) == ["fabricated/de", "fabricated/ru"]
    assert len(rows["fabricated/de"]) == len(rows["fabricated/ru"]) == 36
    english = "the music player is open"
    assert rows["fabricated/ru"][0] == Row(translate(english, "ru"), english, english)


def test_parallel_rows_of_several_sets_come_together(data: Path, tmp_path: Path) -> None:
    other = make_data_set(tmp_path / "other", ("de",))
    rows = read_parallel([data, other], ["de", "ru"], LONGEST)
    assert {source: len(some) for source, some in rows.items()} == {
        "fabricated/de": 36,
        "fabricated/ru": 36,
        "other/de": 36,
    }


def test_languages_that_no_set_has_are_an_error(data: Path) -> None:
    assert list(read_parallel([data], ["xx", "de"], LONGEST)) == ["fabricated/de"]
    with pytest.raises(InputError, match="no parallel pairs in xx, yy"):
        read_parallel([data], ["xx", "yy"], LONGEST)


def test_languages_that_a_set_lacks_are_said_set_by_set(data: Path, tmp_path: Path) -> None:
    other = make_data_set(tmp_path / "other", ("de",))
    said: list[str] = []
    read_parallel([data, other], ["de", "xx", "ru"], LONGEST, said.append)
    assert [line.partition(":")[0] for line in said] == [
        f"{data} holds nothing in xx",
        f"{other} holds nothing in xx, ru",
    ]
    read_parallel([data], ["de", "ru"], LONGEST, said.append)
    assert len(said) == 2


def test_labelled_rows_join_a_query_with_its_english_and_its_passage(data: Path) -> None:
    rows = read_labelled([data], ["tr"], LONGEST)["fabricated/tr"]
    assert len(rows) == 36
    assert rows[0].english == "music player"
    assert rows[0].query == translate("music player", "tr")
    assert rows[0].passage.startswith("music player") and rows[0].passage.endswith("a music player for the desktop")
    for row in rows:
        assert translate(row.english, "tr") == row.query
        assert row.english in row.passage


def test_labelled_rows_leave_out_what_has_no_partner(data: Path, tmp_path: Path) -> None:
    root = make_data_set(tmp_path / "partial", ("de",))
    (root / "qrels.train.trec").write_text("q0 0 p0 1\nq0 0 p2 1\nq2 0 absent 1\nq4 0 p4 1\nabsent 0 p6 1\n")
    english = [
        line for line in (root / "queries/en.train.tsv").read_text().splitlines() if not line.startswith("q4\t")
    ]
    (root / "queries/en.train.tsv").write_text("\n".join(english) + "\n")
    rows = read_labelled([root], ["de"], LONGEST)["partial/de"]
    assert [row.english for row in rows] == ["music player"] * 2
    assert ["player" in row.passage for row in rows] == [True, False]
    assert "a music editor for the desktop" in rows[1].passage


def test_long_pairs_are_left_out_and_long_passages_cut(tmp_path: Path) -> None:
    root = make_data_set(tmp_path / "long", ("de",))
    long = "word " * 10
    (root / "pairs/de.tsv.gz").write_text(f"made\t{long}\tviele Worte\nmade\tshort\tkurz\n")
    assert read_parallel([root], ["de"], 49)["long/de"] == [Row("kurz", "short", "short")]
    assert len(read_parallel([root], ["de"], 50)["long/de"]) == 2
    assert {len(row.passage) for row in read_labelled([root], ["de"], 7)["long/de"]} == {7}


def test_rows_from_elsewhere_that_say_what_is_held_out_are_left_out(data: Path) -> None:
    rows = {
        "words.tsv": [
            Row("Musikspieler", "music player", "music player"),
            Row("Musikbetrachter", " Music  VIEWER", " Music  VIEWER"),
            Row("ein Betrachter", "a music viewer for the desktop", "a music viewer for the desktop"),
            Row("Haus", "house", "house"),
        ]
    }
    left = leave_out_held_out(rows, [data])
    assert [row.english for row in left["words.tsv"]] == ["music player", "house"]
    assert leave_out_held_out(rows, []) == rows


def test_drawing_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    rows = rows_of(de=50, ru=30)
    assert draw(rows, 200, 7) == draw(rows, 200, 7)
    assert draw(rows, 200, 7) != draw(rows, 200, 8)
    assert draw(rows, 100, 7) != draw(dict(reversed(rows.items())), 100, 9)
    assert draw(rows, 100, 7) == draw(dict(reversed(rows.items())), 100, 7)


def test_languages_come_by_the_square_root_of_what_they_have() -> None:
    drawn = Counter(row.query[:2] for row in draw(rows_of(de=900, ru=100, ja=25), 18_000, 1))
    assert drawn["de"] == pytest.approx(18_000 * 30 / 45, rel=0.05)
    assert drawn["ru"] == pytest.approx(18_000 * 10 / 45, rel=0.05)
    assert drawn["ja"] == pytest.approx(18_000 * 5 / 45, rel=0.1)


def test_no_row_comes_again_before_all_came() -> None:
    drawn = [row for row in draw(rows_of(de=20, ru=7), 300, 3) if row.query.startswith("ru")]
    rounds = [drawn[start : start + 7] for start in range(0, len(drawn) - 6, 7)]
    assert len(rounds) > 5
    assert all(len(set(one)) == 7 for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_languages_without_rows_are_passed_over() -> None:
    assert {row.query[:2] for row in draw(rows_of(de=3, ru=0), 20, 0)} == {"de"}
    assert draw(rows_of(de=0), 5, 0) == []


def test_emphasis_draws_the_rows_of_a_source_more_often() -> None:
    rows = {
        name: [Row(f"{name} {at}", "", "") for at in range(100)] for name in ("data/questions/ar.tsv", "debian/ja")
    }
    drawn = draw(rows, 1000, 0, {"*/questions/*": 9.0})
    asked = sum(row.query.startswith("data/questions") for row in drawn)
    assert 850 < asked < 950
    assert draw(rows, 1000, 0, {"nothing": 9.0}) == draw(rows, 1000, 0)


def test_a_choice_keeps_short_rows_of_some_sources() -> None:
    rows = {
        "set/de": [Row("a", "short", "short"), Row("b", "rather longer", "rather longer")],
        "set/fr": [Row("c", "rather longer", "rather longer")],
        "texts/de.tsv.gz": [Row("d", "short", "short")],
    }
    assert choose(rows, ["*"]) == rows
    assert choose(rows, ["set/*"], 5) == {"set/de": [Row("a", "short", "short")]}
    assert list(choose(rows, ["set/fr", "texts/*"])) == ["set/fr", "texts/de.tsv.gz"]
