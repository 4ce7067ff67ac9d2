"""R@2kt and R@5kt: what the published script does, and the corrected variant."""

from __future__ import annotations

import json
from pathlib import Path

import nltk
import pytest

from drdecr.errors import InputError
from training.evaluation import xor
from training.evaluation.xor import XorQuestion, contexts, read_xor_predictions, read_xor_questions, score_xor


def figures(answers: list[str], *texts: str) -> dict[str, bool]:
    scores = score_xor([XorQuestion("q", "ja", tuple(answers))], {"q": texts})
    return {name: score.mean == 100.0 for name, score in scores.items()}


LITERAL, CORRECTED = "R@2kt", "R@2kt-corrected"


def test_answer_in_a_retrieved_text_is_found() -> None:
    assert all(figures(["Marie Curie"], "Nothing here.", "Radium was found by Marie Curie in Paris.").values())
    assert not any(figures(["Marie Curie"], "Nothing here.").values())


def test_letter_case_counts_in_the_literal_figure_only() -> None:
    found = figures(["marie curie"], "It was Marie Curie.")
    assert (found[LITERAL], found[CORRECTED]) == (False, True)


def test_quotes_that_the_tokenizer_rewrites_are_lost_in_the_literal_figure_only() -> None:
    found = figures(['"Ma" Rainey'], 'The singer "Ma" Rainey toured.')
    assert (found[LITERAL], found[CORRECTED]) == (False, True)


def test_punctuation_that_the_tokenizer_respaces_is_lost_in_the_literal_figure_only() -> None:
    found = figures(["Paris, France"], "She died in Paris, France that year.")
    assert (found[LITERAL], found[CORRECTED]) == (False, True)


def test_part_of_a_word_is_found_in_the_literal_figure_only() -> None:
    found = figures(["art"], "A party was held.")
    assert (found[LITERAL], found[CORRECTED]) == (True, False)


def test_answer_across_two_texts_is_found_in_the_literal_figure_only() -> None:
    found = figures(["New York"], "It was New", "York again")
    assert (found[LITERAL], found[CORRECTED]) == (True, False)


@pytest.mark.parametrize("filler", ["word ", "word. Next ", "word, "])
def test_window_ends_at_2000_and_at_5000_tokens(filler: str) -> None:
    tokens = len(filler.replace(".", " .").replace(",", " ,").split())
    for limit, name in ((2000, "2kt"), (5000, "5kt")):
        room = filler * (limit // tokens - 1)
        assert figures(["answer"], room, "answer")[f"R@{name}"]
        assert figures(["answer"], room, "answer")[f"R@{name}-corrected"]
        assert not figures(["answer"], room + filler * 2, "answer")[f"R@{name}"]
        assert not figures(["answer"], room + filler * 2, "answer")[f"R@{name}-corrected"]


def test_yes_and_no_are_no_answers_and_may_leave_no_question() -> None:
    questions = [XorQuestion("a", "ja", ("yes",)), XorQuestion("b", "ja", ("no", "Kyoto"))]
    scores = score_xor(questions, {"a": ["yes"], "b": ["no"]})
    assert all(score.counted == {"ja": 1} and score.mean == 0.0 for score in scores.values())


def test_capitalised_yes_counts_in_the_literal_figure_only() -> None:
    scores = score_xor([XorQuestion("a", "ja", ("Yes",))], {"a": ["Yes"]})
    assert (scores[LITERAL].mean, scores[LITERAL].counted) == (100.0, {"ja": 1})
    assert scores[CORRECTED].counted == {}


def test_missing_question_is_uncounted_in_the_literal_figure_and_a_miss_in_the_corrected() -> None:
    questions = [XorQuestion("a", "ja", ("Kyoto",)), XorQuestion("b", "ja", ("Nara",))]
    scores = score_xor(questions, {"a": ["Kyoto"]})
    assert (scores[LITERAL].mean, scores[CORRECTED].mean) == (100.0, 50.0)


def test_every_language_weighs_the_same() -> None:
    questions = [XorQuestion(f"ja{n}", "ja", ("Kyoto",)) for n in range(3)] + [XorQuestion("ko", "ko", ("Seoul",))]
    predictions = {"ja0": ["Kyoto"], "ja1": ["Kyoto"], "ja2": ["Kyoto"], "ko": ["Busan"]}
    scores = score_xor(questions, predictions)
    assert scores[LITERAL].mean == scores[CORRECTED].mean == 50.0
    assert scores[LITERAL].by_language == {"ja": 100.0, "ko": 0.0}


def test_tokens_are_those_of_nltk_with_its_english_sentences() -> None:
    tokenize, _ = xor.word_tokenizer()
    text = 'Dr. Smith said "hello." He left St. Louis for Washington D.C. in 1990. It rained.'
    expected = "Dr. Smith said `` hello . '' He left St. Louis for Washington D.C. in 1990 . It rained ."
    assert " ".join(tokenize(text)) == expected


def test_data_of_nltk_are_preferred_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "find", lambda _: "found")
    xor._word_tokenizer.cache_clear()
    try:
        assert xor.word_tokenizer() == (nltk.word_tokenize, "punkt_tab")
    finally:
        xor._word_tokenizer.cache_clear()


def test_run_becomes_the_texts_of_its_50_best_passages() -> None:
    run = {"q": {f"p{n}": float(n) for n in range(60)}}
    texts = {f"p{n}": f"text {n}" for n in range(60)}
    assert contexts([run], texts)["q"] == [f"text {n}" for n in range(59, 9, -1)]


def test_passage_without_a_text_is_named() -> None:
    with pytest.raises(InputError, match="'p1' of query 'q'"):
        contexts([{"q": {"p1": 1.0}}], {})


def test_files_of_the_task_are_read(tmp_path: Path) -> None:
    questions = tmp_path / "gold.jsonl"
    record = {"id": "1", "lang": "ja", "question": "?", "answers": ["line\u2028separator", "b"]}
    questions.write_text(json.dumps(record, ensure_ascii=False) + "\n\n")
    assert read_xor_questions(questions) == [XorQuestion("1", "ja", ("line\u2028separator", "b"))]
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps([{"id": "1", "lang": "ja", "ctxs": ["one", {"text": "two"}]}]))
    assert read_xor_predictions(predictions) == {"1": ["one", "two"]}


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"id": "1"}', f"[{'9' * 5000}]", '{"id": 1, "lang": "ja", "answers": []}', "3"]
)
def test_bad_question_is_named_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(f'{{"id": "0", "lang": "ja", "answers": []}}\n{line}\n')
    with pytest.raises(InputError, match=r"gold\.jsonl:2: "):
        read_xor_questions(path)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[3]",
        '[{"id": "1"}]',
        '[{"ctxs": []}]',
        '[{"id": "1", "ctxs": [null]}]',
        '[{"id": "1", "ctxs": [["title", "text"]]}]',
        "nothing",
    ],
)
def test_bad_predictions_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"predictions\.json"):
        read_xor_predictions(path)


def test_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_xor_questions(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_xor_questions(tmp_path / "binary")
