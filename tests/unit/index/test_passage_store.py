"""Passages and token spans in SQLite."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drdecr.corpus import Passage
from drdecr.errors import SnapshotCorruptError
from drdecr.index.passages import PassageStore, PassageWriter, pack_spans, unpack_spans

OFFSET = st.integers(0, 2**30)


@given(st.lists(st.tuples(OFFSET, OFFSET)) | st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90))))
def test_spans_survive_packing(spans: list[tuple[int, int]]) -> None:
    array = np.array(spans, np.int32).reshape(-1, 2)
    assert np.array_equal(unpack_spans(pack_spans(array)), array)


@given(st.lists(st.tuples(st.integers(0, 2**20), OFFSET, OFFSET)))
def test_spans_with_rows_survive_packing(members: list[tuple[int, int, int]]) -> None:
    array = np.array(members, np.int32).reshape(-1, 3)
    assert np.array_equal(unpack_spans(pack_spans(array)), array)


def test_spans_of_words_take_two_bytes_a_token() -> None:
    starts = np.arange(100, dtype=np.int32) * 6
    assert len(pack_spans(np.stack([starts, starts + 5], axis=1))) == 201


def write(path: Path, count: int) -> PassageStore:
    writer = PassageWriter(path)
    writer.add(Passage(f"p{i}", f"text {i}", None if i % 2 else f"title {i}", {"n": i}) for i in range(count))
    writer.add_spans([(1, np.array([[0, 4]], np.int32))])
    writer.close()
    return PassageStore(path)


def test_awkward_directory_names_are_opened(tmp_path: Path) -> None:
    directory = tmp_path / "what? 100% #1"
    directory.mkdir()
    store = write(directory / "passages.sqlite", 3)
    assert store.ids([2, 0]) == ["p2", "p0"]
    store.close()


def test_opened_passages_cannot_be_changed(tmp_path: Path) -> None:
    store = write(tmp_path / "passages.sqlite", 3)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._connection.execute("DELETE FROM passages")
    store.close()


def test_spans_are_there_only_where_they_were_stored(tmp_path: Path) -> None:
    store = write(tmp_path / "passages.sqlite", 3)
    members = store.members(1)
    assert members is not None and members.tolist() == [[0, 0, 4]]
    assert store.members(0) is None
    store.close()


def test_threads_share_a_store(tmp_path: Path) -> None:
    store = write(tmp_path / "passages.sqlite", 2000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: store.by_id([f"p{i}"])[f"p{i}"].metadata["n"], range(2000)))
    assert found == list(range(2000))
    store.close()


def test_second_passage_with_an_id_is_refused(tmp_path: Path) -> None:
    writer = PassageWriter(tmp_path / "passages.sqlite")
    with pytest.raises(sqlite3.IntegrityError):
        writer.add([Passage("same", "a"), Passage("same", "b")])
    writer.close()


def test_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotCorruptError, match=r"passages\.sqlite cannot be opened"):
        PassageStore(tmp_path / "passages.sqlite")
