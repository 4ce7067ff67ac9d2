"""The compiled loops against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from drdecr.index.kernels import best_lists, decode_halves, narrow_table, score_by_cells
from drdecr.index.score import lane_blocks, products


@pytest.mark.parametrize("dim", [1, 7, 8, 19])
def test_every_finite_half_is_decoded_exactly(dim: int) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    halves = halves[: len(halves) // dim * dim].reshape(-1, dim)
    rows = np.random.default_rng(dim).permutation(len(halves))
    out = np.empty(halves.shape, np.float32)
    decode_halves(halves.view(np.uint8).reshape(len(halves), -1), rows, out)
    assert np.array_equal(out, halves[rows].astype(np.float32))


@pytest.mark.parametrize("queries", [1, 8, 9, 24, 32, 33, 100])
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 12, 13, 50])
def test_products_equal_a_matrix_product(rows: int, queries: int) -> None:
    rng = np.random.default_rng(rows * queries)
    left = rng.standard_normal((rows, 19), dtype=np.float32)
    right = rng.standard_normal((queries, 19), dtype=np.float32)
    found = products(left, lane_blocks(right))
    assert found[:, :queries] == pytest.approx(left @ right.T, abs=1e-4)
    assert not found[:, queries:].any()


def test_equal_rows_have_bit_equal_products_wherever_they_lie() -> None:
    rng = np.random.default_rng(0)
    row = rng.standard_normal((1, 129), dtype=np.float32)
    rows = np.repeat(row, 29, axis=0)
    found = products(rows, lane_blocks(rng.standard_normal((21, 129), dtype=np.float32)))
    assert (found == found[0]).all()


@pytest.mark.parametrize(("lists", "count"), [(1, 1), (5, 5), (300, 1), (300, 17)])
def test_best_lists_are_those_of_a_stable_sort(lists: int, count: int) -> None:
    table = np.random.default_rng(lists).integers(0, 50, (lists, 16)).astype(np.float32)
    found, scores = np.empty((10, count), np.int64), np.empty((10, count), np.float32)
    best_lists(table, 10, found, scores)
    expected = np.argsort(-table[:, :10], axis=0, kind="stable")[:count].T
    assert np.array_equal(found, expected)
    assert np.array_equal(scores, np.take_along_axis(table.T[:10], expected, axis=1))


@pytest.mark.parametrize("spread", [0.0, 1.0, 40.0])
def test_scores_from_a_byte_table_lie_within_its_rounding(spread: float) -> None:
    rng = np.random.default_rng(3)
    table = (spread * rng.standard_normal((50, 16)) - 7).astype(np.float32)
    offsets = np.array([0, 5, 5, 30, 31], np.int64)
    cells = rng.integers(0, 50, 31).astype(np.uint16)
    narrow, scores = np.empty(table.shape, np.uint8), np.empty(3, np.float32)
    step = narrow_table(table, narrow)
    passages = np.array([0, 2, 3], np.int64)
    score_by_cells(passages, offsets, cells, narrow, 11, scores)
    low = table.min()
    for found, passage in zip(scores, passages, strict=True):
        own = table[cells[offsets[passage] : offsets[passage + 1]], :11]
        assert step * found == pytest.approx(float((own.max(axis=0) - low).sum()), abs=11 * step)
