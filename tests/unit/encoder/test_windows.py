"""Passages longer than the encoder reads: which windows they get, and that nothing of them is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fabricated_vectors import WordEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from drdecr.encoder import windows
from drdecr.encoder.load import load_encoder
from drdecr.encoder.types import Encoded, Kind, Progress
from drdecr.encoder.windows import Windowed, add_windows, encode_windows, join

ENCODER = WordEncoder(16, 8, limit=8)
WORDS = [f"w{number}" for number in range(50)]


def words_of(passages: Windowed, text: str, passage: int = 0) -> list[list[str]]:
    """Return the words of each window, by their spans."""
    found = []
    for window in range(passages.bounds[passage], passages.bounds[passage + 1]):
        own = passages.windows.select(window, window + 1)
        found.append([text[start:end] for start, end in own.spans.tolist()])
    return found


def test_short_passages_are_one_window_each_and_encoded_once() -> None:
    encoder = WordEncoder(16, 8, limit=8)
    found = encode_windows(encoder, ["one two", "", "three"])
    assert found.bounds.tolist() == [0, 1, 2, 3]
    assert encoder.calls == [3]


def test_windows_overlap_by_a_quarter_and_cover_the_passage() -> None:
    text = " ".join(WORDS)
    found = encode_windows(ENCODER, ["short", text, "other"])
    assert np.diff(found.bounds).tolist() == [1, 8, 1]
    own = words_of(found, text, 1)
    assert own[0] == WORDS[:8] and own[1] == WORDS[6:14] and own[-1] == WORDS[42:50]
    assert not found.windows.truncated.any()
    # A window is what its own text gives.
    alone = ENCODER.encode([" ".join(WORDS[6:14])], "passage")
    window = found.windows.select(2, 3)
    assert np.array_equal(window.vectors, alone.vectors)
    assert np.array_equal(window.sentences, alone.sentences)


def test_progress_counts_passages_not_windows() -> None:
    counted: list[int] = []
    encode_windows(ENCODER, [" ".join(WORDS), "short"], progress=counted.append)
    assert sum(counted) == 2


def test_endless_passage_stops_at_the_most_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOWS", 3)
    found = encode_windows(ENCODER, [" ".join(WORDS), "short"])
    assert np.diff(found.bounds).tolist() == [3, 1]
    assert found.windows.truncated.tolist() == [False, False, True, False]


class Blind(WordEncoder):
    """Finds nothing in a text that begins with a mark, and does not reach its end."""

    def encode(self, texts: Sequence[str], kind: Kind, *, progress: Progress | None = None) -> Encoded:
        seen = super().encode(["" if text.startswith("!") else text for text in texts], kind, progress=progress)
        ends = seen.truncated | np.array([text.startswith("!") for text in texts])
        return replace(seen, truncated=ends)


def test_end_that_no_window_reaches_is_told() -> None:
    text = " ".join(WORDS[:8]) + "!!! " + " ".join(WORDS[8:20])
    blind = Blind(16, 8, limit=8)

    def encode(rests: Sequence[str]) -> Encoded:
        return blind.encode([rest[rest.index("!") :] for rest in rests], "passage")

    found = add_windows(blind.encode([text], "passage"), [text], encode, blind.encode_sentences, blind.spec)
    assert found.bounds.tolist() == [0, 1]
    assert found.windows.truncated.tolist() == [True]


def test_parts_join_as_if_encoded_together() -> None:
    texts = [" ".join(WORDS), "short", " ".join(WORDS[:20])]
    whole = encode_windows(ENCODER, texts)
    joined = join([encode_windows(ENCODER, texts[:1]), encode_windows(ENCODER, texts[1:])])
    assert joined.bounds.tolist() == whole.bounds.tolist()
    assert np.array_equal(joined.windows.vectors, whole.windows.vectors)
    assert np.array_equal(whole.select(1, 3).offsets, whole.offsets[1:] - whole.offsets[1])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=400), min_size=1, max_size=4))
def test_every_word_of_any_text_is_in_a_window(texts: list[str]) -> None:
    found = encode_windows(ENCODER, texts)
    whole = WordEncoder(16, 8, limit=10**6).encode(texts, "passage")
    for number in range(len(texts)):
        low, high = found.bounds[number], found.bounds[number + 1]
        spans = {tuple(span) for span in found.windows.select(low, high).spans.tolist()}
        bounds = whole.offsets[number], whole.offsets[number + 1]
        assert spans >= {tuple(span) for span in whole.spans[bounds[0] : bounds[1]].tolist()}


@settings(max_examples=40, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=()), min_size=30, max_size=300))
def test_student_reads_the_end_of_any_text(tiny_student: Path, text: str) -> None:
    encoder = load_encoder(tiny_student, threads=1)
    long = text + " which package plays music" * 20
    found = encode_windows(encoder, [long])
    assert len(found.windows) > 1 and not found.windows.truncated.any()
    assert found.windows.spans[:, 1].max() == len(long)
    assert (np.diff(found.windows.offsets) > 0).all()
