"""The compiled loops against NumPy."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import drdecr.index
from drdecr.index.decoders import decode_halves, decode_scalars
from drdecr.index.kernels import best_lists, narrow_table, score_by_cells, visit_lists
from drdecr.index.lane_blocks import lane_blocks, products
from drdecr.index.lanes import LANES


@pytest.mark.parametrize("dim", [1, 7, 8, 19])
def test_every_finite_half_is_decoded_exactly(dim: int) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    halves = halves[: len(halves) // dim * dim].reshape(-1, dim)
    rows = np.random.default_rng(dim).permutation(len(halves))
    out = np.empty(halves.shape, np.float32)
    decode_halves(halves.view(np.uint8).reshape(len(halves), -1), rows, out)
    assert np.array_equal(out, halves[rows].astype(np.float32))


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("dim", [4, 12, 16, 20, 48, 128])
@pytest.mark.parametrize("bits", [6, 8])
def test_scalar_codes_decode_as_their_definition_says(bits: int, dim: int, unit: bool) -> None:
    rng = np.random.default_rng(dim)
    values = rng.integers(0, 2**bits, (30, dim))
    # Four codes of 6 bits take three bytes, the first in the lowest bits.
    words = (values.reshape(30, -1, 4) << np.array([0, 6, 12, 18])).sum(axis=-1)
    packed = words[:, :, None] >> np.array([0, 8, 16]) & 255 if bits == 6 else values
    codes = packed.reshape(30, -1).astype(np.uint8)
    cells, centroids = rng.integers(0, 5, 30).astype(np.uint16), rng.standard_normal((5, dim), dtype=np.float32)
    lows, steps = rng.standard_normal(dim, dtype=np.float32), rng.random(dim, dtype=np.float32) / 2**bits
    rows, out = rng.permutation(30)[:17].astype(np.int64), np.empty((17, dim), np.float32)
    decode_scalars(codes, cells, rows, centroids, lows, steps, bits == 6, unit, out)
    expected = centroids[cells[rows]] + lows + values[rows] * steps
    if unit:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert out == pytest.approx(expected, abs=1e-5)


def test_a_vector_of_zeros_stays_zero() -> None:
    nothing, out = np.zeros(16, np.float32), np.empty((1, 16), np.float32)
    decode_scalars(
        np.zeros((1, 16), np.uint8),
        np.zeros(1, np.uint16),
        np.zeros(1, np.int64),
        nothing[None],
        nothing,
        nothing,
        False,
        True,
        out,
    )
    assert not out.any()


def test_a_visit_that_meets_every_passage_stays_inside_its_memory() -> None:
    passages = 9
    # One list of all passages: gaps of one bit, and an escape for none.
    packed = np.zeros(16, np.uint8)
    packed[0] = 1
    marks, sums, met = np.zeros(passages, np.int32), np.full(passages, np.nan, np.float32), np.empty(10, np.int64)
    gained, gains = np.empty(10, np.float32), np.array([[1.5], [0.25]], np.float32)
    places, sizes, lists = np.array([0]), np.array([passages]), np.zeros((2, 1), np.int64)
    # Scratch memory serves visit after visit without being cleaned.
    for since in (1, 3, 5):
        found = visit_lists(packed, places, sizes, lists, gains, 0.0, None, marks, since, sums, met, gained)
        assert met[:found].tolist() == list(range(passages))
        assert gained[:found].tolist() == [1.75] * passages
    assert marks.max() == 6


def test_lists_that_gain_little_beside_the_first_are_passed_over() -> None:
    # Four lists of one passage each, a gap of one bit before it.
    packed = np.zeros(8 * 4 + 8, np.uint8)
    packed[::8] = 8
    packed[1:32:8] = range(4)
    places, sizes, lists = np.arange(4) * 8, np.ones(4, np.int64), np.arange(4)[None]
    gains = np.array([[2.0, 1.5, 1.0, 0.5]], np.float32)
    for share, expected in ((0.0, [0, 1, 2, 3]), (0.5, [0, 1, 2]), (0.6, [0, 1]), (1.0, [0])):
        marks, sums = np.zeros(4, np.int32), np.zeros(4, np.float32)
        met, gained = np.empty(5, np.int64), np.empty(5, np.float32)
        found = visit_lists(packed, places, sizes, lists, gains, share, None, marks, 1, sums, met, gained)
        assert met[:found].tolist() == expected
        assert gained[:found].tolist() == gains[0, :found].tolist()


_PRODUCTS = """
import sys
import numpy as np
from drdecr.index.lane_blocks import lane_blocks, products
rng = np.random.default_rng(0)
rows, queries = rng.standard_normal((40, 100), dtype=np.float32), rng.standard_normal((21, 100), dtype=np.float32)
sys.stdout.buffer.write(np.ascontiguousarray(products(rows, lane_blocks(queries))[:, :21]).tobytes())
"""


@pytest.mark.skipif(LANES == 8, reason="this CPU has no AVX-512: there are no wider registers to compare with")
def test_products_are_bit_equal_on_a_cpu_with_narrower_registers(tmp_path: Path) -> None:
    narrow = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+avx2,+fma", "NUMBA_CACHE_DIR": str(tmp_path)}
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _PRODUCTS], check=True, capture_output=True, env=os.environ | extra
        ).stdout
        for extra in ({}, narrow)
    ]
    assert len(outputs[0]) == 40 * 21 * 4
    assert outputs[0] == outputs[1]


def _imports(name: str) -> set[str]:
    source = (Path(drdecr.index.__file__).parent / f"{name}.py").read_text()
    found = set(re.findall(r"from drdecr\.index\.(\w+) import", source))
    return found.union(*map(_imports, found))


@pytest.mark.parametrize("kernels", ["kernels", "decoders", "estimates"])
def test_kernels_name_the_intrinsics_that_they_were_compiled_with(kernels: str) -> None:
    directory = Path(drdecr.index.__file__).parent
    source = (directory / f"{kernels}.py").read_text()
    intrinsics = sorted(_imports(kernels))
    assert "lanes" in intrinsics
    text = b"".join((directory / f"{name}.py").read_bytes() for name in intrinsics)
    wanted = f"Intrinsics: {hashlib.sha256(text).hexdigest()[:16]}"
    assert wanted in source, f"write this into {kernels}.py, or numba goes on with kernels of older intrinsics"


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


def _passages_of_cells() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the passages to score, and the offsets and cells of four, one of them empty."""
    cells = np.random.default_rng(3).integers(0, 50, 31).astype(np.uint16)
    return np.array([0, 2, 3], np.int64), np.array([0, 5, 5, 30, 31], np.int64), cells


