"""The nearest sentence vectors are those of allowed passages, whatever FAISS does with the selector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from changing import passage_file
from fabricated_vectors import WordEncoder
from numpy.typing import NDArray

from drdecr.index import SearchParams, Snapshot, segment
from indexer.build import build
from indexer.change import delete

COUNT = 600
NARROWED = SearchParams(nprobe=8, candidates=40)


@pytest.fixture(params=[512, 4], ids=["whole passages", "windows"])
def encoder(request: pytest.FixtureRequest) -> WordEncoder:
    return WordEncoder(16, 8, limit=request.param)


@pytest.fixture
def path(tmp_path: Path, encoder: WordEncoder) -> Path:
    texts = {f"p{at}": f"word{at % 90} word{at % 7} and word{at} after all" for at in range(COUNT)}
    build(encoder, passage_file(tmp_path / "passages.jsonl", texts), tmp_path / "snapshot")
    return tmp_path / "snapshot"


@pytest.fixture
def opened(path: Path) -> Iterator[Snapshot]:
    with Snapshot.open(path) as snapshot:
        yield snapshot


class ForgetfulIndex:
    """Names every passage, forbidden or not, as an index does whose selector reads freed memory."""

    def search(self, _: NDArray[np.float32], count: int, params: object) -> tuple[None, NDArray[np.int64]]:
        return None, np.arange(count, dtype=np.int64)[None, :]


def test_forbidden_passages_that_faiss_names_are_left_out(
    opened: Snapshot, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = np.arange(COUNT) % 2 == 1
    (only,) = opened.segments
    monkeypatch.setattr(only, "_sentence_index", ForgetfulIndex())
    query = encoder.encode(["word3 and word5"], "query")
    assert query.sentences is not None
    nearest = only.nearest_sentences(query.sentences[0], 200, 8, allowed)
    assert len(nearest) and allowed[nearest].all()
    hits = opened.search(query, 30, NARROWED, allowed=allowed)[0]
    assert len(hits) == 30 and all(allowed[hit.position] for hit in hits)


def test_deleted_passages_that_faiss_names_are_left_out(
    path: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = [f"p{at}" for at in range(0, COUNT, 3)]
    delete(path, gone)
    with Snapshot.open(path) as snapshot:
        monkeypatch.setattr(snapshot.segments[0], "_sentence_index", ForgetfulIndex())
        hits = snapshot.search(encoder.encode(["word0 word3 word6 after all"], "query"), 30, NARROWED)[0]
    assert len(hits) == 30 and not {hit.id for hit in hits} & set(gone)


def test_selector_and_bits_live_until_faiss_has_searched(opened: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older FAISS keeps no hold of a selector that is assigned: only the search's own names do."""
    held: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    class Selector:
        def __init__(self, bits: NDArray[np.uint8]) -> None:
            held.extend([weakref.ref(self), weakref.ref(bits)])

    class Parameters:
        """Takes a selector and forgets it."""

        def __init__(self, **_: object) -> None: ...

        def __setattr__(self, name: str, value: object) -> None: ...

    class Index:
        def search(self, _: object, count: int, params: object) -> tuple[None, NDArray[np.int64]]:
            gc.collect()
            alive.extend(each() is not None for each in held)
            return None, np.full((1, count), -1, np.int64)

    fake = SimpleNamespace(IDSelectorBitmap=Selector, SearchParametersIVF=Parameters)
    monkeypatch.setattr(segment, "load_faiss", lambda: fake)
    monkeypatch.setattr(opened.segments[0], "_sentence_index", Index())
    opened.segments[0].nearest_sentences(np.ones(8, np.float32), 10, 8, np.ones(COUNT, np.bool_))
    assert alive == [True, True]


def test_installed_faiss_selects_as_the_mask_says(opened: Snapshot) -> None:
    rng = np.random.default_rng(0)
    (only,) = opened.segments
    for _ in range(50):
        allowed = rng.random(COUNT) < 0.5
        sentence = rng.standard_normal(8, dtype=np.float32)
        everything = only.nearest_sentences(sentence, 10**6, 10**6)
        found = only.nearest_sentences(sentence, 10**6, 10**6, allowed)
        assert found.tolist() == [at for at in everything.tolist() if allowed[at]]
