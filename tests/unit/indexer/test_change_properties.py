"""Whatever is done to a snapshot, a wide-open search of it is brute force over the passages that it should hold."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from changing import passage_file
from fabricated_vectors import WordEncoder, brute_force_windows
from hypothesis import given, settings
from hypothesis import strategies as st

from drdecr.encoder.windows import encode_windows
from drdecr.index import EXACT, SearchParams, Snapshot
from indexer.build import build
from indexer.change import add, delete, rollback
from indexer.compact import compact

# Most passages are longer than it reads, and have several windows.
ENCODER = WordEncoder(16, 8, limit=3)
QUERIES = ENCODER.encode(["ant bee", "cow", "dog cow ant", "emu"], "query")

ids = st.sampled_from([f"p{i}" for i in range(8)])
texts = st.lists(st.sampled_from(["ant", "bee", "cow", "dog", "emu", "..."]), min_size=1, max_size=9).map(" ".join)
passages = st.dictionaries(ids, texts, max_size=6)
changes = st.one_of(
    st.tuples(st.just("add"), passages),
    st.tuples(st.just("delete"), st.sets(ids, max_size=4)),
    st.tuples(st.sampled_from(["compact", "retrain", "rollback"]), st.none()),
)


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def made(home: Path, model: dict[str, str]) -> Path:
    build(ENCODER, passage_file(home / "built.jsonl", model), home / "snapshot", force=True)
    return home / "snapshot"


def assert_is(path: Path, model: dict[str, str]) -> None:
    """Check all that a snapshot says against the passages that it should hold."""
    names, encoded = list(model), encode_windows(ENCODER, list(model.values()))
    with Snapshot.open(path, verify=True) as snapshot:
        assert len(snapshot) == len(model)
        assert {
            each: passage.text for each, passage in snapshot.passages([f"p{i}" for i in range(8)]).items()
        } == model
        for query, hits in enumerate(snapshot.search(QUERIES, 100, EXACT)):
            wanted = {names[at]: score for at, score in brute_force_windows(encoded, QUERIES, query, 100)}
            assert {hit.id: hit.score for hit in hits} == pytest.approx(wanted, abs=1e-3)
            assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.position))
            assert [snapshot.position(hit.id) for hit in hits] == [hit.position for hit in hits]
        for hits in snapshot.search(QUERIES, 3, SearchParams(nprobe=1, candidates=1)):
            assert {hit.id for hit in hits} <= set(model)


@settings(max_examples=25, deadline=None)
@given(passages, st.lists(changes, min_size=1, max_size=5))
def test_any_changes_leave_what_a_dictionary_would_hold(home: Path, first: dict[str, str], steps: list) -> None:
    path, model = made(home, first), dict(first)
    earlier: list[dict[str, str]] = []
    for name, given_to_it in steps:
        before = dict(model)
        if name == "add":
            report = add(path, ENCODER, passage_file(home / "more.jsonl", given_to_it))
            assert report.replaced == len(model.keys() & given_to_it.keys())
            model |= given_to_it
        elif name == "delete":
            report = delete(path, sorted(given_to_it), missing_ok=True)
            assert set(report.missing) == given_to_it - model.keys()
            model = {each: text for each, text in model.items() if each not in given_to_it}
        elif name == "rollback":
            if not earlier:
                continue
            report = rollback(path)
            model = earlier[-1]
        else:
            report = compact(path, retrain=name == "retrain", keep=3)
        if report.generation > len(earlier) + 1:
            earlier.append(before)
        assert_is(path, model)


@settings(max_examples=10, deadline=None)
@given(passages, st.dictionaries(st.sampled_from(["x", "y", "z"]), texts, min_size=1))
def test_add_then_delete_is_the_identity(home: Path, first: dict[str, str], more: dict[str, str]) -> None:
    path = made(home, first)
    with Snapshot.open(path) as snapshot:
        before = snapshot.search(QUERIES, 100, EXACT)
    add(path, ENCODER, passage_file(home / "more.jsonl", more))
    delete(path, more)
    with Snapshot.open(path, verify=True) as snapshot:
        assert snapshot.search(QUERIES, 100, EXACT) == before


@settings(max_examples=10, deadline=None)
@given(passages, st.lists(passages, min_size=1, max_size=3), st.sets(ids, max_size=3))
def test_compaction_changes_no_result(
    home: Path, first: dict[str, str], more: list[dict[str, str]], gone: set[str]
) -> None:
    path = made(home, first)
    for each in more:
        add(path, ENCODER, passage_file(home / "more.jsonl", each))
    delete(path, gone, missing_ok=True)
    with Snapshot.open(path) as snapshot:
        before = snapshot.search(QUERIES, 100, EXACT)
    compact(path)
    with Snapshot.open(path, verify=True) as snapshot:
        after = snapshot.search(QUERIES, 100, EXACT)
        # Scores do not change by a bit; positions close up in their order, so ties stay where they are.
        assert [[(hit.id, hit.score) for hit in hits] for hits in after] == [
            [(hit.id, hit.score) for hit in hits] for hits in before
        ]
