"""What a run's report keeps and shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fabricated_data_set import make_data_set
from fabricated_vectors import WordEncoder

from training.evaluation.held_out import HeldOut, load_held_out
from training.evaluation.measures import MEASURES
from training.report import Report, Table, score_bm25, score_encoder


def table(**scores: float) -> Table:
    return {
        lang: {"success@1": score, "success@10": score + 0.1, "mrr@10": score / 2} for lang, score in scores.items()
    }


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    return load_held_out(make_data_set(tmp_path_factory.mktemp("data") / "fabricated", ("de", "ru")), fewest=1)


def test_system_is_measured_once(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    Report(file).measure("debian", "BM25", lambda: table(de=0.25))

    def again() -> Table:
        raise AssertionError("measured twice")

    report = Report(file)
    report.measure("debian", "BM25", again)
    assert report.content["debian"]["BM25"] == table(de=0.25)


def test_systems_and_collections_are_kept_apart(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.json")
    report.measure("debian", "BM25", lambda: table(de=0.1))
    report.measure("debian", "untrained", lambda: table(de=0.2))
    report.measure("homeassistant", "BM25", lambda: table(de=0.3))
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["format"] == 1
    assert content["scores"]["debian"]["untrained"]["de"]["success@1"] == 0.2
    assert content["scores"]["homeassistant"]["BM25"]["de"]["success@1"] == 0.3
    assert not list(tmp_path.glob("*.partial"))


def test_measurement_that_fails_leaves_the_report_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    Report(file).measure("debian", "BM25", lambda: table(de=0.1))
    before = file.read_bytes()

    def stopped() -> Table:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Report(file).measure("debian", "untrained", stopped)
    assert file.read_bytes() == before


def test_tables_show_every_language_and_the_mean(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.json")
    report.measure("debian", "BM25", lambda: table(de=0.2, ru=0.4))
    report.measure("debian", "a longer name", lambda: table(de=0.5, ru=0.25))
    shown = report.tables()
    blocks = shown.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == ["Recall@1, debian", "Recall@10, debian", "MRR@10, debian"]
    rows = {line.split()[0]: line.split()[1:] for line in blocks[0].splitlines()[2:]}
    assert rows == {"de": ["0.200", "0.500"], "ru": ["0.400", "0.250"], "mean": ["0.300", "0.375"]}
    assert len({len(line) for line in blocks[0].splitlines()[1:]}) == 1


def test_collection_without_queries_shows_no_scores(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.json")
    report.measure("empty", "BM25", dict)
    assert report.tables().splitlines()[0] == "Recall@1, empty"


def test_encoder_is_scored_in_every_language_and_in_english(held_out: HeldOut) -> None:
    encoder = WordEncoder()
    foreign = score_encoder(encoder, held_out)
    english = score_encoder(encoder, held_out, in_english=True)
    assert set(foreign) == set(english) == {"de", "ru"}
    assert set(english["de"]) == set(MEASURES)
    # The passage holds the English query word for word; no foreign word is in any passage.
    assert english["de"]["success@1"] == english["ru"]["success@1"] == 1
    assert foreign["ru"]["success@1"] < 0.5


def test_floor_is_scored_with_the_queries_as_they_are(held_out: HeldOut) -> None:
    assert score_bm25(held_out)["ru"]["success@10"] < 0.5


def test_a_set_of_few_queries_says_why_it_has_no_table(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.json")
    report.measure("debian", "BM25", dict)
    assert "no language has 50 held-out queries" in report.tables()
