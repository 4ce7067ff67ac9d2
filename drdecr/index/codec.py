"""How a token vector is stored: the codecs, by the name that a manifest records."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import SnapshotError
from drdecr.index.faiss_install import load_faiss
from drdecr.index.kernels import decode_halves
from drdecr.index.manifest import CodecRecord


class Codec(Protocol):
    """Turns token vectors into codes and back. A code may depend on the centroid of its inverted list."""

    @property
    def record(self) -> CodecRecord: ...

    def encode(self, vectors: NDArray[np.float32], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Encode vectors (n, dim) that belong to lists `cells` (n,) as codes (n, code_bytes)."""
        ...

    def decode(
        self,
        data: NDArray[np.uint8],
        positions: NDArray[np.int64],
        cells: NDArray[np.int64],
        out: NDArray[np.float32],
    ) -> None:
        """Decode the codes that start at byte `positions` (n,) of `data` into `out` (n, dim)."""
        ...

    def empty_index(self, centroids: NDArray[np.float32]) -> Any:
        """Make the FAISS index of these lists, trained and without vectors, that can read the codes."""
        ...


class HalfCodec:
    """Stores float16: 16 bits a dimension, exact enough that MaxSim over it counts as the truth."""

    def __init__(self, dim: int) -> None:
        self._dim = dim

    @property
    def record(self) -> CodecRecord:
        return CodecRecord(name="fp16", bits=16, code_bytes=2 * self._dim)

    def encode(self, vectors: NDArray[np.float32], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(vectors, dtype="<f2").view(np.uint8).reshape(len(vectors), -1)

    def decode(
        self,
        data: NDArray[np.uint8],
        positions: NDArray[np.int64],
        cells: NDArray[np.int64],
        out: NDArray[np.float32],
    ) -> None:
        decode_halves(data, positions, out)

    def empty_index(self, centroids: NDArray[np.float32]) -> Any:
        faiss = load_faiss()
        quantizer = faiss.IndexFlatIP(self._dim)
        quantizer.add(centroids)
        index = faiss.IndexIVFScalarQuantizer(
            quantizer,
            self._dim,
            len(centroids),
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,
        )
        index.is_trained = True
        return index


BITS = (16,)
"""The bits a dimension that `drdecr index build --bits` takes."""


def codec_of(record: CodecRecord, dim: int) -> Codec:
    """Return the codec that a manifest names. Raises: SnapshotError for one that this version does not know."""
    codec = HalfCodec(dim)
    if record != codec.record:
        raise SnapshotError(f"the codec {record.name} of {record.bits} bits is unknown; upgrade drdecr")
    return codec
