"""Scores from codes as whole numbers: the codec's own values, the same on every CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drdecr.index.code_dots import MOST
from drdecr.index.estimates import add_estimates, round_lanes
from drdecr.index.lane_blocks import lane_blocks
from drdecr.index.lanes import LANES
from drdecr.index.whole_codes import WholeCodes, whole_halves, whole_lanes, whole_products, whole_scalars

LISTS, TOKENS = 5, 60
# Windows 0 and 3 are passage 0's and 2's own; passage 1 has two, of which one is empty.
WINDOWS, PARTS = np.array([0, 1, 2, 3], np.int64), np.array([0, 1, 3, 4], np.int64)
OFFSETS = np.array([0, 7, 7, 40, 60], np.int64)


def packed_sixes(values: np.ndarray) -> np.ndarray:
    words = (values.reshape(len(values), -1, 4) << np.array([0, 6, 12, 18])).sum(axis=-1)
    return (words[:, :, None] >> np.array([0, 8, 16]) & 255).reshape(len(values), -1).astype(np.uint8)


def coded(kind: str, dim: int) -> tuple[np.ndarray, WholeCodes, np.ndarray]:
    """Return codes, how they are read, and the vectors that they stand for beside their centroids."""
    rng = np.random.default_rng(dim)
    lows, steps = -rng.random(dim, dtype=np.float32), rng.random(dim, dtype=np.float32) / 64
    if kind == "halves":
        vectors = rng.standard_normal((TOKENS, dim)).astype(np.float16)
        vectors /= np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True).astype(np.float16)
        centroids = vectors[:LISTS].astype(np.float32)
        return vectors.view(np.uint8), whole_halves(centroids), vectors.astype(np.float32)
    if kind in ("sixes", "eights"):
        bits = 6 if kind == "sixes" else 8
        values = rng.integers(0, 2**bits, (TOKENS, dim))
        codes = packed_sixes(values) if bits == 6 else values.astype(np.uint8)
        return codes, whole_scalars(lows, steps, bits), lows + values * steps
    width = 2 if kind == "pairs" else 4
    tables = rng.standard_normal((dim // width, 256, width), dtype=np.float32) / 10
    codes = rng.integers(0, 256, (TOKENS, dim // width)).astype(np.uint8)
    vectors = np.concatenate([tables[sub][codes[:, sub]] for sub in range(dim // width)], axis=1)
    return codes, whole_products(tables), vectors


def estimated(
    codes: np.ndarray, whole: WholeCodes, cells: np.ndarray, table: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the passages, and of their windows."""
    scores, parts = np.zeros(3), np.zeros(4)
    column = 0
    for block in lane_blocks(queries):
        lanes = whole_lanes(whole, block)
        add_estimates(
            codes,
            cells,
            whole.kind,
            whole.tables,
            (0,) * whole.tables.shape[2],
            whole.scale,
            WINDOWS,
            PARTS,
            OFFSETS,
            table,
            int(whole.by_centroid),
            column,
            lanes.queries,
            lanes.scales,
            block.lanes,
            block.used,
            queries.shape[1],
            scores,
            parts,
        )
        scores += lanes.constant
        parts += lanes.constant
        column += block.vectors.shape[1] if whole.by_centroid else 0
    return scores, parts


@pytest.mark.parametrize("queries", [1, 13, 32, 45])
@pytest.mark.parametrize("dim", [4, 20, 48, 128])
@pytest.mark.parametrize("kind", ["sixes", "eights", "pairs", "fours", "halves"])
def test_estimates_are_maxsim_over_what_the_codes_stand_for(kind: str, dim: int, queries: int) -> None:
    rng = np.random.default_rng(queries)
    codes, whole, vectors = coded(kind, dim)
    cells = rng.integers(0, LISTS, TOKENS).astype(np.uint16)
    asked = rng.standard_normal((queries, dim), dtype=np.float32) / np.float32(dim**0.5)
    middles = rng.standard_normal((LISTS, 96), dtype=np.float32)
    table = middles if whole.by_centroid else np.zeros((1, 96), np.float32)
    scores, parts = estimated(codes, whole, cells, table, asked)
    lanes = sum(block.vectors.shape[1] for block in lane_blocks(asked[:32]))
    columns = np.array([at if at < 32 else lanes + at - 32 for at in range(queries)])
    dots = vectors @ asked.T + (table[cells][:, columns] if whole.by_centroid else 0)
    # A token is off by at most what rounding a code, and a query token, loses in each dimension.
    loss = float((whole.steps @ np.abs(asked).T).sum() + (np.abs(asked).max(axis=1) * whole.steps.sum()).sum() / 2)
    for passage, (first, last) in enumerate(((0, 7), (7, 40), (40, 60))):
        assert scores[passage] == pytest.approx(dots[first:last].max(axis=0).sum(), abs=loss)
    assert parts[[0, 2, 3]] == pytest.approx(scores, abs=1e-9)
    assert parts[1] == -np.inf


