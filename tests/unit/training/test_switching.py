"""Code switching: which words of an English text are put into another language."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from training.rows import Row
from training.switching import rarity_by_pieces, read_lexicon, switch, switched_rows

LEXICON = {
    "population": ["población"],
    "coffee": ["café"],
    "coffee house": ["cafetería"],
    "city": ["ciudad"],
    "the": ["el"],
}


def switched(text: str, share: float = 1.0, *, joined: bool = False) -> str | None:
    return switch(text, LEXICON, share, random.Random(1), joined=joined)


def entry(word: str, english: str) -> Row:
    return Row(word, english, english)


def by_length(words: Sequence[str]) -> list[float]:
    return [float(len(word)) for word in words]


def test_words_that_the_lexicon_has_are_translated_and_the_rest_stays() -> None:
    assert switched("The population of a city?") == "The población of a ciudad?"


def test_the_longest_term_is_translated_whole() -> None:
    assert switched("a coffee house, city coffee") == "a cafetería, ciudad café"


def test_a_term_does_not_reach_across_punctuation() -> None:
    assert switched("coffee, house city") == "café, house ciudad"


def test_a_plural_is_found_by_its_singular() -> None:
    assert switched("Coffees and city") == "café and ciudad"


def test_a_part_of_an_accented_word_is_no_word() -> None:
    lexicon = LEXICON | {"al": ["parcial"], "montr": ["mal"]}
    text = switch("Montréal city coffee", lexicon, 1.0, random.Random(1))
    assert text == "Montréal ciudad café"


def test_function_words_are_not_translated() -> None:
    assert switched("the coffee of the city") == "the café of the ciudad"
    text = switch("Does the city have coffee?", LEXICON | {"doe": ["cierva"]}, 1.0, random.Random(1))
    assert text == "Does the ciudad have café?"


def test_too_little_is_no_row() -> None:
    assert switched("coffee") is None
    assert switched("coffee city and eight other words that nobody has translated before today") is None
    assert switched("coffee city", 0.0) is None
    assert switched("") is None


def test_neighbours_are_joined_where_the_language_has_no_spaces() -> None:
    assert switched("city coffee and population", joined=True) == "ciudadcafé and población"


def test_a_lexicon_keeps_short_terms_and_their_common_translations() -> None:
    rows = [
        entry("abc", "Word"),
        entry("ab", "word"),
        entry("abcdefgh", "word"),
        entry("ab", "word"),
        entry("same", "same"),
        entry("lang", "a term of more than three words"),
        entry("x" * 31, "long"),
    ]
    assert read_lexicon(rows, by_length) == {"word": ["ab", "abc"]}


def test_rarity_is_by_the_ranks_of_the_pieces(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"common": 0, "usual": 1, "rare": 9}, unk_token="rare"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    common, two, rare = rarity_by_pieces(tmp_path / "tokenizer.json")(["common", "common usual", "rare"])
    assert 0 < common < two < rare


def test_rows_of_a_language_ask_for_their_english_and_depend_on_the_seed_alone(two_stream_student: Path) -> None:
    english = [f"{one} coffee in the city of {other}" for one in ("good", "bad") for other in ("paris", "rome")]
    dictionaries = {"any/es.tsv.gz": [entry("café", "coffee"), entry("ciudad", "city")], "any/zz.tsv": []}

    def made(seed: int) -> dict[str, list[Row]]:
        return switched_rows(english, dictionaries, 3, two_stream_student / "tokenizer.json", seed)

    rows = made(1)
    assert set(rows) == {"switched/es", "switched/zz"}
    assert rows["switched/zz"] == []
    assert rows == made(1)
    assert rows != made(2)
    assert rows["switched/es"]
    for row in rows["switched/es"]:
        assert row.english == row.passage
        assert row.english in english
        assert row.query == row.english.replace("coffee", "café").replace("city", "ciudad")


def test_files_of_one_language_are_one_dictionary(two_stream_student: Path) -> None:
    dictionaries = {"one/es.tsv.gz": [entry("café", "coffee")], "other/es.tsv.gz": [entry("ciudad", "city")]}
    english = [f"{word} coffee of the city" for word in ("good", "bad", "old", "new")]
    rows = switched_rows(english, dictionaries, 4, two_stream_student / "tokenizer.json", 1)
    assert set(rows) == {"switched/es"}
    queries = " ".join(row.query for row in rows["switched/es"])
    assert "café" in queries and "ciudad" in queries
