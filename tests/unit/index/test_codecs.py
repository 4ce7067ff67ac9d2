"""What the kernels decode is what FAISS decodes, and near what was encoded."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from fabricated_vectors import encoded, make_snapshot
from numpy.typing import NDArray

from drdecr.encoder.types import Encoded
from drdecr.index import EXACT
from drdecr.index.codec import BITS

RESIDUAL = [bits for bits in BITS if bits < 16]


def clustered(count: int, dim: int, seed: int = 0) -> Encoded:
    """Fabricate passages whose tokens lie about a few directions, with different variances."""
    rng = np.random.default_rng(seed)
    passages = encoded(rng.integers(0, 40, count).tolist(), dim)
    middles = np.random.default_rng(99).standard_normal((60, dim))
    noise = rng.standard_normal(passages.vectors.shape) * np.linspace(0.2, 0.8, dim)
    passages.vectors[:] = middles[rng.integers(0, 60, len(noise))] + noise
    passages.vectors[:] /= np.linalg.norm(passages.vectors, axis=1, keepdims=True)
    return passages


def decoded_by_faiss(path: Path, codes: NDArray[np.uint8], cells: NDArray[np.int64]) -> NDArray[np.float32]:
    index = faiss.read_index(str(path / "quantizers/000001/quantizer.faiss"))
    ivf = faiss.extract_index_ivf(index)
    own, vectors = np.array(codes), np.empty((len(codes), ivf.d), np.float32)
    ivf.decode_vectors(len(codes), faiss.swig_ptr(own), faiss.swig_ptr(cells), faiss.swig_ptr(vectors))
    return vectors


@pytest.mark.parametrize("dim", [1, 8, 19, 32])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("length", [1, 3], ids=["unit", "longer"])
def test_kernels_decode_what_faiss_decodes(tmp_path: Path, bits: int, dim: int, length: int) -> None:
    passages = clustered(60, dim)
    passages.vectors[:] *= length
    with make_snapshot(tmp_path, passages, bits=bits) as snapshot:
        (segment,) = snapshot.segments
        rows, bounds = segment.rows_of_windows(np.arange(60))
        found = segment.turned_rows(rows)
        expected = decoded_by_faiss(snapshot.path, segment.codes, segment.cells.astype(np.int64))
    if bits < 16 and length == 1:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.array_equal(bounds, passages.offsets)
    assert found == pytest.approx(expected, abs=1e-5)


def test_more_bits_decode_to_nearer_vectors(tmp_path: Path) -> None:
    passages = clustered(500, 32)
    errors = []
    for bits in BITS:
        (tmp_path / str(bits)).mkdir()
        with make_snapshot(tmp_path / str(bits), passages, bits=bits) as snapshot:
            found, _ = snapshot.segments[0].tokens_of(np.arange(500))
            errors.append(float(((found - passages.vectors) ** 2).sum(axis=1).mean()))
            assert snapshot.segments[0].quantizer.code_bytes == 32 * bits // 8
    assert errors == sorted(errors, reverse=True)
    assert errors[-2] < 1e-3


@pytest.mark.parametrize("bits", RESIDUAL)
def test_wide_open_search_is_brute_force_over_the_decoded_vectors(tmp_path: Path, bits: int) -> None:
    passages, queries = clustered(80, 19, seed=1), clustered(4, 19, seed=2)
    with make_snapshot(tmp_path, passages, bits=bits) as snapshot:
        stored = [snapshot.vectors_of(position) for position in range(80)]
        for query, hits in enumerate(snapshot.search(queries, 80, EXACT)):
            tokens = queries.tokens_of(query)
            expected = {i: float((tokens @ own.T).max(axis=1).sum()) for i, own in enumerate(stored) if len(own)}
            assert {hit.position for hit in hits} == (set(expected) if len(tokens) else set())
            for hit in hits:
                assert hit.score == pytest.approx(expected[hit.position], abs=1e-4)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("lengths", [[], [0, 0], [1], [2, 1], [300]], ids=str)
def test_tiny_collections_are_coded(
    tmp_path: Path, bits: int, lengths: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    passages = encoded(lengths, 8)
    with make_snapshot(tmp_path, passages, bits=bits) as snapshot:
        hits = snapshot.search(encoded([3], 8, seed=1), 5)[0]
        assert len(hits) == sum(length > 0 for length in lengths)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("bits", BITS)
def test_repeated_vectors_tie_whatever_the_codec(tmp_path: Path, bits: int) -> None:
    one = encoded([9], 12)
    passages = encoded([9] * 50, 12)
    passages.vectors[:] = np.tile(one.vectors, (50, 1))
    with make_snapshot(tmp_path, passages, bits=bits) as snapshot:
        hits = snapshot.search(encoded([6], 12, seed=3), 20, EXACT)[0]
    assert [hit.position for hit in hits] == list(range(20))
    assert len({hit.score for hit in hits}) == 1


@pytest.mark.parametrize("bits", RESIDUAL)
def test_vectors_without_length_are_coded(tmp_path: Path, bits: int) -> None:
    passages = encoded([5, 5], 8)
    passages.vectors[:] = 0
    with make_snapshot(tmp_path, passages, bits=bits) as snapshot:
        assert np.array_equal(snapshot.vectors_of(0), np.zeros((5, 8), np.float32))


@pytest.mark.parametrize("bits", RESIDUAL)
def test_same_vectors_give_the_same_bytes(tmp_path: Path, bits: int) -> None:
    versions = set()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with make_snapshot(tmp_path / name, clustered(200, 16), bits=bits) as snapshot:
            versions.add(snapshot.version)
    assert len(versions) == 1
