"""What is held back is learned from nowhere."""

from __future__ import annotations

from training.rows import Row
from training.validation import hold_back


def test_sentence_that_is_held_back_is_in_no_source_and_no_passage() -> None:
    parallel = {lang: [Row(f"{lang}{at}", f"text {at}", f"text {at}") for at in range(20)] for lang in ("de", "ru")}
    labelled = {"de": [Row("frage", "question", f"text {at}") for at in range(20)]}
    left, labels, held = hold_back(parallel, labelled, 5)
    banned = {row.english for rows in held.values() for row in rows}
    assert [len(rows) for rows in held.values()] == [5, 5] and len(banned) == 5
    for rows in (*left.values(), *labels.values()):
        assert rows and not banned & {text for row in rows for text in (row.english, row.passage)}
    assert len(left["de"]) == len(labels["de"]) == 15
    assert hold_back({"de": parallel["de"][::-1]}, {}, 5)[2]["de"] == held["de"]


def test_sentence_that_is_held_back_is_no_paragraph_of_a_passage_and_not_there_in_other_letters() -> None:
    parallel = {
        "de": [Row(f"de{at}", f"text {at}", f"text {at}") for at in range(20)],
        "ru": [Row(f"ru{at}", f"TEXT  {at}", f"TEXT  {at}") for at in range(20)],
    }
    labelled = {"de": [Row("frage", "question", f"Summary {at}\n\nText {at}\n\nMore of it.") for at in range(20)]}
    left, labels, held = hold_back(parallel, labelled, 5)
    numbers = {row.english.split()[-1] for rows in held.values() for row in rows}
    assert all(numbers.isdisjoint({row.query[2:]}) for rows in left.values() for row in rows)
    assert [row.passage.split()[1] for row in labels["de"]] == [str(at) for at in range(20) if str(at) not in numbers]
    twice = [Row("a", "One text.", "One text."), Row("b", "one  TEXT.", "one  TEXT."), Row("c", "Two.", "Two.")]
    assert sorted(row.english[:3].lower() for row in hold_back({"de": twice}, {}, 2)[2]["de"]) == ["one", "two"]
