"""The packed inverted lists say which passages each centroid meets, whatever the gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drdecr.index.kernels import visit_lists
from indexer import posting_lists
from indexer.posting_lists import write_posting_lists


def read_list(directory: Path, cell: int, passages: int) -> list[int]:
    """Read a list back as a search does."""
    lists = np.load(directory / "lists.npy")
    met = np.empty(passages, np.int64)
    found = visit_lists(
        np.load(directory / "postings.npy"),
        np.ascontiguousarray(lists[:, 0]),
        np.ascontiguousarray(lists[:, 1]),
        np.array([[cell]]),
        np.ones((1, 1), np.float32),
        0.0,
        None,
        np.zeros(passages, np.int32),
        1,
        np.zeros(passages, np.float32),
        met,
        np.empty(passages, np.float32),
    )
    return met[:found].tolist()


def unique_passages(offsets: NDArray[np.int64], cells: NDArray[np.int64], cell: int) -> list[int]:
    return np.unique(np.searchsorted(offsets, np.flatnonzero(cells == cell), side="right") - 1).tolist()


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0, 0, 1, 2, 9, 300]), min_size=0, max_size=40),
    lists=st.sampled_from([1, 2, 7, 50]),
    group=st.sampled_from([1, 13, 10**6]),
    seed=st.integers(0, 1000),
)
def test_lists_hold_each_passage_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], lists: int, group: int, seed: int
) -> None:
    directory = tmp_path_factory.mktemp("lists")
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    cells = np.random.default_rng(seed).integers(0, lists, int(offsets[-1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posting_lists, "_GROUP_ENTRIES", group)
        write_posting_lists(directory, offsets, cells.astype(np.uint16), lists)
    for cell in range(lists):
        assert read_list(directory, cell, len(lengths)) == unique_passages(offsets, cells, cell)


def test_gaps_of_every_size_come_back(tmp_path: Path) -> None:
    gaps = [0, 1, 2, 6, 7, 8, 254, 255, 256, 510, 511, 65_534, 65_535, 300_000, 0]
    passages = np.cumsum(np.array(gaps) + 1) - 1
    lengths = np.zeros(passages[-1] + 3, np.int64)
    lengths[passages] = 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    write_posting_lists(tmp_path, offsets, np.zeros(len(gaps), np.uint16), 1)
    assert read_list(tmp_path, 0, len(lengths)) == passages.tolist()


def test_dense_list_takes_a_bit_a_passage(tmp_path: Path) -> None:
    write_posting_lists(tmp_path, np.arange(8001), np.zeros(8000, np.uint16), 1)
    assert len(np.load(tmp_path / "postings.npy")) == 1 + 1000 + 8
