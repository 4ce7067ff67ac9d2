"""Encoded passages as a file: token vectors in half precision, everything that a segment is written from."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np

from drdecr.encoder.types import Encoded, EncoderSpec
from drdecr.encoder.windows import Windowed


def save_encoded(path: Path, passages: Windowed) -> None:
    """Write encoded passages, an .npz."""
    encoded = passages.windows
    members = () if passages.members is None else passages.members
    np.savez(
        path,
        vectors=encoded.vectors.astype(np.float16),
        offsets=encoded.offsets,
        sentences=np.empty(0, np.float32) if encoded.sentences is None else encoded.sentences,
        spans=encoded.spans,
        truncated=encoded.truncated,
        unknown=encoded.unknown,
        bounds=passages.bounds,
        members=np.concatenate([np.empty((0, 3), np.int32), *members]),
        member_counts=np.array([len(own) for own in members], np.int64),
    )


def load_encoded(file: Path | IO[bytes], spec: EncoderSpec) -> Windowed:
    """Read encoded passages of a student."""
    with np.load(file, allow_pickle=False) as arrays:
        encoded = Encoded(
            vectors=arrays["vectors"].astype(np.float32),
            offsets=arrays["offsets"],
            sentences=arrays["sentences"] if spec.sentence_dim else None,
            spans=arrays["spans"],
            truncated=arrays["truncated"],
            unknown=arrays["unknown"],
        )
        # A program before this wrote none, and its unfinished work may be gone on with.
        counts = arrays.get("member_counts", np.empty(0, np.int64))
        members = tuple(np.split(arrays["members"], np.cumsum(counts)[:-1])) if len(counts) else None
        return Windowed(encoded, arrays["bounds"], members)
