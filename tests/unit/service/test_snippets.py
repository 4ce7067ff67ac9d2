from __future__ import annotations

import pytest
from fake_engine import FakeSnapshot, fake_engine
from hypothesis import given
from hypothesis import strategies as st

from drdecr.corpus import Passage
from service.snippets import choose_snippet

SEARCH = "/v1/indexes/demo/search"


def test_the_part_with_the_most_marks_is_chosen():
    text = "alpha " + "x " * 100 + "beta gamma " + "x " * 100
    marks = [(0, 5), (206, 210), (211, 216)]
    start, end = choose_snippet(text, marks, 40)
    assert "beta gamma" in text[start:end]
    assert "alpha" not in text[start:end]


def test_of_a_mark_that_is_longer_the_beginning_is_shown():
    text = "word " * 100 + "image manipulation program" + " word" * 100
    start, end = choose_snippet(text, [(0, 4), (500, 526)], 20)
    assert text[start:end] == "image manipulation p"


@pytest.mark.parametrize("blank", ["", "\n", "  \n "])
def test_a_snippet_shows_something(blank):
    start, end = choose_snippet(blank + "x" * 100, [], 50)
    assert "x" in (blank + "x" * 100)[start:end] and end - start <= 50


def test_a_short_text_is_its_own_snippet():
    assert choose_snippet("short", [(0, 5)], 20) == (0, 5)


def test_without_marks_it_is_the_beginning():
    assert choose_snippet("word " * 50, [], 22) == (0, 19)


@given(st.text("ab ", max_size=300), st.lists(st.integers(0, 299), max_size=12, unique=True), st.integers(20, 120))
def test_snippets_stay_within_their_size_and_the_text(text, ends, max_chars):
    places = sorted(end for end in ends if end <= len(text))
    marks = [(start, end) for start, end in zip(places[::2], places[1::2], strict=False)]
    start, end = choose_snippet(text, marks, max_chars)
    assert 0 <= start <= end <= len(text)
    assert end - start <= max_chars
    short = [(a, b) for a, b in marks if b - a <= max_chars]
    if short:
        assert any(start <= a and b <= end for a, b in short)


def test_a_hit_carries_its_snippet_instead_of_its_text(make_client, encoder):
    passage = Passage("p", "the violin sounds " + "filler " * 100, "Music")
    client = make_client(fake_engine(encoder, demo=FakeSnapshot([passage])))
    hit = client.post(SEARCH, json={"query": "violin sounds", "snippet": 40}).json()["hits"][0]
    assert hit["text"] is None
    snippet = hit["snippet"]
    assert passage.text[snippet["start"] : snippet["end"]] == snippet["text"]
    assert "violin sounds" in snippet["text"]
    assert len(snippet["text"]) <= 40
    assert hit["highlights"] is None


def test_snippets_of_many_hits_are_refused(client):
    assert client.post(SEARCH, json={"query": "cat", "snippet": 40, "k": 101}).status_code == 422


def test_queries_of_a_batch_may_want_snippets(client):
    body = {"index": "demo", "queries": [{"query": "cat", "snippet": 20}, {"query": "cat"}]}
    cut, whole = client.post("/v1/search/batch", json=body).json()["results"]
    assert cut["hits"][0]["snippet"]["text"] == "A cat sleeps on the"
    assert whole["hits"][0]["snippet"] is None
