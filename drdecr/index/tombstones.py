"""Which passages of a segment were deleted: a file of positions, written once a generation and never changed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import SnapshotCorruptError
from drdecr.index.manifest import SegmentRecord


def write_tombstones(path: Path, deleted: NDArray[np.int64]) -> None:
    """Write the deleted positions of a segment, sorted."""
    # Not np.save(path): that writes around Python, which then cannot tell a full disk from another trouble.
    packed = io.BytesIO()
    np.save(packed, np.unique(deleted).astype("<u4"))
    path.write_bytes(packed.getvalue())


def read_tombstones(root: Path, segment: SegmentRecord) -> NDArray[np.int64]:
    """Return the deleted positions of a segment, sorted. Raises: SnapshotCorruptError for what cannot be those."""
    record = segment.tombstones
    if record is None:
        return np.empty(0, np.int64)
    path = root / record.path
    try:
        stored: NDArray[Any] = np.load(path)
        deleted = stored.astype(np.int64)
    except (OSError, ValueError, EOFError) as problem:
        raise SnapshotCorruptError(f"{path} cannot be read ({problem}); run `drdecr index verify`") from None
    in_order = deleted.ndim == 1 and bool((np.diff(deleted) > 0).all())
    if not in_order or len(deleted) != record.passages or deleted[0] < 0 or deleted[-1] >= segment.passages:
        raise SnapshotCorruptError(f"{path} does not hold the deleted positions that the manifest counts; run verify")
    return deleted


def read_live(root: Path, segment: SegmentRecord) -> NDArray[np.bool_] | None:
    """Return which passages of a segment are not deleted, (passages,), or None where all are there."""
    if segment.tombstones is None:
        return None
    live = np.ones(segment.passages, np.bool_)
    live[read_tombstones(root, segment)] = False
    return live
