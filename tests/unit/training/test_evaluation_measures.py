"""Measures, the BM25 floor and the test of significance."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drdecr.corpus import Passage, Query
from drdecr.errors import InputError, UsageError
from training.evaluation import held_out
from training.evaluation.bm25 import Bm25
from training.evaluation.held_out import HeldOut, load_held_out, score_english, score_languages
from training.evaluation.measures import MEASURES, Run, mean_scores, score_queries, score_run, score_table
from training.evaluation.significance import randomisation_test
from training.evaluation.words import words, words_and_marks

QRELS = {"one": {"a": 1}, "many": {"a": 1, "b": 1, "c": 1, "d": 1}, "graded": {"a": 0, "b": 2}}


def run_of(**ranked: str) -> Run:
    """Letters are passages, best first."""
    return {query: {letter: -float(rank) for rank, letter in enumerate(letters)} for query, letters in ranked.items()}


def test_query_with_several_answers_succeeds_with_one_but_recalls_a_share() -> None:
    scores = score_queries(run_of(many="xab"), QRELS, {"many"})["many"]
    assert scores["success@1"] == scores["recall@1"] == 0.0
    assert scores["success@10"] == 1.0
    assert scores["recall@10"] == 0.5
    assert scores["mrr@10"] == 0.5


def test_success_equals_recall_where_one_passage_answers() -> None:
    scores = score_queries(run_of(one="xxa"), QRELS, {"one"})["one"]
    assert scores["success@10"] == scores["recall@10"]
    assert scores["success@1"] == scores["recall@1"]


def test_answer_below_rank_ten_counts_for_recall_at_100_alone() -> None:
    scores = score_run(run_of(one="bcdefghijka"), {"one": {"a": 1}})
    assert scores == {**dict.fromkeys(MEASURES, 0.0), "recall@100": 1.0}


def test_query_without_an_answer_counts_as_nothing_found() -> None:
    assert score_run(run_of(one="a"), QRELS)["success@1"] == pytest.approx(1 / 3)
    assert score_run({**run_of(one="a"), "many": {}}, QRELS)["success@1"] == pytest.approx(1 / 3)
    assert score_run({}, QRELS) == dict.fromkeys(MEASURES, 0.0)


def test_query_with_no_relevant_passage_is_not_judged() -> None:
    assert score_queries(run_of(q="a"), {"q": {"a": 0}}) == {}


def test_grade_zero_is_not_relevant() -> None:
    assert score_run(run_of(graded="ab"), QRELS, {"graded"})["success@1"] == 0.0


def test_unjudged_queries_change_nothing() -> None:
    assert score_run(run_of(one="a", stranger="b"), QRELS, {"one"})["success@1"] == 1.0


@given(st.permutations("abcdefghijkl"), st.sets(st.sampled_from("abcdefghijkl"), min_size=1))
def test_measures_agree_with_their_definitions(order: list[str], relevant: set[str]) -> None:
    scores = score_run(run_of(q="".join(order)), {"q": dict.fromkeys(relevant, 1)})
    ranks = [rank for rank, letter in enumerate(order, start=1) if letter in relevant]
    assert scores["success@1"] == float(ranks[0] == 1)
    assert scores["recall@10"] == pytest.approx(sum(rank <= 10 for rank in ranks) / len(relevant))
    assert scores["mrr@10"] == pytest.approx(1 / ranks[0] if ranks[0] <= 10 else 0.0)


def test_table_ends_with_the_mean_over_languages() -> None:
    rows = {"de": dict.fromkeys(MEASURES, 1.0), "ja": dict.fromkeys(MEASURES, 0.5)}
    last = score_table(rows).splitlines()[-1].split()
    assert last == ["mean", "0.750", "0.750", "0.750"]


def test_mean_of_nothing_is_zero() -> None:
    assert mean_scores([]) == dict.fromkeys(MEASURES, 0.0)


PASSAGES = [Passage("a", "A text editor with ncurses."), Passage("b", "Plays chess."), Passage("c", "Edits sound.")]


def test_bm25_finds_what_shares_a_word_and_nothing_else() -> None:
    run = Bm25(PASSAGES).rank([Query("q", "ncursesベースのエディタ"), Query("r", "テキスト"), Query("s", "")])
    assert list(run["q"]) == ["a"]
    assert run["r"] == run["s"] == {}


def test_bm25_ranks_by_relevance_up_to_k() -> None:
    passages = [*PASSAGES, Passage("d", "chess chess")]
    assert list(Bm25(passages).rank([Query("q", "Chess!")])["q"]) == ["d", "b"]
    assert list(Bm25(passages).rank([Query("q", "Chess!")], k=1)["q"]) == ["d"]


def test_bm25_over_passages_without_words_finds_nothing() -> None:
    assert Bm25([Passage("a", "--")]).rank([Query("q", "word")]) == {"q": {}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, WORLD", ["hello", "world"]),
        ("日本語text", ["日", "本", "語", "text"]),
        ("한국어text", ["한국어", "text"]),
        ("e\u0301té", ["été"]),
        ("!?", []),
    ],
)
def test_words_of_every_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_marks_stand_alone() -> None:
    assert list(words_and_marks("U.S. 66")) == ["u", ".", "s", ".", "66"]


def test_clear_difference_is_significant_and_none_is_not() -> None:
    assert randomisation_test([1.0] * 20, [0.0] * 20) < 0.001
    assert randomisation_test([1.0, 0.0] * 10, [0.0, 1.0] * 10) == 1.0


def test_small_sample_gives_the_exact_probability() -> None:
    # three equal differences: two of the eight sign patterns are as extreme
    assert randomisation_test([1.0] * 3, [0.0] * 3, rounds=40_000) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0])])
def test_samples_that_are_no_pairs_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="equally long"):
        randomisation_test(first, second)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "queries").mkdir()
    (tmp_path / "demo.passages.jsonl").write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n')
    (tmp_path / "qrels.test.trec").write_text("q1 0 a 1\nq2 0 b 1\nq3 0 b 1\n")
    (tmp_path / "queries" / "en.test.tsv").write_text("q1\tone\nq2\ttwo\nq3\tzwei\n")
    (tmp_path / "queries" / "de.test.tsv").write_text("q1\teins\nq2\ttwo\n")
    (tmp_path / "queries" / "ja.test.tsv").write_text("q3\ttwo\n")
    return tmp_path


def test_languages_are_scored_on_their_own_queries_and_english_on_the_same(data: Path) -> None:
    held_out = load_held_out(data, fewest=1)
    rank = Bm25(held_out.passages).rank
    scores = score_languages(held_out, rank)
    assert {lang: row["success@1"] for lang, row in scores.items()} == {"de": 0.5, "ja": 1.0}
    ceiling = score_english(held_out, rank)
    assert {lang: row["success@1"] for lang, row in ceiling.items()} == {"de": 1.0, "ja": 0.0}


def test_language_with_too_few_queries_is_left_out_unless_asked_for(data: Path) -> None:
    assert set(load_held_out(data, fewest=2).queries) == {"de"}
    assert set(load_held_out(data, ["ja"], fewest=2).queries) == {"ja"}


def test_smaller_limit_keeps_a_part_of_the_larger(data: Path) -> None:
    (kept,) = load_held_out(data, ["de"], limit=1).queries["de"]
    assert kept in load_held_out(data, ["de"], limit=2).queries["de"]


def test_unknown_language_and_empty_directory_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no held-out queries in xx; it has de, ja"):
        load_held_out(data, ["xx"])
    with pytest.raises(InputError, match="drdecr data fetch"):
        load_held_out(tmp_path / "elsewhere")


def test_evaluation_keeps_every_answer_and_drops_other_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    passages = [Passage(f"p{i}", "x" * 90) for i in range(20)]
    whole = HeldOut(
        passages, {"de": [Query("q", "frage")]}, [Query("q", "question")], {"q": {"p19": 1}, "other": {"p3": 1}}
    )
    monkeypatch.setattr(held_out, "load_held_out", lambda *_, **__: whole)
    monkeypatch.setattr(held_out, "_CHARACTERS", 450)
    kept = [passage.id for passage in held_out.load_held_out_to_rank(Path("data"), limit=1).passages]
    assert kept == ["p19", "p0", "p1", "p2", "p3"]
