"""`drdecr index export-faiss` of a snapshot that was changed."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from fabricated_vectors import encoded, save_vectors

from drdecr.index import Snapshot
from indexer.build import build_from_vectors
from indexer.change import add_vectors, delete
from indexer.export import export_faiss


def test_exported_index_has_the_living_tokens_under_their_positions(tmp_path: Path) -> None:
    first, second = encoded([3, 0, 30, 7, 9], 16), encoded([4, 2], 16, seed=1)
    build_from_vectors(save_vectors(tmp_path / "v.npz", first), tmp_path / "snapshot")
    ids = np.array(["p3", "new"])
    add_vectors(tmp_path / "snapshot", save_vectors(tmp_path / "v.npz", second, ids=ids))
    delete(tmp_path / "snapshot", ["p0"])
    assert export_faiss(tmp_path / "snapshot", tmp_path / "out.faiss") == 30 + 9 + 4 + 2
    index = faiss.read_index(str(tmp_path / "out.faiss"))
    index.nprobe = index.nlist
    with Snapshot.open(tmp_path / "snapshot") as snapshot:
        for position in (2, 4, 5, 6):
            vectors = snapshot.vectors_of(position)
            found = index.search(vectors, 1)[1][:, 0]
            assert (found >> 20 == position).all()
            assert (found & (2**20 - 1)).tolist() == list(range(len(vectors)))
    assert set((index.search(first.tokens_of(0), 45)[1] >> 20).ravel().tolist()) == {2, 4, 5, 6}
