"""The FAISS file that is written list by list is the one that FAISS would write."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from drdecr.errors import ResourceError
from drdecr.index.codec import make_index
from indexer import inverted_file
from indexer.centroids import Assigner, train_centroids
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
    cells = Assigner(centroids)(vectors.astype(np.float32))
    codes = vectors.view(np.uint8).reshape(count, 24)

    write_inverted_file(
        tmp_path / "ours", make_index(centroids, 16), cells, lambda rows: codes[rows], lambda rows: rows * 10
    )
    reference = make_index(centroids, 16)
    if count:
        reference.add_with_ids(vectors.astype(np.float32), np.arange(count) * 10)
    # A list with entries is written as "full"; FAISS chooses "sprs" when more than half of the lists are empty.
    ours = faiss.read_index(str(tmp_path / "ours"))
    assert faiss.serialize_index(ours).tobytes() == faiss.serialize_index(reference).tobytes()


def test_another_file_format_of_faiss_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "serialize_index", lambda index: np.zeros(100, np.uint8))
    with pytest.raises(ResourceError, match="another file format"):
        write_inverted_file(
            tmp_path / "x",
            make_index(np.zeros((1, 4), np.float32), 16),
            np.zeros(0, np.int64),
            lambda rows: np.zeros((len(rows), 8), np.uint8),
            lambda rows: rows,
        )
