"""Products in bytes: near the true ones, and the same whole numbers on every CPU."""

from __future__ import annotations

import numpy as np
import pytest

from drdecr.index.byte_products import round_rows, rounded_products
from drdecr.index.byte_tiles import HAS_BYTE_DOTS
from drdecr.index.lane_blocks import lane_blocks


def directions(count: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("dim", [1, 6, 19, 128])
@pytest.mark.parametrize("queries", [1, 16, 17, 40])
def test_products_lie_within_the_rounding(dim: int, queries: int) -> None:
    rows, asked = directions(37, dim, 1), directions(queries, dim, 2)
    # Query tokens differ in length.
    lengths = np.linspace(0.01, 3, queries, dtype=np.float32)[:, None]
    found = rounded_products(round_rows(rows), lane_blocks(asked * lengths)).scores[:, :queries]
    assert found / lengths[:, 0] == pytest.approx(rows @ asked.T, abs=0.02)


def test_zeros_give_zeros() -> None:
    rows = directions(5, 8, 3)
    rows[2] = 0
    found = rounded_products(round_rows(rows), lane_blocks(directions(3, 8, 4))).scores
    assert not found[2].any()
    assert not found[:, 3:].any()
    assert found[0, :3].all()


@pytest.mark.skipif(not HAS_BYTE_DOTS, reason="this CPU has no VNNI, there are only floats")
@pytest.mark.parametrize(("dim", "queries"), [(3, 1), (128, 32), (256, 13), (1024, 70)])
def test_floats_give_bit_for_bit_what_bytes_give(dim: int, queries: int) -> None:
    rows, blocks = directions(50, dim, 5), lane_blocks(directions(queries, dim, 6))
    rows[:2] = np.sign(rows[:2])
    by_bytes = rounded_products(round_rows(rows, as_bytes=True), blocks)
    by_floats = rounded_products(round_rows(rows, as_bytes=False), blocks)
    for name in ("scores", "lows", "highs"):
        one, other = getattr(by_bytes, name), getattr(by_floats, name)
        assert np.array_equal(one.view(np.uint32), other.view(np.uint32))
    assert np.array_equal(by_bytes.lows, by_bytes.scores.min(axis=0))
    assert np.array_equal(by_bytes.highs, by_bytes.scores.max(axis=0))