@pytest.mark.parametrize("spread", [0.0, 1.0, 40.0])
def test_scores_from_a_byte_table_lie_within_its_rounding(spread: float) -> None:
    rng = np.random.default_rng(4)
    # Query tokens differ in length, so each lane has a scale of its own.
    table = (spread * rng.standard_normal((50, 16)) * np.arange(1, 17) - 7).astype(np.float32)
    passages, offsets, cells = _passages_of_cells()
    narrow, steps, scores = np.empty(table.shape, np.uint8), np.empty(16, np.float32), np.empty(3, np.float32)
    narrow_table(table, table.min(axis=0), table.max(axis=0), narrow, steps)
    score_by_cells(passages, offsets, cells, narrow, steps, 11, scores)
    lows = table.min(axis=0)[:11]
    for found, passage in zip(scores, passages, strict=True):
        own = table[cells[offsets[passage] : offsets[passage + 1]], :11]
        assert found == pytest.approx(float((own.max(axis=0) - lows).sum()), abs=float(steps[:11].sum()) + 1e-5)


@pytest.mark.parametrize("kind", [np.uint16, np.uint32])
@pytest.mark.parametrize("width", [8, 16, 24, 32, 40, 64])
def test_maxima_of_table_rows_of_any_width(width: int, kind: type) -> None:
    table = np.random.default_rng(width).integers(0, 256, (50, width)).astype(np.uint8)
    passages, offsets, cells = _passages_of_cells()
    steps, scores = np.ones(width, np.float32), np.empty(3, np.float32)
    score_by_cells(passages, offsets, cells.astype(kind), table, steps, width, scores)
    expected = [table[cells[offsets[each] : offsets[each + 1]]].max(axis=0).sum() for each in passages]
    assert scores.tolist() == expected
