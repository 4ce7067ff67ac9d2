"""The index of metadata and the masks it gives, held to filtering every passage by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_filters import FILTERS, METADATA, passes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drdecr.corpus import Passage
from drdecr.errors import SnapshotCorruptError
from drdecr.index import metadata_index
from drdecr.index.filter_masks import FilterMasks
from drdecr.index.filters import parse_filter
from drdecr.index.passages import PassageStore, PassageWriter


def store_of(path: Path, metadata: Sequence[dict[str, Any]]) -> PassageStore:
    path.unlink(missing_ok=True)
    with PassageWriter(path) as writer:
        for start in range(0, len(metadata), 7):
            numbers = range(start, min(start + 7, len(metadata)))
            writer.add(Passage(f"p{number}", "text", None, metadata[number]) for number in numbers)
    return PassageStore(path)


def masks_of(store: PassageStore, count: int, **options: int) -> FilterMasks:
    return FilterMasks([store.metadata_index(count)], **options)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metadata=st.lists(METADATA, max_size=12), filters=st.lists(FILTERS, min_size=1, max_size=6))
def test_mask_keeps_what_the_filter_means(tmp_path: Path, metadata: list[dict], filters: list[dict]) -> None:
    store = store_of(tmp_path / "passages.sqlite", metadata)
    masks = masks_of(store, len(metadata))
    for wanted in filters:
        expected = [passes(wanted, each) for each in metadata]
        assert masks.of(parse_filter(wanted)).tolist() == expected, wanted
        assert masks.of(parse_filter(wanted)).tolist() == expected, wanted
    store.close()


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_arrays_of_many_chunks_are_read_where_they_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(metadata_index, "_CHUNK", chunk)
    metadata = [{"n": (7 * i) % 40, "tags": [f"t{i % 3}", f"t{i % 5}"]} for i in range(120)]
    store = store_of(tmp_path / "passages.sqlite", metadata)
    masks = masks_of(store, 120)
    for low in range(-1, 41):
        for wanted in (
            {"must": [{"field": "n", "range": {"gte": low, "lt": low + 7}}]},
            {"must": [{"field": "n", "in": [low, low + 9, low + 30]}]},
            {"must": [{"field": "n", "range": {"gt": low}}, {"field": "tags", "eq": "t2"}]},
        ):
            assert masks.of(parse_filter(wanted)).tolist() == [passes(wanted, each) for each in metadata]
    store.close()


def test_more_values_than_a_statement_takes(tmp_path: Path) -> None:
    metadata = [{"n": i} for i in range(3000)]
    store = store_of(tmp_path / "passages.sqlite", metadata)
    mask = masks_of(store, 3000).of(parse_filter({"must": [{"field": "n", "in": list(range(0, 6000, 2))}]}))
    assert mask.tolist() == [i % 2 == 0 for i in range(3000)]
    store.close()


def test_segments_follow_each_other(tmp_path: Path) -> None:
    stores = [store_of(tmp_path / f"{i}.sqlite", [{"n": i}, {"n": 5}]) for i in range(3)]
    masks = FilterMasks([store.metadata_index(2) for store in stores])
    assert masks.of(parse_filter({"must": [{"field": "n", "eq": 1}]})).tolist() == [False, False, True] + [False] * 3
    for store in stores:
        store.close()


def test_least_recently_used_masks_are_dropped(tmp_path: Path) -> None:
    store = store_of(tmp_path / "passages.sqlite", [{"n": i % 10} for i in range(80)])
    size = 10 + len(parse_filter({"must": [{"field": "n", "eq": 1}]}).canonical)
    masks = masks_of(store, 80, cache_bytes=3 * size)
    for number in (1, 2, 3, 1, 4, 5):
        masks.of(parse_filter({"must": [{"field": "n", "eq": number}]}))
    assert [name.partition('"eq": ')[2][0] for name in masks._kept] == ["1", "4", "5"]
    assert masks._kept_bytes == 3 * size
    store.close()


def test_kept_mask_cannot_be_spoiled_by_its_user(tmp_path: Path) -> None:
    store = store_of(tmp_path / "passages.sqlite", [{"n": 1}, {"n": 2}])
    masks = masks_of(store, 2)
    wanted = parse_filter({"must": [{"field": "n", "eq": 1}]})
    for _ in range(3):
        mask = masks.of(wanted)
        assert mask.tolist() == [True, False]
        mask[:] = True
    store.close()


def test_threads_share_the_masks(tmp_path: Path) -> None:
    store = store_of(tmp_path / "passages.sqlite", [{"n": i % 50} for i in range(500)])
    masks = masks_of(store, 500, cache_bytes=2000)
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda n: int(masks.of(parse_filter({"must": [{"field": "n", "eq": n % 60}]})).sum()), range(900)
            )
        )
    assert found == [10 if n % 60 < 50 else 0 for n in range(900)]
    assert masks._kept_bytes <= 2000
    store.close()


def test_index_that_names_passages_beyond_the_end_is_damaged(tmp_path: Path) -> None:
    store = store_of(tmp_path / "passages.sqlite", [{"n": 1}] * 5)
    with pytest.raises(SnapshotCorruptError, match="index verify"):
        masks_of(store, 3).of(parse_filter({"must": [{"field": "n", "eq": 1}]}))
    store.close()


def test_failed_writing_leaves_no_index(tmp_path: Path) -> None:
    path = tmp_path / "passages.sqlite"
    with pytest.raises(ZeroDivisionError), PassageWriter(path) as writer:
        writer.add([Passage("p", "text", None, {"n": 1})])
        raise ZeroDivisionError
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM metadata_keys").fetchone() == (0,)
    connection.close()


def test_masks_are_booleans_by_position(tmp_path: Path) -> None:
    store = store_of(tmp_path / "passages.sqlite", [{}, {"a": []}, {"a": None}, {"a": 1}])
    mask = masks_of(store, 4).of(parse_filter({"must_not": [{"field": "a", "eq": None}]}))
    assert mask.dtype == np.bool_ and mask.tolist() == [False, False, False, True]
    store.close()
