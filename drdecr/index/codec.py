"""How a token vector is stored: the codecs, by the bits that they take a dimension.

FAISS trains a codec, codes vectors with it and keeps it in its file; the kernels here decode what it coded.

- 16 bits: float16, the truth that the others are held to.
- fewer: what the vector's centroid leaves over, after a random rotation. 2 and 4 bits are a product quantiser that
  gives 4 and 2 dimensions a byte; 6 and 8 bits are a uniform scalar quantiser whose range in each dimension is the
  one that suits a normal distribution best. Vectors of length 1 are scaled to length 1 again when they are decoded.

The rotation pads the dimensions to a multiple of four; it changes no dot product, so queries are rotated once instead
of every token back.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import SnapshotError
from drdecr.index.decoders import decode_halves, decode_products, decode_scalars
from drdecr.index.faiss_install import load_faiss
from drdecr.index.manifest import CodecRecord
from drdecr.index.whole_codes import WholeCodes, whole_halves, whole_products, whole_scalars

BITS = (2, 4, 6, 8, 16)
"""The bits a dimension that `drdecr index build --bits` takes."""

# Dimensions of a byte.
_PRODUCT_WIDTHS = {2: 4, 4: 2}
# Standard deviations to either side of the mean that a uniform quantiser of a normal distribution should reach
# (J. Max, Quantizing for minimum distortion, 1960, for 64 and, extrapolated, 256 levels).
_SCALAR_REACH = {6: 3.33, 8: 3.94}
_HALF_BITS = 16
_PRODUCT_ITERATIONS = 12


class Codec(Protocol):
    """Turns codes into token vectors. What a code means may depend on the centroid of its inverted list."""

    def decode(
        self, codes: NDArray[np.uint8], cells: NDArray[Any], rows: NDArray[np.int64], out: NDArray[np.float32]
    ) -> None:
        """Decode `rows` (n,) of `codes` (tokens, code_bytes), which lie in lists `cells` (tokens,), into (n, dim)."""
        ...

    def whole(self) -> WholeCodes:
        """Say what codes are worth as whole numbers."""
        ...


class HalfCodec:
    """Stores float16: exact enough that MaxSim over it counts as the truth. Shapes: centroids (lists, dim)."""

    def __init__(self, centroids: NDArray[np.float32]) -> None:
        self._centroids = centroids

    def decode(
        self, codes: NDArray[np.uint8], cells: NDArray[Any], rows: NDArray[np.int64], out: NDArray[np.float32]
    ) -> None:
        decode_halves(codes, rows, out)

    def whole(self) -> WholeCodes:
        return whole_halves(self._centroids)


class ProductCodec:
    """Stores what a centroid leaves over by a product quantiser.

    Shapes: centroids (lists, dim), tables (sub-codes, entries, dimensions of a sub-code), float32.
    """

    def __init__(self, centroids: NDArray[np.float32], tables: NDArray[np.float32], *, unit: bool) -> None:
        self._centroids = centroids
        self._tables = tables
        self._unit = unit
        self._width = (0,) * tables.shape[2]

    def decode(
        self, codes: NDArray[np.uint8], cells: NDArray[Any], rows: NDArray[np.int64], out: NDArray[np.float32]
    ) -> None:
        decode_products(codes, cells, rows, self._centroids, self._tables, self._width, self._unit, out)

    def whole(self) -> WholeCodes:
        return whole_products(self._tables)


class ScalarCodec:
    """Stores what a centroid leaves over by a uniform quantiser in each dimension.

    Shapes: centroids (lists, dim); lows and steps (dim,): a code of 0, and what each unit adds; float32.
    """

    def __init__(
        self,
        centroids: NDArray[np.float32],
        lows: NDArray[np.float32],
        steps: NDArray[np.float32],
        bits: int,
        *,
        unit: bool,
    ) -> None:
        self._centroids = centroids
        self._lows = lows
        self._steps = steps
        self._bits = bits
        self._unit = unit

    def decode(
        self, codes: NDArray[np.uint8], cells: NDArray[Any], rows: NDArray[np.int64], out: NDArray[np.float32]
    ) -> None:
        decode_scalars(codes, cells, rows, self._centroids, self._lows, self._steps, self._bits == 6, self._unit, out)

    def whole(self) -> WholeCodes:
        return whole_scalars(self._lows, self._steps, self._bits)


def stored_dim(bits: int, dim: int) -> int:
    """Return the dimensions that are stored of vectors of `dim` dimensions."""
    return dim if bits == _HALF_BITS else -(-dim // 4) * 4


def record_of(bits: int, dim: int, *, unit: bool) -> CodecRecord:
    """Describe the codec of so many bits for vectors of `dim` dimensions, all of length 1 if `unit`."""
    if bits == _HALF_BITS:
        return CodecRecord(name="fp16", bits=bits, code_bytes=2 * dim, unit=False)
    return CodecRecord(name="residual", bits=bits, code_bytes=stored_dim(bits, dim) * bits // 8, unit=unit)


def make_index(centroids: NDArray[np.float32], bits: int) -> Any:
    """Make the FAISS IVF of these centroids, (lists, stored dim); its codec is untrained but for float16.

    The centroids are kept as float16.
    """
    faiss = load_faiss()
    lists, dim = centroids.shape
    # Centroids take 4 bytes a list and dimension otherwise, which counts where a vector takes 36.
    coarse = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    coarse.train(centroids)
    coarse.add(centroids)
    if bits in _PRODUCT_WIDTHS:
        sub_codes = dim // _PRODUCT_WIDTHS[bits]
        index = faiss.IndexIVFPQ(coarse, dim, lists, sub_codes, 8, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = True
    else:
        kind = {6: "QT_6bit", 8: "QT_8bit", _HALF_BITS: "QT_fp16"}[bits]
        index = faiss.IndexIVFScalarQuantizer(
            coarse,
            dim,
            lists,
            getattr(faiss.ScalarQuantizer, kind),
            faiss.METRIC_INNER_PRODUCT,
            bits in _SCALAR_REACH,
        )
        index.is_trained = bits == _HALF_BITS
    coarse.this.disown()
    index.own_fields = True
    return index


def train_codec(index: Any, left_over: NDArray[np.float32], bits: int) -> None:
    """Train the codec of a FAISS IVF on what centroids left over of some vectors, (n, stored dim), n > 0."""
    faiss = load_faiss()
    if bits in _SCALAR_REACH:
        index.sq.rangestat = faiss.ScalarQuantizer.RS_meanstd
        index.sq.rangestat_arg = _SCALAR_REACH[bits]
        index.sq.train(left_over)
    elif bits in _PRODUCT_WIDTHS:
        if len(left_over) < index.pq.ksub:
            # k-means wants a point for each entry.
            left_over = np.resize(left_over, (index.pq.ksub, left_over.shape[1]))
        index.pq.cp.niter = _PRODUCT_ITERATIONS
        index.pq.cp.min_points_per_centroid = 1
        index.pq.cp.max_points_per_centroid = -(-len(left_over) // index.pq.ksub)
        index.pq.train(left_over)
    index.is_trained = True


def codec_of(record: CodecRecord, index: Any, centroids: NDArray[np.float32]) -> Codec:
    """Return the codec that a manifest names and a FAISS IVF holds.

    Raises: SnapshotError for one that this version does not know.
    """
    if record.bits not in BITS or index.code_size != record.code_bytes:
        raise SnapshotError(f"the codec {record.name} of {record.bits} bits is unknown; upgrade drdecr")
    if record.bits == _HALF_BITS:
        return HalfCodec(centroids)
    faiss = load_faiss()
    if record.bits in _PRODUCT_WIDTHS:
        pq = index.pq
        tables = faiss.vector_to_array(pq.centroids).reshape(pq.M, pq.ksub, pq.dsub)
        return ProductCodec(centroids, np.ascontiguousarray(tables), unit=record.unit)
    lows, widths = faiss.vector_to_array(index.sq.trained).reshape(2, -1)
    # A FAISS code stands for the middle of its step.
    steps = (widths / np.float32(2**record.bits - 1)).astype(np.float32)
    return ScalarCodec(centroids, lows + steps / 2, steps, record.bits, unit=record.unit)