def test_estimates_are_near_where_many_dimensions_even_their_losses_out() -> None:
    rng = np.random.default_rng(0)
    codes, whole, vectors = coded("sixes", 128)
    asked = rng.standard_normal((32, 128), dtype=np.float32) / np.float32(128**0.5)
    scores, _ = estimated(codes, whole, np.zeros(TOKENS, np.uint16), np.zeros((1, 32), np.float32), asked)
    exact = [(vectors @ asked.T)[first:last].max(axis=0).sum() for first, last in ((0, 7), (7, 40), (40, 60))]
    assert scores == pytest.approx(exact, abs=0.05)


def test_the_last_row_is_read_and_nothing_behind_it(tmp_path: Path) -> None:
    # A mapped file that ends where a page ends: a byte further there is nothing.
    codes, whole, _ = coded("sixes", 20)
    path = tmp_path / "codes"
    rows = 4096 // codes.shape[1]
    path.write_bytes(bytes(4096 - rows * codes.shape[1]) + np.resize(codes, (rows, codes.shape[1])).tobytes())
    mapped = np.memmap(path, np.uint8, mode="r")[-TOKENS * codes.shape[1] :].reshape(TOKENS, -1)
    asked, table = np.ones((3, 20), np.float32), np.zeros((1, 32), np.float32)
    found, _ = estimated(mapped, whole, np.zeros(TOKENS, np.uint16), table, asked)
    expected, _ = estimated(np.array(mapped), whole, np.zeros(TOKENS, np.uint16), table, asked)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("offset", [0, 128])
def test_lanes_are_rounded_as_numpy_rounds(offset: int) -> None:
    rng = np.random.default_rng(1)
    vectors, weights = rng.standard_normal((10, 16), dtype=np.float32), rng.random(10, dtype=np.float32)
    vectors[:, 3] = 0
    out, scales = np.empty((3, 16, 4), np.uint8), np.empty(16, np.float32)
    round_lanes(vectors, weights, offset, out, scales)
    weighted = vectors * weights[:, None]
    units = np.zeros((12, 16), np.int64)
    units[:10] = np.rint(weighted / np.where(scales > 0, scales, 1))
    assert scales == pytest.approx(np.abs(weighted).max(axis=0) / MOST)
    assert np.array_equal(out.transpose(0, 2, 1).reshape(12, 16), (units + offset).astype(np.uint8))
    assert np.abs(units).max() == MOST


_ESTIMATES = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from test_estimates import LISTS, TOKENS, coded, estimated
rng = np.random.default_rng(0)
cells, table = rng.integers(0, LISTS, TOKENS).astype(np.uint16), rng.standard_normal((LISTS, 64), dtype=np.float32)
for kind in ("sixes", "eights", "halves"):
    codes, whole, _ = coded(kind, 128)
    asked = 3 * rng.standard_normal((21, 128), dtype=np.float32)
    for found in estimated(codes, whole, cells, table if whole.by_centroid else np.zeros((1, 64), np.float32), asked):
        sys.stdout.buffer.write(found.tobytes())
"""


@pytest.mark.skipif(LANES == 8, reason="this CPU has no AVX-512: there are no wider registers to compare with")
@pytest.mark.parametrize("features", ["+avx2,+fma", "+sse4.2"])
def test_estimates_are_bit_equal_on_a_cpu_with_fewer_instructions(features: str, tmp_path: Path) -> None:
    fewer = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", _ESTIMATES, str(Path(__file__).parent)]
    outputs = [
        subprocess.run(command, check=True, capture_output=True, env=os.environ | extra).stdout
        for extra in ({}, fewer)
    ]
    assert len(outputs[0]) == 3 * (3 + 4) * 8
    assert outputs[0] == outputs[1]
