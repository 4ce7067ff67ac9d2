"""Centroids and codec of token vectors, trained once and shared by every segment that is added later.

They live in a FAISS file of their own, an IVF index without vectors: its coarse quantiser holds the centroids, the
index itself the trained codec, and where the codec wants a rotation, that stands before it. `faiss.read_index` opens
it, and what FAISS decodes from a centroid and a code is what our kernels decode, before they scale it to length 1.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import SnapshotCorruptError
from drdecr.index.byte_products import RoundedRows, round_rows
from drdecr.index.codec import Codec, codec_of, stored_dim
from drdecr.index.faiss_install import load_faiss
from drdecr.index.manifest import QuantizerRecord
from drdecr.index.whole_codes import WholeCodes

QUANTIZER = "quantizer.faiss"


class Quantizer:
    """Centroids, rotation and codec of the segments that name this quantiser, in memory.

    Shapes: centroids (lists, stored_dim) float32, in the rotated space; `index` is all of it in FAISS, without
    vectors, and `ivf` the part behind the rotation.
    """

    def __init__(self, root: Path, record: QuantizerRecord, dim: int) -> None:
        self.directory = root / record.directory
        path = self.directory / QUANTIZER
        faiss = load_faiss()
        try:
            self.index: Any = faiss.read_index(str(path))
            self.ivf: Any = faiss.downcast_index(faiss.extract_index_ivf(self.index))
            coarse = faiss.downcast_index(self.ivf.quantizer)
            self.centroids: NDArray[np.float32] = np.ascontiguousarray(coarse.reconstruct_n(0, coarse.ntotal))
            self._rotation = _rotation_of(self.index)
        except (OSError, RuntimeError) as problem:
            raise SnapshotCorruptError(f"{path} cannot be opened ({problem}); run `drdecr index verify`") from None
        self.dim = dim
        self.stored_dim = stored_dim(record.codec.bits, dim)
        if self.centroids.shape != (record.lists, self.stored_dim):
            found, expected = self.centroids.shape, (record.lists, self.stored_dim)
            raise SnapshotCorruptError(f"{path} holds {found}, the manifest says {expected}")
        self.record = record
        self.codec: Codec = codec_of(record.codec, self.ivf, self.centroids)

    @cached_property
    def rounded_centroids(self) -> RoundedRows:
        """The centroids in whole numbers, which candidates are chosen by."""
        return round_rows(self.centroids)

    @cached_property
    def whole_codes(self) -> WholeCodes:
        """The codes in whole numbers, which finalists are chosen by."""
        return self.codec.whole()

    @property
    def lists(self) -> int:
        return self.record.lists

    @property
    def code_bytes(self) -> int:
        return self.record.codec.code_bytes

    def turn(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotate vectors (n, dim) into the stored space, (n, stored_dim); dot products stay."""
        return vectors if self._rotation is None else vectors @ self._rotation.T

    def turn_back(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotate decoded vectors (n, stored_dim) back, (n, dim)."""
        return vectors if self._rotation is None else vectors @ self._rotation

    def encode(self, turned: NDArray[np.float32], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Code rotated vectors (n, stored_dim) that belong to lists `cells` (n,), as (n, code_bytes)."""
        faiss = load_faiss()
        codes = np.empty((len(turned), self.code_bytes), np.uint8)
        if len(turned):
            turned = np.ascontiguousarray(turned, dtype=np.float32)
            cells = np.ascontiguousarray(cells, dtype=np.int64)
            self.ivf.encode_vectors(len(turned), *map(faiss.swig_ptr, (turned, cells, codes)))
        return codes


def _rotation_of(index: Any) -> NDArray[np.float32] | None:
    faiss = load_faiss()
    if not isinstance(index, faiss.IndexPreTransform):
        return None
    transform = faiss.downcast_VectorTransform(index.chain.at(0))
    matrix: NDArray[np.float32] = faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in)
    return np.ascontiguousarray(matrix)
