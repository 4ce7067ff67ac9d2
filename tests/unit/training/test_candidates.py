"""Candidate lists: read from published files, drawn at random, scored once and kept."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fabricated_encoder import make_cross_encoder
from fabricated_vectors import WordEncoder
from numpy.typing import NDArray
from published_files import dpr_line

from drdecr.errors import InputError, ModelError
from training.candidates.lines import LineStore
from training.candidates.lists import Candidates, GivenLists, random_lists
from training.candidates.published import open_lists
from training.candidates.scores import CrossEncoderScorer, TeacherScorer, stored_scores
from training.recipe import Lists
from training.rows import Row


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "queries.tsv").write_text("7\twas ist das\n8\two ist es\n", encoding="utf-8")
    (tmp_path / "english.tsv").write_text("8\twhere is it\n7\twhat is that\n", encoding="utf-8")
    (tmp_path / "passages.tsv").write_text("id\ttext\ttitle\n1\tone\tA\n2\ttwo\t\n3\tthree\tC\n", encoding="utf-8")
    return tmp_path


def of_ids(files: Path, lines: Sequence[object], **settings: object) -> Lists:
    (files / "lists.json").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    names = {"file": "lists.json", "queries": "queries.tsv", "passages": "passages.tsv", "english": "english.tsv"}
    return Lists.model_validate({key: files / name for key, name in names.items()} | settings)


def test_lists_of_ids_get_their_texts(files: Path) -> None:
    lists = open_lists(of_ids(files, [[7, 1, 2], ["8", "3", "2"]], title=" | "), 2, 3, seed=0)
    assert len(lists) == 3
    assert lists[0] == Candidates("was ist das", "what is that", ("A | one", "two"))
    assert lists[1] == Candidates("wo ist es", "where is it", ("C | three", "two"))
    # The file is shorter than the stage: it is gone through again.
    assert lists[2] == lists[0]


def test_longer_lists_keep_the_first_passage_and_draw_the_others_by_seed(files: Path) -> None:
    lists = [[7, [2, 9.0], [1, 5.5], [3, -1.0]]] * 20
    found = open_lists(of_ids(files, lists, title=" "), 2, 20, seed=1)
    assert {row.passages[0] for row in (found[at] for at in range(20))} == {"two"}
    scores = {found[at].passages[1]: found[at].scores for at in range(20)}
    assert scores == {"A one": (9.0, 5.5), "C three": (9.0, -1.0)}
    again = open_lists(of_ids(files, lists, title=" "), 2, 20, seed=1)
    assert [found[at] for at in range(20)] == [again[at] for at in range(20)]


@pytest.mark.parametrize(
    ("lines", "ways", "named"),
    [
        ([[7, 1, 2], [7, 1]], 2, r"lists\.json:2: a list of 1 passages, the stage wants 2"),
        ([[7, 1, 2], "x"], 2, r"lists\.json:2: "),
        ([{"query": 1}], 2, r"lists\.json:1: "),
        ([[7, [1, 2.0], 2]], 2, r"lists\.json:1: some passages have scores and some have none"),
        ([[7, [1, 1.0], [2, 0.0]], [7, 1, 2]], 2, r"lists\.json:2: some passages have scores"),
        ([[7, 1, 9]], 2, r"passages\.tsv: has no line with the id '9'"),
        ([[9, 1, 2]], 2, r"queries\.tsv: has no line with the id '9'"),
        ([], 2, r"lists\.json: holds no lists"),
    ],
)
def test_unusable_list_is_named(files: Path, lines: list[object], ways: int, named: str) -> None:
    with pytest.raises(InputError, match=named):
        open_lists(of_ids(files, lines), ways, 10, seed=0)


def test_lists_of_ids_may_be_zipped(files: Path) -> None:
    lists = of_ids(files, [[7, 1, 2], [8, 3, 1]])
    (files / "lists.json").write_bytes(gzip.compress(b"\xef\xbb\xbf" + (files / "lists.json").read_bytes()))
    assert open_lists(lists, 2, 2, seed=0)[1].passages == ("C: three", "A: one")


def test_list_that_cannot_be_read_is_named(files: Path) -> None:
    lists = of_ids(files, [[7, 1, 2]])
    for content, named in (
        (b"[7, 1, 2]\n[8, 3, \xff]\n", r"lists\.json:2: not UTF-8"),
        (b"[7, 1, 2]\n[8, 3, " + b"9" * 5000 + b"]\n", r"lists\.json:2: expected a JSON list"),
        (b"[7, 1, 2]\n" + b"[" * 100_000, r"lists\.json:2: expected a JSON list"),
        (b"[7, [1, 1" + b"0" * 400 + b"], [2, 0]]\n", r"lists\.json:1: expected a JSON list"),
        (gzip.compress(b"[7, 1, 2]\n")[:-9], r"lists\.json:\d: the gzip file is broken"),
    ):
        (files / "lists.json").write_bytes(content)
        with pytest.raises(InputError, match=named):
            open_lists(lists, 2, 10, seed=0)


def test_quotes_of_dprs_collection_are_taken_off(files: Path) -> None:
    passages = [dpr_line("1", 'the "one"', '"A"'), dpr_line('"2"', "two", ""), '3\t"He" and "she"\tC']
    (files / "passages.tsv").write_text("\n".join(["id\ttext\ttitle", *passages, ""]), encoding="utf-8")
    found = open_lists(of_ids(files, [[7, 1, 2, 3]], title=" | "), 3, 1, seed=0)[0]
    assert found.passages == ('"A" | the "one"', "two", 'C | "He" and "she"')
    # Another file's quotes are its own.
    (files / "passages.tsv").write_text("\n".join([*passages, ""]), encoding="utf-8")
    assert open_lists(of_ids(files, [[7, 1, 3]]), 2, 1, seed=0)[0].passages[0].endswith('"the ""one"""')


