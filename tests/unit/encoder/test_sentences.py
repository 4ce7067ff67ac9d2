"""Passages read by sentences: where those begin, and what becomes their windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from fabricated_vectors import WordEncoder
from hypothesis import given
from hypothesis import strategies as st

from drdecr.encoder.length_prior import LengthPrior
from drdecr.encoder.sentences import sentence_starts
from drdecr.encoder.types import Encoded, EncoderSpec
from drdecr.encoder.windows import Windowed, add_windows, encode_windows

BY_SENTENCE = WordEncoder(16, 8, limit=12, closeness=0.4)


def split(text: str) -> list[str]:
    starts = sentence_starts(text)
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", [""]),
        ("one line without an end", ["one line without an end"]),
        (
            "The first of two sentences. And this is the second one.",
            ["The first of two sentences. ", "And this is the second one."],
        ),
        (
            'It cost 3.5 million, he said. "Was it worth it?" nobody asked.',
            ["It cost 3.5 million, he said. ", '"Was it worth it?" nobody asked.'],
        ),
        ("Mr. J. R. Smith wrote to the paper about it.", ["Mr. J. R. Smith wrote to the paper about it."]),
        ("Too short. Too short. Now it is long enough.", ["Too short. Too short. Now it is long enough."]),
        (
            "a paragraph without a full stop\n\n  and another of them",
            ["a paragraph without a full stop\n\n  ", "and another of them"],
        ),
        ("Ends with white space and a stop here.  \n\n ", ["Ends with white space and a stop here.  \n\n "]),
    ],
)
def test_sentences_end_where_the_rule_says(text: str, sentences: list[str]) -> None:
    found = split(text)
    assert found == sentences
    # What is shorter than 24 characters is no sentence of its own.
    assert all(len(each) >= 24 for each in found[:-1])


@given(st.text(alphabet=".!?\n AaBb1\"'(", max_size=200))
def test_sentences_are_the_text(text: str) -> None:
    assert "".join(split(text)) == text
    assert sentence_starts(text) == sorted(set(sentence_starts(text)))


TEXT = "The first sentence has six words. Then comes a second sentence of it. At last there is a third."


def test_windows_are_sentences_with_vectors_of_their_own() -> None:
    found = encode_windows(BY_SENTENCE, ["just one short line", TEXT, "..."])
    assert found.bounds.tolist() == [0, 1, 4, 5]
    parts = split(TEXT)
    for window, part in zip(range(1, 4), parts, strict=True):
        alone = BY_SENTENCE.encode([part], "passage")
        own = found.windows.select(window, window + 1)
        assert np.array_equal(own.vectors, alone.vectors)
        assert np.array_equal(own.sentences, alone.sentences)
        words = [TEXT[start:end] for start, end in own.spans.tolist()]
        assert words == part.replace(".", "").split()
    assert np.diff(found.windows.offsets).tolist() == [4, 6, 7, 6, 0]


def test_long_passages_keep_every_word_once() -> None:
    """The encoder reads twelve words at a time, and every window but the first reads a quarter again."""
    whole = WordEncoder(16, 8, limit=500)
    found, wanted = encode_windows(BY_SENTENCE, [TEXT]), whole.encode([TEXT], "passage")
    assert np.array_equal(found.windows.spans, wanted.spans)
    assert np.array_equal(found.windows.vectors, wanted.vectors)
    assert not found.windows.truncated.any()


def test_length_prior_is_that_of_the_whole_passage() -> None:
    prior = LengthPrior(penalty=0.1, offset=8)

    def encode(texts: Sequence[str]) -> Encoded:
        return BY_SENTENCE.encode(texts, "passage")

    spec: EncoderSpec = replace(BY_SENTENCE.spec, length_prior=prior)
    found = add_windows(encode([TEXT]), [TEXT], encode, BY_SENTENCE.encode_sentences, spec)
    sentences = found.windows.sentences
    assert sentences is not None
    worth = prior.scaled(1.4).of_passage(np.ones(8, np.float32), 19, spec.sentence_weight)[-1]
    assert sentences[:, -1] == pytest.approx(worth)
    assert np.linalg.norm(sentences, axis=1) == pytest.approx(1.0, abs=1e-6)


def test_students_without_sentence_vectors_read_by_sentences_too() -> None:
    found: Windowed = encode_windows(WordEncoder(16, 0, closeness=0.4), [TEXT])
    assert np.diff(found.windows.offsets).tolist() == [6, 7, 6]
    assert found.windows.sentences is None
