"""What of a passage an explanation and the marks show."""

from __future__ import annotations

from fake_engine import FakeMatch

from drdecr.corpus import Passage
from service.explanation import explain_hit, highlight

PASSAGE = Passage("p", "A cat saw the other cat.", "Cats")
# Of the title and of both words: `content` begins with the title and a separator.
SHIFT = len(PASSAGE.content) - len(PASSAGE.text)
CATS = ((0, 4), (SHIFT + 2, SHIFT + 5), (SHIFT + 20, SHIFT + 23))


def test_every_token_of_a_pooled_vector_is_explained_and_marked() -> None:
    match = FakeMatch(0.9, CATS[0], CATS[1:])
    (token,) = explain_hit("cat", [(0, 3)], PASSAGE, 0.9, [match]).tokens
    assert token.passage is not None and token.passage.text == "Cats"
    assert [(each.field, each.text) for each in token.also] == [("text", "cat"), ("text", "cat")]
    marked = [(mark.field, mark.start, mark.end) for mark in highlight(PASSAGE, [match])]
    assert marked == [("title", 0, 4), ("text", 2, 5), ("text", 20, 23)]


def test_token_with_a_vector_of_its_own_has_no_others() -> None:
    (token,) = explain_hit("cat", [(0, 3)], PASSAGE, 0.9, [FakeMatch(0.9, CATS[1])]).tokens
    assert token.also == []