def test_lists_of_texts_belong_line_by_line_to_their_english(tmp_path: Path) -> None:
    (tmp_path / "triples.tsv").write_text("was\tp1\tn1\nwo\tp2\tn2\n", encoding="utf-8")
    (tmp_path / "english.tsv").write_text("what\tp1\tn1\nwhere\tp2\tother\n", encoding="utf-8")
    lists = open_lists(Lists(file=tmp_path / "triples.tsv", english=tmp_path / "english.tsv"), 2, 2, seed=0)
    assert lists[0] == Candidates("was", "what", ("p1", "n1"))
    with pytest.raises(InputError, match=r"english\.tsv:2: has other passages"):
        lists[1]
    alone = open_lists(Lists(file=tmp_path / "triples.tsv", in_english=True), 2, 2, seed=0)
    assert alone[1] == Candidates("wo", "wo", ("p2", "n2"))
    (tmp_path / "english.tsv").write_text("what\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"english\.tsv: has 1 lines, .*triples\.tsv 2"):
        open_lists(Lists(file=tmp_path / "triples.tsv", english=tmp_path / "english.tsv"), 2, 2, seed=0)


def test_lines_are_read_by_number(tmp_path: Path) -> None:
    path = tmp_path / "lines.tsv"
    path.write_bytes("\ufefferste\r\nzweite\n\ndrei\tvier".encode())
    lines = LineStore(path)
    assert [lines[at] for at in range(len(lines))] == ["erste", "zweite", "", "drei\tvier"]
    with pytest.raises(InputError, match=r"lines\.tsv:2: expected 2 tab-separated fields, found 1"):
        lines.fields(1, 2)
    (tmp_path / "packed").write_bytes(gzip.compress(b"x\n"))
    with pytest.raises(InputError, match="unpack it with gunzip"):
        LineStore(tmp_path / "packed")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="is empty"):
        LineStore(tmp_path / "empty")


def test_random_candidates_never_answer_the_query() -> None:
    labelled = [Row("q", "e", f"p{at}") for at in range(3)] + [Row("other", "f", f"p{at}") for at in (3, 4, 5)]
    # One of the answers of "e" was not drawn: it still answers.
    lists = random_lists(labelled[:2], labelled, 3, seed=0)
    for row, answer in zip(lists.rows, ("p0", "p1"), strict=True):
        assert row.passages[0] == answer
        assert set(row.passages[1:]) <= {"p3", "p4", "p5"} and len(set(row.passages)) == 3
    with pytest.raises(InputError, match="too few for lists of 5"):
        random_lists(labelled[:2], labelled, 5, seed=0)


