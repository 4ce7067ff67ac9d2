"""Candidates from a snapshot: the teacher's own hits, without those that nobody labelled but that answer too."""

from __future__ import annotations

from pathlib import Path

import pytest
from fabricated_vectors import WordEncoder

from drdecr.errors import InputError, ModelMismatchError
from indexer.build import build
from training.candidates.mining import _relevant_scores, _search, mine_lists
from training.recipe import Mining
from training.rows import Row

TEXTS = [
    "a music player for the desktop",
    "the music player of the desktop",
    "a music editor",
    "an image editor",
    "a player of chess",
    "a disk",
    "a font viewer",
]
ROWS = [
    Row("spieler", "music player", "a music player for the desktop"),
    Row("bild", "image editor", "an image editor"),
]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mining")
    lines = [f'{{"id": "p{at}", "text": "{text}"}}' for at, text in enumerate(TEXTS)]
    (root / "passages.jsonl").write_text("\n".join(lines), encoding="utf-8")
    build(WordEncoder(), root / "passages.jsonl", root / "snapshot")
    return root / "snapshot"


def test_candidates_are_the_teachers_hits_with_the_relevant_passage_first(snapshot: Path) -> None:
    mined = mine_lists(ROWS, WordEncoder(), Mining(snapshot=snapshot, depth=4), 3, 0, labelled=ROWS)
    assert [row.passages[0] for row in mined.rows] == [row.passage for row in ROWS]
    for row in mined.rows:
        assert len(set(row.passages)) == 3 and set(row.passages) <= set(TEXTS)
    assert [(row.query, row.english) for row in mined.rows] == [(row.query, row.english) for row in ROWS]
    again = mine_lists(ROWS, WordEncoder(), Mining(snapshot=snapshot, depth=4), 3, 0, labelled=ROWS)
    assert again == mined


@pytest.mark.parametrize("closeness", [0.0, 0.4])
def test_relevant_passage_that_is_no_hit_is_scored_as_hits_are(closeness: float, tmp_path: Path) -> None:
    teacher = WordEncoder(closeness=closeness)
    lines = [f'{{"id": "p{at}", "text": "{text}. It is new."}}' for at, text in enumerate(TEXTS)]
    (tmp_path / "passages.jsonl").write_text("\n".join(lines), encoding="utf-8")
    build(teacher, tmp_path / "passages.jsonl", tmp_path / "snapshot")
    rows = [Row("q", "music player", f"{text}. It is new.") for text in TEXTS[:3]]
    hits = _search(["music player"], teacher, Mining(snapshot=tmp_path / "snapshot", depth=7), None, None)
    as_hits = _relevant_scores(rows, hits, teacher)
    computed = _relevant_scores(rows, {"music player": []}, teacher)
    assert computed == pytest.approx({pair: as_hits[pair] for pair in computed}, abs=2e-2)
    assert len(set(computed)) == 3


def test_hit_that_the_teacher_scores_like_the_relevant_passage_is_no_negative(snapshot: Path) -> None:
    def seen(keep_below: float) -> set[str]:
        mining = Mining(snapshot=snapshot, depth=7, keep_below=keep_below)
        mined = mine_lists(ROWS[:1] * 30, WordEncoder(), mining, 3, 0, labelled=ROWS)
        return {text for row in mined.rows for text in row.passages}

    twin = TEXTS[1]
    assert twin in seen(1.1)
    assert twin not in seen(0.95)


def test_other_answers_of_a_query_are_no_negatives(snapshot: Path) -> None:
    both = [ROWS[0], Row("spieler", "music player", TEXTS[2])] * 20
    mined = mine_lists(both, WordEncoder(), Mining(snapshot=snapshot, keep_below=2), 3, 0, labelled=both)
    for row in mined.rows:
        assert not {ROWS[0].passage, TEXTS[2]} & set(row.passages[1:])


def test_answer_whose_row_was_not_drawn_is_no_negative(snapshot: Path) -> None:
    other = Row("spieler", "music player", TEXTS[2])
    mining = Mining(snapshot=snapshot, keep_below=2)
    mined = mine_lists([ROWS[0]] * 30, WordEncoder(), mining, 3, 0, labelled=[ROWS[0], other])
    assert all(TEXTS[2] not in row.passages for row in mined.rows)


def test_hit_cut_like_the_labelled_passages_is_known_for_the_answer_that_it_is(snapshot: Path) -> None:
    cut = Row("spieler", "music player", TEXTS[0][:14])
    mining = Mining(snapshot=snapshot, keep_below=2)
    mined = mine_lists([cut] * 30, WordEncoder(), mining, 3, 0, labelled=[cut], longest=14)
    for row in mined.rows:
        assert row.passages[0] == cut.passage and cut.passage not in row.passages[1:]
        assert all(len(text) <= 14 for text in row.passages)


def test_parallel_text_needs_no_labels(snapshot: Path) -> None:
    rows = [Row("bildbearbeitung", "image editor", "image editor")]
    mined = mine_lists(rows, WordEncoder(), Mining(snapshot=snapshot, depth=3), 3, 0, labelled=None)
    assert mined.rows[0].passages[0] == "an image editor"
    assert set(mined.rows[0].passages) <= set(TEXTS)
    # Nothing of the sentence itself is taken for a passage.
    assert "image editor" not in mined.rows[0].passages


def test_short_hit_lists_are_filled_from_other_queries_hits(snapshot: Path) -> None:
    mined = mine_lists(ROWS, WordEncoder(), Mining(snapshot=snapshot, depth=2), 3, 0, labelled=ROWS)
    assert all(len(set(row.passages)) == 3 for row in mined.rows)
    with pytest.raises(InputError, match="too few for"):
        mine_lists(ROWS[:1], WordEncoder(), Mining(snapshot=snapshot, depth=2), 5, 0, labelled=ROWS)


def test_teacher_that_did_not_build_the_snapshot_is_refused(snapshot: Path) -> None:
    with pytest.raises(ModelMismatchError):
        mine_lists(ROWS, WordEncoder(name="another"), Mining(snapshot=snapshot), 3, 0, labelled=ROWS)
