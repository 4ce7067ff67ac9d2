"""Centroids and codec of token vectors, trained once and shared by every segment that is added later.

They live in a FAISS file of their own, an IVF index without vectors: its coarse quantiser holds the centroids, the
index itself the trained codec. `faiss.read_index` opens it, and what FAISS decodes from a centroid and a code is what
our kernels decode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import SnapshotCorruptError
from drdecr.index.codec import Codec, codec_of
from drdecr.index.faiss_install import load_faiss
from drdecr.index.manifest import QuantizerRecord

QUANTIZER = "quantizer.faiss"


class Quantizer:
    """The centroids (lists, dim) float32, in memory, and the codec of the segments that name this quantiser."""

    def __init__(self, root: Path, record: QuantizerRecord, dim: int) -> None:
        self.directory = root / record.directory
        path = self.directory / QUANTIZER
        faiss = load_faiss()
        try:
            index: Any = faiss.read_index(str(path))
            centroids = faiss.downcast_index(index.quantizer)
            self.centroids: NDArray[np.float32] = np.ascontiguousarray(centroids.reconstruct_n(0, centroids.ntotal))
        except (OSError, RuntimeError) as problem:
            raise SnapshotCorruptError(f"{path} cannot be opened ({problem}); run `drdecr index verify`") from None
        if self.centroids.shape != (record.lists, dim):
            found = self.centroids.shape
            raise SnapshotCorruptError(f"{path} holds {found}, the manifest says {(record.lists, dim)}")
        self.record = record
        self.dim = dim
        self.codec: Codec = codec_of(record.codec, index, self.centroids)
        self.index = index

    @property
    def lists(self) -> int:
        return self.record.lists

    @property
    def code_bytes(self) -> int:
        return self.record.codec.code_bytes

    def encode(self, vectors: NDArray[np.float32], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Code vectors (n, dim) that belong to lists `cells` (n,), as (n, code_bytes)."""
        faiss = load_faiss()
        codes = np.empty((len(vectors), self.code_bytes), np.uint8)
        if len(vectors):
            vectors = np.ascontiguousarray(vectors, dtype=np.float32)
            cells = np.ascontiguousarray(cells, dtype=np.int64)
            self.index.encode_vectors(
                len(vectors), faiss.swig_ptr(vectors), faiss.swig_ptr(cells), faiss.swig_ptr(codes)
            )
        return codes