LISTS = GivenLists(
    [
        Candidates("x", "music player", ("music player", "image viewer", "the music")),
        Candidates("y", "image", ("image viewer", "music player", "disk")),
    ]
    * 200
)


class Counting(TeacherScorer):
    """Counts the rows it is asked for, and stops where it is told to."""

    rows = 0
    stop_at: int | None = None

    def score(self, rows: Sequence[Candidates]) -> NDArray[np.float32]:
        self.rows += len(rows)
        if self.stop_at is not None and self.rows >= self.stop_at:
            raise KeyboardInterrupt
        return super().score(rows)


def test_teachers_scores_are_its_maxsim_and_kept(tmp_path: Path) -> None:
    encoder = WordEncoder()
    scorer = Counting(encoder)
    found = stored_scores(scorer, LISTS, 3, tmp_path)
    assert found.shape == (400, 3) and scorer.rows == 400
    queries, passages = encoder.encode(["music player"], "query"), encoder.encode(["the music"], "passage")
    expected = float((queries.vectors @ passages.vectors.T).max(axis=1).sum())
    if queries.sentences is not None and passages.sentences is not None:
        weight = encoder.spec.sentence_weight * len(queries.vectors)
        expected += weight * float(queries.sentences[0] @ passages.sentences[0])
    assert found[0, 2] == pytest.approx(expected, abs=1e-5)
    assert found[0].argmax() == 0 and found[1].argmax() == 0
    # Another run that asks for the same does not ask the teacher; other lists do.
    again = Counting(encoder)
    np.testing.assert_array_equal(stored_scores(again, LISTS, 3, tmp_path), found)
    assert again.rows == 0
    stored_scores(again, GivenLists(LISTS.rows[1:5]), 3, tmp_path)
    assert again.rows == 4


def test_interrupted_scoring_goes_on(tmp_path: Path) -> None:
    stopped = Counting(WordEncoder())
    stopped.stop_at = 400
    with pytest.raises(KeyboardInterrupt):
        stored_scores(stopped, LISTS, 3, tmp_path)
    # A write that was cut off in the middle of a row.
    (file,) = tmp_path.glob("*/scores.f32")
    with file.open("ab") as out:
        out.write(b"\0\0\0\0\0")
    rest = Counting(WordEncoder())
    found = stored_scores(rest, LISTS, 3, tmp_path)
    assert rest.rows == 400 - 256
    np.testing.assert_array_equal(found, stored_scores(Counting(WordEncoder()), LISTS, 3, tmp_path / "whole"))


def test_mean_is_over_query_tokens() -> None:
    total, mean = (TeacherScorer(WordEncoder(), mean=mean).score(LISTS.rows[:2]) for mean in (False, True))
    tokens = np.diff(WordEncoder().encode(["music player", "image"], "query").offsets)
    np.testing.assert_allclose(mean * tokens[:, None], total, rtol=1e-5)


def test_cross_encoder_scores_pairs(tmp_path: Path) -> None:
    scorer = CrossEncoderScorer(make_cross_encoder(tmp_path / "judge"))
    found = scorer.score(LISTS.rows[:2])
    assert found.shape == (2, 3) and np.isfinite(found).all() and len(set(found.flatten().tolist())) > 3
    np.testing.assert_allclose(scorer.score(LISTS.rows[1:2])[0], found[1], atol=1e-5)
    assert scorer.fingerprint != TeacherScorer(WordEncoder()).fingerprint
    with pytest.raises(ModelError, match="cannot be read as a cross-encoder"):
        CrossEncoderScorer(tmp_path)


def test_row_without_english_cannot_be_scored() -> None:
    with pytest.raises(InputError, match="'x' has no English"):
        TeacherScorer(WordEncoder()).score([Candidates("x", None, ("p",))])
