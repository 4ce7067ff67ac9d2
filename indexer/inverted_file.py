"""Writes a FAISS IVF file list by list, so that neither its codes nor its ids are ever in memory together.

FAISS's own `add` holds the whole index in memory. The file is FAISS's: the header is what FAISS serialises for the
index without vectors, and the lists follow in its ArrayInvertedLists layout (codes, then int64 ids, of each list).
`faiss.read_index` opens it, and a check of that ends the writing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import ResourceError, SnapshotError
from drdecr.index.faiss_install import load_faiss

Code = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
Identify = Callable[[NDArray[np.int64]], NDArray[np.int64]]

_GROUP_VECTORS = 2**17
_SCAN_CELLS = 2**20
# "ilar", number of lists (uint64), code size (uint64), "sprs", number of sizes (uint64, none in an empty index).
_EMPTY_LISTS = struct.Struct("<4sQQ4sQ")


def write_inverted_file(path: Path, index: Any, cells: NDArray[Any], code: Code, identify: Identify) -> None:
    """Write vectors into the lists `cells` (n,) of an empty trained index.

    `code` turns row numbers into codes, `identify` turns them into FAISS ids; within a list the rows keep their
    order.
    """
    sizes = np.zeros(index.nlist, np.int64)
    for start in range(0, len(cells), _SCAN_CELLS):
        sizes += np.bincount(cells[start : start + _SCAN_CELLS], minlength=index.nlist)
    with path.open("wb", buffering=2**20) as file:
        file.write(_header(index, len(cells)))
        file.write(struct.pack("<4sQQ4sQ", b"ilar", index.nlist, index.code_size, b"full", index.nlist))
        file.write(sizes.astype("<u8").tobytes())
        low = 0
        while low < index.nlist:
            high = low + 1
            while high < index.nlist and sizes[low : high + 1].sum() <= _GROUP_VECTORS:
                high += 1
            rows = _rows_of(cells, low, high)
            done = 0
            for size in sizes[low:high]:
                own = rows[done : done + size]
                for start in range(0, len(own), _GROUP_VECTORS):
                    file.write(code(own[start : start + _GROUP_VECTORS]).tobytes())
                file.write(identify(own).astype("<i8").tobytes())
                done += size
            low = high
    _check(path, len(cells))


def _rows_of(cells: NDArray[Any], low: int, high: int) -> NDArray[np.int64]:
    """Return the rows of lists [low, high), list by list, each in its order."""
    parts, owners = [], []
    for start in range(0, len(cells), _SCAN_CELLS):
        block = cells[start : start + _SCAN_CELLS]
        inside = np.flatnonzero((block >= low) & (block < high))
        parts.append(inside + start)
        owners.append(block[inside])
    if not parts:
        return np.empty(0, np.int64)
    rows = np.concatenate(parts)
    return rows[np.argsort(np.concatenate(owners), kind="stable")]


def _header(index: Any, vectors: int) -> bytes:
    index.ntotal = vectors
    try:
        serialised: bytes = load_faiss().serialize_index(index).tobytes()
    finally:
        index.ntotal = 0
    tail = serialised[-_EMPTY_LISTS.size :]
    if tail != _EMPTY_LISTS.pack(b"ilar", index.nlist, index.code_size, b"sprs", 0):
        raise ResourceError("this FAISS writes another file format than 1.9 to 1.15 do; install faiss-cpu>=1.9,<2")
    return serialised[: -_EMPTY_LISTS.size]


def _check(path: Path, vectors: int) -> None:
    faiss = load_faiss()
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as problem:
        raise SnapshotError(f"{path} was written, but FAISS cannot read it: {problem}") from None
    if index.ntotal != vectors or index.invlists.compute_ntotal() != vectors:
        raise SnapshotError(f"{path} was written with {vectors} vectors, but FAISS finds {index.ntotal}")
