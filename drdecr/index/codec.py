"""How a token vector is stored: the codecs, by the name that a manifest records.

FAISS trains a codec, codes vectors with it and keeps it in its file; the kernels here decode what it coded.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import SnapshotError
from drdecr.index.faiss_install import load_faiss
from drdecr.index.kernels import decode_halves
from drdecr.index.manifest import CodecRecord

BITS = (16,)
"""The bits a dimension that `drdecr index build --bits` takes."""


class Codec(Protocol):
    """Turns codes into token vectors. What a code means may depend on the centroid of its inverted list."""

    def decode(
        self, codes: NDArray[np.uint8], cells: NDArray[Any], rows: NDArray[np.int64], out: NDArray[np.float32]
    ) -> None:
        """Decode `rows` (n,) of `codes` (tokens, code_bytes), which lie in lists `cells` (tokens,), into (n, dim)."""
        ...


class HalfCodec:
    """Stores float16: 16 bits a dimension, exact enough that MaxSim over it counts as the truth."""

    def decode(
        self, codes: NDArray[np.uint8], cells: NDArray[Any], rows: NDArray[np.int64], out: NDArray[np.float32]
    ) -> None:
        decode_halves(codes, rows, out)


def untrained_index(centroids: NDArray[np.float32], bits: int) -> Any:
    """Make the FAISS index of these lists whose codec has so many bits a dimension; fp16 needs no training."""
    faiss = load_faiss()
    dim = centroids.shape[1]
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centroids)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, len(centroids), faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    # The index would free an object that Python frees too.
    quantizer.this.disown()
    index.own_fields = True
    index.is_trained = True
    return index


def record_of(bits: int, dim: int) -> CodecRecord:
    """Describe the codec of so many bits a dimension."""
    return CodecRecord(name="fp16", bits=16, code_bytes=2 * dim)


def codec_of(record: CodecRecord, index: Any, centroids: NDArray[np.float32]) -> Codec:
    """Return the codec that a manifest names and a FAISS index holds.

    Raises: SnapshotError for one that this version does not know.
    """
    if record != record_of(record.bits, centroids.shape[1]):
        raise SnapshotError(f"the codec {record.name} of {record.bits} bits is unknown; upgrade drdecr")
    return HalfCodec()
