"""The FAISS file that is written list by list is the one that FAISS would write."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from drdecr.errors import ResourceError
from drdecr.index.codec import HalfCodec
from indexer import inverted_file
from indexer.centroids import assign, train_centroids
from indexer.inverted_file import write_inverted_file


@pytest.mark.parametrize(("count", "lists"), [(0, 1), (1, 1), (500, 20), (500, 400)])
def test_file_is_byte_for_byte_what_faiss_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, lists: int
) -> None:
    monkeypatch.setattr(inverted_file, "_GROUP_VECTORS", 37)
    monkeypatch.setattr(inverted_file, "_SCAN_CELLS", 101)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, 12)).astype(np.float16)
    vectors[: count // 3] = vectors[:1]
    centroids = train_centroids(vectors, lists)
    cells = assign(vectors.astype(np.float32), centroids)
    codec = HalfCodec(12)

    placed = write_inverted_file(
        tmp_path / "ours", codec.empty_index(centroids), vectors, cells, codec.encode, lambda rows: rows * 10
    )
    reference = codec.empty_index(centroids)
    if count:
        reference.add_with_ids(vectors.astype(np.float32), np.arange(count) * 10)
    # A list with entries is written as "full"; FAISS chooses "sprs" when more than half of the lists are empty.
    ours = faiss.read_index(str(tmp_path / "ours"))
    assert faiss.serialize_index(ours).tobytes() == faiss.serialize_index(reference).tobytes()

    data = (tmp_path / "ours").read_bytes()
    for cell, (start, size) in enumerate(placed.tolist()):
        rows = np.flatnonzero(cells == cell)
        assert size == len(rows)
        codes = np.frombuffer(data, "<f2", size * 12, start).reshape(size, 12)
        assert np.array_equal(codes, vectors[rows])
        assert np.frombuffer(data, "<i8", size, start + size * 24).tolist() == (rows * 10).tolist()


def test_another_file_format_of_faiss_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "serialize_index", lambda index: np.zeros(100, np.uint8))
    codec = HalfCodec(4)
    centroids = np.zeros((1, 4), np.float32)
    with pytest.raises(ResourceError, match="another file format"):
        write_inverted_file(
            tmp_path / "x",
            codec.empty_index(centroids),
            np.zeros((0, 4)),
            np.zeros(0, np.int64),
            codec.encode,
            lambda rows: rows,
        )
